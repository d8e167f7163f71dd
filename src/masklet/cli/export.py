"""The command line: `masklet export`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from masklet import exports
from masklet.builtins import EXPORTS, FORMATS
from masklet.cli import refuse_unknown_name
from masklet.cli.settings import format_setting_value, parse_settings
from masklet.core.errors import InputError, escape_control_characters
from masklet.core.progress import Watch, discard_progress
from masklet.core.result import VideoResult
from masklet.exports import NO_SETTINGS, find_frame_sources
from masklet.io.formats.submission import PARTS, Submission, SubmissionTarget, find_result_files, read_dataset_split
from masklet.io.output_folder import refuse_to_replace
from masklet.registry import PartEntry, list_part_settings
from masklet.view.progress import BarReporter, QuietReporter, Reporter


class ExportGroup(TyperGroup):
    """`submission`, and a command for each form in the registries."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names; `ctx` is not looked at."""
        return [*super().list_commands(ctx), *FORMATS.names, *EXPORTS.names]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What help says of the command `cmd_name`; `ctx` is handed on."""
        if cmd_name in (*FORMATS.names, *EXPORTS.names):
            return TyperCommand(cmd_name, help=f"Write results as {find_form(cmd_name).help}.")
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that the first of `args` names in `ctx`, with its settings, which its module says. Raises
        BadParameter, with the nearest name, where it names none.
        """
        if not ctx.resilient_parsing:
            refuse_unknown_name("form", args[0], self.list_commands(ctx))
        name, command, rest = super().resolve_command(ctx, args)
        return name, make_export_command(name) if name in (*FORMATS.names, *EXPORTS.names) else command, rest


def find_form(name: str) -> PartEntry:
    """The format or export of a name."""
    return FORMATS.entries.get(name) or EXPORTS.entries[name]


app = typer.Typer(
    cls=ExportGroup, add_completion=False, no_args_is_help=True, help="Results in the forms that others take."
)

Form = Enum("Form", {name: name for name in PARTS}, type=str)  # type: ignore[misc]

FormName = Annotated[Form, typer.Argument(metavar="FORMAT", help=", ".join(PARTS))]
Results = Annotated[
    list[Path], typer.Argument(metavar="RESULTS...", help="masklets.json files, or folders that masklet run wrote.")
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="X.zip", help="The zip to write.")]
Folder = Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="The folder to write.")]
OverwriteResults = Annotated[bool, typer.Option("--overwrite", help="Replace what is in the folder already.")]
Videos = Annotated[
    Path | None,
    typer.Option("--videos", metavar="LIST", help="The split's videos: its json, or a txt with one name a line."),
]
Frames = Annotated[
    Path | None,
    typer.Option("--frames", metavar="FOLDER", help="A folder of frames per video, for their names (JPEGImages)."),
]
VideoFrames = Annotated[
    list[str],
    typer.Option(
        "--frames",
        metavar="SOURCE",
        help="The video that a result is of: the images that the form refers to are written. Repeat it for several "
        "results, or give the folder that all their videos are in.",
    ),
]
Settings = Annotated[list[str], typer.Option("--set", metavar="NAME=VALUE", help="A setting of the form.")]
Start = Annotated[
    str,
    typer.Option(
        metavar="FRAME|TIME", help="First frame that is used; for a result the frames that it was made of, unless told."
    ),
]
End = Annotated[str | None, typer.Option(metavar="FRAME|TIME", help="The frame before which they end.")]
Stride = Annotated[int, typer.Option(help="Use every so many-th frame.")]
Fps = Annotated[float | None, typer.Option(help="Use at most so many frames a second.")]
MaxSide = Annotated[int | None, typer.Option(metavar="PIXELS", help="Reduce larger frames to this longer side.")]
Silent = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
AllowMissing = Annotated[bool, typer.Option("--allow-missing", help="Go on where videos of the split are missing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a zip that is already there.")]


@app.callback()
def keep_command_group() -> None:
    """Results in the forms that others take."""  # keeps `submission` a command of its own


