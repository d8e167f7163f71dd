"""Parts by name: what `--segmenter` and `--propagator` mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from masklet.core.errors import InputError
from masklet.core.protocols import ContendingPropagator, Propagator, Segmenter
from masklet.models import nano_propagator, xmem
from masklet.models.affinity import Affinity
from masklet.models.auto_segmenter import AutoSegmenter
from masklet.models.checkpoints import CARRIERS, DETECTORS
from masklet.models.dense import ObjectSegmenter, load_dense
from masklet.models.edgetam import EdgeTam
from masklet.models.encoder import Encoder
from masklet.models.image_predictor import load_image_predictor
from masklet.models.mask2former import load_mask2former
from masklet.models.mask2former_weights import is_mask2former
from masklet.models.masker import (
    BoxMasker,
    EverythingSegmenter,
    NanoEverything,
    NanoMasker,
    PromptedMasker,
    TextSegmenter,
)
from masklet.models.motion import Motion, MotionMemory
from masklet.models.nano_propagator import Nano
from masklet.models.nano_segmenter import ALL_BOXES, LIKELY_BOXES, load_nano_segmenter
from masklet.models.precomputed import Precomputed
from masklet.models.sam2 import Sam2, set_image_size
from masklet.models.sam2_memory import MemoryPolicy, RecentFrames, ReliableFrames
from masklet.models.sam2_weights import EDGETAM, build_sam2
from masklet.models.text import TextDetector, load_detector, split_prompts
from masklet.models.xmem import Xmem
from masklet.models.zoo import find_checkpoint, find_weights, get_model_folder
from masklet.systems.bystanders import BystanderFinder
from masklet.systems.sam2long import MemoryTree

PROPAGATORS: Mapping[str, Callable[[Encoder], Propagator[Any, Any]]] = {"affinity": Affinity}

# SAM2Long's thresholds of predicted mask IoU and of uncertainty: the official repository's documented command, the
# paper, and what the official command line does when it is told nothing.
TREES: Mapping[str, tuple[float, float]] = {
    "sam2long": (0.1, 2.0),
    "sam2long-paper": (0.3, 2.0),
    "sam2long-cli": (0.3, 1.0),
}
NANO_TREE = (0.1, 5.0)  # at the official 2 pathways over nano hardly part (cards/nano-propagator.md)
EVERYTHING = "everything"
SMALLEST_SAM2 = "sam2.1-tiny"
NANO, NANO_OBJECTS = "nano", "nano-objects"
DEVA, DEVA_FILE = "deva", "DEVA-propagation.pth"
DEVA_URL = "https://github.com/hkchengrex/Tracking-Anything-with-DEVA/releases/download/v1.0/" + DEVA_FILE
DEVICES = ("auto", "cpu", "cuda", "mps")


def load_segmenter(name: str, encoder: Encoder, device: str = "auto") -> Segmenter[Any]:
    """A segmenter by its name, or made of the detections in a file or folder of that name.

    Args:
        name: "auto", named things and what moves; "nano", which names 80 kinds of things; "nano-objects", which finds
            things of any kind; "nano:FILE", as `masklet train segmenter --from nano` writes it; "motion"; "everything",
            which takes sam2.1-tiny where it was fetched, else nano's image predictor, and another one by name:
            "everything:nano", "everything:sam2.1-large"; a Mask2Former by hub id, folder or official
            checkpoint; or detections' path. At another size "NAME@480": of the long side for nano, of the short side
            for nano-objects, nano:FILE and Mask2Former.
        encoder: of "auto", "motion", "nano-objects" and "nano:FILE".
        device: of SAM 2 and Mask2Former.

    Raises:
        InputError: there is no such segmenter, or its weights are not on this machine.
    """
    kind, _, below = name.partition(":")
    if name in SEGMENTERS:
        return SEGMENTERS[name](encoder)
    if kind.partition("@")[0] in (NANO, NANO_OBJECTS):
        return load_nano_by_name(name, encoder)
    if kind == EVERYTHING:
        return load_everything(below, device)
    base, at, side = name.rpartition("@")
    base = base if at else name
    if is_mask2former(base):
        return load_mask2former(base, resolve_device(device), shortest=check_short_side(name, side) if at else None)
    if path_exists(Path(name)):
        return Precomputed(Path(name))
    if kind in DETECTORS:
        raise InputError(f"--segmenter {name}: say what to find, such as --text 'dog. red car.'")
    known = ", ".join((*SEGMENTERS, NANO, NANO_OBJECTS, EVERYTHING, "mask2former by hub id or file"))
    raise InputError(f"--segmenter {name}: neither a segmenter ({known}) nor a file or folder of detections")


def load_bystanders(propagator: Propagator[Any, Any]) -> BystanderFinder | None:
    """What keeps the objects of `track` from swallowing what is beside them; None for a propagator whose objects do not
    contend for pixels.
    """
    contends = isinstance(propagator, ContendingPropagator) and propagator.contends
    return BystanderFinder(load_nano_segmenter(LIKELY_BOXES)) if contends else None


def load_everything(name: str, device: str) -> EverythingSegmenter:
    """All objects, by SAM 2, or by nano's image predictor, which is what no name means where no SAM 2 was fetched."""
    if name == NANO or not (name or find_weights(find_checkpoint(SMALLEST_SAM2))):
        return NanoEverything(load_image_predictor())
    return EverythingSegmenter(load_masker(name, device))


