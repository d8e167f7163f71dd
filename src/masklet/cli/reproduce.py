"""The command line: `masklet reproduce`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from masklet.cli.settings import format_setting_value, parse_settings
from masklet.core.errors import InputError, escape_control_characters
from masklet.reproduce.check import list_missing_for
from masklet.reproduce.datasets import SETS
from masklet.reproduce.recipes import NeededWeights, Recipe, find_recipe, read_recipes
from masklet.reproduce.trainings import (
    PublishedTraining,
    explain_use,
    find_training,
    list_missing_weights,
    read_trainings,
)

if TYPE_CHECKING:
    from rich.console import Console

    from masklet.reproduce.run import FigureComparison
    from masklet.view.progress import Reporter

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="The rows of the papers' tables on their own data: what each needs, running it, and training for it.",
)

RowName = Annotated[str, typer.Argument(metavar="ROW", help="A row as in `list`, such as sam2long-5/paths-3.")]
Data = Annotated[Path, typer.Option(metavar="DIR", help="The folder with the data sets, or one of them.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="A setting other than the recipe's; also segmenter, propagator or size."
    ),
]
Tables = Annotated[list[str] | None, typer.Argument(metavar="[TABLE]...", help="Tables or papers; all without any.")]


@app.command("list")
def list_command(tables: Tables = None) -> None:
    """Every row with its published figures; of those that inference cannot repeat, why."""
    with exit_on_mistake():
        chosen = choose_tables(tables or [])
        for table, recipes in chosen.items():
            first = recipes[0]
            covers = f" ({first.covers})" if first.covers else ""
            typer.echo(f"{table}: {first.paper}, Table {first.table}{covers}: {first.title}")
            for recipe in recipes:
                figures = format_figures(recipe.figures or recipe.beside)
                cannot = "  [not repeated]" if recipe.reason else ""
                typer.echo(f"  {recipe.name:44} {figures}{cannot}")


@app.command("show")
def show_command(row: RowName) -> None:
    """A row's recipe: system, parts, weights, settings, data, metric, published figures."""
    with exit_on_mistake():
        recipe = find_recipe(row)
        for line in describe_recipe_lines(recipe):
            typer.echo(line)


@app.command("check")
def check_command(row: RowName, data: Data, set_: Settings = None) -> None:
    """Name everything that a row needs and that is not here, before any work."""
    with exit_on_mistake():
        recipe = find_recipe(row).override(parse_settings(set_ or []))
        missing = list_missing_for(recipe, data)
        for sentence in missing:
            typer.echo(escape_control_characters(f"masklet: {row}: {sentence}"), err=True)
        if missing:
            raise typer.Exit(2)
        typer.echo(f"{row}: all is here")


@app.command("run")
def run_command(
    row: RowName,
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; one that was stopped goes on.")],
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes that share the videos.")] = 1,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="Where networks run.")] = "auto",
    set_: Settings = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors and the figures.")] = False,
) -> None:
    """Run a row over its data, score it or write the server's zip, and print ours beside the paper's."""
    from masklet.cli.run import choose_reporter

    with exit_on_mistake():
        told = parse_settings(set_ or [])
        recipe = find_recipe(row).override(told)
        missing = list_missing_for(recipe, data)
        if missing:
            raise InputError("; ".join(missing))
        figures = run_recipe(recipe, data, out, jobs, device, choose_reporter(quiet, False))
        for line in format_comparison(recipe, figures, told, out):
            typer.echo(escape_control_characters(line))


