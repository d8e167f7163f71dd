"""VPQ and STQ against the numbers of VIPSeg's and DEVA's programs."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from masklet.evaluate.panoptic.files import count_vipseg_split
from masklet.evaluate.panoptic.metrics import SCRIPT, evaluate_stq, evaluate_vipseg, evaluate_vpq
from masklet.evaluate.panoptic.quality import WHOLE

REPOSITORY = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("MASKLET_GOLDEN", REPOSITORY / "../shared/golden"))
SETS = sorted(GOLDEN.glob("metrics/vps/*/expected.json"))
RATES = ("pq", "sq", "rq")


@pytest.fixture(scope="module", params=SETS or [None], ids=lambda p: p.parent.name if p else "none")
def golden(request, tmp_path_factory):
    if request.param is None:
        pytest.skip(f"no fixtures under {GOLDEN}/metrics/vps: set MASKLET_GOLDEN")
    folder = tmp_path_factory.mktemp("vps")
    with tarfile.open(request.param.parent / "data.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return json.loads(request.param.read_text()), folder, count_vipseg_split(folder, folder / "pred")


def windows(expected):
    return {k: WHOLE if k in ("inf", "999") else int(k) for k in expected}


def groups(result):
    return {"all": None, "things": result.split.things, "stuff": ~result.split.things}


def test_every_category_and_window(golden):
    expected, _, result = golden
    for k, frames in windows(expected["vpq"]).items():
        counts = result.total.deva[frames]
        assert set(expected["vpq"][k]["per_class"]) == {str(id) for id in result.split.categories}
        for id, wanted in expected["vpq"][k]["per_class"].items():
            n = result.split.categories[int(id)]
            assert (counts.tp[n], counts.fp[n], counts.fn[n]) == (wanted["tp"], wanted["fp"], wanted["fn"])
            got = {"iou": counts.iou[n]} | {rate: getattr(counts, rate)[n] for rate in RATES}
            assert got == pytest.approx({name: wanted[name] for name in got}, abs=1e-9)


@pytest.mark.parametrize("key, treatment", [("vpq", "deva"), ("vpq_vipseg_original", "vipseg")])
def test_means_over_categories(golden, key, treatment):
    expected, _, result = golden
    for k, frames in windows(expected[key]).items():
        counts = getattr(result.total, treatment)[frames]
        for name, among in groups(result).items():
            wanted = expected[key][k][name]
            assert wanted["n"] == (counts.counted if among is None else counts.counted & among).sum()
            got = {rate: counts.mean(rate, among) for rate in RATES}
            assert got == pytest.approx({rate: wanted[rate] for rate in RATES}, abs=1e-9)


def test_means_over_windows(golden):
    expected, folder, _ = golden
    report = evaluate_vpq(folder, folder / "pred")
    for name in ("all", "things", "stuff"):
        row = report.scores if name == "all" else report.parts[name]
        original = report.parts["VIPSeg" if name == "all" else f"VIPSeg {name}"]
        assert row["VPQ mean of 7"] == pytest.approx(expected[f"vpq_bar_deva_{name}"], abs=1e-9)
        assert row["VPQ mean 1,2,4,6"] == pytest.approx(expected[f"vpq_mean_vipseg_1_2_4_6_{name}"], abs=1e-9)
        wanted = expected[f"vpq_mean_vipseg_original_1_2_4_6_8_{name}"]
        assert original["VPQ mean 1,2,4,6,8"] == pytest.approx(wanted, abs=1e-9)
        by_k = {WHOLE if k == "inf" else int(k): 100 * v[name]["pq"] for k, v in expected["vpq"].items()}
        short = sum(v for k, v in by_k.items() if k != WHOLE) / 6
        assert row["VPQ bar"] == pytest.approx((by_k[WHOLE] + short) / 2, abs=1e-9)
        assert set(SCRIPT) == set(windows(expected["vpq_vipseg_original"]).values())


def test_stq_of_the_set_and_of_every_video(golden):
    expected, folder, result = golden
    wanted, report = expected["stq"], evaluate_stq(folder, folder / "pred")
    names = {"STQ": "STQ", "AQ": "AQ", "SQ": "IoU"}
    assert report.scores == pytest.approx({ours: wanted[theirs] for ours, theirs in names.items()}, abs=1e-9)
    for ours, theirs in names.items():
        got = [row[ours] for row in report.videos.values()]
        assert got == pytest.approx(wanted[f"{theirs}_per_seq"], abs=1e-9)
    assert [len(frames) for frames in result.split.videos.values()] == wanted["Length_per_seq"]


def test_both_in_one_pass_are_the_same(golden):
    _, folder, _ = golden
    both, one, other = (measure(folder, folder / "pred") for measure in (evaluate_vipseg, evaluate_vpq, evaluate_stq))
    assert both.scores == {**one.scores, **other.scores}
    assert both.parts == {**one.parts, **other.parts}
    assert both.videos == {name: {**one.videos[name], **other.videos[name]} for name in one.videos}


def test_videos_of_a_split_add_up(golden):
    _, folder, result = golden
    names = list(result.videos)
    parts = [count_vipseg_split(folder, folder / "pred", videos=[name]).total for name in names]
    total = sum(parts[1:], start=parts[0])
    assert all((total.deva[k].tp == result.total.deva[k].tp).all() for k in total.deva)
    assert total.stq.stq == pytest.approx(result.total.stq.stq, abs=1e-12)