@app.command("submission")
def submission_command(
    form: FormName,
    results: Results,
    out: Out,
    videos: Videos = None,
    frames: Frames = None,
    allow_missing: AllowMissing = False,
    overwrite: Overwrite = False,
) -> None:
    """Write the zip that a benchmark's server takes, after checking it against the split's videos."""
    try:
        problems: Sequence[str] = export_submission(form.value, results, out, videos, frames, allow_missing, overwrite)
    except InputError as error:
        problems = (str(error),)
    for problem in problems:
        typer.echo(f"masklet: {escape_control_characters(problem)}", err=True)
    if problems:
        raise typer.Exit(2)
    typer.echo(escape_control_characters(out))


def make_export_command(name: str) -> Any:
    """The command that writes saved results in the form `name` of the registries."""
    alone = typer.Typer(pretty_exceptions_enable=False, add_completion=False)

    def export_command(
        results: Results,
        out: Folder,
        frames: VideoFrames = [],  # noqa: B006
        set_: Settings = [],  # noqa: B006
        start: Start = "0",
        end: End = None,
        stride: Stride = 1,
        fps: Fps = None,
        max_side: MaxSide = None,
        overwrite: OverwriteResults = False,
        quiet: Silent = False,
    ) -> None:
        reporter = QuietReporter() if quiet else BarReporter()
        reading = {"start": start, "end": end, "stride": stride, "fps": fps, "max_side": max_side}
        try:
            with ExitStack() as stack:
                watch = make_lazy_watch(reporter, name, stack)
                write_exports(name, results, out, overwrite, frames, parse_settings(set_), reading, watch)
        except InputError as error:
            typer.echo(f"masklet: {escape_control_characters(error)}", err=True)
            raise typer.Exit(2) from None
        typer.echo(escape_control_characters(out))

    alone.command(name, help=describe_export(find_form(name)))(export_command)
    return typer.main.get_command(alone)


def make_lazy_watch(reporter: Reporter, name: str, stack: ExitStack) -> Watch:
    """A watcher whose bars, called `name`, appear when the work has begun, and end with the `stack`."""
    start = cache(lambda: stack.enter_context(reporter.video(name, 0)))
    return lambda phase, done, total, objects: start()(phase, done, total, objects)


def describe_export(entry: PartEntry) -> str:
    """The help of an export: what it writes, and its settings. Parts of other packages are not imported for it."""
    known = list_part_settings(entry).values() if entry.settings else ()
    told = [f"--set {s.name}={format_setting_value(s.default)}  {s.meaning}" for s in known]
    return "\n\n".join([f"Write results as {entry.help}.", *told])


def write_exports(
    name: str,
    results: Sequence[Path],
    out: Path,
    overwrite: bool,
    frames: Sequence[str] = (),
    settings: Mapping[str, Any] = NO_SETTINGS,
    reading: Mapping[str, Any] = NO_SETTINGS,
    watch: Watch = discard_progress,
) -> None:
    """Writes saved `results` in the form `name` into the folder `out`, which appears whole: a format, a folder for each
    video; an export, as its form is. Raises InputError where results cannot be read or written so.
    """
    files = find_result_files(results)
    refuse_to_replace(out, [*files, *map(Path, frames)])
    opened = [VideoResult.open(file) for file in files]  # whose names have been checked
    sources = find_frame_sources(opened, frames)
    exports.export_results(
        opened, name, out, sources, overwrite=overwrite, settings=settings, reading=reading, watch=watch
    )


def export_submission(
    form: str,
    results: Sequence[Path],
    out: Path,
    videos: Path | None,
    frames: Path | None,
    allow_missing: bool,
    overwrite: bool,
) -> Sequence[str]:
    """What is wrong with the results; the zip is written if nothing is."""
    if out.exists() and not overwrite:
        raise InputError(f"{out}: is there already; add --overwrite to replace it")
    target = SubmissionTarget(form, read_dataset_split(videos) if videos else None, frames)
    submission = Submission.check(target, find_result_files(results), allow_missing)
    if not submission.problems:
        submission.write(out)
    return submission.problems
