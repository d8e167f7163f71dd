"""SAM2Long: the official tree's decisions, and its rules on small tables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from golden.sam2_fixtures import FOLDER, arrays, clip, encoded, needs, network, object_mask, packed, runs, table

from masklet.core.instances import Prediction
from masklet.core.tracks import Source, TrackBook
from masklet.models.sam2.core import Sam2Features
from masklet.models.sam2.memory import MemoryBank, MemoryEntry, MemoryReading, ReliableFrames, Sam2Memory
from masklet.models.sam2.propagator import Sam2
from masklet.systems.sam2long import MemoryTree, select_pathways
from masklet.systems.sweep import note_prediction

needs("runs.json", "sam2long.npz", "rule_cases.json", "model.json", "key_map.json", "clips.npz", "recipe.py")


def reading_of(reading: MemoryReading, start: int, longest: int) -> dict[str, list[float]]:
    """What the fixtures call things: frames, and the numbers they are encoded with."""
    return {
        "mem_frames": [e.time + start for e in reading.frames],
        "mem_tpos": [(7 - rank) % 7 for rank in reading.ranks],
        "ptr_frames": [e.time + start for e in reading.pointers],
        "ptr_pos": [round(d * longest) for d in reading.distances],
    }


def unpadded(row: Any) -> list[int]:
    return [int(v) for v in row if v >= 0]


class OverheardSam2(Sam2):
    """Keeps what it answered last, which the tree chooses from."""

    answer: Prediction

    def predict(self, memory: Sam2Memory, features: Sam2Features) -> Prediction:
        self.answer = super().predict(memory, features)
        return self.answer


@pytest.mark.parametrize("name", runs("sam2long"))
def test_official_sam2long(name: str) -> None:
    how = table("runs.json")["sam2long"][name]
    frames, start = clip(how["clip"]), how["start"]
    policy = ReliableFrames(how["iou_thre"], min(16, len(frames)))
    sam2 = OverheardSam2(network(how["weights"]), policy, postprocess=how["postprocess"])
    tree = MemoryTree(sam2, how["P"], how["uncertainty"])
    expected = {
        k.removeprefix(f"{name}."): arrays("sam2long.npz")[k]
        for k in arrays("sam2long.npz").files
        if k.startswith(f"{name}.")
    }
    features = encoded(how["clip"], how["weights"])
    given = {1: object_mask(how["clip"], start, how["obj"] + 1)}
    memory, _ = tree.prompt(tree.empty(), features[start], given)
    close(memory.inner.banks[1].prompted[0].pointer, expected["cond_ptr"], 3e-3, "pointer of the prompt")
    book, low = TrackBook(), {}
    for t in range(start + 1, len(frames)):
        belief = tree.predict(memory, features[t])
        check_reading(memory, policy, expected, t, start)
        if t > start + 1:
            check_candidates(sam2.answer, memory.trees[1], how, expected, t)
        note_prediction(book, t, belief, frames[0].size, Source.FORWARD)
        memory = tree.commit(memory, features[t], belief)
        check_slots(belief, memory, expected, t, slots=1 if t == start + 1 else how["P"])
        low[t] = belief.logits[0]
    book.settle()
    check_answer(book, low, expected, start, frames[0].size)


def check_reading(memory: Any, policy: ReliableFrames, expected: Any, t: int, start: int) -> None:
    for slot, path in enumerate(memory.trees[1].paths):
        if slot > 0 and t == start + 1:
            break  # one slot is shared there
        bank = memory.inner.banks[path]
        reading = policy.read(bank)
        got = reading_of(reading, start, policy.pointers - 1)
        assert [e.time + start for e in policy.valid(bank)] == unpadded(expected["valid"][t, slot])
        for what, values in got.items():
            if (expected[what][t, slot] >= 0).any():
                assert values == unpadded(expected[what][t, slot]), (what, t, slot)
        for kind, weights in (("mem", reading.frame_weights), ("ptr", reading.pointer_weights)):
            wanted = expected[f"{kind}_weights"][t, slot]
            wanted = wanted[np.isfinite(wanted) & (wanted > 0)]
            if weights is not None and len(wanted):
                np.testing.assert_allclose(weights, wanted, rtol=0, atol=1e-6)


def check_candidates(inner: Any, tree: Any, how: Any, expected: Any, t: int) -> None:
    rows = [inner.ids.index(p) for p in tree.paths]
    close(inner.quality[rows], expected["cand_iou"][t], 1e-3, f"IoU of the candidates of frame {t}")
    close(inner.presence[rows, 0], expected["obj_score"][t], 5e-3, f"object scores of frame {t}")
    total = np.array(tree.scores)[:, None] + np.log(inner.quality[rows].double().numpy() + 1e-5)
    np.testing.assert_allclose(total, expected["cand_score"][t], rtol=0, atol=2e-2)  # logarithms of small IoUs
    assert expected["uncertain"][t] == (float(inner.presence[rows].abs().max()) <= how["uncertainty"])
    kept, scores = select_pathways(
        tree.scores, inner.quality[rows].tolist(), inner.presence[rows, 0].tolist(), how["uncertainty"]
    )
    official = [(tree.paths[p], c) for p, c in expected["kept"][t].tolist()]
    assert [(tree.paths[p], c) for p, c in kept] == official, f"frame {t}"
    np.testing.assert_allclose(scores, expected["acc_score"][t], rtol=0, atol=2e-2)  # sums of the same logarithms


def check_slots(belief: Any, memory: Any, expected: Any, t: int, slots: int) -> None:
    for slot, path in enumerate(memory.trees[1].paths[:slots]):
        entry = memory.inner.banks[path].recent[-1]
        assert math.isclose(entry.quality, expected["slot_iou"][t, slot], abs_tol=1e-3)
        assert math.isclose(entry.presence, expected["slot_obj"][t, slot], abs_tol=5e-3)
        close(entry.pointer, expected["slot_ptr"][t, slot], 5e-3, f"pointer of frame {t}, slot {slot}")
        if "slot_low" in expected:
            close(
                belief.logits[0, slot], expected["slot_low"][t, slot].astype(np.float32), 1e-2, f"logits of frame {t}"
            )


def check_answer(book: TrackBook, low: Any, expected: Any, start: int, size: tuple[int, int]) -> None:
    """The best pathway, traced back."""
    for t, logits in low.items():
        slot = 0 if t == start + 1 else expected["final_pick"][t]
        close(logits[slot], expected["final_low"][t], 5e-3, f"final logits of frame {t}")
        seen = book.pages[1].get(t)
        mask = seen.mask.decode() if seen else torch.zeros(size, dtype=torch.bool)
        bits = np.unpackbits(expected["final_bits"][t] ^ packed(mask[None])[0])
        assert bits.mean() <= 1e-3, t


def close(got: torch.Tensor, expected: Any, tolerance: float, what: str) -> None:
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=tolerance, err_msg=what)


CASES = table("rule_cases.json") if (FOLDER / "rule_cases.json").is_file() else {"selection": [], "memory": []}


def test_selection_cases() -> None:
    for n, case in enumerate(CASES["selection"]):
        kept, scores = select_pathways(case["acc"], case["iou"], case["obj"], case["uncertainty"])
        assert [list(at) for at in kept] == case["kept"], n
        np.testing.assert_allclose(scores, case["acc_out"], rtol=0, atol=1e-9)


def entry(time: int, quality: float, presence: float) -> MemoryEntry:
    return MemoryEntry(time, torch.zeros(4), quality, presence, torch.zeros(1, 1, dtype=torch.bfloat16))


def test_memory_cases() -> None:
    for n, case in enumerate(CASES["memory"]):
        policy = ReliableFrames(case["iou_threshold"], min(16, case["num_frames"]))
        bank = MemoryBank(1, (entry(0, 1.0, 10.0),))
        for t in range(case["start"] + 1, case["frame"]):  # kept as it grows: what is dropped must never be missed
            time = t - case["start"]
            new = entry(time, case["iou"][t], case["obj"][t])
            bank = policy.keep(MemoryBank(time + 1, bank.prompted, (*bank.recent, new)))
        reading = policy.read(bank)
        got = reading_of(reading, case["start"], policy.pointers - 1)
        assert [e.time + case["start"] for e in policy.valid(bank)] == case["valid"], n
        assert got["mem_frames"] == case["memory_frames"], n
        assert reading.ranks == case["memory_offset_from_now"], n
        assert got["ptr_frames"] == case["pointer_frames"], n
        assert got["ptr_pos"] == case["pointer_positions"], n
        assert all(e.spatial is not None for e in reading.frames)
        np.testing.assert_allclose(reading.frame_weights, case["frame_weights"], rtol=0, atol=1e-6, err_msg=str(n))
        np.testing.assert_allclose(reading.pointer_weights, case["pointer_weights"], rtol=0, atol=1e-6)
