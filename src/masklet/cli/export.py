"""The command line: `masklet export`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from masklet.builtins import EXPORTS, FORMATS
from masklet.core.errors import InputError, escape_control_characters
from masklet.core.result import VideoResult
from masklet.io.formats.submission import PARTS, Submission, SubmissionTarget, find_result_files, read_dataset_split
from masklet.io.output_folder import OutputFolder


class ExportGroup(TyperGroup):
    """`submission`, and a command for each form in the registries."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names; `ctx` is not looked at."""
        return [*super().list_commands(ctx), *FORMATS.names, *EXPORTS.names]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command `cmd_name`; `ctx` is handed on."""
        if cmd_name in (*FORMATS.names, *EXPORTS.names):
            return make_export_command(cmd_name)
        return super().get_command(ctx, cmd_name)


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
    entry = FORMATS.entries.get(name) or EXPORTS.entries[name]
    alone = typer.Typer(pretty_exceptions_enable=False, add_completion=False)

    def export_command(results: Results, out: Folder, overwrite: OverwriteResults = False) -> None:
        try:
            export_results(name, results, out, overwrite)
        except InputError as error:
            typer.echo(f"masklet: {error}", err=True)
            raise typer.Exit(2) from None
        typer.echo(escape_control_characters(out))

    alone.command(name, help=f"Write results as {entry.help}.")(export_command)
    return typer.main.get_command(alone)


def export_results(name: str, results: Sequence[Path], out: Path, overwrite: bool) -> None:
    """Writes saved `results` in the form `name` into the folder `out`, which appears whole: a format, a folder for each
    video; an export of another package, as it likes. Raises InputError where results cannot be read or written so.
    """
    files = find_result_files(results)
    with OutputFolder(out.parent, out.name, overwrite) as folder:
        if name in FORMATS.names:
            for file in files:
                result = VideoResult.load(file)  # whose name has been checked
                (folder / result.name).mkdir(parents=True)
                FORMATS[name](result, None, folder / result.name)
        else:
            EXPORTS[name]([VideoResult.load(file) for file in files], folder)


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
