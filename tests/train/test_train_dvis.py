"""Training of DVIS: a tracker learns to keep identities where matching by cosine swaps them; and how it is trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from crossing import LANES, QUERIES, WIDTH, Crossing, Seer, as_minvis

from masklet.core.alignment import match_slots
from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.models.mask2former.small import SmallMask2FormerSettings, create_small_mask2former
from masklet.models.query_video.heads import is_heads, load_refiner, load_tracker
from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner
from masklet.train.assignment import (
    ClipTargets,
    collect_targets,
    fit_clip_to_input,
    match_first_appearance,
    match_whole_clip,
)
from masklet.train.data.clips import seed_item_generator
from masklet.train.loop.loop import TrainingPlan, train
from masklet.train.losses import (
    LossSettings,
    QueryPairs,
    compute_clip_losses,
    compute_frame_losses,
    make_uniform_sampler,
)
from masklet.train.tasks import dvis
from masklet.train.tasks.dvis import (
    DvisTraining,
    RefinerTask,
    TrackerTask,
    initialize_from_minvis,
    make_query_noise,
    make_refiner_training,
    measure_faithfulness,
    predict_clip_masks,
)

AT = LossSettings(points=256)
CPU = torch.device("cpu")
FRAMES, STEPS = 3, 120


def tracker(layers=2, seed=0):
    torch.manual_seed(seed)
    made = ReferringTracker(TrackerSettings(1, WIDTH, 1, 64, layers, WIDTH))
    as_minvis(made)
    return made


def refiner():
    torch.manual_seed(1)
    return TemporalRefiner(RefinerSettings(1, WIDTH, 1, 64, 2, WIDTH))


def tracker_task(steps=STEPS, trained=None, **settings):
    settings = {"frames": FRAMES, "losses": AT, **settings}
    held_out = [Crossing().clip(seed_item_generator(9, n), FRAMES) for n in range(8)]
    return TrackerTask(Seer(), trained or tracker(), Crossing(), DvisTraining(steps, **settings), held_out)


def refiner_task(steps=20, **settings):
    settings = {"frames": FRAMES, "losses": AT, **settings}
    held_out = [Crossing().clip(seed_item_generator(9, 0), FRAMES)]
    return RefinerTask(Seer(), tracker(), refiner(), Crossing(), DvisTraining(steps, **settings), held_out)


def trained(task, optimiser, steps):
    """The sum of the losses of each step."""
    found = []
    for step in steps:
        optimiser.zero_grad()
        total = torch.stack([*task.loss(step, seed_item_generator(0, step)).values()]).sum()
        total.backward()
        torch.nn.utils.clip_grad_norm_(task.module.parameters(), 1.0)
        optimiser.step()
        found.append(total.item())
    return found


def adam(module, lr=5e-3):
    return torch.optim.AdamW(module.parameters(), lr, weight_decay=0.05)


def state(module):
    return {name: held.clone() for name, held in module.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], held) for name, held in other.items())


def slots_of(clip):
    slots = Seer().slots([Frame(t, image.permute(1, 2, 0).numpy()) for t, image in enumerate(clip.images)])
    return slots, collect_targets(fit_clip_to_input(clip, slots.inside, slots.inside), 1)


def minvis(clips):
    """How well matching by cosine does."""
    found = []
    for clip in clips:
        slots, targets = slots_of(clip)
        rows, before = [torch.arange(QUERIES)], slots.queries[0]
        for now in slots.queries[1:]:
            rows.append(match_slots(before, now))
            before = now[rows[-1]]
        logits, masks = (
            torch.stack([one[r] for one, r in zip(of, rows, strict=True)])
            for of in (slots.class_logits, slots.mask_logits)
        )
        pairs = match_first_appearance(logits, masks, targets, make_uniform_sampler(seed_item_generator(0, 0), CPU), AT)
        found.append(measure_faithfulness(masks[:, pairs.queries], targets, pairs))
    return dvis.compute_faithfulness_shares(found)


@pytest.fixture(scope="module")
def course():
    """A task before and after training; of one layer, so that it is quick."""
    task = tracker_task(trained=tracker(layers=1, seed=5))
    segmenter = task._frozen._segmenter
    frozen, before = state(segmenter), task.validate()
    optimiser = adam(task.module, 1e-2)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    losses = []
    for step in range(STEPS):
        losses += trained(task, optimiser, [step])
        rates.step()
    return task, before, losses, same(frozen, state(segmenter))


def test_a_trained_tracker_keeps_identities_where_minvis_swaps_them(course):
    task, before, *_ = course
    plain, after = minvis(task.held_out), task.validate()
    for swapping in (plain, before):
        assert swapping["swapped"] > 0.3 and swapping["kept"] < 0.7
    assert after["swapped"] < 0.1 and after["kept"] > 0.75


def test_the_loss_falls(course):
    *_, losses, _ = course
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])


def test_the_segmenter_stays(course):
    assert course[-1]


def test_a_trained_tracker_is_saved_and_loaded(course, tmp_path):
    task, *_ = course
    path = tmp_path / "weights.safetensors"
    task.save(path)
    loaded, categories = load_tracker(path)
    assert categories == Crossing.categories and not loaded.training
    assert loaded.settings == task.module.settings and loaded.settings.matching == "paper"
    assert same(state(task.module), state(loaded)) and is_heads(path)
    with pytest.raises(InputError, match="holds no refiner of DVIS"):
        load_refiner(path)


@pytest.mark.parametrize("made", [tracker_task, refiner_task])
def test_a_run_that_resumes_is_the_same_run(made):
    """Also across the end of guidance: the step says where it is."""
    whole, first, second = made(steps=4), made(steps=4), made(steps=4)
    losses = trained(whole, adam(whole.module), range(4))
    optimiser = adam(first.module)
    begun = trained(first, optimiser, range(1))
    going_on = adam(second.module)
    second.module.load_state_dict(first.module.state_dict())
    going_on.load_state_dict(optimiser.state_dict())
    assert begun + trained(second, going_on, range(1, 4)) == losses
    assert same(state(whole.module), state(second.module))


def test_half_of_the_steps_are_guided():
    assert [DvisTraining(5).guided(n) for n in range(5)] == [True, True, False, False, False]


def drawn(task, step):
    """The clip of a step, and the random numbers that follow it."""
    random = seed_item_generator(0, step)
    clip = task._frozen._source.clip(random, task.settings.frames)
    assert random.random() >= task.settings.reverse
    return *slots_of(clip), make_uniform_sampler(random, CPU)


def total(layers):
    return {name: sum(layer[name] for layer in layers) for name in layers[0]}


class Late(Crossing):
    """Object 0 comes into view in the last frame."""

    def clip(self, random, frames):
        clip = super().clip(random, frames)
        masks = clip.masks.clone()
        masks[0, :-1] = False
        return replace(clip, masks=masks)


@pytest.mark.parametrize("source", [Crossing, Late])
def test_tracker_guided_by_the_segmenter_in_the_order_of_the_tracks(source):
    task = tracker_task(steps=10)
    task._frozen._source = source()
    slots, targets, rand = drawn(task, 0)
    layers, order, _ = task.module(slots.queries)
    logits, masks = (
        torch.stack([of[t, order[t]] for t in range(FRAMES)]) for of in (slots.class_logits, slots.mask_logits)
    )
    pairs = match_first_appearance(logits, masks, targets, rand, AT)
    rows = [predict_clip_masks(task.module, x[:, pairs.queries], slots.pixel_features) for x in layers]
    truth = targets.masks, targets.labels, pairs, rand, AT
    want = total([compute_frame_losses(task.module.classify(x), m, *truth) for x, m in zip(layers, rows, strict=True)])
    assert task.loss(0, seed_item_generator(0, 0)) == want


def test_every_layer_of_the_tracker_is_matched_by_itself():
    task = tracker_task(steps=10)
    slots, targets, rand = drawn(task, 5)
    found = []
    for x in task.module(slots.queries)[0]:
        logits, masks = task.module.classify(x), predict_clip_masks(task.module, x, slots.pixel_features)
        pairs = match_first_appearance(logits, masks, targets, rand, AT)
        found.append(
            compute_frame_losses(logits, masks[:, pairs.queries], targets.masks, targets.labels, pairs, rand, AT)
        )
    close(task.loss(5, seed_item_generator(0, 5)), total(found))


def close(got, want):
    assert {k: v.item() for k, v in got.items()} == pytest.approx({k: v.item() for k, v in want.items()}, rel=1e-5)


@pytest.mark.parametrize("step", [0, 15])
def test_refiner_guided_by_the_tracker_then_by_itself(step):
    task = refiner_task()
    slots, targets, rand = drawn(task, step)
    own = task._tracker
    tracks, context = own(slots.queries)[0][-1], own.alone(slots.queries)
    found, pairs = [], None
    for x in task.module(tracks, context):
        logits, masks = (
            task.module.classify(x),
            predict_clip_masks(task.module, x, slots.pixel_features).transpose(0, 1),
        )
        if step:
            pairs = match_whole_clip(logits, masks, targets, rand, AT)
        elif pairs is None:
            guide = predict_clip_masks(own, tracks, slots.pixel_features).transpose(0, 1)
            pairs = match_whole_clip(own.classify(tracks).mean(0), guide, targets, rand, AT)
        found.append(compute_clip_losses(logits, masks[pairs.queries], targets.masks, targets.labels, pairs, rand, AT))
    close(task.loss(step, seed_item_generator(0, step)), total(found))


def test_the_trackers_class_logits_are_averaged_where_they_guide(monkeypatch):
    task, given = refiner_task(), []

    def watched(logits, *others):
        given.append(logits)
        return match_whole_clip(logits, *others)

    monkeypatch.setattr(dvis, "match_whole_clip", watched)
    task.loss(0, seed_item_generator(0, 0))
    slots, *_ = drawn(task, 0)
    tracker = task._tracker
    (logits,) = given
    torch.testing.assert_close(logits, tracker.classify(tracker(slots.queries)[0][-1]).mean(0))


def test_every_layer_is_supervised():
    for task in (tracker_task(), refiner_task()):
        torch.stack([*task.loss(0, seed_item_generator(0, 0)).values()]).sum().backward()
        ffn = task.module.transformer_ffn_layers
        assert all(layer.linear1.weight.grad.abs().sum() > 0 for layer in ffn)


def test_a_refiner_learns_and_what_is_below_stays():
    task = refiner_task()
    below, seer = state(task._tracker), state(task._frozen._segmenter)
    losses = trained(task, adam(task.module), range(20))
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert same(below, state(task._tracker)) and same(seer, state(task._frozen._segmenter))
    assert all(p.grad is None for p in [*task._tracker.parameters(), *task._frozen._segmenter.parameters()])


def test_a_refiner_is_saved_with_its_tracker(tmp_path):
    task = refiner_task()
    task.save(tmp_path / "both")
    loaded, categories = load_refiner(tmp_path / "both")
    assert same(state(task.module), state(loaded)) and loaded.settings == task.module.settings
    below, again = load_tracker(tmp_path / "both")
    assert same(state(task._tracker), state(below)) and categories == again == Crossing.categories


def test_clips_are_played_backward():
    class Reversed(Crossing):
        def clip(self, random, frames):
            return dvis.play_backward(super().clip(random, frames))

    forward, reverse = tracker_task(), tracker_task(reverse=1.0)
    reverse._frozen._source = Reversed()
    assert forward.loss(0, seed_item_generator(0, 0)) == reverse.loss(0, seed_item_generator(0, 0))
    clip = Leaving().clip(seed_item_generator(0, 0), FRAMES)
    back = dvis.play_backward(clip)
    for t in range(FRAMES):
        assert torch.equal(back.images[t], clip.images[-1 - t])
        assert torch.equal(back.masks[:, t], clip.masks[:, -1 - t])
        assert torch.equal(back.present[:, t], clip.present[:, -1 - t])
    assert make_refiner_training(7) == DvisTraining(7, frames=21, reverse=0.5)


def test_mixed_precision_leaves_the_losses_as_they_are():
    for task in (tracker_task(), refiner_task()):
        plain = task.loss(0, seed_item_generator(0, 0))
        with torch.autocast("cpu", torch.bfloat16):
            assert task.loss(0, seed_item_generator(0, 0)) == plain


class Leaving(Crossing):
    """Object 0 is annotated in the first frame only."""

    def clip(self, random, frames):
        clip = super().clip(random, frames)
        masks, present = clip.masks.clone(), clip.present.clone()
        masks[0, 1:], present[0, 1:] = False, False
        return replace(clip, masks=masks, present=present)


def test_labels_as_released():
    own, released = tracker_task(), tracker_task(labels="released")
    for task in (own, released):
        task._frozen._source = Leaving()
    assert own._frozen.seen(own.draw(seed_item_generator(0, 0))).targets.labels.tolist() == [0] * 2 * LANES
    assert released._frozen.seen(released.draw(seed_item_generator(0, 0))).targets.labels.tolist() == [1] + [0] * (
        2 * LANES - 1
    )


def test_queries_given_as_released():
    """Two objects that come after each other to where one query always is."""
    inside = torch.zeros(2, 2, 4, 4)
    inside[0, 0, :2] = inside[1, 1, :2] = 1
    targets = ClipTargets(inside, inside.flatten(2).any(2), torch.zeros(2, dtype=torch.int64))
    masks = torch.full((2, 3, 4, 4), -9.0)
    masks[:, 0, :2] = 9
    for given, want in (("once", 2), ("released", 1)):
        task = tracker_task(given=given)
        pairs = task._paired(torch.zeros(2, 3, 2), masks, targets, make_uniform_sampler(seed_item_generator(0, 0), CPU))
        assert len(set(pairs.queries.tolist())) == want


def test_validation_says_the_same_each_time():
    for task in (tracker_task(), refiner_task()):
        assert task.validate() == task.validate() != {}
        task.held_out = ()
        assert task.validate() == {}


def test_faithfulness_worked_out():
    """Three frames of two objects, one cell each: 0 stays on its own; 1 is on its own, on the other, on nothing."""
    truth = torch.zeros(2, 3, 2, 2)
    truth[0, :, 0, 0] = truth[1, :, 1, 1] = 1
    masks = torch.full((3, 2, 2, 2), -1.0)
    masks[:, 0, 0, 0] = masks[0, 1, 1, 1] = masks[1, 1, 0, 0] = 1
    pairs = QueryPairs(torch.tensor([5, 6]), torch.tensor([0, 1]))
    visible = torch.ones(2, 3, dtype=torch.bool)
    targets = ClipTargets(truth, visible, torch.zeros(2, dtype=torch.int64))
    assert measure_faithfulness(masks, targets, pairs).tolist() == [4, 1, 6]
    gone = torch.tensor([[True, True, True], [True, False, False]])
    truth[1, 1:] = 0
    assert measure_faithfulness(masks, replace(targets, visible=gone), pairs).tolist() == [4, 0, 4]


def test_the_loop_takes_both(tmp_path):
    for task, load in ((tracker_task(steps=2), load_tracker), (refiner_task(steps=2), load_refiner)):
        out = tmp_path / load.__name__
        assert train(task, out, TrainingPlan(steps=2, clip_norm=0.01), {"task": "dvis"}) == 2
        assert same(state(task.module), state(load(out / "weights.safetensors")[0]))


def test_a_clip_without_objects_teaches_no_object():
    class Empty(Crossing):
        def clip(self, random, frames):
            clip = super().clip(random, frames)
            return replace(clip, masks=clip.masks[:0], present=clip.present[:0], labels=clip.labels[:0])

    for made in (tracker_task, refiner_task):
        task = made(steps=2)
        task._frozen._source = Empty()
        for step in (0, 1):
            losses = task.loss(step, seed_item_generator(0, step))
            assert losses["class"] > 0 and losses["mask"] == losses["dice"] == 0


def test_categories_must_be_the_segmenters():
    class Others(Crossing):
        categories = ("cat", "dog")

    with pytest.raises(InputError, match=r"the clips have 2 categories \(cat, \.\.\.\), the segmenter 1 \(look-alike"):
        TrackerTask(Seer(), tracker(), Others(), DvisTraining(2))


@pytest.mark.parametrize("settings", [{"steps": 0}, {"steps": 3, "frames": 0}])
def test_settings_are_checked(settings):
    with pytest.raises(InputError, match="both count from 1 on"):
        DvisTraining(**settings)


@pytest.mark.parametrize("noisy", [-0.1, 1.5])
def test_noise_is_a_share(noisy):
    with pytest.raises(InputError, match="it is a share of the frames"):
        DvisTraining(3, noisy=noisy)


def noise(kind, noisy=1.0, seed=0):
    rand = make_uniform_sampler(seed_item_generator(seed, 0), CPU)
    return make_query_noise(DvisTraining(3, noise=kind, noisy=noisy), rand)


def test_shuffled_queries_are_the_same_ones_and_mixed_ones_lie_between():
    queries = torch.eye(9)
    shuffled, mixed = noise("shuffled")(queries), noise("mixed")(queries)
    assert not torch.equal(shuffled, queries) and torch.equal(shuffled.sort(0)[0], queries.sort(0)[0])
    torch.testing.assert_close(mixed.sum(1), torch.ones(9))
    assert ((mixed > 0).sum(1) <= 2).all() and not torch.equal(mixed, queries)
    assert noise("none") is None and torch.equal(noise("shuffled")(queries), shuffled)


def test_noise_comes_in_some_of_the_frames():
    queries, maybe = torch.eye(9), noise("shuffled", 0.3)
    calm = sum(torch.equal(maybe(queries), queries) for _ in range(200))
    assert 110 < calm < 165
    assert torch.equal(noise("shuffled", 0.0)(queries), queries)


def test_the_training_makes_matched_queries_noisy_but_remembers_them_as_they_are():
    task, seen = tracker_task(noise="shuffled", noisy=1.0), []
    calm = tracker_task()
    for made in (task, calm):
        hook = made.module.transformer_cross_attention_layers[0].register_forward_pre_hook(
            lambda module, given: seen.append(given[0].detach())
        )
        made.loss(0, seed_item_generator(0, 0))
        hook.remove()
    noisy, plain = seen[:FRAMES], seen[FRAMES:]
    assert torch.equal(noisy[0], plain[0])  # a first frame has nothing to be matched with
    for one, other in zip(noisy[1:], plain[1:], strict=True):
        assert not torch.equal(one, other) and torch.equal(one.sort(0)[0], other.sort(0)[0])


def test_a_tracker_may_begin_with_its_segmenters_heads() -> None:
    net = create_small_mask2former(
        SmallMask2FormerSettings(hidden=32, encoder_layers=1, decoder_layers=1, queries=4), ("a", "b")
    )
    made = ReferringTracker(TrackerSettings(classes=2, width=32, heads=4, hidden=32, layers=2, mask_width=32))
    initialize_from_minvis(made, net)
    queries, features = torch.randn(1, 4, 32), torch.randn(32, 5, 6)
    normed = torch.nn.functional.layer_norm(queries, (32,))
    decoder = net.model.transformer_module.decoder
    masks = torch.einsum("nd,dhw->nhw", decoder.mask_predictor.mask_embedder(normed[0]), features)
    found = made(normed)[0][-1]
    assert torch.nn.functional.cosine_similarity(found, normed, dim=-1).min() > 0.95, "the layers add little"
    assert torch.equal(made.predict_masks(normed[0], features), masks)
    assert torch.equal(made.classify(normed), net.class_predictor(normed))
