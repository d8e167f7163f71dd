"""J and F against the numbers of the program davis2017-evaluation (semi-supervised)."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from masklet.evaluate.vos import VOID, Summary, boundary_f, jaccard, semi_supervised

REPOSITORY = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("MASKLET_GOLDEN", REPOSITORY / "../shared/golden"))
SETS = sorted(GOLDEN.glob("metrics/davis/set*"))
LONG = 257  # from here on the official program's decay is an overflow


def label_maps(archive, folder):
    names = sorted(n for n in archive.getnames() if n.startswith(f"{folder}/") and n.endswith(".png"))
    return [np.array(Image.open(archive.extractfile(n))) for n in names]


@pytest.fixture(scope="module", params=SETS or [None], ids=lambda p: p.name if p else "none")
def golden(request):
    if request.param is None:
        pytest.skip(f"no fixtures under {GOLDEN}/metrics/davis: set MASKLET_GOLDEN")
    expected = json.loads((request.param / "expected.json").read_text())["semi-supervised"]
    with tarfile.open(request.param / "data.tar.gz") as archive:
        truth = {s: label_maps(archive, f"Annotations/480p/{s}") for s in expected["per_frame"]}
        found = {s: label_maps(archive, f"pred_semisupervised/{s}") for s in expected["per_frame"]}
    return expected, {s: scored(found[s], truth[s]) for s in truth}


def scored(found, truth):
    """J and F by object and frame: every id up to the highest in the first frame."""
    frames = semi_supervised(range(len(truth)))
    ids = range(1, int(truth[0][truth[0] != VOID].max()) + 1)
    pairs = {i: [(found[t] == i, truth[t] == i) for t in frames] for i in ids}
    return {i: {"J": [jaccard(*p) for p in ps], "F": [boundary_f(*p) for p in ps]} for i, ps in pairs.items()}


def test_every_object_and_frame(golden):
    expected, ours = golden
    for name, wanted in expected["per_frame"].items():
        for measure in ("J", "F"):
            got = [scores[measure] for scores in ours[name].values()]
            np.testing.assert_allclose(got, wanted[measure], rtol=0, atol=1e-11, err_msg=f"{name} {measure}")


def test_statistics_of_every_object(golden):
    expected, ours = golden
    summaries = {
        f"{s}_{i}": {m: Summary.of(v) for m, v in scores.items()} | {"frames": len(scores["J"])}
        for s, objects in ours.items()
        for i, scores in objects.items()
    }
    assert summaries.keys() == expected["per_object"].keys()
    for name, wanted in expected["per_object"].items():
        for measure in ("J", "F"):
            got = summaries[name][measure]
            assert got.mean == pytest.approx(wanted[f"{measure}-Mean"], abs=1e-9)
            assert got.recall == pytest.approx(wanted[f"{measure}-Recall"], abs=1e-9)
            if summaries[name]["frames"] < LONG:
                assert got.decay == pytest.approx(wanted[f"{measure}-Decay"], abs=1e-9)


def test_means_over_objects(golden):
    expected, ours = golden
    objects = [scores for sequence in ours.values() for scores in sequence.values()]
    means = {m: np.mean([Summary.of(o[m]).mean for o in objects]) for m in ("J", "F")}
    assert means["J"] == pytest.approx(expected["global"]["J-Mean"], abs=1e-9)
    assert means["F"] == pytest.approx(expected["global"]["F-Mean"], abs=1e-9)
    assert (means["J"] + means["F"]) / 2 == pytest.approx(expected["global"]["J&F-Mean"], abs=1e-9)
