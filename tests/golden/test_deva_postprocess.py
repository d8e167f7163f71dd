"""DEVA's post-processing against the official program's answers: DAVIS's object limit, VIPSeg's stuff."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from masklet.io.formats.postprocess import FrameSegment, limit_as_released, merge_stuff, replace_label_ids

REPOSITORY = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("MASKLET_GOLDEN", REPOSITORY / "../shared/golden")) / "deva"
FILES = [GOLDEN / "postprocess.json", GOLDEN / "postprocess.npz"]
THERE = all(f.exists() for f in FILES)
CASES = json.loads(FILES[0].read_text()) if THERE else {}


@pytest.fixture(scope="module")
def arrays():
    if not THERE:
        pytest.skip(f"no postprocess fixtures under {GOLDEN}: set MASKLET_GOLDEN")
    with np.load(FILES[1]) as file:
        return dict(file)


@pytest.mark.parametrize("told", CASES.get("limit") or [None], ids=lambda c: f"limit{c['case']}" if c else "none")
def test_the_released_limit(told, arrays):
    if told is None:
        pytest.skip(f"no limit cases under {GOLDEN}")
    before, after = (arrays[f"limit{told['case']}_{end}"] for end in ("in", "out"))
    ids = limit_as_released(before, told["max_num_objects"])
    assert all(np.array_equal(replace_label_ids(b, ids), a) for b, a in zip(before, after, strict=True))


@pytest.mark.parametrize("told", CASES.get("stuff") or [None], ids=lambda c: f"stuff{c['case']}" if c else "none")
def test_merging_stuff(told, arrays):
    if told is None:
        pytest.skip(f"no stuff cases under {GOLDEN}")
    before, after = (arrays[f"stuff{told['case']}_{end}"] for end in ("in", "out"))
    listed = [
        [
            FrameSegment(s["id"], s["category_id"], told["isthing"][str(s["category_id"])])
            for s in frame["segments_info"]
        ]
        for frame in told["input"]["annotations"]
    ]
    ours = list(merge_stuff(zip(before, listed, strict=True)))
    renamed = {pair for (page, _), a in zip(ours, after, strict=True) for pair in same_pixels(page, a)}
    assert one_to_one(renamed)
    names = dict(renamed)
    for (_, segments), wanted in zip(ours, told["output"]["annotations"], strict=True):
        got = sorted((names[s.id], s.category, int(s.is_thing)) for s in segments)
        assert got == sorted((s["id"], s["category_id"], s["isthing"]) for s in wanted["segments_info"])
    kept = {v for page in before for v in np.unique(page).tolist()}
    assert {t for t in names.values() if t in kept} == {
        o for o, t in names.items() if t in kept
    }  # theirs own: ours too


def same_pixels(page, other):
    return {(int(a), int(b)) for a, b in zip(page.ravel(), other.ravel(), strict=True)}


def one_to_one(pairs):
    return len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