@app.command("train")
def train_command(
    row: RowName,
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the training; one that was stopped goes on.")],
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="Where networks run.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="The same seed is the same run.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="steps, batch, frames, lr, segmenter, start, or a setting."),
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write the log for TensorBoard, too.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Train what a row needs, as published, and put it where the row looks for it.

    With several GPUs: torchrun --nproc-per-node 8 -m masklet reproduce train ROW ...
    """
    from masklet.cli.train import STOPPED, make_training_console, run_training

    with exit_on_mistake():
        training = find_training(row).override(parse_settings(set_ or []))
        if missing := list_missing_weights(training):
            raise InputError(f"{row}: {'; '.join(missing)}")
        console = make_training_console(quiet)
        done, wanted = run_training(
            training.what,
            out,
            console,
            data=training.resolve_data(data),
            val=(),
            size=None,
            seed=seed,
            start=training.resolve_start(),
            segmenter=training.segmenter,
            settings=dict(training.settings),
            categories="",
            device=device,
            events=tensorboard,
            frames=training.frames,
            steps=training.steps,
            batch=training.batch,
            lr=training.lr,
        )
        if done < wanted:
            typer.echo(f"masklet: stopped after step {done} of {wanted}; the same command goes on from there", err=True)
            raise typer.Exit(STOPPED)
        put_trained_weights(out, training, console)


def put_trained_weights(out: Path, training: PublishedTraining, console: Console) -> None:
    """Copies the weights of the `training` in `out` to the weights folder, in the first of several processes. A network
    of transformers is a folder, and stays where it is.
    """
    from masklet.core.files import write_atomically
    from masklet.train.loop.processes import find_processes
    from masklet.train.loop.run_folder import WEIGHTS
    from masklet.weights.store import get_weights_folder

    if not find_processes().is_first:
        return
    if not (out / WEIGHTS).is_file():
        console.print(f"the weights are in {out / 'weights'}; run the row with --set segmenter={out / 'weights'}")
        return
    path = get_weights_folder() / training.file
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as target:
        target.write((out / WEIGHTS).read_bytes())
    console.print(explain_use(training, path))


def run_recipe(
    recipe: Recipe, data: Path, out: Path, jobs: int, device: str, reporter: Reporter
) -> Sequence[FigureComparison]:
    """Runs a `recipe` over the data set in `data`, into `out`, with so many `jobs` on a `device`; `reporter` is told
    how far it is. Ours beside the paper's. Raises InputError where a video fails, or results do not fit.
    """
    if recipe.protocol == "cost":
        from masklet.reproduce.cost import measure_cost

        return measure_cost(recipe)
    from masklet.cli.run import choose_pool, plan_batch, run_batch
    from masklet.reproduce.datasets import locate_set
    from masklet.reproduce.run import FinishedRun, list_runs, make_run_options
    from masklet.run.plan import RunParts
    from masklet.run.workers import Crew

    located = list_runs(recipe, locate_set(recipe.data, data, recipe.split), data)
    options = make_run_options(recipe, located, data, out, device)
    log, queue = plan_batch(options, RunParts(options).check(), 1, None, reporter)
    crew = Crew(jobs, 1, None)
    run_batch(options.out, queue, choose_pool(options, crew, None, 0.0, queue, log), log)
    failed = [one for one in log.outcomes if not one.is_there]
    if failed:
        raise InputError(f"{len(failed)} of {len(options.videos)} videos have no result: {failed[0].reason}")
    with reporter.video(recipe.name, 0) as watch:
        return FinishedRun(recipe, located, out, options.videos).conclude(watch)


def format_comparison(
    recipe: Recipe, figures: Sequence[FigureComparison], changed: Mapping[str, Any], out: Path
) -> Iterator[str]:
    """Our figures beside the paper's as lines, with what was changed of the recipe."""
    yield f"{recipe.name}: {recipe.paper}, Table {recipe.table}: {recipe.row}"
    yield f"{'':28}{'ours':>8}{'paper':>8}"
    for one in figures:
        ours = "-" if one.ours is None else f"{one.ours:.2f}"
        yield f"{one.figure:28}{ours:>8}{one.paper:>8g}"
    if changed:
        yield "not the recipe's: " + ", ".join(f"{k}={format_setting_value(v)}" for k, v in changed.items())
    if (out / "submission.zip").is_file() and all(one.ours is None for one in figures):
        yield f"only the benchmark's server has the ground truth; its zip is {out / 'submission.zip'}"


def choose_tables(names: Sequence[str]) -> dict[str, list[Recipe]]:
    """The recipes by table; those of some tables or papers where there are `names`. Raises InputError for one that is
    neither.
    """
    tables: dict[str, list[Recipe]] = {}
    for recipe in read_recipes().values():
        tables.setdefault(recipe.name.partition("/")[0], []).append(recipe)
    known = {*tables, *(recipes[0].paper.lower() for recipes in tables.values())}
    wanted = [name.lower() for name in names]
    odd = next((name for name in wanted if name not in known), None)
    if odd is not None:
        raise InputError(f"no table or paper {odd!r}; there are: {', '.join(sorted(known))}")
    return {
        table: recipes
        for table, recipes in tables.items()
        if not wanted or table in wanted or recipes[0].paper.lower() in wanted
    }


def describe_recipe_lines(recipe: Recipe) -> Iterator[str]:
    """A recipe as text, a line for each of its facts."""
    yield f"{recipe.name}: {recipe.paper}, Table {recipe.table}: {recipe.row}"
    told: Mapping[str, Any] = {
        "source": recipe.source,
        "system": recipe.system,
        "segmenter": recipe.segmenter,
        "propagator": recipe.propagator,
        "size": f"{recipe.size} px" if recipe.size else "",
        "settings": " ".join(f"{k}={format_setting_value(v)}" for k, v in recipe.settings.items()),
        "data": f"{SETS[recipe.data].help}, {recipe.split or 'all of it'}" if recipe.data else "",
        "protocol": recipe.protocol,
        "metric": recipe.metric,
    }
    yield from (f"{name + ':':12} {value}" for name, value in told.items() if value)
    for one in recipe.weights:
        yield f"{'weights:':12} {describe_needed_weights(one)}"
    if recipe.name in read_trainings():
        yield f"{'training:':12} {describe_training(find_training(recipe.name))}"
    yield f"{'published:':12} {format_figures(recipe.figures) or '-'}"
    if recipe.beside:
        yield f"{'beside it:':12} {format_figures(recipe.beside)}, which is not measured here"
    if recipe.reason:
        yield f"{'not repeated:':12} {recipe.reason}"


def describe_training(training: PublishedTraining) -> str:
    """What `reproduce train` does for a row, in a line."""
    over = f" over {training.segmenter}" if training.segmenter else ""
    begin = f" from {training.start}" if training.start else ""
    return (
        f"{training.what}{over}{begin} on {' and '.join(training.data)}: {training.steps:,} steps of {training.batch} "
        f"clips of {training.frames}, rate {training.lr:g}"
    )


def describe_needed_weights(one: NeededWeights) -> str:
    """Weights by name, with what is known of them."""
    return one.name + (f", sha256 {one.sha256}" if one.sha256 else "") + (f": {one.how}" if one.how else "")


def format_figures(figures: Mapping[str, float]) -> str:
    """Figures in a line.

    >>> format_figures({"AP": 52.7, "AR10": 60.4})
    'AP 52.7, AR10 60.4'
    """
    return ", ".join(f"{name} {value:g}" for name, value in figures.items())


@contextmanager
def exit_on_mistake() -> Iterator[None]:
    """Ends the command with exit code 2 when the user's input cannot be used, after saying so."""
    try:
        yield
    except InputError as error:
        typer.echo(escape_control_characters(f"masklet: {error}"), err=True)
        raise typer.Exit(2) from None
