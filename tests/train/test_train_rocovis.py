"""Training of RoCoVIS and the rows of its ablation, over a tiny Mask2Former and clips of a moving square."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from masklet.core.errors import InputError
from masklet.models.mask2former.small import SmallMask2FormerSettings, create_small_mask2former
from masklet.models.query_video.slot_model import DecodedSlots, take_last_layer
from masklet.models.query_video.slot_weights import load_slot_model
from masklet.train.assignment import ClipTargets
from masklet.train.data.clips import TrainingClip, seed_item_generator
from masklet.train.loop.loop import Task, TrainingPlan, train
from masklet.train.losses import make_uniform_sampler
from masklet.train.tasks.rocovis import ROWS, KnownQueries, RocovisTask, RocovisTraining, select_target_frame

SIZE = (32, 64)
SMALL = SmallMask2FormerSettings(
    hidden=32, encoder_layers=1, decoder_layers=2, queries=6, encoder_width=32, decoder_width=32
)
CATEGORIES = ("square", "bar")


def moving(frames, gone=(), seed=0):
    """A red square and a green bar that move to the right; the square is not there in some frames."""
    images = torch.full((frames, 3, *SIZE), 90, dtype=torch.uint8)
    masks = torch.zeros(2, frames, *SIZE, dtype=torch.bool)
    for t in range(frames):
        if t not in gone:
            masks[0, t, 1 + seed : 17 + seed, 2 + 6 * t : 26 + 6 * t] = True
        masks[1, t, 22:31, 6 * t : 6 * t + 40] = True
        images[t, 0][masks[0, t]] = images[t, 1][masks[1, t]] = 250
    return TrainingClip(images, masks, masks.flatten(2).any(2), torch.tensor([0, 1]))


class Moving:
    """A ClipSource."""

    categories = CATEGORIES

    def clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        return moving(frames, seed=int(random.integers(4)))


def task(row="uvla++", frames=3, held_out=(), **settings):
    net = create_small_mask2former(SMALL, CATEGORIES)
    return RocovisTask(net, Moving(), RocovisTraining(frames=frames, row=row, **settings), held_out)


def total(losses):
    return torch.stack([*losses.values()]).sum()


# -- end to end


@pytest.mark.parametrize("row", ROWS)
def test_the_loss_falls_over_a_few_steps(row):
    made, clip, found = task(row, frames=2), moving(2), []
    assert isinstance(made, Task)
    made.module.train()
    optimiser = torch.optim.AdamW([p for p in made.module.parameters() if p.requires_grad], 2e-3)
    for _ in range(6):
        loss = total(made.clip_losses(clip, make_uniform_sampler(np.random.default_rng(0), made.device)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.93 * found[0], found


def test_all_is_trained_from_the_pixels_on():
    made = task()
    for part in made.module.propagation:
        torch.nn.init.normal_(part.out_proj.weight, std=0.1)
    total(made.loss(0, seed_item_generator(0, 0))).backward()
    unread = ("criterion", "level_embed")
    parts = dict(made.module.named_parameters())
    without = [n for n, p in parts.items() if (p.grad is None or not p.grad.any()) and not any(u in n for u in unread)]
    assert not without
    assert any("encoder.net" in name for name in parts) and any("background" in name for name in parts)


def test_genvis_s_mask2former_stays():
    made = task("queries")
    trained = [name for name, p in made.module.named_parameters() if p.requires_grad]
    assert trained and all(name.startswith("objects.") for name in trained)


def test_a_step_can_be_repeated():
    made = task()
    one, two = (made.loss(3, seed_item_generator(0, 3)) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one) and set(one) == {"class", "mask", "dice"}
    assert not torch.equal(one["mask"], made.loss(4, seed_item_generator(0, 4))["mask"])


def spied(made):
    """Whether gradients go back through the memory that each frame of a clip is given."""
    seen, decoded = [], made.module.decoded

    def spy(memory, features):
        seen.append(memory.queries is not None and memory.queries.requires_grad)
        return decoded(memory, features)

    made.module.decoded = spy
    made.loss(0, seed_item_generator(0, 0))
    return seen


def test_memory_is_detached_every_few_frames():
    assert spied(task(frames=5, through=2)) == [False, True, False, True, False]
    assert spied(task(frames=3, through=1)) == [False] * 3
    assert spied(task(frames=3)) == [False, True, True]


def test_one_frame_and_no_object():
    made = task(frames=1)
    empty = replace(moving(2), masks=torch.zeros(2, 2, *SIZE, dtype=torch.bool))
    for clip in (moving(1), empty):
        assert total(made.clip_losses(clip, make_uniform_sampler(np.random.default_rng(0), made.device))).isfinite()


# -- who is told what


def frame(n=6, g=2, seed=0):
    """One frame's predictions of one layer, and two objects of which the first has disappeared."""
    torch.manual_seed(seed)
    logits, masks = torch.randn(1, n, 3, requires_grad=True), torch.randn(1, n, 8, 8, requires_grad=True)
    inside = torch.zeros(g, 1, 8, 8)
    inside[1, 0, :4] = 1
    targets = ClipTargets(inside, torch.tensor([[False], [True]]), torch.tensor([0, 1]))
    return DecodedSlots(torch.zeros(1, n, 4), (logits,), (masks,), torch.zeros(1, 4, 8, 8)), targets


