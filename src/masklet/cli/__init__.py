"""The command line. What a command needs is imported when it is called, so that `masklet --help` answers at once."""

from __future__ import annotations

import atexit
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from masklet.core.choices import check_choice
from masklet.core.errors import InputError, Interruption, end_on_signal
from masklet.core.imports import import_uncollected
from masklet.core.wording import write_messages_for
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
        """The command that the first of `args` names in `ctx`, imported. Raises BadParameter where one of them is
        empty.
        """
        if not ctx.resilient_parsing:  # as for a shell that completes what is half typed
            refuse_empty_arguments(args)
            refuse_unknown_name("command", args[0], self.list_commands(ctx))
        name, command, rest = super().resolve_command(ctx, args)
        return name, import_command(str(name)) if command else None, rest


def refuse_unknown_name(kind: str, name: str, known: Sequence[str]) -> None:
    """Raises BadParameter, with the nearest of those that are `known`, where `name` is none of a `kind`."""
    try:
        check_choice(kind, name, known)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None


def refuse_empty_arguments(args: Sequence[str]) -> None:
    """Raises BadParameter where one of `args` is empty: no option means that, and a variable of a shell may be
    unset.
    """
    for before, arg in pairwise(["", *args]):
        option = arg[:-1] if EMPTY.fullmatch(arg) else before
        if not arg or EMPTY.fullmatch(arg):
            what = f"{option}: its value is empty" if option.startswith("-") else "an argument is empty"
            raise typer.BadParameter(f"{what}; give one, or leave it out (a variable of the shell may be unset)")


def import_command(name: str) -> Any:
    """The command of a name: of a function, or of an app with commands of its own."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    found: Any = getattr(import_uncollected(module), attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    alone = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    alone.command(name, context_settings=HELP)(found)
    return typer.main.get_command(alone)


EMPTY = re.compile("--[a-z-]+=")  # an option that is given nothing
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
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Say the version and end.")
    ] = False,
) -> None:
    """Turns videos into masklets: one mask per object per frame, with an identity and a name."""
    ctx.with_resource(write_messages_for("command line"))


def main() -> None:
    """`masklet`: a user's mistake ends in one sentence and exit code 2, a signal in 128 + its number."""
    signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    for number in signals:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, end_on_signal)
    try:
        app()
    except Interruption:
        typer.echo("masklet: interrupted; what is finished is kept", err=True)
        raise
    except SystemExit as end:
        end_at_once(end.code)
        raise


def end_at_once(code: str | int | None) -> None:
    """Ends the process with an exit `code`, once all is done that was put off until its end. Python would free all that
    it holds piece by piece, for half a second; the system does it in none. Returns where that would lose something:
    other threads are waited for, somebody looks at what runs, or the code is a message.
    """
    waits = any(not thread.daemon for thread in threading.enumerate() if thread is not threading.current_thread())
    if waits or sys.gettrace() or sys.getprofile() or isinstance(code, str):
        return
    atexit._run_exitfuncs()
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # there is none where the shell closed it
            stream.flush()
    except OSError:  # nobody reads any more, which Python has a way to end with
        return
    os._exit(code or 0)
