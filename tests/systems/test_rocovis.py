"""RoCoVIS's system over a toy whose slots live through the video: scores, foreground, streams, two passes, bounds."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from reference import rocovis as slow
from slot_toys import SIZE, Clip, ToySlots, quiet
from torch import Tensor

from masklet.core import memory
from masklet.core.alignment import TrackedSlots
from masklet.core.errors import InputError
from masklet.core.features import count_tensor_bytes
from masklet.core.instances import FrameMasks
from masklet.core.protocols import LiveSystem, SlotModel, VideoSystem
from masklet.core.slots import FrameSlots
from masklet.systems.query.answers import ForegroundMaskResizer, MaskResizer
from masklet.systems.rocovis import (
    GradedInstanceOutput,
    RocovisSystemSettings,
    accumulate_class_logits,
    accumulate_max_probabilities,
    build_rocovis_system,
)


@dataclass
class Toy:
    """Slots whose queries remember two frames: what it says depends on all that it was told, and on its trust."""

    base: ToySlots = field(default_factory=lambda: ToySlots(width=6))
    encoded: list[int] = field(default_factory=list)
    predicted: int = 0

    @property
    def categories(self):
        return self.base.categories

    def encode(self, frames):
        self.encoded.append(len(frames))
        return [f.index for f in frames]

    def empty(self):
        return memory_of(torch.zeros(6, 6), torch.zeros(6, 6))

    def predict(self, memory, features):
        self.predicted += 1
        queries, logits, pixels, _ = self.base.one(features)
        pixels = pixels + memory.queries.mean(0)[:, None, None]
        queries = queries + 0.3 * memory.queries + 0.2 * memory.class_logits
        return FrameSlots(queries[None], logits[None], pixels[None], self.decode(queries, pixels)[None], inside())

    def trust(self, slots):
        return (slots.class_logits.softmax(-1)[..., -1] < 0.5).float()

    def commit(self, memory, features, slots, trust):
        return memory_of(slots.queries[0] * trust[0, :, None], memory.queries)

    def decode(self, queries, pixels):
        return torch.einsum("nc,chw->nhw", queries, pixels)


def memory_of(last: Tensor, before: Tensor) -> TrackedSlots:
    """Any dataclass of masklet's can be saved."""
    return TrackedSlots(last, before, torch.arange(len(last)))


def inside():
    return (SIZE[0] - 2, SIZE[1] - 4)


def told(result):
    """What a result says; scores to six digits."""
    return [(m.id, m.label, round(m.score, 6), m.is_thing, tuple(m.sightings.items())) for m in result.masklets]


def live(found):
    return [(f.index, f.ids, f.masks.tolist(), f.scores.tolist(), f.labels.tolist()) for f in found]


def run(model=None, clip=None, **settings):
    return build_rocovis_system(model or Toy(), RocovisSystemSettings(**settings)).run(
        Clip() if clip is None else clip, quiet
    )


def test_the_seams():
    system = build_rocovis_system(Toy())
    assert (
        isinstance(system.segmenter, SlotModel) and isinstance(system, LiveSystem) and isinstance(system, VideoSystem)
    )


# -- scores


def test_the_greatest_probability_counts():
    one, two = torch.tensor([[2.0, 0, 0]]).double(), torch.tensor([[0.0, 3, 4]]).double()
    got = accumulate_max_probabilities(accumulate_max_probabilities(None, one), two)
    assert torch.allclose(
        got, torch.tensor([[one.softmax(1)[0, 0], two.softmax(1)[0, 1], one.softmax(1)[0, 2]]]).double()
    )
    assert got[0, 1] > one.softmax(1)[0, 1]
    assert torch.equal(accumulate_class_logits(accumulate_class_logits(None, one), two), one + two)


@pytest.mark.parametrize("scores", ["max", "mean"])
def test_scores_over_a_video(scores):
    logits = torch.stack([Toy().base.one(t)[1] for t in range(7)])
    want = logits.softmax(-1).amax(0) if scores == "max" else logits.mean(0).softmax(-1)
    found = run(scores=scores, quality=False, foreground=False, top=24).masklets
    assert len(found) > 12
    for m in found:
        assert m.score == pytest.approx(float(want[(m.id - 1) % 6, m.label]), abs=1e-6)


def test_quality_is_the_mean_probability_inside_over_all_frames():
    plain = {m.id: m for m in run(quality=False, foreground=False).masklets}
    found = run(foreground=False).masklets
    assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)
    model, parts, mem = Toy(), [], Toy().empty()
    for t in range(7):
        slots = model.predict(mem, t)
        mem = model.commit(mem, t, slots, model.trust(slots))
        parts.append(MaskResizer(inside(), SIZE).cut(slots.mask_logits[0]).sigmoid())
    soft = torch.stack(parts)
    for m in found:
        own = soft[:, (m.id - 1) % 6]
        quality = own[own > 0.5].mean()
        assert m.score == pytest.approx(plain[m.id].score * float(quality), abs=1e-5)


def test_a_score_that_falls_below_the_least_is_dropped():
    least = sorted(m.score for m in run().masklets)[3]
    assert all(m.score >= least for m in run(min_score=least).masklets)


def test_a_mask_without_a_pixel_is_no_masklet():
    made = GradedInstanceOutput(torch.tensor([[0.9, 0.1, 0.0]]), RocovisSystemSettings())
    made.add(0, -torch.ones(1, 2, 2), MaskResizer((8, 8), (8, 8)))
    assert made.masklets() == ()


# -- foreground


