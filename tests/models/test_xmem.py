"""XMem as a propagator, with weights made of noise: its masks mean nothing, its memory does."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from toys import ToySegmenter, World, moving

from masklet.core import memory as store
from masklet.core.errors import InputError
from masklet.core.features import count_tensor_bytes
from masklet.core.frames import Frame
from masklet.core.instances import Box, Clicks, Point, Prediction
from masklet.core.protocols import MaskCarrier, Propagator, SizedPropagator
from masklet.models.xmem.memory import DecodedMasks, MemoryLimits, XmemMemory
from masklet.models.xmem.propagator import MEAN, STD, SURE, Xmem, XmemFeatures, build_xmem, load_xmem
from masklet.nn.xmem import VALUE, XmemNet, aggregate_probabilities
from masklet.systems.deva.online import Deva, DevaSettings
from masklet.systems.sam2long import MemoryTree
from masklet.systems.track import Track

SIZE = (36, 60)  # of the clip; the network sees 48 x 64
CELLS = 3 * 4
FEW = MemoryLimits(frames=4, recent=2, prototypes=5, long_term=12)


@cache
def weights() -> dict[str, Tensor]:
    """Noise that lets masks matter."""
    draw = torch.Generator().manual_seed(4)
    out = {}
    with torch.device("meta"):
        shapes = XmemNet().state_dict()
    for name, like in shapes.items():
        if like.ndim > 1:
            value = torch.randn(like.shape, generator=draw) / like[0].numel() ** 0.5
        else:
            one = name.endswith("running_var") or (("bn" in name or "downsample.1" in name) and name.endswith("weight"))
            value = torch.full(like.shape, float(one)).to(like.dtype)
        out[name] = value
    out["mask_encoder.conv1.weight"][:, 3] *= 10
    out["mask_decoder.sensory_compress.weight"][:, VALUE] *= 20
    out["mask_decoder.pred.bias"] += 1
    return out


@cache
def net() -> XmemNet:
    return build_xmem(weights(), Path("noise"))


@cache
def clip() -> tuple[Frame, ...]:
    draw = np.random.default_rng(0)
    ground = draw.integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    frames = []
    for t in range(24):
        image = ground.copy()
        image[8:24, 4 + t : 20 + t] = (220, 40, 40)
        frames.append(Frame(t, image, t / 10))
    return tuple(frames)


@cache
def seen(t: int) -> XmemFeatures:
    return Xmem(net(), size=None).encode([clip()[t]])[0]


def square(y: int, x: int, side: int = 14) -> Tensor:
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[y : y + side, x : x + side] = True
    return mask


A, B, C = square(4, 2), square(4, 30), square(20, 16)


def xmem(**chosen: object) -> Xmem:
    return Xmem(net(), **{"size": None, "every": 3, "limits": FEW, **chosen})  # type: ignore[arg-type]


def after(model: Xmem, memory: XmemMemory, frames: Sequence[int]) -> tuple[XmemMemory, list[Prediction]]:
    beliefs = []
    for t in frames:
        beliefs.append(model.predict(memory, seen(t)))
        memory = model.commit(memory, seen(t), beliefs[-1])
    return memory, beliefs


def started(model: Xmem, masks: dict[int, Tensor], frames: int = 0) -> XmemMemory:
    memory, _ = model.prompt(model.empty(), seen(0), masks)
    return after(model, memory, range(1, 1 + frames))[0]


def content(memory: object, folder: Path) -> bytes:
    store.save_memory(memory, folder / "content")
    return (folder / "content").read_bytes()


def working(memory: XmemMemory) -> list[int]:
    return [len(g.working) for g in memory.groups]


def equal(a: Prediction, b: Prediction) -> None:
    assert a.ids == b.ids
    for name in ("logits", "quality", "presence", "tokens"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def left(belief: Prediction) -> DecodedMasks:
    assert belief.tokens is not None
    return DecodedMasks.of(belief.tokens, seen(0).canvas.outer)


# -- what the network sees


def test_pixels_are_normalised_and_padded() -> None:
    image, canvas = xmem().pixels(clip()[0])
    assert canvas.pads == (2, 2, 6, 6) and image.shape == (1, 3, 48, 64)
    told = (clip()[0].image / 255.0 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(canvas.crop(image)[0].permute(1, 2, 0).numpy(), told, atol=1e-5)
    assert not image[..., :6, :].any() and not image[..., -2:].any()


def test_pixels_are_resized_with_antialiasing() -> None:
    """A pattern finer than the result averages out."""
    stripes = np.zeros((64, 96, 3), np.uint8)
    stripes[:, np.isin(np.arange(96) % 4, (1, 2))] = 255  # where a plain resize by 4 would look
    image, canvas = xmem(size=16).pixels(Frame(0, stripes))
    assert canvas.inner == (16, 24) and image.shape == (1, 3, 16, 32)
    grey = (0.5 - torch.tensor(MEAN)) / torch.tensor(STD)
    inside = canvas.crop(image)[0, :, 4:-4, 4:-4]
    torch.testing.assert_close(inside, grey[:, None, None].expand_as(inside), rtol=0, atol=0.05)


def test_resized_frames_and_masks() -> None:
    model = xmem(size=24)
    [features] = model.encode(clip()[:1])
    assert features.canvas.inner == (24, 40)
    memory, answer = model.prompt(model.empty(), features, {1: A})
    assert answer.masks(SIZE)[0].equal(A)
    belief = model.predict(memory, features)
    assert belief.logits.shape == (1, 1, 24, 40) and belief.masks(SIZE).shape == (1, *SIZE)


# -- beliefs


def test_it_is_a_propagator_with_one_hypothesis() -> None:
    model = xmem()
    assert isinstance(model, Propagator)
    belief = model.predict(started(model, {3: A, 1: B}), seen(1))
    assert belief.ids == (3, 1) and belief.logits.shape == (2, 1, *SIZE)
    assert belief.quality.shape == belief.presence.shape == (2, 1)


def test_masks_are_the_arg_max_and_scores_are_theirs() -> None:
    model = xmem()
    belief = model.predict(started(model, {1: A, 2: B}), seen(1))
    soft = seen(1).canvas.crop(left(belief).soft)
    winner = torch.cat([1 - soft.sum(0, keepdim=True), soft]).argmax(0)
    assert {0, 1, 2} == set(winner.unique().tolist())
    for n, id in enumerate(belief.ids):
        mask = winner == id
        assert torch.equal(belief.masks(SIZE)[n], mask)
        assert float(belief.quality[n]) == pytest.approx(float(soft[n][mask].mean()), abs=1e-5)
        assert torch.equal(belief.presence[n, 0], belief.logits[n].max()) and belief.presence[n] > 0


def test_the_empty_memory_and_no_prompts() -> None:
    model = xmem()
    belief = model.predict(model.empty(), seen(0))
    assert belief.ids == () and belief.masks(SIZE).shape == (0, *SIZE)
    memory = model.commit(model.empty(), seen(0), belief)
    memory, answer = model.prompt(memory, seen(0), {})
    assert not memory.traces and not memory.groups and answer.masks(SIZE).shape == (0, *SIZE)


def test_a_given_mask_is_answered_exactly() -> None:
    _, answer = xmem().prompt(xmem().empty(), seen(0), {1: A, 2: torch.zeros_like(A)})
    assert torch.equal(answer.masks(SIZE), torch.stack([A, torch.zeros_like(A)]))
    assert answer.presence[:, 0].tolist() == [SURE, -SURE] and answer.quality[:, 0].tolist() == [1, 1]


@pytest.mark.parametrize("prompt", [Box(0, 0, 9, 9), Point(3, 3), Clicks((Point(3, 3),))])
def test_only_masks_are_taken(prompt: Box | Point | Clicks) -> None:
    with pytest.raises(InputError, match="takes masks, not clicks or boxes"):
        xmem().prompt(xmem().empty(), seen(0), {1: A, 2: prompt})


# -- when a frame is remembered


def test_every_third_frame_is_remembered_softly_and_the_state_follows() -> None:
    model = xmem()
    memory = started(model, {1: A})
    for t in range(1, 8):
        belief = model.predict(memory, seen(t))
        before, memory = memory, model.commit(memory, seen(t), belief)
        assert sum(working(memory)) == 1 + t // 3
        assert torch.equal(memory.traces[1].mask, left(belief).soft[0])
        state = left(belief).sensory[0]
        written = t % 3 == 0
        assert torch.equal(memory.traces[1].sensory, state) != written  # written: updated deeply, too
        assert (memory.unwritten is not None) == written
        if written:
            h = {"masks": left(belief).soft, "sensory": left(belief).sensory}
            values, deep = model.net.mask_encoder(seen(t).image, seen(t).coarse, **h)
            torch.testing.assert_close(memory.groups[0].working[-1].values[1], values[0].flatten(1).T)
            torch.testing.assert_close(memory.traces[1].sensory, deep[0])
        assert len(before.groups[0].working) == 1 + (t - 1) // 3


def test_a_prompt_is_always_remembered_and_starts_the_count_again() -> None:
    model = xmem()
    memory = started(model, {1: A}, frames=2)
    memory, _ = model.prompt(memory, seen(2), {1: B})
    assert working(memory) == [2] and memory.groups[0].since == 0
    memory, _ = after(model, memory, [3, 4])
    assert working(memory) == [2]
    memory, _ = after(model, memory, [5])
    assert working(memory) == [3]


def test_a_prompt_replaces_what_was_remembered_of_its_frame(tmp_path: Path) -> None:
    """Whether `commit` had written the frame or not."""
    contents = []
    for every in (2, 100):
        model = xmem(every=every)
        memory, _ = after(model, started(model, {1: A, 2: C}, frames=1), [2])
        assert working(memory) == [2 if every == 2 else 1]
        memory, _ = model.prompt(memory, seen(2), {1: B, 4: A})
        contents.append(content(replace(memory, unwritten=None), tmp_path))
        assert working(memory) == [2, 1]
    assert contents[0] == contents[1]


def test_a_prompt_of_what_commit_was_not_told_is_as_if_it_had_been(tmp_path: Path) -> None:
    """Systems leave out of `commit` what they are about to prompt; its state is found all the same."""
    contents = []
    for rows, in_mind in (([0, 1], True), ([1], True), ([1], False)):
        model = xmem()
        memory = started(model, {1: A, 2: C}, frames=1)
        memory = model.commit(memory, seen(2), model.predict(memory, seen(2)).only(rows))
        model = model if in_mind else xmem()  # another one has to predict again
        memory, _ = model.prompt(memory, seen(2), {1: B})
        contents.append(content(replace(memory, unwritten=None), tmp_path))
    assert contents[0] == contents[1] == contents[2]


def test_a_state_in_mind_is_not_taken_for_that_of_another_object_or_frame() -> None:
    model = xmem()
    memory = started(model, {1: A, 2: B}, frames=1)
    told = model.commit(memory, seen(2), model.predict(memory, seen(2)).only([]))
    right = model.prompt(told, seen(2), {1: C})[0].traces[1].sensory
    swapped = model.branch(told, {1: 2, 2: 1})
    model.predict(memory, seen(2))
    assert not torch.equal(model.prompt(swapped, seen(2), {1: C})[0].traces[1].sensory, right)
    model.predict(memory, seen(5))
    assert torch.equal(model.prompt(told, seen(2), {1: C})[0].traces[1].sensory, right)


def test_a_group_waits_until_something_is_said_of_all_its_objects() -> None:
    model = xmem(every=1)
    memory = started(model, {1: A, 2: B})
    memory, _ = model.prompt(memory, seen(0), {3: C})  # of the same frame: the same group
    assert [g.ids for g in memory.groups] == [(1, 2, 3)]
    belief = model.predict(memory, seen(1))
    partly = model.commit(memory, seen(1), belief.only([0, 1]))
    assert working(partly) == [1] and partly.groups[0].since == 1
    assert torch.equal(partly.traces[3].sensory, memory.traces[3].sensory) and not partly.traces[3].fresh
    whole = model.commit(partly, seen(2), model.predict(partly, seen(2)))
    assert working(whole) == [2] and whole.groups[0].since == 0


# -- prompts among others


def test_new_objects_are_a_group_of_their_own_and_all_remember_the_frame() -> None:
    model = xmem()
    memory = started(model, {1: A}, frames=2)
    memory, _ = model.prompt(memory, seen(2), {5: B, 6: C})
    assert [g.ids for g in memory.groups] == [(1,), (5, 6)] and working(memory) == [2, 1]
    belief = model.predict(memory, seen(3))
    assert belief.ids == (1, 5, 6)


def test_others_stay_soft_without_what_is_claimed() -> None:
    model = xmem()
    memory = started(model, {1: A}, frames=2)
    believed = memory.traces[1].mask.clamp(min=0.999)  # sure of all that is about to be claimed
    memory = replace(memory, traces={1: replace(memory.traces[1], mask=believed)})
    memory, _ = model.prompt(memory, seen(2), {2: B})
    told = seen(2).canvas.pad(B.float())
    assert float(memory.traces[1].mask[told > 0].max()) < 1e-6
    together = aggregate_probabilities(torch.stack([believed * (told == 0), told])).softmax(0)
    torch.testing.assert_close(memory.traces[1].mask, together[1])
    torch.testing.assert_close(memory.traces[2].mask, told, rtol=0, atol=1e-6)


def test_carrying_is_prompting_and_predicting() -> None:
    model = xmem()
    memory, _ = model.prompt(model.empty(), seen(0), {1: A, 4: C})
    long, short = model.predict(memory, seen(2)), model.carry({1: A, 4: C}, seen(0), seen(2))
    assert isinstance(model, MaskCarrier) and short.ids == long.ids == (1, 4) and short.tokens is None
    assert torch.equal(short.logits, long.logits) and torch.equal(short.presence, long.presence)


def test_soft_masks_are_fitted_to_the_network() -> None:
    model, soft = xmem(size=32), torch.linspace(0, 1, SIZE[1]).expand(SIZE)
    [features] = model.encode(clip()[:1])
    mask = features.canvas.crop(model.prompt_soft(model.empty(), features, {4: soft}).traces[4].mask)
    assert mask.shape == features.canvas.inner
    torch.testing.assert_close(mask[0], torch.linspace(0, 1, mask.shape[1]), rtol=0, atol=0.02)
    as_it_is = xmem().prompt_soft(xmem().empty(), seen(0), {4: soft}).traces[4].mask
    assert torch.equal(seen(0).canvas.crop(as_it_is), soft)


def test_a_seen_object_that_is_said_to_be_absent_is_remembered_as_empty() -> None:
    model = xmem(every=1)
    memory = started(model, {1: A, 2: B})
    belief = model.predict(memory, seen(1))
    assert (belief.presence > 0).all()
    denied = replace(belief, presence=torch.tensor([[-1.0], [1.0]]))
    memory = model.commit(memory, seen(1), denied)
    assert not memory.traces[1].mask.any() and torch.equal(memory.traces[2].mask, left(belief).soft[1])


def test_what_is_remembered_does_not_depend_on_the_rows_left_out() -> None:
    model = xmem()
    memory = started(model, {1: A, 2: B})
    belief = model.predict(memory, seen(1))
    whole, part = (model.commit(memory, seen(1), b) for b in (belief, belief.only([1])))
    assert torch.equal(whole.traces[2].mask, part.traces[2].mask)
    assert torch.equal(whole.groups[0].working[0].received, part.groups[0].working[0].received)


# -- usage


def test_every_read_counts_once(tmp_path: Path) -> None:
    model = xmem()
    memory = started(model, {1: A, 2: B}, frames=2)
    [frame] = memory.groups[0].working
    assert frame.reads.unique().tolist() == [2]
    assert float(frame.received.sum()) == pytest.approx(2 * CELLS, rel=1e-5)
    belief = model.predict(memory, seen(3))
    asked = model.commit(memory, seen(3), belief.only([1]))
    asked, _ = model.prompt(asked, seen(3), {1: C})  # the group has been read in this frame already
    assert asked.groups[0].working[0].reads.unique().tolist() == [3]
    asked = model.commit(memory, seen(3), belief.only([]))
    asked, _ = model.prompt(asked, seen(3), {1: C, 2: B})
    assert asked.groups[0].working[0].reads.unique().tolist() == [3]
    assert asked.groups[0].working[1].reads.unique().tolist() == [0]


# -- the memory is a value


def test_nothing_writes_into_a_memory(tmp_path: Path) -> None:
    model = xmem(every=1)
    memory = started(model, {1: A, 2: B}, frames=5)
    assert memory.groups[0].long_term is not None
    before = content(memory, tmp_path)
    belief = model.predict(memory, seen(6))
    equal(model.predict(memory, seen(6)), belief)
    model.prompt(model.commit(memory, seen(6), belief), seen(6), {1: C, 9: B})
    model.forget(memory, [1])
    model.branch(memory, {4: 1})
    assert content(memory, tmp_path) == before


def test_a_saved_memory_goes_on_bit_by_bit(tmp_path: Path) -> None:
    model = xmem(every=1)
    memory = started(model, {1: A, 2: B}, frames=6)
    store.save_memory(memory, tmp_path / "memory")
    loaded = store.load_memory(tmp_path / "memory")
    assert content(loaded, tmp_path) == content(memory, tmp_path)
    a, b = (after(model, m, range(7, 11)) for m in (memory, loaded))
    for x, y in zip(a[1], b[1], strict=True):
        equal(x, y)
    assert content(a[0], tmp_path) == content(b[0], tmp_path)


def test_forgetting_drops_objects_and_empty_groups() -> None:
    model = xmem()
    memory = started(model, {1: A, 2: B}, frames=1)
    memory, _ = model.prompt(memory, seen(1), {3: C})
    rest = model.forget(memory, [1])
    assert list(rest.traces) == [2, 3] and [g.ids for g in rest.groups] == [(2,), (3,)]
    rest = model.forget(rest, [2, 77])
    assert list(rest.traces) == [3] and [g.ids for g in rest.groups] == [(3,)]
    assert model.predict(rest, seen(2)).ids == (3,)
    nobody = model.forget(rest, [3])
    assert not nobody.groups and model.predict(nobody, seen(2)).ids == ()


def test_an_object_alone_is_as_among_others_but_for_what_they_claim() -> None:
    model = xmem()
    memory = started(model, {1: A, 2: B}, frames=1)
    both, alone = model.predict(memory, seen(2)), model.predict(model.branch(memory, {8: 2}), seen(2))
    assert alone.ids == (8,)
    torch.testing.assert_close(left(alone).sensory[0], left(both).sensory[1], rtol=0, atol=1e-5)


def test_memory_is_bounded() -> None:
    model = xmem(every=1)
    memory, sizes = started(model, {1: A}), []
    for t in range(1, 41):
        features = seen(1 + t % 12)
        memory = model.commit(memory, features, model.predict(memory, features))
        sizes.append(count_tensor_bytes(memory))
        assert len(memory.groups[0].working) <= FEW.frames - 1
        assert len(memory.groups[0]) <= (FEW.frames - 1) * CELLS + FEW.long_term
    assert max(sizes[20:]) <= max(sizes[:20])
    assert isinstance(model, SizedPropagator) and max(sizes) <= model.count_object_bytes(SIZE) < 4 * max(sizes)


def test_reading_the_first_frame_costs_no_more_tokens_than_there_are() -> None:
    model = xmem(top_k=30)  # the released code needs as many tokens as that
    memory = started(model, {1: A})
    assert len(memory.groups[0]) == CELLS < 30
    assert torch.isfinite(model.predict(memory, seen(1)).logits).all()


# -- under the systems


WORLD = World([moving(2, 0, 0, 1), moving(20, 24, 0, -1), moving(12, 3, 0, 1, first=4)], length=8)


@pytest.mark.parametrize("clip", [1, 3])
def test_under_deva_a_stream_goes_on_from_its_state(clip: int, tmp_path: Path) -> None:
    system = Deva(ToySegmenter(), xmem(), DevaSettings(clip=clip, every=3, max_missed=1))
    whole = list(system.stream(WORLD))
    assert len(whole) == 8 and any(out.ids for out in whole)
    first = system.stream(WORLD)
    begun = list(islice(first, 4))
    store.save_memory(first.state, tmp_path / "state")
    again = Deva(ToySegmenter(), xmem(), system.settings)
    rest = list(again.stream(WORLD.read(4, 8), store.load_memory(tmp_path / "state")))
    for a, b in zip(whole, begun + rest, strict=True):
        assert a.ids == b.ids and torch.equal(a.masks, b.masks)


def test_under_tracking_and_the_memory_tree() -> None:
    masks = {0: {1: WORLD.truth(0)[0], 2: WORLD.truth(0)[1]}, 3: {1: WORLD.truth(3)[0]}}
    plain = Track(xmem(), masks).run(WORLD, lambda *_: None)
    assert [m.id for m in plain.masklets] == [1, 2]
    tree = Track(MemoryTree(xmem()), masks).run(WORLD, lambda *_: None)
    for a, b in zip(plain.masklets, tree.masklets, strict=True):  # one hypothesis: one pathway
        assert {t: s.mask for t, s in a.sightings.items()} == {t: s.mask for t, s in b.sightings.items()}


# -- weights


def test_weights_of_both_kinds_of_file(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "deva.pth")
    save_file(weights(), tmp_path / "deva.safetensors")
    for name in ("deva.pth", "deva.safetensors"):
        model = load_xmem(tmp_path / name, size=None)
        assert list(model.weights) == [name] and len(model.weights[name]) == 64
        assert all(torch.equal(v, weights()[k]) for k, v in model.net.state_dict().items())
        assert not model.net.training and not any(p.requires_grad for p in model.net.parameters())
    assert torch.equal(model.encode(clip()[:1])[0].coarse, seen(0).coarse)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("key_proj.d_proj.bias"), "it lacks key_proj.d_proj.bias"),
        (lambda w: w.update({"head.weight": torch.zeros(2)}), "it has besides head.weight"),
        (lambda w: w.update({"mask_decoder.pred.bias": torch.zeros(2)}), "in another shape mask_decoder.pred.bias"),
    ],
)
def test_weights_of_another_network(change, said: str) -> None:  # type: ignore[no-untyped-def]
    state = dict(weights())
    change(state)
    with pytest.raises(InputError, match=f"^f.pth: not the weights of DEVA's propagation network: .*{said}"):
        build_xmem(state, Path("f.pth"))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weight file"):
        load_xmem(tmp_path / "none.pth")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="no weight file"):
        load_xmem(tmp_path / "notes.txt")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="damaged"):
        load_xmem(tmp_path / "cut.pth")
    (tmp_path / "code.pth").write_bytes(pickle.dumps(print, protocol=2))
    with pytest.raises(InputError, match="not read"):
        load_xmem(tmp_path / "code.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"12")
    with pytest.raises(InputError, match="damaged"):
        load_xmem(tmp_path / "cut.safetensors")
