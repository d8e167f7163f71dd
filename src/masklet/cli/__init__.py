"""The command line. What a command needs is imported when it is called, so that `masklet --help` answers at once."""

from __future__ import annotations

import atexit
import gc
import signal
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from masklet.core.errors import Interruption, end_on_signal
from masklet.core.imports import import_uncollected
from masklet.version import __version__

COMMANDS = {  # where each command is, and its line of help
    "run": ("masklet.cli.run:run_command", "Find, segment, track and complete every object of each video."),
    "track": ("masklet.cli.run:track_command", "Propagate given objects both ways from the frames in which they are."),
    "stream": (
        "masklet.cli.stream:stream_command",
        "Write a line of JSON for every frame as it comes.",
    ),
    "eval": ("masklet.cli.eval:eval_command", "Score predictions as the benchmark's own program does."),
    "compare": ("masklet.cli.compare:compare_command", "Compare runs over one set, with intervals over its videos."),
    "train": ("masklet.cli.train:train_command", "Train the small networks; a run that was stopped goes on."),
    "edit": ("masklet.cli.edit:edit_command", "Rename, merge, split, drop and mend objects of a saved result."),
    "view": ("masklet.cli.view:view_command", "Look at results in a browser, and correct them."),
    "serve": ("masklet.cli.view:serve_command", "Answer other programs' requests about videos and results, in JSON."),
    "report": ("masklet.cli.view:report_command", "Write a result as a page to look at, in one file or a folder."),
    "export": ("masklet.cli.export:app", "Results in the forms that others take."),
    "reproduce": ("masklet.cli.reproduce:app", "The rows of the papers' tables on their own data."),
    "weights": ("masklet.cli.weights:app", "Weights by name: what there is, fetching it, checking it."),
}


class LazyGroup(TyperGroup):
    """Commands that are imported when they are called; help and completion of names need none of them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names in the order of `COMMANDS`; `ctx` is not looked at."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What help says of the command `cmd_name`; `ctx` is not looked at."""
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name][1]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that the first of `args` names in `ctx`, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, import_command(str(name)) if command else None, rest


def import_command(name: str) -> Any:
    """The command of a name: of a function, or of an app with commands of its own."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    found: Any = getattr(import_uncollected(module), attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    alone = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    alone.command(name, context_settings=HELP)(found)
    return typer.main.get_command(alone)


HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    cls=LazyGroup,
    name="masklet",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=HELP,
    help="Turns videos into masklets: one mask per object per frame, with an identity and a name.",
)


def show_version(asked: bool) -> None:
    """Says the version, where it is `asked` for, and ends."""
    if asked:
        typer.echo(f"masklet {__version__}")
        raise typer.Exit()


@app.callback()
def take_common_options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Say the version and end.")
    ] = False,
) -> None:
    """Turns videos into masklets: one mask per object per frame, with an identity and a name."""


def main() -> None:
    """`masklet`: a user's mistake ends in one sentence and exit code 2, a signal in 128 + its number."""
    atexit.register(
        gc.freeze
    )  # or all that torch has made is gone through for garbage at the end, twice: half a second
    signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    for number in signals:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, end_on_signal)
    try:
        app()
    except Interruption:
        typer.echo("masklet: interrupted; what is finished is kept", err=True)
        raise
