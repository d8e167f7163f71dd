"""DEVA's merging, deletion and votes against the official program, with shifting in place of its network."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from masklet.systems.deva.consensus import DetectedSegment, MergeRules, find_consensus, merge_detections

REPOSITORY = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("MASKLET_GOLDEN", REPOSITORY / "../shared/golden")) / "deva"
SEQUENCES = json.loads((GOLDEN / "merging.json").read_text()) if (GOLDEN / "merging.json").exists() else []


@pytest.fixture(params=SEQUENCES or [None], ids=lambda s: f"{s['sequence']:02d}-{s['name']}" if s else "none")
def told(request):
    if request.param is None:
        pytest.skip(f"no fixtures under {GOLDEN}: set MASKLET_GOLDEN")
    return request.param


@pytest.fixture
def arrays(told):
    with np.load(GOLDEN / "merging.npz") as file:
        prefix = f"{told['sequence']:02d}_"
        return {k.removeprefix(prefix): file[k] for k in file.files if k.startswith(prefix)}


def released(told) -> MergeRules:
    limit = told["max_num_objects"]
    count = "invisible" if told["incremental"] else "unmatched"
    return MergeRules(
        told["max_missed_detection_count"], "beyond", limit if limit > 0 else None, "all", count, empty_born=True
    )


class Canvas:
    """Maps padded to a multiple of 16."""

    def __init__(self, h: int, w: int) -> None:
        self.h, self.w = h, w
        self.top, self.left = -h % 16 // 2, -w % 16 // 2
        self.size = (h + -h % 16, w + -w % 16)

    def pad(self, mask: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(self.size, dtype=mask.dtype)
        out[self.top : self.top + self.h, self.left : self.left + self.w] = mask
        return out

    def crop(self, mask: torch.Tensor) -> torch.Tensor:
        return mask[self.top : self.top + self.h, self.left : self.left + self.w]


def shifted(mask: torch.Tensor, dy: int, dx: int) -> torch.Tensor:
    """What lies at (y, x) comes to (y + dy, x + dx); zeros come in."""
    h, w = mask.shape
    out = torch.zeros_like(mask)
    out[max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)] = mask[
        max(-dy, 0) : h + min(-dy, 0), max(-dx, 0) : w + min(-dx, 0)
    ]
    return out


def offset(told, a: int, b: int) -> tuple[int, int]:
    (ya, xa), (yb, xb) = told["offsets"][a], told["offsets"][b]
    return yb - ya, xb - xa


def segment(mask, categories, scores, thing) -> DetectedSegment:
    labels = tuple(c for c in categories if c is not None)
    return DetectedSegment(mask, labels, tuple(s for s in scores if s is not None), thing)


def detections(told, arrays, canvas: Canvas, step) -> list[DetectedSegment]:
    """What the official program merged in this step."""
    t = step["t"]
    if step["consensus"] is None:
        labels = canvas.pad(torch.from_numpy(arrays["det"][t].astype(np.int64)))
        return [segment(labels == d["id"], [d["category"]], [d["score"]], d["isthing"]) for d in told["detections"][t]]
    labels = canvas.pad(torch.from_numpy(arrays[f"consensus_{t:02d}"].astype(np.int64)))
    segments = step["consensus"]["segments"]
    return [segment(labels == s["id"], s["categories"], s["scores"], s["isthing"]) for s in segments]


def test_every_step(told, arrays):
    canvas = Canvas(told["H"], told["W"])
    rules, tracks, masks, born, last = released(told), {}, {}, 0, 0
    theirs: dict[int, int] = {}  # our id: theirs
    outputs = dict(zip(told["output_frames"], arrays["ids"], strict=True))
    for step in told["steps"]:
        t = step["t"]
        own = {i: shifted(m, *offset(told, last, t)) for i, m in masks.items()}
        last = t
        if step["kind"] == "detect":
            done = merge_detections(tracks, own, detections(told, arrays, canvas, step), canvas.size, born, rules)
            born += len(done.new)
            theirs.update(zip(done.new, step["new"], strict=True))
            assert [theirs[i] for i in done.deleted] == step["deleted"]
            tracks, masks = done.tracks, done.masks
        else:
            masks = own
        check_objects(tracks, theirs, step["objects"])
        if t in outputs:
            got = sum((theirs[i] * canvas.crop(m).long() for i, m in masks.items()), torch.zeros(told["H"], told["W"]))
            np.testing.assert_array_equal(got.numpy(), outputs[t], err_msg=f"frame {t}")


def check_objects(tracks, theirs, wanted) -> None:
    assert [theirs[i] for i in tracks] == [o["id"] for o in wanted]
    for track, o in zip(tracks.values(), wanted, strict=True):
        categories = [c for c in o["categories"] if c is not None]
        assert track.votes == {c: categories.count(c) for c in set(categories)}
        assert track.thing is o["isthing"]
        assert track.missed == o["missed"]
        assert track.label == (-1 if o["voted_category"] is None else o["voted_category"])
        assert track.score == pytest.approx(o["voted_score"] or 0.0, abs=1e-9)
        assert track.score_count == len([s for s in o["scores"] if s is not None])


def test_clips_agree_as_they_did(told, arrays):
    """The aligned clips, through our own consensus: as many objects, with as much support."""
    for step in told["steps"]:
        if step["consensus"] is None:
            continue
        masks, frames, things = clip(told, arrays, step["consensus"]["frames"])
        got = find_consensus(masks, frames, things)
        segments = step["consensus"]["segments"]
        supporters = sorted(len(s["scores"]) for s in segments)
        assert len(got.selected) == len(segments)
        if told["n"] <= 3:  # in longer clips two equally good selections may differ in supporters
            assert sorted(len(m) for m in got.members) == supporters


def clip(told, arrays, frames) -> tuple[torch.Tensor, list[int], list[bool | None]]:
    canvas = Canvas(told["H"], told["W"])
    rows = []
    for s in frames:
        labels = canvas.pad(torch.from_numpy(arrays["det"][s].astype(np.int64)))
        for d in told["detections"][s]:
            moved = shifted((labels == d["id"]).long(), *offset(told, s, frames[0])) > 0
            rows.append((canvas.crop(moved), s, d["isthing"]))
    masks = torch.stack([m for m, *_ in rows]) if rows else torch.zeros(0, told["H"], told["W"], dtype=torch.bool)
    return masks, [s for _, s, _ in rows], [thing for *_, thing in rows]
