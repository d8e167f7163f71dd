"""SAM 3's tracker: parity with transformers' own video session, memory, prompts, policies over it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from small_sam3 import SIDE, build_whole_tracker, draw_small_sam3
from torch import Tensor

from masklet.core.features import count_tensor_bytes
from masklet.core.frames import Frame
from masklet.core.instances import Box, Clicks, Point, Prompt
from masklet.core.protocols import Propagator
from masklet.models.sam2.memory import MemoryPolicy, RecentFrames
from masklet.models.sam3.propagator import Sam3, Sam3Core
from masklet.models.sam3.trunk import HELD, Sam3Trunk

PLACES = {1: (27.0, 35.0), 2: (83.0, 75.0)}


def clip(length: int, size: tuple[int, int] = (SIDE, SIDE)) -> list[Frame]:
    """Two blobs that cross on a textured ground."""
    draw = np.random.default_rng(5)
    ground = draw.integers(0, 120, (size[0] // 8 + 1, size[1] // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)
    ground = ground[: size[0], : size[1]]
    frames, (ys, xs) = [], np.mgrid[: size[0], : size[1]]
    for t in range(length):
        image = ground.copy()
        image[(ys - 35) ** 2 + (xs - 27 - 5 * t) ** 2 < 17**2] = 230, 60, 60
        image[(ys - 75) ** 2 + (xs - 83 + 5 * t) ** 2 < 12**2] = 40, 90, 240
        frames.append(Frame(t, image.astype(np.uint8)))
    return frames


def propagator(policy: MemoryPolicy | None = None) -> Sam3:
    net = deepcopy(draw_small_sam3())
    return Sam3(net.tracker_model, net.tracker_neck, Sam3Trunk(net.detector_model.vision_encoder.backbone), policy)


class Session:
    """transformers' own way through a clip."""

    def __init__(self, frames: list[Frame]) -> None:
        from transformers import Sam3TrackerVideoInferenceSession

        pixels = torch.stack([torch.from_numpy(f.image) for f in frames]).permute(0, 3, 1, 2).float() / 127.5 - 1
        self.net = build_whole_tracker()
        self.remember_together = self.net._batch_encode_memories
        self.net._batch_encode_memories = self.remember_alone
        self.session = Sam3TrackerVideoInferenceSession(pixels, SIDE, SIDE, dtype=torch.float32)

    def remember_alone(self, **batch: Any) -> None:
        """Where one object is prompted, transformers remembers the masks of all as 0 and 1, the published code not."""
        lists = {name: values for name, values in batch.items() if isinstance(values, list)}
        for row in range(len(batch["objects_needing_memory_encoding"])):
            self.remember_together(**{**batch, **{name: values[row : row + 1] for name, values in lists.items()}})

    def prompt(self, frame: int, prompts: dict[int, Prompt]) -> None:
        for id, prompt in prompts.items():
            index = self.session.obj_id_to_idx(id)
            if isinstance(prompt, Tensor):
                self.session.add_mask_inputs(index, frame, prompt[None, None].float())
                continue
            clicks = Clicks.of(prompt)
            box = [(clicks.box.x0, clicks.box.y0, 2), (clicks.box.x1, clicks.box.y1, 3)] if clicks.box else []
            points = [*box, *((p.x, p.y, int(p.inside)) for p in clicks.points)]
            told = {
                "point_coords": torch.tensor([[[p[:2] for p in points]]]),
                "point_labels": torch.tensor([[[p[2] for p in points]]]).int(),
            }
            self.session.add_point_inputs(index, frame, told)
        self.session.obj_with_new_inputs = list(prompts)

    def step(self, frame: int, reverse: bool = False) -> dict[int, dict[str, Tensor]]:
        out = self.net(self.session, frame_idx=frame, reverse=reverse)
        answers = {}
        for row, id in enumerate(out.object_ids):
            kept = self.session.output_dict_per_obj[self.session.obj_id_to_idx(id)]
            now = kept["cond_frame_outputs"].get(frame) or kept["non_cond_frame_outputs"][frame]
            answers[id] = {
                "logits": out.pred_masks[row, 0],
                "presence": out.object_score_logits[row].view(()),
                "pointer": now["object_pointer"].view(-1),
                "spatial": now["maskmem_features"][:, 0].float(),
            }
        return answers


def ours(frames: list[Frame], given: dict[int, dict[int, Prompt]]) -> list[dict[int, dict[str, Tensor]]]:
    tracker = propagator(RecentFrames(pointers=len(frames)))
    memory, answers = tracker.empty(), []
    for t, frame in enumerate(frames):
        [features] = tracker.encode([frame])
        memory = tracker.commit(memory, features, tracker.predict(memory, features))
        prompts = given.get(t, {})
        memory, _ = tracker.prompt(memory, features, prompts)
        found = {}
        for id, bank in memory.banks.items():
            entry = bank.prompted[-1] if id in prompts else bank.recent[-1]
            assert bank.logits is not None and entry.spatial is not None
            found[id] = {
                "logits": bank.logits,
                "presence": torch.tensor(entry.presence),
                "pointer": entry.pointer,
                "spatial": entry.spatial.float(),
            }
        answers.append(found)
    return answers


def check_parity(found: Any, expected: Any, t: int) -> None:
    assert found.keys() == expected.keys()
    for id, answer in found.items():
        for name, value in expected[id].items():
            within = (0.01, 0.02) if name == "spatial" else (0, 1e-4)  # a few bfloat16 round the other way
            said = f"{name} of {id} in {t}"
            np.testing.assert_allclose(answer[name], value, rtol=within[0], atol=within[1], err_msg=said)


