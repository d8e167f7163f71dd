"""The command line: `masklet export`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from masklet.core.errors import InputError
from masklet.io.formats.submission import PARTS, Submission, SubmissionTarget, find_result_files, read_dataset_split

app = typer.Typer(no_args_is_help=True, help="Results in the forms that others take.")

Form = Enum("Form", {name: name for name in PARTS}, type=str)  # type: ignore[misc]

FormName = Annotated[Form, typer.Argument(metavar="FORMAT", help=", ".join(PARTS))]
Results = Annotated[
    list[Path], typer.Argument(metavar="RESULTS...", help="masklets.json files, or folders that masklet run wrote.")
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="X.zip", help="The zip to write.")]
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
        typer.echo(f"masklet: {problem}", err=True)
    if problems:
        raise typer.Exit(2)
    typer.echo(str(out))


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