@pytest.mark.parametrize("row", ["masks", "uvla++"])
def test_a_query_whose_object_has_disappeared_is_told_an_empty_mask(row):
    made, (decoded, targets) = task(row), frame()
    known = KnownQueries((torch.tensor([4, -1]),))
    losses, after = made._frame_losses(
        decoded, targets, known, make_uniform_sampler(np.random.default_rng(0), made.device)
    )
    own = after.queries[0]
    assert int(own[0]) == 4 and int(own[1]) >= 0
    if row == "uvla++":
        assert int(own[1]) != 4  # the query stays occupied
    (losses["mask"] + losses["dice"]).backward(retain_graph=True)
    told = decoded.mask_logits[0].grad[0].flatten(1).abs().amax(1) > 0
    assert told.nonzero()[:, 0].tolist() == sorted({int(own[1])} | ({4} if row == "uvla++" else set()))
    if row == "uvla++":
        assert (decoded.mask_logits[0].grad[0, 4] >= 0).all()  # it is to fall everywhere
    losses["class"].backward()
    pulled = decoded.class_logits[0].grad[0].argmin(1)
    assert pulled[own[1]] == 1 and (pulled[4] == 2 or own[1] == 4)  # to its class, and to no object


@pytest.mark.parametrize("row", ROWS)
def test_masks_of_queries_that_are_no_object_are_not_propagated(row):
    made, (decoded, _) = task(row), frame()
    trust = made.trust(KnownQueries((torch.tensor([4, -1]), torch.tensor([1, 3]))), take_last_layer(decoded))
    assert trust.tolist() == ([[0.0, 1, 0, 1, 0, 0]] if row == "uvla++" else [[1.0] * 6])


def test_an_object_keeps_its_query():
    made, rand = task(frames=4), make_uniform_sampler(np.random.default_rng(0), torch.device("cpu"))
    images, targets = made._seen(moving(4, gone=(0, 2)))
    logits, masks = made._followed(images)
    known, found = KnownQueries.nothing(1, targets), []
    for t in range(4):
        one = DecodedSlots(torch.zeros(1, 6, 4), (logits[t][None],), (masks[t][None],), torch.zeros(1, 4, 8, 16))
        _, known = made._frame_losses(one, select_target_frame(targets, t), known, rand)
        found.append(known.queries[0].tolist())
    assert found[0][0] == -1 and found[1] == found[2] == found[3] and found[0][1] == found[3][1]
    assert found[3][0] != found[3][1]


def test_frame_and_object_queries_of_one_object_are_to_be_alike():
    """GenVIS's row alone; its gradient goes to the object queries and both embeddings, weighted as it is told."""
    made, clip = task("queries", frames=2), moving(2)
    found = {}
    for weight in (0.5, 1.0, 0.0):
        made.settings = replace(made.settings, similarity=weight)
        found[weight] = made.clip_losses(clip, make_uniform_sampler(np.random.default_rng(0), made.device))
    half, whole = (float(found[weight]["similarity"].detach()) for weight in (0.5, 1.0))
    assert whole == pytest.approx(2 * half) and half > 0
    assert "similarity" not in found[0.0]
    found[0.5]["similarity"].backward()
    moved = {name.split(".")[1] for name, p in made.module.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"sim_embed_frame", "sim_embed_clip", "query_feat", "enc_ffn"} <= moved
    assert not {"class_embed", "mask_embed", "segmenter"} & moved
    assert "similarity" not in task("direct").loss(0, seed_item_generator(0, 0))


# -- the task


def test_it_trains_in_the_loop_and_is_what_is_run(tmp_path):
    made = task(held_out=[moving(3)], frames=2)
    assert train(made, tmp_path / "out", TrainingPlan(2, lr=1e-3), {}) == 2
    back = load_slot_model(tmp_path / "out/weights.safetensors", "rocovis", torch.device("cpu"))
    assert back.categories == CATEGORIES and back.shortest == 480
    want = made.module.eval().state_dict()
    assert all(torch.equal(value, want[name]) for name, value in back.net.state_dict().items())
    scores = made.validate()
    assert set(scores) == {"AP", "AP50", "kept", "swapped"} and 0 <= scores["kept"] <= 1 and scores == made.validate()


def test_the_loss_of_a_clip_is_the_mean_over_its_frames(monkeypatch):
    made = task(frames=3)
    one = torch.ones(())

    def same(decoded, targets, known, rand):
        return {"class": 2 * one, "mask": one}, known

    monkeypatch.setattr(made, "_frame_losses", same)
    losses = made.clip_losses(moving(3), make_uniform_sampler(np.random.default_rng(0), made.device))
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx({"class": 2.0, "mask": 1.0})


def test_validation_has_the_trust_of_inference(monkeypatch):
    """What is committed is what the network itself says of its slots, in every frame."""
    made = task(held_out=[moving(3)])
    trusts, real = [], made.module.commit
    monkeypatch.setattr(made.module, "trust", lambda slots: torch.full(slots.class_logits.shape[:2], 0.25))

    def commit(memory, features, slots, trust):
        trusts.append(trust)
        return real(memory, features, slots, trust)

    monkeypatch.setattr(made.module, "commit", commit)
    made.validate()
    assert len(trusts) == 3 and all((trust == 0.25).all() for trust in trusts)


def test_bad_settings():
    with pytest.raises(InputError, match="row = all: the rows of the ablation are queries, direct, masks"):
        RocovisTraining(row="all")
    with pytest.raises(InputError, match="frames = 0"):
        RocovisTraining(frames=0)
    with pytest.raises(InputError, match="the clips have 2 categories"):
        RocovisTask(create_small_mask2former(SMALL, ("cat",)), Moving())
