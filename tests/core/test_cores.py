"""How many cores a process may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from masklet.core.cores import count_usable_cores, read_quota


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "broken"}, None),
        ({"cpu.max": "100 0"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container(files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert read_quota(tmp_path) == quota


@pytest.mark.parametrize(("told", "cores"), [("50000 100000", 1), ("100000 100000", 1), ("9900000 100000", None)])
def test_cores_are_those_that_are_paid_for_and_may_be_run_on(told: str, cores: int | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(told)
    assert count_usable_cores(tmp_path) == (cores or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(("told", "wanted"), [({}, "1"), ({"OMP_NUM_THREADS": "3"}, "3")])
def test_torch_gets_the_cores_of_the_process_unless_the_user_said_otherwise(told: dict[str, str], wanted: str) -> None:
    """Said before torch is loaded, which reads it once."""
    code = "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import masklet; "
    code += "print(os.environ['OMP_NUM_THREADS'], os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    env = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")} | told
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert got.stdout.split() == [wanted, "PASSIVE", "False"]
