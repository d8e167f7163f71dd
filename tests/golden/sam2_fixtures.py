"""The SAM 2 and SAM2Long fixtures: the slim network rebuilt from names, clips, and what the official code made of them."""

from __future__ import annotations

import importlib.util
import json
import os
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from masklet.core.frames import Frame
from masklet.models.sam2.core import Sam2Features
from masklet.models.sam2.propagator import Sam2

REPOSITORY = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("MASKLET_GOLDEN", REPOSITORY / "../shared/golden")) / "sam2long"


def needs(*names: str) -> None:
    """Skips, visibly, where a file is absent."""
    missing = [n for n in names if not (FOLDER / n).is_file()]
    if missing:
        pytest.skip(f"no {missing[0]} under {FOLDER}: set MASKLET_GOLDEN", allow_module_level=True)


@cache
def table(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


@cache
def arrays(name: str) -> Any:
    return np.load(FOLDER / name)


def runs(kind: str) -> list[str]:
    return sorted(table("runs.json")[kind]) if (FOLDER / "runs.json").is_file() else []


@cache
def network(weights: str, size: int | None = None) -> Any:
    """The slim network of the fixtures, or a full hiera-tiny of another image size, with weights made from names."""
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig
    from transformers.models.sam2_video.configuration_sam2_video import (
        Sam2VideoMaskDecoderConfig,
        Sam2VideoPromptEncoderConfig,
    )

    given = table("model.json")["transformers_config"]
    vision = Sam2VisionConfig(
        backbone_config=Sam2HieraDetConfig(**given["Sam2HieraDetConfig"]), **given["Sam2VisionConfig"]
    )
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(**given["Sam2VideoPromptEncoderConfig"]),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(**given["Sam2VideoMaskDecoderConfig"]),
        **given["Sam2VideoConfig"],
    )
    net = Sam2VideoModel(config).eval().requires_grad_(False)
    net.load_state_dict(state(weights, net.state_dict()))
    return net


def state(weights: str, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor from its official name, under transformers' names."""
    names, extra = (table("key_map.json")[k] for k in ("slim", "extra"))
    out: dict[str, Tensor] = {}
    for official, shape in table("model.json")["parameters"].items():
        value = torch.from_numpy(parameter(weights, official, tuple(shape)))
        for key in [names[official]] * (official in names) + extra.get(official, []):
            base, _, row = key.removesuffix("]").partition("[")
            if row:
                out.setdefault(base, torch.zeros_like(like[base]))[int(row)] = value[0]
            else:
                out[base] = value
    return out


def parameter(weights: str, official: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter's value by its name, a seed that the weights or the parameter have, and what it says besides; it is
    the one that was recorded, by the CRC-32 of its bytes.
    """
    how = table("model.json")["weights"][weights]
    over = how["overrides"].get(official, {})
    seed = over.get("seed", how.get("seed", ""))
    value = recipe().tensor(seed + official, shape, over.get("gain", 1.0))
    value = value * np.float32(over.get("scale", 1)) + np.float32(over.get("shift", 0))
    recorded = how.get("crc32_of_float32_bytes", {}).get(official)
    if shape == tuple(table("model.json")["parameters"].get(official, ())) and recorded is not None:
        found = zlib.crc32(np.ascontiguousarray(value, np.float32).tobytes())
        assert found == recorded, f"{weights}, {official}: not the weights of the recipe"
    return value


@cache
def recipe() -> Any:
    if not (FOLDER / "recipe.py").is_file():
        pytest.skip(f"no recipe.py under {FOLDER}: set MASKLET_GOLDEN")
    spec = importlib.util.spec_from_file_location("recipe", FOLDER / "recipe.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def clip(name: str) -> list[Frame]:
    return [Frame(t, image, t / 10) for t, image in enumerate(arrays("clips.npz")[f"{name}.frames"])]


@cache
def encoded(name: str, weights: str) -> list[Sam2Features]:
    """The frames of a clip as the slim network sees them."""
    return Sam2(network(weights)).encode(clip(name))


def clips() -> list[str]:
    """The names of the clips."""
    return sorted(table("runs.json")["clips"]) if (FOLDER / "runs.json").is_file() else []


def first_clip() -> str:
    """The clip of which the official predictor was recorded, by its name in the file."""
    return next(iter(table("runs.json")["baseline"].values()))["clip"]


def object_mask(name: str, frame: int, number: int) -> Tensor:
    """The visible mask of object 1 or 2."""
    h, w = clip(name)[0].size
    bits = np.unpackbits(arrays("clips.npz")[f"{name}.masks"][frame, number - 1])[: h * w]
    return torch.from_numpy(bits.reshape(h, w).astype(bool))


def packed(masks: Tensor) -> np.ndarray:
    return np.packbits(masks.flatten(1).numpy(), axis=-1)
