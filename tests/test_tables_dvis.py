"""DVIS's tables in small: what is done to many clips at once is what is done to each, and the rows run."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import tables_dvis as bench
from tables_dvis_clips import MOST, SegmentedClips, follow_queries
from tables_dvis_scores import (
    bootstrap_change,
    compute_ap,
    compute_resampled_ap,
    measure_clip,
    rank_matches,
)
from tables_dvis_training import (
    classify_clips,
    disturb_queries,
    draw_clips,
    find_objects,
    follow_clips,
    guide_by_segmenter,
    look_at_what_is_alike,
    pair_queries,
    refine_clips,
)

from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner
from masklet.train.assignment import ClipTargets, match_first_appearance
from masklet.train.losses import LossSettings

DOCS = Path(__file__).parents[1] / "docs"
AT = {"classes": 3, "width": 16, "heads": 2, "hidden": 32, "layers": 2, "mask_width": 16}


def clips(count: int = 3, frames: int = 6, slots: int = 5) -> SegmentedClips:
    """Random answers of a segmenter, and objects that begin in different frames; the last one of every clip is none."""
    draw = torch.Generator().manual_seed(0)
    queries = torch.randn(count, 1, slots, 16, generator=draw) + torch.randn(count, frames, slots, 16, generator=draw)
    truth = (torch.rand(count, MOST, frames, 4, 6, generator=draw) > 0.5).half()
    truth[:, 0, 3:], truth[:, 1, :2], truth[:, 2] = 0, 0, 0
    real = torch.tensor([True, True, False]).expand(count, -1)
    return SegmentedClips(
        queries,
        torch.randn(count, frames, slots, 4, generator=draw),
        torch.randn(count, frames, 16, 4, 6, generator=draw).half(),
        torch.randn(count, frames, slots, 4, 6, generator=draw).half(),
        torch.stack([follow_queries(one) for one in queries]),
        truth,
        torch.randint(3, (count, MOST), generator=draw),
        real,
        truth.flatten(3).any(3),
        torch.zeros(count, MOST),
        truth[:, :, :0],
    )


def test_a_window_is_matched_as_if_the_clip_began_there() -> None:
    seen = clips().window(2, 5)
    assert seen.queries.shape[1] == seen.truth.shape[2] == 3
    assert torch.equal(seen.orders, torch.stack([follow_queries(one) for one in seen.queries]))


def test_backward_the_same_pairs_are_matched() -> None:
    there, back = clips().window(1, 4), clips().window(1, 4).reversed()
    assert torch.equal(back.orders, torch.stack([follow_queries(one) for one in back.queries]))
    again = back.reversed()
    for name in ("queries", "orders", "truth", "masks"):
        assert torch.equal(getattr(again, name), getattr(there, name))


@torch.no_grad()
@pytest.mark.parametrize(
    ("initial", "attention"),
    [
        ("matched", "referring"),
        ("unmatched", "referring"),
        ("previous", "referring"),
        ("zero", "referring"),
        ("matched", "standard"),
    ],
)
def test_many_clips_at_once_are_each_clip_alone(initial: str, attention: str) -> None:
    net = ReferringTracker(TrackerSettings(**AT, initial=initial, attention=attention)).eval()
    seen = clips()
    together = follow_clips(net, seen)
    for n, queries in enumerate(seen.queries):
        torch.testing.assert_close(together[:, n], net(queries)[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_many_refined_clips_are_each_clip_alone() -> None:
    net = TemporalRefiner(RefinerSettings(**AT)).eval()
    tracks, context = clips().queries, clips().queries.flip(1)
    together = [*refine_clips(net, tracks, context)]
    for n in range(len(tracks)):
        queries, logits = net.refine(tracks[n], context[n])
        torch.testing.assert_close(together[-1][n], queries, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(classify_clips(net, together[-1])[n], logits, atol=1e-4, rtol=1e-4)


def test_guided_pairs_are_those_of_the_real_training() -> None:
    """With points in the middle of every cell the point costs are costs over all cells."""
    seen = clips()
    guided, (first, there) = guide_by_segmenter(seen), find_objects(seen)
    assert first[:, :2].tolist() == [[0, 2]] * 3 and there.tolist() == [[True, True, False]] * 3
    y, x = torch.meshgrid((torch.arange(4) + 0.5) / 4, (torch.arange(6) + 0.5) / 6, indexing="ij")
    points = torch.stack([x, y], -1).view(1, 24, 2)
    for n in range(3):
        logits, masks = (
            torch.stack([frame[order] for frame, order in zip(held, seen.orders[n], strict=True)])
            for held in (seen.logits[n], seen.masks[n].float())
        )
        truth = seen.truth[n, :2].float()
        targets = ClipTargets(truth, seen.visible[n, :2], seen.labels[n, :2])
        found = match_first_appearance(logits, masks, targets, lambda *shape: points, LossSettings(points=24))
        assert dict(zip(found.objects.tolist(), found.queries.tolist(), strict=True)) == dict(
            enumerate(guided[n, :2].tolist())
        )


def test_a_query_is_given_once_though_another_object_comes_later() -> None:
    costs = torch.tensor([[[0.0, 0.1], [1.0, 2.0]]])  # both want query 0
    both = torch.tensor([[True, True]])
    assert pair_queries(costs, torch.tensor([[0, 3]]), both).tolist() == [[0, 1]]
    assert pair_queries(costs, torch.tensor([[3, 0]]), both).tolist() == [[1, 0]]


def test_the_truth_s_order_finds_the_slots_that_lie_on_the_objects() -> None:
    seen = clips(1)[0]
    masks = torch.full((6, 5, 4, 6), -1.0)
    for t in range(6):
        for g in range(2):
            masks[t, (t + g) % 5] = torch.where(seen.truth[g, t] > 0.5, 1.0, -1.0)
    orders = bench.follow_by_truth(replace(seen, masks=masks, logits=torch.zeros(6, 5, 4)))
    assert orders[2:3, :2].tolist() == [[2, 3]]  # the one frame in which both are seen
    assert (orders.sort(1)[0] == torch.arange(5)).all()


def test_a_step_sees_the_same_cells_of_masks_and_pixels() -> None:
    seen = clips()
    cells = seen.truth.flatten(-2).half().argsort(-1)  # tell the cells of one frame apart
    marked = replace(seen, masks=cells[:, :1].transpose(1, 2).expand(-1, 6, 5, -1).unflatten(-1, (4, 6)))
    few = draw_clips(replace(marked, pixels=marked.masks[:, :, :1]), np.random.default_rng(0), 2, 3, cells=7)
    assert few.truth.shape == (2, MOST, 3, 1, 7) and few.pixels.shape == (2, 3, 1, 1, 7)
    assert torch.equal(few.masks[:, :, :1].float(), few.pixels)
    assert few.visible.shape == (2, MOST, 3)  # of all cells
    assert draw_clips(seen, np.random.default_rng(0), 2, 3).truth.shape == (2, MOST, 3, 4, 6)


def test_a_new_tracker_finds_what_is_like_its_last_output() -> None:
    """Initial values of zero and the queries of another order: the tracks are still where they were."""
    torch.manual_seed(0)
    net = ReferringTracker(TrackerSettings(**(AT | {"width": 64, "initial": "zero"}))).eval()
    cross, queries = net.transformer_cross_attention_layers[0], torch.randn(1, 5, 64)
    turned = queries[:, [3, 1, 4, 0, 2]]

    @torch.no_grad()
    def count_found() -> int:
        found = cross(torch.zeros_like(queries), queries, turned)
        return int((torch.cdist(found, queries).argmin(2) == torch.arange(5)).sum())

    before = count_found()
    look_at_what_is_alike(net)
    assert before < 5 and count_found() == 5


def test_noise_shuffles_a_share_of_the_clips() -> None:
    torch.manual_seed(0)
    queries = torch.arange(2000.0).view(200, 5, 2)
    noisy = disturb_queries(queries, 0.5)
    assert torch.equal(noisy.sort(1)[0], queries.sort(1)[0])
    assert 60 < sum(torch.equal(*pair) for pair in zip(noisy, queries, strict=True)) < 140
    assert torch.equal(disturb_queries(queries, 0.0), queries)


def scores(seed: int, better: float = 0.0) -> list:
    """Answers of 8 clips of two objects, the better the more like the truth."""
    draw, made = torch.Generator().manual_seed(seed), []
    for n in range(8):
        truth = torch.zeros(2, 3, 64, 96, dtype=torch.bool)
        truth[0, :, :32], truth[1, :, 32:] = True, True
        masks = torch.where(truth[:, :, ::4, ::4], 4.0, -4.0).transpose(0, 1)
        masks = masks + (6 - better) * torch.randn(3, 2, 16, 24, generator=draw)
        logits = torch.tensor([[3.0, 0, 0, 0], [0, 3.0, 0, 0]]) + torch.randn(2, 4, generator=draw)
        made.append(measure_clip(logits, masks, (64, 96), truth, torch.tensor([n % 2, 1]), torch.tensor([0.1, 0.6])))
    return made


def test_drawn_clips_have_the_ap_of_a_list_with_repeats() -> None:
    found = scores(0)
    ranked = [rank_matches(found, k) for k in range(3)]
    assert compute_resampled_ap(ranked, np.ones(8, int)) == pytest.approx(compute_ap(found)["all"][0])
    counts = np.array([2, 0, 1, 0, 0, 3, 1, 1])
    repeated = [one for one, times in zip(found, counts, strict=True) for _ in range(times)]
    assert compute_resampled_ap(ranked, counts) == pytest.approx(compute_ap(repeated)["all"][0])


def test_the_interval_of_a_change() -> None:
    assert bootstrap_change([scores(0)], [scores(0)], 0, 20) == (0, 0)
    low, high = bootstrap_change([scores(0, 5), scores(1, 5)], [scores(0), scores(1)], 0, 50)
    assert 0 < low < high


def test_each_level_of_occlusion_has_the_ap_of_its_own_objects() -> None:
    """The object that the scores call heavily hidden is the lower one; here it alone is never found."""
    truth = torch.zeros(2, 3, 64, 96, dtype=torch.bool)
    truth[0, :, :32], truth[1, :, 32:] = True, True
    masks = torch.where(truth[:, :, ::4, ::4], 4.0, -4.0).transpose(0, 1).clone()
    masks[:, 1] = -4.0
    logits = torch.tensor([[3.0, 0, 0, 0], [0, 3.0, 0, 0]])
    found = [measure_clip(logits, masks, (64, 96), truth, torch.tensor([0, 1]), torch.tensor([0.1, 0.6]))]
    levels = {name: ap for name, (ap, _) in compute_ap(found).items()}
    assert levels["light"] == pytest.approx(100) and levels["heavy"] == 0
    for n, name in enumerate(("all", "light", "medium", "heavy")):
        drawn = compute_resampled_ap([rank_matches(found, k, n) for k in range(3)], np.ones(1, int))
        assert drawn == pytest.approx(levels[name])


def test_rows_run_from_clips_to_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    tiny = replace(bench.EXTENTS["small"], clips=2, length=5, videos=3, frames=3, steps=2, batch=2)
    monkeypatch.setitem(bench.EXTENTS, "small", tiny)
    for name in ("no long", "window 1"):
        row = bench.ROWS[name]
        monkeypatch.setitem(bench.ROWS, name, replace(row, refiner=replace(row.refiner, frames=3)))
    rows = "minvis,oracle,bank,noisy,standard,no long,window 1"
    run = ["run", "--rows", rows, "--seeds", "0"]
    none = [*run, "--minutes", "0"]
    for what in (["clips"], none, run, ["compare", "--times", "3"], run, ["page"]):
        monkeypatch.setattr(sys, "argv", ["tables_dvis.py", *what, "--out", str(tmp_path)])
        assert bench.main() == 0
    told = json.loads((tmp_path / "tables_dvis.json").read_text())
    assert list(told) == [*rows.split(","), "changes"]
    assert set(told["minvis"]["0"]) >= {"AP", "light", "heavy", "heavy 50", "switches"}
    assert set(told["changes"]["standard, noisy"]) == {"AP", "heavy"}
    page = capsys.readouterr().out
    assert page.count("noisy 0 {") == 1  # the second run finds all done
    assert "| standard cross-attention | 2.9 | 1 |" in page and "CTVIS" in page and "Table 8" in page


def test_the_page_is_what_the_json_says() -> None:
    told = json.loads((DOCS / "tables_dvis.json").read_text())
    tables, page = bench.make_page(told[bench.WORLD_NAME]), (DOCS / "tables.md").read_text()
    assert tables
    for table in tables:
        assert table in page


def test_the_documentation_s_tables_are_replaced(tmp_path: Path, capsys) -> None:
    runs = {"AP": 1.0, "AP50": 2.0, "light": 3.0, "medium": 4.0, "heavy": 5.0, "heavy 50": 6.0, "switches": 7.0}
    done = {name: {"0": runs} for name in ("noisy", "zero", "frames 3")}
    (tmp_path / "tables_dvis.json").write_text(json.dumps({"before": 1, bench.WORLD_NAME: {}}))
    old = "above\n\n| Table 6: initial value | old |\n|---|---|\n| old | 9 |\n\nbelow | old\n"
    (tmp_path / "tables.md").write_text(old)
    bench.update_docs(tmp_path, done)
    page = (tmp_path / "tables.md").read_text()
    assert page.startswith("above\n\n| Table 6: initial value | paper |") and page.endswith(" |\n\nbelow | old\n")
    assert "| 9 |" not in page and "| 30.5 | 1 | 1.00 | 2.00 | 3.00 |" in page
    assert json.loads((tmp_path / "tables_dvis.json").read_text()) == {"before": 1, bench.WORLD_NAME: done}
    assert "no table begins with | Table I: clips in training" in capsys.readouterr().out
