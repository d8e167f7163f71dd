"""SAM 2: the official video predictor's numbers, run by run."""

from __future__ import annotations

import zlib
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from golden import sam2_fixtures
from golden.sam2_fixtures import (
    arrays,
    clip,
    clips,
    encoded,
    first_clip,
    needs,
    network,
    object_mask,
    parameter,
    runs,
    table,
)

from masklet.core.instances import Box, Clicks, Point, Prompt
from masklet.core.masks import resize_bilinear
from masklet.models.sam2.image_encoder import MEAN, STD, Sam2ImageEncoder
from masklet.models.sam2.memory import RecentFrames, reverse_time, shift_time
from masklet.models.sam2.propagator import Sam2

needs("runs.json", "baseline.npz", "model.json", "key_map.json", "clips.npz", "recipe.py")


def as_prompt(run: dict[str, Any], given: dict[str, Any], before: Prompt | None) -> Prompt:
    if "mask" in given:
        return object_mask(run["clip"], given["frame"], given["object"])
    if "box" in given:
        return Clicks((), Box(*given["box"]))
    points = [Point(*xy, inside=bool(label)) for xy, label in zip(given["points"], given["labels"], strict=True)]
    earlier = before.points if isinstance(before, Clicks) and not given.get("clear_old_points", True) else ()
    return Clicks((*earlier, *points))


class Predictor:
    """The official predictor's way of working: all prompts first, then passes over the clip."""

    def __init__(self, name: str) -> None:
        self.run = table("runs.json")["baseline"][name]
        limit = self.run["max_cond_frames"]
        frames = clip(self.run["clip"])[: self.run["frames_used"]]
        policy = RecentFrames(None if limit == -1 else limit, min(16, len(frames)))
        self.sam2 = Sam2(network(self.run["weights"]), policy, postprocess=self.run["postprocess"])
        self.features = encoded(self.run["clip"], self.run["weights"])[: len(frames)]
        self.memory, self.at = self.sam2.empty(), 0  # the memory is about to see frame `at`
        self.prompted: dict[tuple[int, int], dict[str, Any]] = {}
        asked: dict[tuple[int, int], Prompt] = {}
        for given in self.run["prompts"]:
            t, o = given["frame"], given["object"]
            asked[t, o] = as_prompt(self.run, given, asked.get((t, o)))
            self.memory, self.at = shift_time(self.memory, t + 1 - self.at), t + 1
            self.memory, answer = self.sam2.prompt(self.memory, self.features[t], {o: asked[t, o]})
            bank = self.memory.banks[o]
            self.prompted[t, o] = {
                "low": bank.logits,
                "obj": answer.presence[0, 0],
                "iou": answer.quality[0],
                "ptr": bank.prompted[-1].pointer,
                "spatial": bank.prompted[-1].spatial,
                "is_mask": not isinstance(asked[t, o], Clicks),
            }

    def sweep(self, start: int, reverse: bool) -> dict[tuple[int, int], dict[str, Any]]:
        """All frames from `start` on; an object is not predicted in frames that hold a prompt for it."""
        memory = shift_time(self.memory, start - self.at)
        memory = reverse_time(memory) if reverse else memory
        answers = {}
        for t in range(start, -1, -1) if reverse else range(start, len(self.features)):
            belief = self.sam2.predict(memory, self.features[t])
            belief = belief.only([r for r, o in enumerate(belief.ids) if (t, o) not in self.prompted])
            memory = self.sam2.commit(memory, self.features[t], belief)
            for row, o in enumerate(belief.ids):
                entry = memory.banks[o].recent[-1]
                answers[t, o] = {
                    "low": belief.best.logits[row, 0],
                    "multi": belief.logits[row],
                    "obj": belief.presence[row, 0],
                    "iou": belief.quality[row],
                    "ptr": entry.pointer,
                    "spatial": entry.spatial,
                    "is_mask": False,
                }
            answers |= {at: a for at, a in self.prompted.items() if at[0] == t}
        self.memory, self.at = memory, len(self.features)
        return answers


