"""Decoding by the graphics card that networks compute on, where PyAV's build knows how."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from av.codec.hwaccel import HWAccel, hwdevices_available
from jaxtyping import UInt8

CLOSE = 2.0  # grey levels by which a frame of another decoder may differ in the mean: rounding, not other content

MakeDecoder = Callable[[], Any]  # makes what `av.open` takes as `hwaccel`


def find_hardware_decoder(device: str) -> MakeDecoder | None:
    """What makes the decoder of a `device`: NVIDIA's for "cuda" or "cuda:1"; None where there is none of its own.

    >>> find_hardware_decoder("cpu") is None
    True
    """
    kind, _, number = device.partition(":")
    if kind != "cuda" or kind not in hwdevices_available():
        return None
    return partial(HWAccel, kind, number or None, allow_software_fallback=True)


def is_like(image: UInt8[np.ndarray, "h w 3"], other: UInt8[np.ndarray, "y x 3"]) -> bool:
    """Whether two decoders gave the same frame, but for rounding."""
    if image.shape != other.shape:
        return False
    return bool(np.abs(image.astype(np.int16) - other).mean() <= CLOSE)
