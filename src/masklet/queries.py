"""Systems of a Mask2Former's queries by name: MinVIS and DVIS, from one file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from masklet.core.errors import InputError
from masklet.models.mask2former import Mask2Former
from masklet.models.mask2former_names import OFFLINE, ONLINE, demand
from masklet.models.mask2former_weights import build
from masklet.nn.referring_tracker import released_tracker
from masklet.nn.temporal_refiner import released_refiner
from masklet.parts import checked_short, found_device
from masklet.systems import dvis, minvis
from masklet.systems.dvis import DvisRefined
from masklet.systems.slot_loop import Online

QUERY_SYSTEMS: Mapping[str, type[Any]] = {
    "minvis": minvis.Settings,
    "dvis": dvis.Settings,
    "dvis-offline": dvis.Settings,
}


WEIGHTS = {"dvis": ONLINE, "dvis-offline": OFFLINE}  # by their tensors' names


def load_queries(system: str, name: str | None, device: str, settings: Any) -> Online[Any] | DvisRefined[Any]:
    """A system of `QUERY_SYSTEMS`.

    Args:
        system: its name.
        name: weights: of "minvis" any Mask2Former (hub id, folder, official checkpoint); of DVIS an official checkpoint
            with its tracker and, offline, its refiner. "NAME@480": at another size of the short side.
        device: as in `parts.load_propagator`.
        settings: of the system's own class.

    Raises:
        InputError: no name, or its weights are not on this machine or not of this system.
    """
    if not name:
        raise InputError(
            f"{system} needs the weights of a Mask2Former: --segmenter facebook/mask2former-swin-tiny-coco-instance "
            "(fetched before), or an official checkpoint of MinVIS or DVIS"
        )
    base, at, side = name.rpartition("@")
    built, to = build(base if at else name), found_device(device)
    net: Any = built.net
    shortest = checked_short(name, side) if at else built.shortest
    segmenter = Mask2Former(net.to(to), shortest=shortest, weights=built.weights)
    if system == "minvis":
        return minvis.minvis(segmenter, settings)
    demand(built.kind, WEIGHTS[system], name)
    heads = net.config.num_attention_heads
    tracker = released_tracker(built.tracker, heads).to(to)
    if system == "dvis":
        return dvis.dvis(segmenter, tracker, settings)
    return DvisRefined(segmenter, tracker, released_refiner(built.refiner, heads).to(to), settings)
