"""Prompts as they are written on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.image_files import open_image
from masklet.core.instances import Box, Clicks, Point, Prompt

FORM = "write it as FRAME:ID:mask.png, FRAME:ID:box=x0,y0,x1,y1, FRAME:ID:point=x,y or FRAME:ID:outside=x,y"


def read_prompts(texts: Sequence[str]) -> dict[int, dict[int, Prompt]]:
    """{frame: {id: prompt}} of FRAME:ID:WHAT texts. Raises InputError naming the text that is malformed."""
    prompts: dict[int, dict[int, Prompt]] = {}
    for text in texts:
        frame, id, prompt = read_prompt(text)
        earlier = prompts.setdefault(frame, {}).get(id)
        prompts[frame][id] = prompt if earlier is None else join_prompts(text, earlier, prompt)
    return prompts


def join_prompts(text: str, earlier: Prompt, more: Prompt) -> Clicks:
    """Joins two prompts of one object in one frame, `earlier` and `more`: the points correct the mask.

    Raises InputError where both say where the whole object is, each with a box or a mask; the message quotes `text`,
    the later of them as it was written.
    """
    parts = Clicks.of(earlier), Clicks.of(more)
    whole = [kind for part in parts for kind in ("box", "mask") if getattr(part, kind) is not None]
    if len(whole) > 1:
        raise InputError(
            f"--prompt {text}: the object has a {whole[0]} in this frame already; give one of them, and points"
        )
    boxes, masks = [p.box for p in parts if p.box], [p.mask for p in parts if p.mask is not None]
    return Clicks(parts[0].points + parts[1].points, boxes[0] if boxes else None, masks[0] if masks else None)


def read_prompt(text: str) -> tuple[int, int, Prompt]:
    """The frame, object id and prompt of FRAME:ID:WHAT. Raises InputError where malformed, or the mask is of no use.

    >>> read_prompt("0:1:point=20,30")
    (0, 1, Point(x=20.0, y=30.0, inside=True))
    """
    parts = text.split(":", 2)
    if len(parts) < 3 or not all(p.strip().isdecimal() for p in parts[:2]):
        raise InputError(f"--prompt {text}: {FORM}")
    frame, id, what = int(parts[0]), int(parts[1]), parts[2]
    if what.startswith("box="):
        return frame, id, Box(*_parse_prompt_numbers(text, what, 4))
    if what.startswith("point="):
        x, y = _parse_prompt_numbers(text, what, 2)
        return frame, id, Point(x, y)
    if what.startswith("outside="):
        x, y = _parse_prompt_numbers(text, what, 2)
        return frame, id, Point(x, y, inside=False)
    return frame, id, read_prompt_mask(Path(what), id)


def _parse_prompt_numbers(text: str, what: str, n: int) -> list[float]:
    try:
        values = [float(v) for v in what.partition("=")[2].split(",")]
    except ValueError:
        values = []
    if len(values) != n or not np.isfinite(values).all():
        raise InputError(f"--prompt {text}: {n} numbers are needed after '='; {FORM}")
    return values


def read_prompt_mask(path: Path, id: int) -> Bool[Tensor, "h w"]:
    """The mask in an image: in a palette image (DAVIS) the pixels of value `id`, elsewhere all that are not black.

    Raises InputError where there is no such image or nothing in it.
    """
    image = _open_prompt_image(path)
    if image.mode == "P":
        mask: Any = np.asarray(image) == id
    else:
        mask = np.asarray(image.convert("RGB")).any(-1)
    if not mask.any():
        what = f"no pixel of value {id}" if image.mode == "P" else "no pixel that is not black"
        raise InputError(f"--prompt: {path} has {what}; mark the object in it")
    return torch.from_numpy(mask)


def _open_prompt_image(path: Path) -> Image.Image:
    return open_image(path, FORM)
