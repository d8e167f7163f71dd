"""The command line: `masklet weights`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from masklet.core.errors import InputError
from masklet.weights import store as zoo
from masklet.weights.catalog import CHECKPOINTS, QUERIES, RELEASED, TENSORS, Checkpoint
from masklet.weights.fetch import Watch, fetch_checkpoint, find_verified_file, plan_fetch

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Weights by name: what there is, fetching it, checking it. Runs never fetch anything by themselves.",
)

Silent = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Name = Annotated[str, typer.Argument(metavar="[NAME]", help="A model; without one, the weights folder.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names as in `list`, or hub ids owner/name.")]
SomeNames = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Names as in `list`; without any, all that are here.")
]


class WeightsRow(NamedTuple):
    """One line of the list."""

    name: str
    size: str
    licence: str
    state: str
    path: Path | str


@app.command("list")
def list_command(quiet: Silent = False) -> None:
    """Every model with its size, licence, and whether it is on this machine."""
    rows = [
        *(describe_packaged_model(w) for w in zoo.ZOO.values()),
        *(describe_fetched_model(zoo.find_checkpoint(n)) for n in list_model_names()),
    ]
    if quiet:
        return
    for row in [WeightsRow("NAME", "SIZE", "LICENCE", "STATE", "PATH"), *rows]:
        typer.echo(f"{row.name:27} {row.size:>12}  {row.licence:11} {row.state:15} {row.path}".rstrip())


@app.command("fetch")
def fetch_command(names: Names, quiet: Silent = False) -> None:
    """Download models into the weights folder, going on where an earlier try ended, and check them."""
    say = Console(stderr=True, markup=False, emoji=False, quiet=quiet)
    with exit_on_weights_error():
        for model in [zoo.find_checkpoint(name) for name in names if name not in zoo.ZOO]:
            fetch_one(model, say)


@app.command("verify")
def verify_command(names: SomeNames = None, quiet: Silent = False) -> None:
    """Hash models and compare with the sha256 on record."""
    wrong = 0
    for name in names or [*zoo.ZOO, *list_present_models()]:
        try:
            said = verify_named_model(name)
        except InputError as error:  # the others are checked all the same
            wrong += 1
            typer.echo(f"masklet: {error}", err=True)
        else:
            typer.echo("" if quiet else f"{name}: {said}\n", nl=False)
    raise typer.Exit(2 if wrong else 0)


@app.command("where")
def where_command(name: Name = "", quiet: Silent = False) -> None:
    """Print the weights folder, or where a model is or would be."""
    with exit_on_weights_error():
        path = locate_model_path(name)
    if not quiet:
        typer.echo(str(path))


def fetch_one(model: Checkpoint, say: Console) -> None:
    """One model: nothing where it is here, else announced, fetched and checked."""
    path = find_verified_file(model)
    if path is None:
        files = plan_fetch(model)
        size = sum(remote.size or 0 for remote in files.values())
        source, target = model.repo or model.url, zoo.get_model_folder(model.name)
        say.print(f"{model.name}: {zoo.format_file_size(size)} from {source} to {target}", soft_wrap=True)
        with show_download_bars(say, model.name) as watch:
            path = fetch_checkpoint(model, files, watch)
    say.print(f"{model.name}: here and right, {path}", soft_wrap=True, highlight=False)


@contextmanager
def show_download_bars(say: Console, name: str) -> Iterator[Watch]:
    """One bar per file on standard error: bytes and time left."""
    columns = (
        TextColumn("{task.fields[model]} {task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=say, disable=say.quiet) as progress:

        def watch(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = progress.add_task(file, model=name)
            progress.update(tasks[file], completed=done, total=total)

        yield watch


def verify_named_model(name: str) -> str:
    """What was found of one model. Raises InputError where it is not here or not the right one."""
    if name in zoo.ZOO:
        zoo.verify_packaged(zoo.ZOO[name])
        return f"right, sha256 {zoo.ZOO[name].sha256}"
    model = zoo.find_checkpoint(name)
    file = zoo.require_weights(model)
    known = file.sha256 or zoo.read_hash_record(name).get(file.path.name)
    sha256 = zoo.verify_weights(model, file)
    if name in QUERIES:
        from masklet.models.mask2former.weights import check_kind  # with torch, which no other command here needs

        check_kind(name, file.path)
    elif name in RELEASED:
        from masklet.models.xmem.propagator import build_xmem
        from masklet.weights.reading import read_tensors

        build_xmem(read_tensors(file.path), file.path)  # every key and shape
    compared = "right" if known else "no sha256 to compare with, noted for later"
    return f"{compared}, sha256 {sha256}"


def locate_model_path(name: str) -> Path:
    """The weights folder for no name; else the weight file of a model, or the folder where it would be."""
    if not name:
        return zoo.get_weights_folder()
    if name in zoo.ZOO:
        return zoo.ZOO[name].path
    located = zoo.find_weights(zoo.find_checkpoint(name))
    return located.path if located else zoo.get_model_folder(name)


def list_model_names() -> Sequence[str]:
    """The models with names of ours, and those of hub ids that were fetched."""
    others = (p.parent for p in zoo.get_weights_folder().glob(f"*/*/{TENSORS}"))
    return [*CHECKPOINTS, *sorted(f"{p.parent.name}/{p.name}" for p in others)]


def list_present_models() -> Iterable[str]:
    """The names of the models that are on this machine."""
    return (name for name in list_model_names() if zoo.find_weights(zoo.find_checkpoint(name)))


def describe_packaged_model(weights: zoo.PackagedWeights) -> WeightsRow:
    """A model that comes with masklet."""
    size = zoo.format_file_size(weights.path.stat().st_size)
    return WeightsRow(weights.name, size, weights.licence, "packaged", weights.path)


def describe_fetched_model(model: Checkpoint) -> WeightsRow:
    """A model that is fetched."""
    located = zoo.find_weights(model)
    size = located.path.stat().st_size if located else model.size
    absent = "by hand" if model.page else "gated" if model.gate else "not here"
    state = absent if located is None else "here (hub cache)" if located.cached else "here"
    return WeightsRow(
        model.name,
        zoo.format_file_size(size),
        model.licence or "see the hub",
        state,
        located.path if located else model.page or model.gate,
    )


@contextmanager
def exit_on_weights_error() -> Iterator[None]:
    """Ends the command with exit code 2 when the user's input cannot be used, after saying so."""
    try:
        yield
    except InputError as error:
        typer.echo(f"masklet: {error}", err=True)
        raise typer.Exit(2) from None
