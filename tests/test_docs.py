"""Every code block of README, CONTRIBUTING, the pages of docs/ and the cards is run: `masklet` lines through the command
line in this process, Python as it stands, in a folder with stand-ins for all that the pages name (`page_world`).

What cannot be run stands in the tables below, with the reason. A block that is neither run nor listed is an error, and so
is a line of these tables that no page has any more.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from glob import glob
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from commands import call_masklet
from page_world import LENGTHS, PREPARE, lay_out_result, put_toys, write_real_world, write_world
from typer.main import get_command

from masklet import Detections, VideoResult
from masklet.builtins import EXPORTS, FORMATS, METRICS, PROPAGATORS, SEGMENTERS, SYSTEMS, TRAININGS
from masklet.cli import app

ROOT = Path(__file__).resolve().parent.parent
FILES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("cards/*.md")),
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = {path.relative_to(ROOT).as_posix(): BLOCK.findall(path.read_text()) for path in FILES}
PAGES = [page for page, blocks in BLOCKS.items() if blocks]
REAL = ("docs/index.md", "docs/first-video.md", "docs/click-and-correct.md", "docs/your-detector.md")  # no toys

NOT_RUN = {  # lines, by what they begin with
    "masklet weights fetch": "fetches weights; tests/test_cli_weights.py fetches from a server of its own",
    "hf download": "fetches weights",
    "git clone": "fetches the repository",
    "cd masklet": "goes with the line above it",
    "make ": "sets up an environment and runs all tests or the demo; .ci/run does both",
    "python -m zipfile": "unpacks what the line above it fetches",
    "python -m pip": "installs or fetches; `make release` does it with the wheel in a fresh environment",
    "masklet train": "trains for hours; tests/test_cli_train.py takes some steps of each, tests/test_words.py reads the lines",
    "masklet run --watch": "ends with Ctrl-C alone; tests/run/test_watch.py",
    "masklet stream rtsp:": "needs a camera; tests/io/test_live.py has a server in its place",
    "masklet stream /dev/video0": "needs a camera",
    "masklet run clip.mp4 -o out --device cuda": "needs a GPU; tests/test_on_gpu.py",
}
SHOWN = {  # blocks that are no input, by what they begin with
    "video -> encoder": "a drawing",
    '{"frame":0,"time"': "what the command above it writes; tests/test_cli_stream.py reads such lines",
    '{"format": "masklet/1"': "a file that is abridged; tests/test_site.py has the schema",
}
CHANGED = {  # expressions of lines that are run otherwise than they stand there: what takes their place, and why
    r"^srun ": ("", "no Slurm here"),
    r'"\$SLURM_ARRAY_TASK_ID/8"': ("1/8", "no Slurm here"),
    r"/shared/out": ("out", "a folder of other machines"),
    r"videos=50, frames=20": ("videos=1, frames=2", "takes long"),
    r" --jobs 4$": ("", "workers know no toys"),
    r"--data /data": ("--data data", "a folder of other machines"),
    r"(--jobs \d+ --timeout \d+|--timeout \d+ --no-overlay)$": (r"\1 --dry-run", "workers know no toys"),
}
NEEDS_WEIGHTS = {  # lines that end with the sentence that says which weights have to be fetched or brought
    r"(minvis|dvis-online)-r50-": "the systems of queries have no toys; tests/test_queries.py runs them by name",
    r"--system (minvis|ctvis|videomt) --segmenter (eomt|videomt)": "the same",
    r"masklet reproduce (check|run|train)": "tests/reproduce/test_run.py runs a row of every table with slim networks",
    r"--(segmenter|propagator) sam3": "gated; tests/test_cli_sam3.py runs such lines with slim networks",
    r"path/to/DVIS_offline.pth": "a file that is brought by hand",
    r"--segmenter out/rocovis-eomt": "what the training above it writes",
}


def find_lines(text: str) -> list[str]:
    """The commands of a block, without comments."""
    lines = [re.sub(r"\s+#.*", "", line).strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def is_not_run(line: str) -> bool:
    return any(line.startswith(begin) for begin in NOT_RUN)


def change_text(text: str) -> str:
    for pattern, (told, _) in CHANGED.items():
        text = re.sub(pattern, told, text, flags=re.MULTILINE)
    return text


def change_line(line: str) -> str:
    """A line as it is run: lines of a page are choices, so that each may write what the one before has written."""
    line = change_text(line)
    writes = line.startswith(("masklet run", "masklet track", "masklet edit", "masklet export", "masklet report"))
    return f"{line} --overwrite" if writes and " -o " in line and "--overwrite" not in line else line


class Servers:
    """What `masklet view` and `serve` start on a page: they go on in threads until the page's end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[uvicorn.Server] = []
        self.threads: list[threading.Thread] = []
        run = uvicorn.Server.run

        def note(server: uvicorn.Server, **given: Any) -> None:
            self.begun.append(server)
            run(server, **given)

        monkeypatch.setattr(uvicorn.Server, "run", note)

    def start(self, line: str) -> None:
        """Starts what a line asks for, and waits until it answers."""
        count, words = len(self.begun), shlex.split(line)[1:]
        command = functools.partial(get_command(app), words, standalone_mode=False)
        self.threads.append(threading.Thread(target=command, daemon=True))
        self.threads[-1].start()
        end = time.monotonic() + 60
        while len(self.begun) == count or not self.begun[-1].started:
            assert self.threads[-1].is_alive() and time.monotonic() < end, f"{line}: serves nothing"
            time.sleep(0.01)

    def stop(self) -> None:
        for server in self.begun:
            server.should_exit = True
        for thread in self.threads:
            thread.join(60)