GIVEN: dict[str, dict[int, dict[int, Prompt]]] = {
    "one": {0: {1: Point(*PLACES[1])}},
    "two": {0: {1: Point(*PLACES[1]), 2: Point(*PLACES[2])}},
    "one later": {0: {1: Point(*PLACES[1])}, 3: {2: Point(*PLACES[2])}},
    "box": {0: {1: Box(10, 18, 45, 53)}},
    "clicks": {0: {1: Clicks((Point(*PLACES[1]), Point(90, 20, inside=False), Point(30, 40)))}},
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_parity_with_transformers(given: dict[int, dict[int, Prompt]]) -> None:
    frames = clip(7)
    session = Session(frames)
    for t, found in enumerate(ours(frames, given)):
        if t in given:
            session.prompt(t, given[t])
        check_parity(found, session.step(t), t)


def test_parity_backward() -> None:
    frames, session = clip(6), Session(clip(6))
    session.prompt(5, {1: Point(80, 35)})
    expected = [session.step(t, reverse=t < 5) for t in range(5, -1, -1)]
    found = ours(frames[::-1], {0: {1: Point(80, 35)}})
    for t, (one, other) in enumerate(zip(found, expected, strict=True)):
        check_parity(one, other, t)


def test_the_parity_is_of_masks_that_depend_on_the_memory() -> None:
    answers = ours(clip(4), GIVEN["two"])
    for found in answers:
        assert all(0.02 < (answer["logits"] > 0).float().mean() < 0.98 for answer in found.values())
        assert (found[1]["logits"] - found[2]["logits"]).abs().max() > 0.02
    alone = ours(clip(4), {3: {1: Point(*PLACES[1])}})[3][1]["logits"]
    assert (answers[3][1]["logits"] - alone).abs().max() > 0.1


def test_objects_together_are_objects_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    together = ours(clip(4), GIVEN["two"])
    monkeypatch.setattr(Sam3Core, "split_rows", lambda self, rows: [[row] for row in rows])
    for one, other in zip(together, ours(clip(4), GIVEN["two"]), strict=True):
        for t, id in enumerate((1, 2)):
            check_parity({id: one[id]}, {id: other[id]}, t)


def test_it_is_a_propagator() -> None:
    tracker = propagator()
    assert isinstance(tracker, Propagator)
    assert tracker.description.startswith(f"sam3, {SIDE} px")
    assert tracker.core.mask_side == 32 and tracker.policy == RecentFrames(4)  # 8 x 8 patches, four logits each


def test_a_given_mask_is_believed() -> None:
    tracker, frames = propagator(), clip(2)
    mask = torch.from_numpy((frames[0].image == (230, 60, 60)).all(2))
    first, second = tracker.encode(frames)
    memory, answer = tracker.prompt(tracker.empty(), first, {7: mask})
    assert torch.equal(answer.masks((SIDE, SIDE))[0], mask)
    assert tracker.predict(memory, second).logits.shape == (1, 3, 32, 32)


def test_the_pointer_of_a_given_mask_is_that_of_transformers() -> None:
    frames = clip(1)
    mask = torch.from_numpy((frames[0].image == (230, 60, 60)).all(2))
    session = Session(frames)
    forward = session.net._single_frame_forward
    session.net._single_frame_forward = lambda **told: forward(**told, multimask_output=False)  # as published
    session.prompt(0, {1: mask})
    expected, found = session.step(0)[1], ours(frames, {0: {1: mask}})[0][1]
    torch.testing.assert_close(found["pointer"], expected["pointer"], atol=1e-4, rtol=0)
    torch.testing.assert_close(found["logits"], expected["logits"], atol=1e-4, rtol=0)


def test_a_click_corrects_what_was_believed() -> None:
    tracker, frames = propagator(), clip(3)
    memory, prompts = tracker.empty(), {1: Point(*PLACES[1])}
    for features in tracker.encode(frames):
        memory = tracker.commit(memory, features, tracker.predict(memory, features))
        memory, _ = tracker.prompt(memory, features, prompts)
        prompts = {}
    believed = memory.banks[1].logits
    corrected, answer = tracker.prompt(memory, features, {1: Clicks((Point(60, 60), Point(30, 30, inside=False)))})
    bank = corrected.banks[1]
    assert len(bank.prompted) == 2 and bank.now == memory.banks[1].now
    assert bank.logits is not None and believed is not None and not torch.equal(bank.logits, believed)
    assert answer.ids == (1,)


def test_state_is_flat_from_frame_20_on() -> None:
    tracker = propagator()
    [features] = tracker.encode(clip(1))
    memory, _ = tracker.prompt(tracker.empty(), features, {1: Point(*PLACES[1]), 2: Box(70, 60, 99, 90)})
    sizes = []
    for _ in range(24):
        memory = tracker.commit(memory, features, tracker.predict(memory, features))
        sizes.append(count_tensor_bytes(memory))
    assert sizes[17] == sizes[-1] == max(sizes) < 2 * tracker.count_object_bytes((SIDE, SIDE))


def test_a_frame_is_encoded_once_for_all_who_look() -> None:
    tracker, frames = propagator(), clip(3)
    passes: list[int] = []
    tracker.trunk.net.register_forward_hook(lambda *call: passes.append(1))
    first = tracker.encode(frames)
    again = tracker.encode(frames)
    assert len(passes) == 3 and torch.equal(first[1].coarse, again[1].coarse)
    tracker.encode(clip(20))
    assert len(passes) == 23 and len(tracker.trunk._seen._kept) == HELD
