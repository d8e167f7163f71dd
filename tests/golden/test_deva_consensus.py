"""DEVA's in-clip consensus against the official program's answers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from masklet.systems.deva.consensus import find_consensus, find_support_components, measure_support, resolve_overlaps

REPOSITORY = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("MASKLET_GOLDEN", REPOSITORY / "../shared/golden")) / "deva"
CASES = json.loads((GOLDEN / "consensus.json").read_text()) if (GOLDEN / "consensus.json").exists() else []


@pytest.fixture(scope="module")
def arrays():
    with np.load(GOLDEN / "consensus.npz") as file:
        return dict(file)


@pytest.fixture(params=CASES or [None], ids=lambda c: f"{c['case']:03d}-{c['name']}" if c else "none")
def case(request, arrays_or_none):
    if request.param is None:
        pytest.skip(f"no fixtures under {GOLDEN}: set MASKLET_GOLDEN")
    told = request.param
    held = {k: arrays_or_none[f"{told['case']:03d}_{k}"] for k in ("masks", "label", "iou")}
    bits = np.unpackbits(held["masks"], axis=1, count=told["H"] * told["W"]) if told["P"] else np.zeros((0, 1))
    masks = torch.from_numpy(bits.reshape(told["P"], told["H"], told["W"]).astype(bool))
    return told, masks, held


@pytest.fixture(scope="module")
def arrays_or_none(request):
    return request.getfixturevalue("arrays") if CASES else None


def label_map(selected, masks):
    rows = resolve_overlaps(masks[list(selected)])
    values = torch.tensor([p + 1 for p in selected], dtype=torch.int64)
    return (rows * values[:, None, None]).sum(0).numpy()


def test_support(case):
    told, masks, held = case
    iou = measure_support(masks, told["frame"], told["isthing"])
    np.testing.assert_allclose(iou, held["iou"], atol=1e-6)
    assert ((iou > 0) == (held["iou"] > 0)).all()


def test_rendering_of_the_selection_that_was_made(case):
    told, masks, held = case
    assert (label_map(told["selected"], masks) == held["label"]).all()


def test_selection(case):
    told, masks, held = case
    got = find_consensus(masks, told["frame"], told["isthing"])
    assert 2 * got.objective == pytest.approx(told["objective"], abs=1e-4)
    if told["unique_optimum"]:
        assert got.selected == tuple(told["selected"])
        assert [list(m) for m in got.members] == told["members"]
        assert (label_map(got.selected, masks) == held["label"]).all()


def test_tied_components(case):
    told, masks, _ = case
    selected = set(find_consensus(masks, told["frame"], told["isthing"]).selected)
    linked = measure_support(masks, told["frame"], told["isthing"]) > 0
    parts = [set(c) for c in find_support_components(linked, range(len(masks)))]
    for choices in told["optimal_choices_per_component"]:
        part = next(c for c in parts if set(choices[0]) <= c)
        assert sorted(selected & part) in [sorted(c) for c in choices]
