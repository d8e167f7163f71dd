"""The command line called in the test's own process: a new one would import torch again for every call."""

from __future__ import annotations

import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import BufferedReader, BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

import pytest
from typer.main import get_command

from masklet.cli import app


def call_masklet(*words: object, feed: bytes = b"", cwd: Path | None = None) -> CompletedProcess[str]:
    """What `masklet WORDS` answers in the folder `cwd` when it is fed these bytes. What it does not foresee is raised,
    where a process would write a traceback.
    """
    out, err, told = StringIO(), StringIO(), TextIOWrapper(BufferedReader(BytesIO(feed)))
    streams = redirect_stdout(out), redirect_stderr(err), patch.object(sys, "stdin", told)
    with chdir(cwd or "."), streams[0], streams[1], streams[2], pytest.raises(SystemExit) as ended:
        get_command(app)(list(map(str, words)), prog_name="masklet")
    return CompletedProcess(words, int(ended.value.code or 0), out.getvalue(), err.getvalue())
