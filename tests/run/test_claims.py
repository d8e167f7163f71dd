"""Claims: whose they are, when they are dead, and that nobody removes another's."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from masklet.core.scratch import get_process_start, is_process_alive
from masklet.run.claims import (
    Claim,
    ClaimedError,
    describe_this_process,
    get_claim_path,
    is_claim_alive,
    release_claims,
    release_dead_claims,
    remove_claim,
)


def write_claim(out: Path, name: str, **told: object) -> Path:
    path = get_claim_path(out, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**describe_this_process(), **told}))
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
def test_a_process_that_has_ended_is_dead_before_its_parent_asks() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it has ended, and is still listed
    assert Path(f"/proc/{child}").exists() and not is_process_alive(child)
    os.waitpid(child, 0)
    assert not is_process_alive(child) and is_process_alive(os.getppid())


def test_a_number_that_another_process_has_by_now_is_no_sign_of_life(tmp_path: Path) -> None:
    parent = os.getppid()
    path = write_claim(tmp_path, "a", process=parent, started=get_process_start(parent))
    assert is_claim_alive(path, json.loads(path.read_text()))
    with pytest.raises(ClaimedError, match=f"process {parent}"), Claim(tmp_path, "a"):
        pass
    path = write_claim(tmp_path, "a", process=parent, started="1")
    assert not is_claim_alive(path, json.loads(path.read_text()))
    with Claim(tmp_path, "a"):
        pass
    assert not path.exists()


def test_a_disk_without_links_has_claims_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a USB stick, or a share of Windows."""

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with Claim(tmp_path, "a"):
        [path] = get_claim_path(tmp_path, "a").parent.iterdir()
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert not path.exists()
    write_claim(tmp_path, "a", process=os.getppid(), started=get_process_start(os.getppid()))
    with pytest.raises(ClaimedError), Claim(tmp_path, "a"):
        pass


def test_nobody_removes_a_claim_that_is_another_one_by_now(tmp_path: Path) -> None:
    path = write_claim(tmp_path, "a", host="elsewhere", since=1)
    old = json.loads(path.read_text())
    write_claim(tmp_path, "a", host="elsewhere", since=2)
    remove_claim(path, old)
    assert json.loads(path.read_text())["since"] == 2
    path.unlink()
    with Claim(tmp_path, "a"):
        write_claim(tmp_path, "a", host="elsewhere")  # which took this process for dead
    assert json.loads(path.read_text())["host"] == "elsewhere"


def test_what_the_dead_have_left_is_released_and_nothing_else(tmp_path: Path) -> None:
    gone = {"process": 2**22 + 1, "started": "1"}  # above any number of a process
    alive, dead = write_claim(tmp_path, "alive", host="elsewhere"), write_claim(tmp_path, "dead", **gone)
    host = describe_this_process()["host"]
    draft = dead.parent / f".draft-{host}-{2**22 + 1}-7"
    draft.touch()
    release_dead_claims(tmp_path)
    assert alive.exists() and not dead.exists() and not draft.exists()
    release_claims(tmp_path, "elsewhere", os.getpid() + 1)
    assert alive.exists()
    release_claims(tmp_path, "elsewhere", os.getpid())
    assert not alive.exists()