@pytest.mark.parametrize("name", runs("baseline"))
def test_official_sam2(name: str) -> None:
    predictor = Predictor(name)
    h, w = clip(predictor.run["clip"])[0].size
    for number, way in enumerate(predictor.run["passes"]):
        expected = {a: arrays("baseline.npz").get(f"{name}.{number}.{a}") for a in NAMES}
        answers = predictor.sweep(way["start"], way["reverse"])
        assert {t for t, _ in answers} == set(np.flatnonzero(expected["visited"]).tolist())
        for (t, o), got in answers.items():
            at = t, predictor.run["objects"].index(o)
            assert expected["is_cond"][at] == ((t, o) in predictor.prompted)
            close(got["low"], expected["low"][at], 5e-3 if name.startswith("points") else 4e-3, "logits", at)
            close(got["obj"], expected["obj"][at], 5e-3, "object score", at)
            close(got["ptr"], expected["ptr"][at], 3e-3, "pointer", at)
            if not got["is_mask"]:
                close(got["iou"], expected["iou"][at][: len(got["iou"])], 1e-3, "IoU", at)
            if expected["multi"] is not None and "multi" in got:
                close(got["multi"], expected["multi"][at].astype(np.float32), 1e-2, "candidates", at)
            if expected["maskmem_bf16"] is not None and t < len(expected["maskmem_bf16"]):
                units = torch.from_numpy(expected["maskmem_bf16"][at].astype(np.int32)).flatten(1).T
                assert apart(got["spatial"], units).max() <= 2
            bits = np.unpackbits(expected["video_bits"][at])[: h * w].astype(bool)
            assert (bits != (resize_bilinear(got["low"][None], (h, w))[0] > 0).flatten().numpy()).mean() <= 1e-3


NAMES = ("visited", "is_cond", "low", "iou", "obj", "ptr", "video_bits", "multi", "maskmem_bf16")


def close(got: torch.Tensor, expected: Any, tolerance: float, what: str, at: tuple[int, int]) -> None:
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=tolerance, err_msg=f"{what} of (frame, row) {at}")


def apart(got: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """The difference in bfloat16 units of the number, or of 1 for smaller numbers: values cancel there."""
    wanted = (bits.int() << 16).view(torch.float32)
    unit = 2.0 ** (wanted.abs().clamp(min=1).log2().floor() - 7)
    return (got.float() - wanted).abs() / unit


def test_image_features_of_the_first_frame() -> None:
    sam2 = Sam2(network("w1"))
    [features] = sam2.encode(clip(first_clip())[:1])
    for name, got in (("4", features.fine), ("8", features.medium), ("16", features.coarse)):
        expected = arrays("baseline.npz")[f"frame0_features_stride{name}"].astype(np.float32)
        np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize("name", clips())
def test_frames_reach_the_network_as_the_official_code_resizes_them(name: str) -> None:
    """By the CRC-32 of the pixels of every frame, brought back from what the network is given."""
    images, recorded = Sam2ImageEncoder(network("w1")), table("runs.json")["clips"][name]["resized_crc32"]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    for t, (frame, crc) in enumerate(zip(clip(name), recorded, strict=True)):
        seen = ((images.prepare_pixels(frame)[0] * std + mean) * 255).round().permute(1, 2, 0).to(torch.uint8)
        assert zlib.crc32(seen.contiguous().numpy().tobytes()) == crc, f"frame {t}"


@pytest.mark.parametrize("weights", ["w1", "w2"])
def test_every_weight_is_the_one_that_was_recorded(weights: str) -> None:
    """Its seed may be a parameter's own; `parameter` compares the CRC-32 of all of which there is one."""
    how = table("model.json")["weights"][weights]
    for official, shape in table("model.json")["parameters"].items():
        if official in how["crc32_of_float32_bytes"]:
            parameter(weights, official, tuple(shape))
    assert len(how["crc32_of_float32_bytes"]) == len(table("model.json")["parameters"])


def test_a_parameter_s_own_seed_counts_and_a_wrong_crc_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fixture may give the weights a seed, and a parameter another one; what is rebuilt otherwise is no fixture's."""
    told = deepcopy(table("model.json"))
    name, shape = next((k, tuple(v)) for k, v in told["parameters"].items() if len(v) == 1)
    how = told["weights"]["w1"]
    how["overrides"].setdefault(name, {})["seed"] = how.get("seed", "")
    how["seed"] = "another."
    monkeypatch.setattr(sam2_fixtures, "table", lambda file: told)
    sam2_fixtures.parameter("w1", name, shape)
    how["crc32_of_float32_bytes"][name] += 1
    with pytest.raises(AssertionError, match="not the weights of the recipe"):
        sam2_fixtures.parameter("w1", name, shape)