def load_auto(encoder: Encoder) -> AutoSegmenter[None, MotionMemory]:
    """Named things by `nano`, and by `motion` what moves and has no name."""
    return AutoSegmenter(load_nano_segmenter(LIKELY_BOXES), Motion(encoder))


def load_nano_by_name(name: str, encoder: Encoder) -> Segmenter[Any]:
    """The nano segmenters: by name, or the dense head without names or of a file; at a size of their own."""
    base, at, side = name.rpartition("@")
    kind, _, file = (base if at else name).partition(":")
    size = check_short_side(name, side) if at else None
    if kind == NANO and not file:
        return load_nano_segmenter(replace(ALL_BOXES, long_side=size) if size else ALL_BOXES)
    named = load_dense(parse_file_part(file), Encoder(size) if size else encoder)
    return ObjectSegmenter(named) if kind == NANO_OBJECTS else named


SEGMENTERS: Mapping[str, Callable[[Encoder], Segmenter[Any]]] = {"auto": load_auto, "motion": Motion}


def load_text_segmenter(name: str, text: str, device: str = "auto") -> TextSegmenter[Any]:
    """A segmenter of what is named in words.

    Args:
        name: the detector, one of `zoo.DETECTORS` or a folder that transformers saved with its tokenizer; with
            another SAM 2 than sam2.1-tiny "grounding-dino-tiny:sam2.1-large", with none "grounding-dino-tiny:nano".
        text: what to find, separated by full stops.
        device: of both networks.

    Raises:
        InputError: the text names nothing or one thing twice, a part is not on this machine (nothing is fetched), or
            the detector cannot read the text.
    """
    prompts = split_prompts(text)
    kind, _, below = name.partition(":")
    masker = load_masker(below, device)
    detector: TextDetector[Any] = load_detector(kind, resolve_device(device))
    return TextSegmenter(detector, masker, prompts)


def load_masker(name: str, device: str) -> BoxMasker[Any]:
    """SAM 2 as an image model, the smallest where none is named; or nano's image predictor."""
    if name == NANO:
        return NanoMasker(load_image_predictor())
    return PromptedMasker(load_sam2(name or SMALLEST_SAM2, RecentFrames(), device))


