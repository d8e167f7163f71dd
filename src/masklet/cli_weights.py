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
from masklet.models import zoo
from masklet.models.checkpoints import CHECKPOINTS, QUERIES, TENSORS, Checkpoint
from masklet.models.fetch import Watch, fetch, plan, present
from masklet.models.mask2former_weights import check_kind

app = typer.Typer(
    no_args_is_help=True,
    help="Weights by name: what there is, fetching it, checking it. Runs never fetch anything by themselves.",
)

Silent = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Name = Annotated[str, typer.Argument(metavar="[NAME]", help="A model; without one, the weights folder.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names as in `list`, or hub ids owner/name.")]
SomeNames = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Names as in `list`; without any, all that are here.")
]


class Row(NamedTuple):
    """One line of the list."""

    name: str
    size: str
    licence: str
    state: str
    path: Path | str


@app.command("list")
def list_command(quiet: Silent = False) -> None:
    """Every model with its size, licence, and whether it is on this machine."""
    rows = [*(packaged(w) for w in zoo.ZOO.values()), *(fetched(zoo.checkpoint(n)) for n in names())]
    if quiet:
        return
    for row in [Row("NAME", "SIZE", "LICENCE", "STATE", "PATH"), *rows]:
        typer.echo(f"{row.name:27} {row.size:>12}  {row.licence:11} {row.state:15} {row.path}".rstrip())


@app.command("fetch")
def fetch_command(names: Names, quiet: Silent = False) -> None:
    """Download models into the weights folder, going on where an earlier try ended, and check them."""
    say = Console(stderr=True, markup=False, emoji=False, quiet=quiet)
    with told():
        for model in [zoo.checkpoint(name) for name in names if name not in zoo.ZOO]:
            fetch_one(model, say)


@app.command("verify")
def verify_command(names: SomeNames = None, quiet: Silent = False) -> None:
    """Hash models and compare with the sha256 on record."""
    wrong = 0
    for name in names or [*zoo.ZOO, *here()]:
        try:
            said = verified(name)
        except InputError as error:  # the others are checked all the same
            wrong += 1
            typer.echo(f"masklet: {error}", err=True)
        else:
            typer.echo("" if quiet else f"{name}: {said}\n", nl=False)
    raise typer.Exit(2 if wrong else 0)


@app.command("where")
def where_command(name: Name = "", quiet: Silent = False) -> None:
    """Print the weights folder, or where a model is or would be."""
    with told():
        path = path_of(name)
    if not quiet:
        typer.echo(str(path))


def fetch_one(model: Checkpoint, say: Console) -> None:
    """One model: nothing where it is here, else announced, fetched and checked."""
    path = present(model)
    if path is None:
        files = plan(model)
        size = sum(remote.size or 0 for remote in files.values())
        say.print(f"{model.name}: {zoo.in_words(size)} from {model.repo} to {zoo.where(model.name)}", soft_wrap=True)
        with bars(say, model.name) as watch:
            path = fetch(model, files, watch)
    say.print(f"{model.name}: here and right, {path}", soft_wrap=True, highlight=False)


@contextmanager
def bars(say: Console, name: str) -> Iterator[Watch]:
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


def verified(name: str) -> str:
    """What was found of one model. Raises InputError where it is not here or not the right one."""
    if name in zoo.ZOO:
        zoo.read(zoo.ZOO[name])
        return f"right, sha256 {zoo.ZOO[name].sha256}"
    model = zoo.checkpoint(name)
    file = zoo.located(model)
    known = file.sha256 or zoo.recorded(name).get(file.path.name)
    sha256 = zoo.verify(model, file)
    if name in QUERIES:
        check_kind(name, file.path)
    compared = "right" if known else "no sha256 to compare with, noted for later"
    return f"{compared}, sha256 {sha256}"


def path_of(name: str) -> Path:
    """The weights folder for no name; else the weight file of a model, or the folder where it would be."""
    if not name:
        return zoo.folder()
    if name in zoo.ZOO:
        return zoo.ZOO[name].path
    located = zoo.find(zoo.checkpoint(name))
    return located.path if located else zoo.where(name)


def names() -> Sequence[str]:
    """The models with names of ours, and those of hub ids that were fetched."""
    others = (p.parent for p in zoo.folder().glob(f"*/*/{TENSORS}"))
    return [*CHECKPOINTS, *sorted(f"{p.parent.name}/{p.name}" for p in others)]


def here() -> Iterable[str]:
    """Those on this machine."""
    return (name for name in names() if zoo.find(zoo.checkpoint(name)))


def packaged(weights: zoo.Weights) -> Row:
    """A model that comes with masklet."""
    return Row(weights.name, zoo.in_words(weights.path.stat().st_size), "MIT", "packaged", weights.path)


def fetched(model: Checkpoint) -> Row:
    """A model that is fetched."""
    located = zoo.find(model)
    size = located.path.stat().st_size if located else model.size
    absent = "by hand" if model.page else "not here"
    state = absent if located is None else "here (hub cache)" if located.cached else "here"
    return Row(
        model.name, zoo.in_words(size), model.licence or "see the hub", state, located.path if located else model.page
    )


@contextmanager
def told() -> Iterator[None]:
    """Ends the command with exit code 2 when the user's input cannot be used, after saying so."""
    try:
        yield
    except InputError as error:
        typer.echo(f"masklet: {error}", err=True)
        raise typer.Exit(2) from None