def run_line(line: str, servers: Servers | None = None) -> None:
    """Runs one line, which must succeed, or say which weights it lacks where that is expected."""
    before, pipe, command = line.rpartition(" | ")
    feed = subprocess.run(shlex.split(before), capture_output=True, check=True).stdout if pipe else b""
    name, *words = shlex.split(change_line(command))
    assert name == "masklet", f"{line}: neither run nor in NOT_RUN"
    if words[0] in ("view", "serve") and servers:
        servers.start(line)
        return
    found = [f for word in words for f in (sorted(glob(word)) if "*" in word else [word])]
    done = call_masklet(*found, feed=feed)
    if any(re.search(pattern, line) for pattern in NEEDS_WEIGHTS):
        assert done.returncode == 2 and re.search("weights|no such file", done.stderr), (line, done.stderr)
        return
    assert done.returncode == 0, (line, done.stdout, done.stderr)


def run_python(page: str, text: str, scope: dict[str, Any]) -> None:
    exec(compile(change_text(text), page, "exec"), scope)


def check_json(page: str, text: str, scope: dict[str, Any]) -> None:
    """A file of prompts is read by `track`, a list by `run`."""
    if page == "docs/batch.md":
        Path("list.jsonl").write_text(text)
        assert len([json.loads(line) for line in text.splitlines()]) == 3
        run_line("masklet run --list list.jsonl -o listed --no-overlay")
        return
    Path("many.json").write_text(text)
    run_line("masklet track images -o many --prompts many.json --no-overlay")


def check_toml(page: str, text: str, scope: dict[str, Any]) -> None:
    """Entry points of groups that there are."""
    groups = {r.group for r in (SEGMENTERS, PROPAGATORS, SYSTEMS, METRICS, FORMATS, EXPORTS, TRAININGS)}
    named = tomllib.loads(text)["project"]["entry-points"]
    assert named and set(named) <= groups


KINDS: dict[str, Callable[[str, str, dict[str, Any]], None]] = {
    "python": run_python,
    "json": check_json,
    "toml": check_toml,
}


def run_page(page: str, servers: Servers | None = None) -> None:
    """Runs the blocks of a page in their order; names that Python defines are there in later blocks."""
    scope: dict[str, Any] = {"__name__": "page", **SCOPES.get(page, dict)()}
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [one.close() for one in scope.values() if isinstance(one, httpx.Client)])
        run_blocks(page, scope, servers)


def run_blocks(page: str, scope: dict[str, Any], servers: Servers | None) -> None:
    for language, text in BLOCKS[page]:
        if any(text.startswith(begin) for begin in SHOWN):
            continue
        if language in KINDS:
            KINDS[language](page, text, scope)
            continue
        assert language in ("", "bash"), f"{page}: a block of {language} is neither run nor listed"
        for line in find_lines(text):
            if page == "README.md" and line.startswith(("masklet edit", "masklet export", "masklet report")):
                lay_out_result(Path())
            if not is_not_run(line):
                run_line(line, servers)


SCOPES: dict[str, Callable[[], dict[str, Any]]] = {  # what a page's Python takes as given
    "README.md": lambda: {"my_detector": find_nothing},
    "docs/parts.md": lambda: {"my_detector": find_nothing, "array": np.zeros((2, 32, 32, 3), np.uint8)},
    "docs/exports.md": lambda: {"result": ResultWithoutPandas(**vars(VideoResult.load("result/clip/masklets.json")))},
}


class ResultWithoutPandas(VideoResult):
    """A result where pandas, which is no dependency, is not installed."""

    def to_dataframe(self) -> Any:
        return None


def find_nothing(frame: np.ndarray) -> Detections:
    """A detector of somebody."""
    return Detections.none(frame.shape[:2])


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Makes, once for each length of the clips, the folder that pages are given a copy of."""
    made: dict[int, Path] = {}

    def make(length: int) -> Path:
        if length not in made:
            folder = tmp_path_factory.mktemp(f"world{length}")
            write_world(folder, length)
            made[length] = folder
        return made[length]

    return make


@pytest.mark.parametrize("page", [page for page in PAGES if page not in REAL])
def test_every_block_runs(
    page: str, worlds: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    shutil.copytree(worlds(LENGTHS.get(page, 6)), folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    put_toys(monkeypatch)
    monkeypatch.setenv("MASKLET_TOKEN", "a-token-for-the-page")
    PREPARE.get(page, lambda folder: None)(folder)
    servers, interval = Servers(monkeypatch), sys.getswitchinterval()
    try:
        run_page(page, servers)
    finally:
        servers.stop()
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("page", REAL)
def test_first_pages_run_with_the_parts_that_ship(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_real_world(tmp_path)
    run_page(page)
    if page == "docs/first-video.md":
        assert {p.name for p in Path("out/clip").iterdir()} >= {"overlay.mp4", "masklets.json"}
        assert VideoResult.load("tidy.json").provenance.edits


def test_the_tables_name_what_is_there() -> None:
    lines = [
        line for blocks in BLOCKS.values() for kind, text in blocks if kind in ("", "bash") for line in find_lines(text)
    ]
    texts = [text for blocks in BLOCKS.values() for _, text in blocks]
    assert not [begin for begin in NOT_RUN if not any(line.startswith(begin) for line in lines)]
    assert not [begin for begin in SHOWN if not any(text.startswith(begin) for text in texts)]
    patterns = [*CHANGED, *NEEDS_WEIGHTS]
    assert not [
        pattern for pattern in patterns if not any(re.search(pattern, text, re.MULTILINE) for text in (*texts, *lines))
    ]