@pytest.mark.parametrize("size", [(24, 32), (48, 61), (11, 9)])
def test_pixels_are_scaled_by_the_foreground_before_they_are_cut(size):
    logits = 3 * torch.randn(12, 6, 8, generator=torch.Generator().manual_seed(0))
    foreground = torch.linspace(0, 1, 12)
    got = ForegroundMaskResizer((24, 32), size, foreground).masks(logits)
    full = MaskResizer((24, 32), size).cut(logits)
    want = slow.inside(full, foreground, size)
    assert (got != want).float().mean() < 1e-4 and not got[:6].any() and got[6:].any()
    assert not ForegroundMaskResizer((24, 32), size, torch.full((12,), 0.5)).masks(torch.full_like(logits, 99.0)).any()


def test_soft_masks_and_quality_are_scaled():
    logits = 3 * torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    plain, scaled = MaskResizer((24, 32), SIZE), ForegroundMaskResizer((24, 32), SIZE, torch.tensor([1.0, 0.7, 0.4]))
    torch.testing.assert_close(scaled.soft(logits), plain.soft(logits) * scaled.foreground[:, None, None])
    sums, counts = scaled.certain(logits)
    soft = plain.cut(logits).sigmoid() * scaled.foreground[:, None, None]
    for n in range(3):
        own = soft[n][soft[n] > 0.5]
        assert float(sums[n]) == pytest.approx(float(own.sum()), rel=1e-5) and float(counts[n]) == len(own)


def test_a_slot_that_is_rather_no_object_in_a_frame_is_not_seen_there():
    model = Toy()
    gone = torch.tensor([0.0, 0, 0, 0, 9])
    base = model.base.one
    model.base.one = lambda t: (base(t)[0], torch.where(torch.tensor(t == 3), gone, base(t)[1]), *base(t)[2:])
    assert all(3 not in m.sightings for m in run(model).masklets)
    assert any(3 in m.sightings for m in run(model, foreground=False).masklets)


# -- two passes


@pytest.mark.parametrize("window", [1, 3, 20])
@pytest.mark.parametrize("task", ["instance", "panoptic", "semantic"])
def test_windows_and_budgets_do_not_change_the_answer(window, task):
    at = {"task": task, "conf": 0.2, "overlap": 0.1}
    kept, again = Clip(), Clip()
    want = told(run(clip=kept, **at))
    assert want and kept.reads == 0
    assert told(run(clip=again, window=window, feature_memory=0, feature_disk=0, **at)) == want
    assert again.reads == 7


@pytest.mark.parametrize(("in_memory", "on_disk", "reads"), [(2, 1, 4), (2, 0, 5), (0, 4, 3), (9, 0, 0)])
def test_what_was_not_kept_is_predicted_again_from_the_state_before_it(in_memory, on_disk, reads):
    model, clip, one = Toy(), Clip(), 6 * 6 * 8 * 4
    some = run(model, clip, feature_memory=in_memory * one, feature_disk=on_disk * one)
    assert told(some) == told(run()) and clip.reads == reads and model.predicted == 7 + reads


def test_the_backbone_sees_windows():
    model = Toy()
    run(model, window=3)
    assert model.encoded == [3, 3, 1]


def test_trust_is_told_to_the_memory():
    model = Toy()
    model.trust = lambda slots: torch.ones(1, 6)
    model.base.confidence = -3.0
    trusting, doubting = run(model, foreground=False), run(Toy(ToySlots(width=6, confidence=-3.0)), foreground=False)
    assert told(trusting) != told(doubting)


def test_a_video_without_a_frame_and_one_without_an_object():
    none = run(clip=Clip(0))
    assert none.masklets == () and none.length == 0 and "no object" in none.provenance.notes[0]
    blind = run(Toy(ToySlots(width=6, confidence=-9.0)))
    assert blind.masklets == () and "lower" in blind.provenance.notes[0]
    assert run(clip=Clip(damage="frame 8 is missing")).provenance.notes == ("frame 8 is missing",)


def test_where_it_comes_from():
    told = run().provenance
    assert told.system == "rocovis" and told.settings["scores"] == "mean"


def test_stuff_must_be_known():
    with pytest.raises(InputError, match="no category sky"):
        build_rocovis_system(Toy(), RocovisSystemSettings(stuff=("sky",)))


# -- live


@pytest.mark.parametrize("cut", [1, 3, 6])
@pytest.mark.parametrize("window", [1, 3])
def test_a_stream_cut_anywhere_goes_on_from_its_state(cut, window, tmp_path):
    system, frames = build_rocovis_system(Toy(), RocovisSystemSettings(window=window)), list(Clip())
    whole = live(system.stream(frames))
    first = system.stream(frames)
    begun = live(next(first) for _ in range(cut))
    memory.save_memory(first.state, tmp_path / "state")
    assert begun + live(system.stream(frames[cut:], memory.load_memory(tmp_path / "state"))) == whole


def test_live_answers_end_with_the_names_of_the_whole_video():
    system = build_rocovis_system(Toy(), RocovisSystemSettings(quality=False))
    last: FrameMasks = list(system.stream(Clip()))[-1]
    want = {m.id: m for m in system.run(Clip(), quiet).masklets if 6 in m.sightings}
    assert set(last.ids) == set(want) and last.ids
    for id, mask, score, label in zip(last.ids, last.masks, last.scores.tolist(), last.labels.tolist(), strict=True):
        assert torch.equal(mask, want[id].sightings[6].mask.decode())
        assert (score, label) == (pytest.approx(want[id].score), want[id].label)


def test_what_is_remembered_at_frame_500_is_what_is_remembered_at_frame_50():
    sizes = [count_tensor_bytes(look.state) for look in build_rocovis_system(Toy()).follow(Clip(500), None)]
    assert len(sizes) == 500 and len(set(sizes[2:])) == 1
