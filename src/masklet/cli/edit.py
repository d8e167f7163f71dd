"""The command line: `masklet edit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from masklet.core.edits import apply_edits, describe_verbs
from masklet.core.errors import InputError, escape_control_characters
from masklet.core.result import VideoResult
from masklet.io.formats.submission import RESULT, find_result_files
from masklet.io.output_folder import OutputFolder, refuse_to_replace

UNEDITED = "unedited.json"  # the result as it was before the first edit of `masklet edit`

ResultPath = Annotated[
    Path, typer.Argument(metavar="RESULT", help="A masklets.json, or the folder of a video's results.")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="The folder to write.")]
Do = Annotated[
    list[str],
    typer.Option(
        "--do", metavar="EDIT", help=f"An edit, such as 'merge 3 7'; repeatable, in order. {describe_verbs()}."
    ),
]
Undo = Annotated[int, typer.Option(min=0, metavar="N", help="Take the last N edits of the log back first.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is in the folder already.")]


def edit_command(
    result: ResultPath,
    out: Out = None,
    do: Do = [],  # noqa: B006
    undo: Undo = 0,
    overwrite: Overwrite = False,
) -> None:
    """Rename, merge, split, drop and mend objects of a saved result; without --do, say its log."""
    try:
        if out is None and not do and not undo:
            log = VideoResult.open(find_one_result(result)).provenance.edits
            typer.echo("\n".join(map(escape_control_characters, log)) or "no edits")
            return
        if out is None:
            raise InputError("no folder to write to; give one by --out")
        edit_result(find_one_result(result), out, do, undo, overwrite)
    except InputError as error:
        typer.echo(f"masklet: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(escape_control_characters(out))


def find_one_result(path: Path) -> Path:
    """The masklets.json that is meant. Raises InputError where there is none, or more than one."""
    found = find_result_files([path])
    if len(found) > 1:
        raise InputError(f"{path}: holds {len(found)} results; edit one, such as {found[0]}")
    return found[0]


def edit_result(path: Path, out: Path, lines: Sequence[str], undo: int, overwrite: bool) -> None:
    """Writes the result at `path`, less its last `undo` edits, after the edits of `lines`, into the folder `out`, and
    beside it the result as it was before all edits. Raises InputError where an edit cannot be done or undone, or the
    folder is filled and not to be overwritten; nothing is written then.
    """
    refuse_to_replace(out, [path])
    target = OutputFolder(out.parent, out.name, overwrite)
    target.check_free()
    before, done = find_unedited(path)
    if undo > len(done):
        raise InputError(f"{path}: {len(done)} edits can be taken back, not {undo}{explain_missing_copy(path)}")
    kept = apply_edits(before, done[: len(done) - undo]) if undo else VideoResult.open(path)
    edited = apply_edits(kept, lines)
    with target as folder:
        edited.save(folder / RESULT)
        before.save(folder / UNEDITED)


def find_unedited(path: Path) -> tuple[VideoResult, tuple[str, ...]]:
    """The result as it was before the edits that can be taken back, and these. Where there is no copy of it beside the
    result at `path`, that is the result itself, and there are none.
    """
    result = VideoResult.open(path)
    copy = path.with_name(UNEDITED)
    if not copy.is_file():
        return result, ()
    before = VideoResult.open(copy)
    known, edits = before.provenance.edits, result.provenance.edits
    if before.name != result.name or edits[: len(known)] != known:
        raise InputError(f"{copy}: is not what {path} was made from; put the right copy there, or take it away")
    return before, edits[len(known) :]


def explain_missing_copy(path: Path) -> str:
    """Why there is nothing to take back, where that is so."""
    return (
        "" if path.with_name(UNEDITED).is_file() else f"; undo needs the {UNEDITED} that masklet edit writes beside it"
    )