def load_propagator(name: str, encoder: Encoder, device: str = "auto") -> Propagator[Any, Any]:
    """A propagator by its name.

    Args:
        name: "nano", or "nano:FILE" as `masklet train propagator` writes it; "affinity"; SAM 2 by a name of
            `masklet weights list`, a hub id, a folder or an official checkpoint, at another image size with "@", such
            as "sam2.1-tiny@512"; or SAM2Long over one of them, such as "sam2long:sam2.1-large"; or DEVA's network,
            "deva" where its file is in the weights folder, else "deva:FILE".
        encoder: of "nano" and "affinity".
        device: of SAM 2 and of DEVA's network: "auto", "cpu", "cuda" or "mps"; "auto" is CUDA where there is one, else
            the CPU.

    Raises:
        InputError: there is no such propagator, or its weights are not on this machine.
    """
    tree, _, below = name.partition(":")
    if tree in TREES:
        kind, _, file = below.partition(":")
        quality, uncertainty = NANO_TREE if (tree, kind) == ("sam2long", NANO) else TREES[tree]
        policy = ReliableFrames(quality)
        if below in PROPAGATORS:
            return MemoryTree(PROPAGATORS[below](encoder), uncertainty=uncertainty)
        under = load_nano_propagator(file, encoder, policy) if kind == NANO else load_sam2(below, policy, device)
        return MemoryTree(under, uncertainty=uncertainty)
    if tree == NANO:
        return load_nano_propagator(below, encoder, RecentFrames())
    if tree == DEVA:
        return load_deva(below, device)
    return PROPAGATORS[name](encoder) if name in PROPAGATORS else load_sam2(name, RecentFrames(), device)


def load_nano_propagator(file: str, encoder: Encoder, policy: MemoryPolicy) -> Nano:
    """The packaged nano propagator, or that of a file that was trained."""
    return nano_propagator.build_nano_propagator(parse_file_part(file), encoder, policy)


def parse_file_part(name: str) -> Path | None:
    """What is named after a colon, if anything is."""
    return Path(name).expanduser() if name else None


def load_deva(file: str, device: str) -> Xmem:
    """DEVA's propagation network, from a file or from where the weights folder has it."""
    path = Path(file) if file else get_model_folder(DEVA) / DEVA_FILE
    if not file and not path.is_file():
        raise InputError(
            f"propagator deva: its weights are not on this machine; download {DEVA_URL} (its licence is its authors', "
            f"for research) to {path}, or name a file: deva:FILE"
        )
    return xmem.load_xmem(path, resolve_device(device))


def load_sam2(name: str, policy: MemoryPolicy, device: str) -> Sam2:
    """SAM 2 on a device, at its own image size or the one after "@"."""
    base, at, side = name.rpartition("@")
    base = base if at else name
    if not base or ("/" not in base and not path_exists(Path(base))):
        check_choice("propagator", base, (NANO, *PROPAGATORS, *CARRIERS, DEVA, *(f"{tree}:NAME" for tree in TREES)))
    made, weights = build_sam2(base)
    net: Any = set_image_size(made, check_image_side(name, side)) if at else made
    kind = EdgeTam if net.config.model_type == EDGETAM else Sam2
    return kind(net.to(resolve_device(device)), policy, weights=weights)


def check_short_side(name: str, side: str) -> int:
    """Pixels of the short side of what Mask2Former sees."""
    if not side.isdecimal() or not 64 <= int(side) <= 2048:
        raise InputError(f"segmenter {name}: the short side after @ must be 64 to 2048 pixels")
    return int(side)


def check_image_side(name: str, side: str) -> int:
    """An image size that SAM 2's encoder can cut into its windows."""
    if not side.isdecimal() or int(side) % 32 or not 128 <= int(side) <= 4096:
        raise InputError(f"propagator {name}: the image size after @ must be a multiple of 32 from 128 to 4096")
    return int(side)


def resolve_device(name: str) -> torch.device:
    """A device that is on this machine."""
    check_choice("device", name, DEVICES)
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")
    if not there[name]:
        raise InputError(f"device {name}: not on this machine; leave it out, or say cpu")
    return torch.device(name)


def path_exists(path: Path) -> bool:
    """Whether there is something of that name; nothing can be where no name is that long."""
    try:
        return path.exists()
    except OSError:
        return False


def check_choice(kind: str, name: str, known: Iterable[str]) -> str:
    """A name that exists."""
    known = tuple(known)
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"no {kind} {name!r}; {hint}there are: {', '.join(known)}")
    return name
