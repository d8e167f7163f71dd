"""Cutie against the package's own inference at random weights, and what every propagator must keep to."""

from __future__ import annotations

import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.instances import Point
from masklet.core.memory import load_memory, save_memory
from masklet.core.protocols import Propagator, SizedPropagator
from masklet.parts import load_propagator

pytest.importorskip("cutie")
from masklet.models.cutie import Cutie, CutieMemory, create_cutie, keep_recent, load_cutie

SIZE = (80, 112)  # 35 cells: a cell reads 30


@cache
def small_net() -> Any:
    torch.manual_seed(5)
    net = create_cutie("small").eval().requires_grad_(False)
    for name, parameter in net.named_parameters():  # as they begin, some are zero and say nothing
        if parameter.ndim == 1 and not name.endswith("weight"):
            parameter.normal_(0, 0.2)
    return net


def cutie(**settings: Any) -> Cutie:
    return Cutie(small_net(), size=None, **settings)


def frames_of(count: int, size: tuple[int, int] = SIZE) -> list[Frame]:
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 256, (*size, 3), np.uint8)
    return [Frame(t, np.roll(ground, 3 * t, 1) // 2 + rng.integers(0, 40, (*size, 3), np.uint8), t / 25) for t in range(count)]  # fmt: skip


def mask_of(y: int, x: int, size: tuple[int, int] = SIZE) -> torch.Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[y : y + 18, x : x + 22] = True
    return mask


def run_ours(propagator: Cutie, frames: list[Frame], given: dict[int, dict[int, torch.Tensor]]) -> list[dict[int, Any]]:
    memory, found = propagator.empty(), []
    for frame in frames:
        [features] = propagator.encode([frame])
        belief = propagator.predict(memory, features)
        memory = propagator.commit(memory, features, belief)
        if frame.index in given:
            memory, _ = propagator.prompt(memory, features, given[frame.index])
        found.append({id: belief.logits[n, 0] for n, id in enumerate(belief.ids)})
    return found


def run_package(frames: list[Frame], given: dict[int, dict[int, torch.Tensor]]) -> list[torch.Tensor]:
    """The package's own loop: probabilities, the background first."""
    from cutie.inference.inference_core import InferenceCore
    from omegaconf import OmegaConf

    model = small_net().cfg.model
    cfg = OmegaConf.create({
        "model": model, "mem_every": 2, "stagger_updates": 5, "chunk_size": -1, "save_aux": False, "max_internal_size": -1,
        "flip_aug": False, "top_k": 30, "use_long_term": False, "max_mem_frames": 5, "long_term": {"count_usage": False},
    })  # fmt: skip
    core, found = InferenceCore(small_net(), cfg), []
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for frame in frames:
            image = torch.from_numpy(frame.image).permute(2, 0, 1).float() / 255
            if frame.index in given:
                ids, masks = zip(*given[frame.index].items(), strict=True)
                labels = sum(id * mask.long() for id, mask in zip(ids, masks, strict=True))
                found.append(core.step(image, labels, list(ids)))
            else:
                found.append(core.step(image))
    return found


@pytest.mark.parametrize("size", [SIZE, (82, 107)])
def test_masks_are_those_of_the_package(size: tuple[int, int]) -> None:
    """Two objects from the first frame, a third from the fourth; frames enough for memory to be forgotten."""
    frames = frames_of(14, size)
    given = {0: {1: mask_of(4, 6, size), 2: mask_of(45, 60, size)}, 3: {3: mask_of(10, 70, size)}}
    ours, theirs = run_ours(cutie(every=2), frames, given), run_package(frames, given)
    for t in (1, 2, 4, 5, 8, 12, 13):
        for id, logits in ours[t].items():
            others = torch.cat([theirs[t][:id], theirs[t][id + 1 :]]).amax(0)
            expected = torch.log(theirs[t][id].clamp(min=1e-12)) - torch.log(others.clamp(min=1e-12))
            assert (logits - expected).abs().max() < 1e-3 * expected.abs().max() + 2e-5, (t, id)


def test_it_keeps_to_the_protocols() -> None:
    assert isinstance(cutie(), Propagator) and isinstance(cutie(), SizedPropagator)
    assert cutie().count_object_bytes((480, 854)) > 10**7
    empty = cutie().predict(CutieMemory(), cutie().encode(frames_of(1))[0])
    assert empty.ids == () and empty.logits.shape[0] == 0


def test_memory_is_a_value_is_bounded_and_is_resumed(tmp_path: Path) -> None:
    own, frames = cutie(every=2), frames_of(14)
    memory, sizes = own.empty(), []
    for frame in frames:
        [features] = own.encode([frame])
        memory = own.commit(memory, features, own.predict(memory, features))
        if not frame.index:
            memory, _ = own.prompt(memory, features, {1: mask_of(4, 6), 7: mask_of(45, 60)})
        sizes.append(sum(len(f) for group in memory.groups for f in group))
    assert sizes[-1] == sizes[9] and len(memory.groups[0]) == 5
    save_memory(memory, tmp_path / "m.safetensors")
    again = load_memory(tmp_path / "m.safetensors")
    [features] = own.encode([frames[-1]])
    assert torch.equal(own.predict(memory, features).logits, own.predict(again, features).logits)
    alone = own.branch(memory, {5: 7})
    assert own.predict(alone, features).ids == (5,) and own.predict(memory, features).ids == (1, 7)
    assert own.forget(memory, [1, 7]).traces == {} and own.forget(memory, [1, 7]).groups == ()


def test_what_is_prompted_takes_its_pixels_and_clicks_are_refused() -> None:
    own = cutie()
    [features] = own.encode(frames_of(1))
    memory, given = own.prompt(own.empty(), features, {1: mask_of(4, 6)})
    memory, _ = own.prompt(memory, features, {2: mask_of(4, 6)})
    assert memory.traces[1].mask.max() < 0.5 < memory.traces[2].mask.max()
    assert torch.equal(given.logits[0, 0] > 0, mask_of(4, 6))
    with pytest.raises(InputError, match="cutie takes masks, not clicks"):
        own.prompt(memory, features, {1: Point(3, 4)})


def test_the_first_frame_is_kept_and_the_last_ones() -> None:
    frames: Any = tuple("abcdef")
    assert "".join(keep_recent(frames, 3)) == "aef" and "".join(keep_recent(frames, 1)) == "a"


def test_weights_are_read_strictly_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {name: value.contiguous() for name, value in small_net().state_dict().items()}
    save_file(state, tmp_path / "small.safetensors")
    own = load_propagator(f"cutie:{tmp_path / 'small.safetensors'}", None, "cpu", {"every": 3})
    assert own.every == 3 and list(own.weights) == ["small.safetensors"] and own.size == 480
    [a], [b] = own.encode(frames_of(1)), Cutie(small_net()).encode(frames_of(1))
    assert torch.equal(a.pixels, b.pixels) and torch.equal(a.query.keys, b.query.keys)
    save_file({**state, "more": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(InputError, match="more"):
        load_cutie(tmp_path / "more.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="not the weights of a Cutie"):
        load_cutie(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="cutie: name its weight file"):
        load_propagator("cutie", None, "cpu")
    monkeypatch.setitem(sys.modules, "cutie", None)
    with pytest.raises(InputError, match=r"pip install \"masklet\[cutie\]\""):
        load_cutie(tmp_path / "small.safetensors")
