"""The command line, called in the test's own process or in a child that knows what it has imported: a process begun
anew would import torch for every call, which is most of what such a test costs.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BufferedReader, BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from subprocess import CompletedProcess
from typing import BinaryIO, NoReturn
from unittest.mock import patch

import pytest
from typer.main import get_command

from masklet.cli import app, main


def call_masklet(*words: object, feed: bytes = b"", cwd: Path | None = None) -> CompletedProcess[str]:
    """What `masklet WORDS` answers in the folder `cwd` when it is fed these bytes. What it does not foresee is raised,
    where a process would write a traceback.
    """
    out, err, told = StringIO(), StringIO(), TextIOWrapper(BufferedReader(BytesIO(feed)))
    streams = redirect_stdout(out), redirect_stderr(err), patch.object(sys, "stdin", told)
    with chdir(cwd or "."), streams[0], streams[1], streams[2], pytest.raises(SystemExit) as ended:
        get_command(app)(list(map(str, words)), prog_name="masklet")
    return CompletedProcess(words, int(ended.value.code or 0), out.getvalue(), err.getvalue())


@dataclass
class ForkedMasklet:
    """A child of this process that runs `masklet`, with pipes as a shell would give it."""

    pid: int
    stdin: BinaryIO
    stdout: BinaryIO
    stderr: BinaryIO

    def finish(self, feed: bytes = b"") -> tuple[int, bytes, bytes]:
        """Feeds it, and waits for its end: its exit code, or minus the signal that ended it, and what it said."""
        with self.stdin, self.stdout, self.stderr:
            self.stdin.write(feed)
            self.stdin.close()
            said = self.stdout.read(), self.stderr.read()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), *said


def fork_masklet(*words: object) -> ForkedMasklet:
    """Starts `masklet WORDS` in a child that shares what was imported, and nothing else."""
    (takes, stdin), (stdout, gives), (stderr, complains) = (os.pipe() for _ in range(3))
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        for end in (stdin, stdout, stderr):
            os.close(end)
        _become_masklet(words, takes, gives, complains)
    for end in (takes, gives, complains):
        os.close(end)
    return ForkedMasklet(pid, os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb"), os.fdopen(stderr, "rb"))


def _become_masklet(words: Sequence[object], *ends: int) -> NoReturn:
    """What the child does."""
    code: object = 1
    try:
        for number, end in enumerate(ends):
            os.dup2(end, number)
            os.close(end)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv = ["masklet", *map(str, words)]
        for stop in (signal.SIGINT, signal.SIGHUP):  # tests that run in the background ignore interrupts
            signal.signal(stop, signal.SIG_DFL)
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))
