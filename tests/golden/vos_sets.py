"""Fixtures of video object segmentation: a folder of masks in an archive, and what the official program says."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

GOLDEN = Path(os.environ.get("MASKLET_GOLDEN", Path(__file__).parents[2] / "../shared/golden")) / "metrics"
EXACT = 1e-9


def sets(kind):
    """The folders of a kind of fixture; None alone where there are none."""
    return sorted(p.parent for p in GOLDEN.glob(f"{kind}/set*/expected.json")) or [None]


def unpacked(folder, tmp_path_factory):
    """A set's data, in a folder of its own, and what is expected."""
    if folder is None:
        pytest.skip(f"no such fixtures under {GOLDEN}: set MASKLET_GOLDEN")
    data = tmp_path_factory.mktemp(folder.name)
    with tarfile.open(folder / "data.tar.gz") as archive:
        archive.extractall(data, filter="data")
    return data, json.loads((folder / "expected.json").read_text())


def same(got, wanted, where):
    """Whether two numbers agree, undefined ones too."""
    assert (got is None) == (wanted is None), f"{where}: {got}, not {wanted}"
    assert got is None or abs(got - wanted) <= EXACT, f"{where}: {got}, not {wanted}"
