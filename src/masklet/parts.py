"""Parts by name: what a segmenter's and a propagator's name mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from masklet.builtins import DEVICES, MASK2FORMER, PROPAGATORS, SEGMENTERS
from masklet.core.choices import check_choice
from masklet.core.errors import InputError
from masklet.core.files import path_exists
from masklet.core.instances import Exemplar
from masklet.core.part_facts import collect_parts, find_device
from masklet.core.part_request import PartName, PartRequest, parse_part_name
from masklet.core.protocols import ContendingPropagator, Propagator, Segmenter
from masklet.core.settings import check_setting
from masklet.core.wording import name_argument
from masklet.models.affinity import Affinity
from masklet.models.encoder import Encoder
from masklet.models.nano import propagator as nano_propagator
from masklet.models.nano.image_predictor import load_image_predictor
from masklet.models.nano.propagator import Nano, SingleNano
from masklet.models.nano.segmenter import ALL_BOXES, LIKELY_BOXES, load_nano_segmenter
from masklet.models.sam2.memory import MemoryPolicy, RecentFrames, ReliableFrames, Sam2Settings
from masklet.registry import PartEntry, list_part_settings
from masklet.systems.bystanders import BystanderFinder
from masklet.weights.catalog import CARRIERS, DETECTORS
from masklet.weights.store import find_checkpoint, find_weights, resolve_weights

if TYPE_CHECKING:  # what few commands need is imported where it is made: a second of the start hangs on it
    from masklet.models.last_masks import FlownMasks, StillMasks
    from masklet.models.nano.dense import DenseSegmenter
    from masklet.models.sam2.propagator import Sam2
    from masklet.models.sam3.propagator import Sam3
    from masklet.models.sam3.segmenter import Sam3Segmenter
    from masklet.models.segmenters.auto import AutoSegmenter
    from masklet.models.segmenters.motion import Motion, MotionMemory
    from masklet.models.segmenters.prompted import BoxMasker, EverythingSegmenter, TextSegmenter
    from masklet.models.segmenters.soft_masks import SoftMaskFolder
    from masklet.models.xmem.propagator import Xmem
    from masklet.systems.deva.short import ShortMemory
    from masklet.systems.sam2long import MemoryTree

# SAM2Long's thresholds of predicted mask IoU and of uncertainty: the official repository's documented command, the
# paper, and what the official command line does when it is told nothing.
TREES: Mapping[str, tuple[float, float]] = {
    "sam2long": (0.1, 2.0),
    "sam2long-paper": (0.3, 2.0),
    "sam2long-cli": (0.3, 1.0),
}
NANO_TREE = (0.1, 5.0)  # at the official 2 pathways over nano hardly part (cards/nano-propagator.md)
SMALLEST_SAM2 = "sam2.1-tiny"
NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})
NANO, NANO_OBJECTS = "nano", "nano-objects"
SAM3, SAM3_PATCH = "sam3", 14  # its name, and pixels across a patch
DEVA = "deva"


def load_segmenter(
    name: str,
    encoder: Encoder,
    device: str = "auto",
    settings: Mapping[str, Any] = NO_SETTINGS,
    text: str = "",
    exemplars: Sequence[Exemplar] = (),
) -> Segmenter[Any]:
    """A segmenter by its name, or made of the detections in a file or folder of that name.

    Args:
        name: "auto", named things and what moves; "nano", which names 80 kinds of things; "nano-objects", which finds
            things of any kind; "nano:FILE", as `masklet train segmenter --from nano` writes it; "motion"; "everything",
            which takes sam2.1-tiny where it was fetched, else nano's image predictor, and another one by name:
            "everything:nano", "everything:sam2.1-large"; a Mask2Former by hub id, folder or official
            checkpoint; or detections' path. At another size "NAME@480": of the long side for nano, of the short side
            for nano-objects, nano:FILE and Mask2Former.
        encoder: of "auto", "motion", "nano-objects" and "nano:FILE".
        device: where networks compute: "auto", "cpu", "cuda", "cuda:1" or "mps"; "auto" is CUDA where there is one.
        settings: of the part, such as {"points_per_side": 16} of "everything".
        text: what to find, separated by full stops, of a segmenter that takes it (`is_promptable`): "sam3",
            "sam3-lite-text".
        exemplars: of what to find, likewise.

    Raises:
        InputError: there is no such segmenter, a setting does not exist, or its weights are not on this machine.
    """
    part = parse_part_name(name)
    if part.base in SEGMENTERS.names:
        entry = SEGMENTERS.find(part.base)
        check_form(entry, part)
        request = make_request(entry, part, encoder, device, settings)
        found: Segmenter[Any] = entry.load()(replace(request, text=text, exemplars=exemplars))
        return found
    from masklet.models.mask2former.segmenter import Mask2FormerSettings, load_mask2former
    from masklet.models.mask2former.weights import is_mask2former

    base, at, side = name.rpartition("@")
    base = base if at else name
    if is_mask2former(base):
        checked = make_request(MASK2FORMER, part, encoder, device, settings).settings
        shortest = check_short_side(name, side) if at else None
        return load_mask2former(
            base, resolve_device(device), shortest=shortest, settings=Mask2FormerSettings(**checked)
        )
    refuse_part_settings("segmenter", name, settings)
    if path_exists(Path(name)):
        from masklet.io.annotations.detections import read_detections
        from masklet.models.segmenters.precomputed import Precomputed

        return Precomputed(read_detections(Path(name)), resolve_device(device))
    if part.base in DETECTORS:
        raise InputError(
            f"{name_argument('segmenter', name)}: say what to find, such as {name_argument('text', 'dog. red car.')}"
        )
    known = ", ".join((*SEGMENTERS.names, "mask2former by hub id or file"))
    told = f"neither a segmenter ({known}) nor a file or folder of detections"
    raise InputError(f"{name_argument('segmenter', name)}: {told}")


def is_promptable(name: str, *prompts: str) -> bool:
    """Whether the segmenter of a `name` can be told all of some `prompts`, "text" and "exemplars".

    >>> is_promptable("sam3:folder", "text", "exemplars"), is_promptable("motion", "text")
    (True, False)
    """
    base = parse_part_name(name).base
    return base in SEGMENTERS.names and {*prompts} <= {*SEGMENTERS.find(base).takes}


def make_request(
    entry: PartEntry, name: PartName, encoder: Encoder, device: str, settings: Mapping[str, Any]
) -> PartRequest:
    """What the loader of `entry` is told: the part's `name`, the shared `encoder`, the `device`, and its `settings`,
    checked. Raises InputError where a setting does not exist or is of another kind, or the device is not there.
    """
    resolve_device(device)
    if settings:  # what there is stands in the source, and to read that takes time
        check_part_settings(entry, name, settings)
    return PartRequest(name, device, settings, lambda: encoder, partial(load_below, encoder=encoder, device=device))


def check_part_settings(entry: PartEntry, name: PartName, settings: Mapping[str, Any]) -> None:
    """Raises InputError where one of the `settings` does not exist for `entry`, which `name` names, or is of another
    kind.
    """
    known = list_part_settings(entry)
    if not known:
        refuse_part_settings(entry.name, name.text, settings)
    for key, value in settings.items():
        setting = known[check_choice(f"setting of {entry.name}", key, known)]
        is_signed = isinstance(setting.default, float) and setting.default < 0 and isinstance(value, int | float)
        check_setting(f"{entry.name}.", key, abs(value) if is_signed else value, setting.kind, setting.default)


def refuse_detections(name: str, system: str) -> NoReturn:
    """Raises the InputError of detections, those of `name`, for a `system` of queries."""
    raise InputError(f"{name}: {system} takes no detections; take {name_argument('system', 'sam2bmp')} or deva")


def refuse_part_settings(kind: str, name: str, settings: Mapping[str, Any]) -> None:
    """Raises InputError where there are `settings` for the part `name` of a `kind` that has none."""
    if settings:
        raise InputError(f"{name}: {kind} has no settings, so {', '.join(settings)} cannot be set")


def check_form(entry: PartEntry, name: PartName) -> None:
    """Raises InputError where something stands behind a name that takes nothing there."""
    for mark, given in ((":", name.argument), ("@", name.size)):
        if given and mark not in entry.form:
            raise InputError(
                f"{name.text}: {entry.name} takes nothing after {mark!r}; write {entry.form or entry.name}"
            )


def load_bystanders(propagator: Propagator[Any, Any]) -> BystanderFinder | None:
    """What keeps the objects of `track` from swallowing what is beside them; None for a propagator whose objects do not
    contend for pixels.
    """
    contends = isinstance(propagator, ContendingPropagator) and propagator.contends
    return BystanderFinder(load_nano_segmenter(LIKELY_BOXES, find_device(propagator))) if contends else None


def load_everything(request: PartRequest) -> EverythingSegmenter:
    """All objects, by SAM 2, or by nano's image predictor, which is what no name means where no SAM 2 was fetched."""
    from masklet.models.segmenters.prompted import EverythingSegmenter, NanoEverything

    name = request.name.below
    if name == NANO or not (name or find_weights(find_checkpoint(SMALLEST_SAM2))):
        return NanoEverything(load_image_predictor(resolve_device(request.device)), **request.settings)
    return EverythingSegmenter(load_masker(name, request.device), **request.settings)


def load_concepts(request: PartRequest) -> Sam3Segmenter:
    """SAM 3's detector, of the weights folder or of a folder that is named. Raises InputError where nothing says what
    to find.
    """
    from masklet.models.sam3.segmenter import Sam3SegmenterSettings, load_sam3_segmenter
    from masklet.models.segmenters.text import split_prompts

    name = request.name
    if not request.text and not request.exemplars:
        raise InputError(
            f"{name_argument('segmenter', name.text)}: say what to find, such as "
            f"{name_argument('text', 'dog. red car.')}, or show it by "
            f"{name_argument('exemplars', option='exemplar')}"
        )
    return load_sam3_segmenter(
        name.argument or name.base,
        split_prompts(request.text) if request.text else (),
        request.exemplars,
        resolve_device(request.device),
        Sam3SegmenterSettings(**request.settings),
        check_sam3_side(name.text, name.size) if name.size else None,
    )


def load_soft_masks(request: PartRequest) -> SoftMaskFolder:
    """Soft masks in a folder. Raises InputError where none is named or it has none."""
    from masklet.models.segmenters.soft_masks import SoftMaskFolder

    if not request.name.argument:
        raise InputError(f"{request.name.text}: say which folder, such as soft:masks")
    return SoftMaskFolder(Path(request.name.below).expanduser())


def load_auto(request: PartRequest) -> AutoSegmenter[None, MotionMemory]:
    """Named things by `nano`, and by `motion` what moves and has no name."""
    from masklet.models.segmenters.auto import AutoSegmenter

    named = load_nano_segmenter(replace(LIKELY_BOXES, **request.settings), resolve_device(request.device))
    return AutoSegmenter(named, load_motion(request))


def load_motion(request: PartRequest) -> Motion:
    """What moves, seen through the shared encoder."""
    from masklet.models.segmenters.motion import Motion

    return Motion(get_encoder(request))


def load_nano(request: PartRequest) -> Segmenter[Any]:
    """Named things, at the size of its own where one is given; or the dense head of a file."""
    if request.name.argument:
        refuse_part_settings("a trained file", request.name.text, request.settings)
        return load_nano_dense(request)
    size = {"long_side": check_short_side(request.name.text, request.name.size)} if request.name.size else {}
    return load_nano_segmenter(replace(ALL_BOXES, **{**size, **request.settings}), resolve_device(request.device))


def load_nano_objects(request: PartRequest) -> Segmenter[Any]:
    """Things of any kind, by the dense head."""
    from masklet.models.nano.dense import ObjectSegmenter

    return ObjectSegmenter(load_nano_dense(request))


def load_nano_dense(request: PartRequest) -> DenseSegmenter:
    """The dense head, packaged or of a file."""
    from masklet.models.nano.dense import load_dense

    encoder = get_encoder(request)
    if request.name.size:
        short = check_short_side(request.name.text, request.name.size)
        encoder = Encoder(short, encoder.device, least=short)
    return load_dense(parse_file_part(request.name.argument), encoder)


def get_encoder(request: PartRequest) -> Encoder:
    """The encoder that all parts share, or one of its own."""
    return request.make_encoder() if request.make_encoder else make_encoder(request.device)


def make_encoder(device: str) -> Encoder:
    """The encoder on a device by its name. Raises InputError where that is not there."""
    return Encoder(device=resolve_device(device))


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
    from masklet.models.segmenters.prompted import TextSegmenter
    from masklet.models.segmenters.text import load_detector, split_prompts

    prompts = split_prompts(text)
    kind, _, below = name.partition(":")
    if Path(kind).is_file():
        told = f"detections say themselves what was found; leave {name_argument('text')} out"
        raise InputError(f"{name_argument('segmenter', name)}: {told}")
    if kind in SEGMENTERS.names:
        told = f"finds what it knows, not what is named; take one of {', '.join(DETECTORS)}, {SAM3}"
        raise InputError(f"{name_argument('segmenter', name)}: {told}, or leave {name_argument('text')} out")
    detector, masker = collect_parts(
        lambda: load_detector(kind, resolve_device(device)), lambda: load_masker(below, device)
    )
    return TextSegmenter(detector, masker, prompts)


def load_masker(name: str, device: str) -> BoxMasker[Any]:
    """SAM 2 as an image model, the smallest where none is named; a SAM-HQ that transformers saved; or nano's image
    predictor.
    """
    from masklet.models.segmenters.prompted import NanoMasker, PromptedMasker
    from masklet.models.segmenters.sam_hq import is_sam_hq, load_sam_hq
    from masklet.weights.reading import locate_weights

    if name == NANO:
        return NanoMasker(load_image_predictor(resolve_device(device)))
    if is_sam_hq(Path(name).expanduser()):
        path, weights = locate_weights(name)
        return load_sam_hq(path.parent, weights, resolve_device(device))
    return PromptedMasker(load_carrier(parse_part_name(name or SMALLEST_SAM2), RecentFrames(), device))


def load_propagator(
    name: str, encoder: Encoder, device: str = "auto", settings: Mapping[str, Any] = NO_SETTINGS
) -> Propagator[Any, Any]:
    """A propagator by its name.

    Args:
        name: "nano", or "nano:FILE" as `masklet train propagator` writes it; "affinity"; SAM 2 by a name of
            `masklet weights list`, a hub id, a folder or an official checkpoint, at another image size with "@", such
            as "sam2.1-tiny@512"; or SAM2Long over one of them, such as "sam2long:sam2.1-large"; or DEVA's network,
            "deva" where its file is in the weights folder, else "deva:FILE".
        encoder: of "nano" and "affinity".
        device: where networks compute: "auto", "cpu", "cuda", "cuda:1" or "mps"; "auto" is CUDA where there is one.
        settings: of the part, such as {"paths": 2} of "sam2long:nano".

    Raises:
        InputError: there is no such propagator, a setting does not exist, or its weights are not on this machine.
    """
    part = parse_part_name(name)
    if part.base in PROPAGATORS.names:
        entry = PROPAGATORS.find(part.base)
        check_form(entry, part)
        found: Propagator[Any, Any] = entry.load()(make_request(entry, part, encoder, device, settings))
        return found
    refuse_part_settings("it", name, settings)
    return load_sam2(name, RecentFrames(), device)


def load_affinity(request: PartRequest) -> Affinity:
    """Affinity over the shared encoder."""
    return Affinity(get_encoder(request), **request.settings)


def load_nano_tracker(request: PartRequest) -> Nano:
    """The nano propagator with SAM 2's memory, one hypothesis an object."""
    return load_nano_propagator(request.name.argument, get_encoder(request), RecentFrames(), SingleNano)


def load_sam2_tracker(request: PartRequest) -> Sam2:
    """SAM 2 or EdgeTAM by the name of its weights."""
    at = Sam2Settings(**request.settings)
    policy, name = RecentFrames(at.conditioning, at.pointers), request.name.text
    load = partial(load_sam2, name, policy, request.device, at.postprocess)
    return load_compiled(name, request.device, load) if at.compile else load()


def load_sam3_tracker(request: PartRequest) -> Sam3:
    """SAM 3's tracker, of the weights folder or of a folder that is named."""
    from masklet.models.sam3.propagator import Sam3Settings

    at = Sam3Settings(**request.settings)
    policy = RecentFrames(at.conditioning, at.pointers)
    load = partial(load_sam3_by_name, request.name, policy, request.device, at.postprocess)
    return load_compiled(request.name.text, request.device, load) if at.compile else load()


def load_compiled(name: str, device: str, load: Callable[[], Any]) -> Any:
    """The SAM 2, EdgeTAM or SAM 3 of a `name` that `load` loads on a `device`, to be compiled when it is first used.
    Raises InputError where there is no compiler, before it is loaded.
    """
    from masklet.models.sam2.compiled import compile_sam2
    from masklet.nn.compilation import check_compiler

    check_compiler(name, resolve_device(device))
    return compile_sam2(load())


def load_sam3_by_name(name: PartName, policy: MemoryPolicy, device: str, postprocess: bool = True) -> Sam3:
    """SAM 3's tracker of a `name` on a `device`, at its own image size or the one after "@"; it reads its memory by the
    `policy`, and `postprocess` is as in `Sam2`.
    """
    from masklet.models.sam3.propagator import load_sam3

    side = check_sam3_side(name.text, name.size) if name.size else None
    return load_sam3(name.argument or SAM3, policy, resolve_device(device), postprocess=postprocess, side=side)


def load_tree(request: PartRequest) -> MemoryTree[Any, Any]:
    """SAM2Long's tree over another propagator, which reads SAM2Long's choice of memories where it can. Raises
    InputError where a setting is of what that one does not have.
    """
    from masklet.systems.sam2long import MemoryTree, MemoryTreeSettings

    name, below, at = request.name, parse_part_name(request.name.below), MemoryTreeSettings(**request.settings)
    quality, uncertainty = NANO_TREE if (name.base, below.base) == ("sam2long", NANO) else TREES[name.base]
    unread = ("postprocess", "compile") if below.base == NANO else () if is_sam2(below) else MemoryTreeSettings.OF_SAM2
    of_no_use = [key for key in unread if key in request.settings]
    if of_no_use:
        raise InputError(f"{name.text}: {below.text} has no {', '.join(of_no_use)}; take SAM 2, or leave it out")
    policy = ReliableFrames(
        quality if at.quality is None else at.quality, weights=(1 - at.modulation, 1 + at.modulation)
    )
    load = partial(request.load_below, below, policy, postprocess=at.postprocess)
    carried = load_compiled(name.text, request.device, load) if at.compile else load()
    return MemoryTree(carried, at.paths, at.uncertainty if "uncertainty" in request.settings else uncertainty)


def is_sam2(name: PartName) -> bool:
    """Whether a propagator's `name` is that of SAM 2 or SAM 3, or of weights of SAM 2."""
    return name.base in (SAM3, *CARRIERS) or (name.base not in PROPAGATORS.names and bool(name.base))


def choose_evaluation_settings(name: str) -> Mapping[str, Any]:
    """The settings that official evaluations take of the propagator of a `name`, where it has them: SAM 2's go without
    post-processing.

    >>> choose_evaluation_settings("sam2long:sam2.1-tiny"), choose_evaluation_settings("nano")
    ({'postprocess': False}, {})
    """
    part = parse_part_name(name)
    sam2 = parse_part_name(part.below) if part.base in TREES else part
    return {"postprocess": False} if is_sam2(sam2) and sam2.base in PROPAGATORS.names else {}


def load_below(
    name: PartName, policy: MemoryPolicy, *, encoder: Encoder, device: str, postprocess: bool = True
) -> Propagator[Any, Any]:
    """The propagator of a `name` that a tree is made over, on a `device` and over the shared `encoder`, with the tree's
    `policy` of reading its memory where it has one, and of SAM 2 with or without its `postprocess`.
    """
    if name.base == NANO:
        return load_nano_propagator(name.argument, encoder, policy)
    if not is_sam2(name):
        return load_propagator(name.text, encoder, device)
    return load_carrier(name, policy, device, postprocess)


def load_carrier(name: PartName, policy: MemoryPolicy, device: str, postprocess: bool = True) -> Sam2:
    """SAM 2, EdgeTAM or SAM 3 by a `name` on a `device`, with a `policy` of reading its memory; `postprocess` as in
    `Sam2`.
    """
    if name.base == SAM3:
        return load_sam3_by_name(name, policy, device, postprocess)
    return load_sam2(name.text, policy, device, postprocess)


def load_nano_propagator(file: str, encoder: Encoder, policy: MemoryPolicy, kind: type[Nano] = Nano) -> Nano:
    """The packaged nano propagator, or that of a `file` that was trained, over the shared `encoder`; it reads its
    memory by the `policy`. `kind` is the class that is made.
    """
    return nano_propagator.build_nano_propagator(parse_file_part(file), encoder, policy, kind)


def parse_file_part(name: str) -> Path | None:
    """What is named after a colon, if anything is."""
    return Path(name).expanduser() if name else None


def load_deva(request: PartRequest) -> Xmem:
    """DEVA's propagation network, from a file or from where the weights folder has it."""
    from masklet.models.xmem.propagator import load_xmem

    file = request.name.argument
    path = Path(file) if file else resolve_deva_file()
    return load_xmem(path, resolve_device(request.device), **request.settings)


def resolve_deva_file() -> Path:
    """DEVA's weights in the weights folder. Raises InputError where they are not there or not the ones on record."""
    try:
        return resolve_weights(find_checkpoint(DEVA))[0].path
    except InputError as error:
        raise InputError(f"propagator deva: {error}; or name a file, whose tensors are checked: deva:FILE") from None


def load_cutie(request: PartRequest) -> Propagator[Any, Any]:
    """Cutie from a file. Raises InputError where none is named, or the package is not installed."""
    from masklet.models import cutie  # its package is an extra

    if not request.name.argument:
        raise InputError("cutie: name its weight file, cutie:cutie-base-mega.pth (github.com/hkchengrex/Cutie, MIT)")
    return cutie.load_cutie(request.name.argument, resolve_device(request.device), **request.settings)


def load_still(request: PartRequest) -> StillMasks:
    """The propagator that leaves masks where they were."""
    from masklet.models.last_masks import StillMasks

    return StillMasks()


def load_flow(request: PartRequest) -> FlownMasks:
    """Masks along the optical flow."""
    from masklet.models.last_masks import FlownMasks

    return FlownMasks()


def load_short(request: PartRequest) -> ShortMemory[Any, Any]:
    """Another propagator, whose memory begins anew in every frame."""
    from masklet.systems.deva.short import ShortMemory

    return ShortMemory(request.load_below(parse_part_name(request.name.below), RecentFrames()))


def load_sam2(name: str, policy: MemoryPolicy, device: str, postprocess: bool = True) -> Sam2:
    """SAM 2 of a `name` on a `device`, at its own image size or the one after "@"; it reads its memory by the
    `policy`, and `postprocess` is as in `Sam2`. Raises InputError where there is none of this name.
    """
    from masklet.models.sam2.edgetam import EdgeTam
    from masklet.models.sam2.propagator import Sam2, set_image_size
    from masklet.models.sam2.weights import EDGETAM, build_sam2

    base, at, side = name.rpartition("@")
    base = base if at else name
    if not base or ("/" not in base and not path_exists(Path(base))):
        check_choice("propagator", base, (*PROPAGATORS.names, *CARRIERS))
    made, weights = build_sam2(base)
    net: Any = set_image_size(made, check_image_side(name, side)) if at else made
    kind = EdgeTam if net.config.model_type == EDGETAM else Sam2
    return kind(net.to(resolve_device(device)), policy, postprocess=postprocess, weights=weights)


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


def check_sam3_side(name: str, side: str) -> int:
    """An image size that SAM 3's encoder can cut into its patches."""
    if not side.isdecimal() or int(side) % SAM3_PATCH or not 112 <= int(side) <= 4032:
        raise InputError(f"{name}: SAM 3's image size after @ must be a multiple of {SAM3_PATCH} from 112 to 4032")
    return int(side)


def resolve_device(name: str) -> torch.device:
    """The device of a `name`: "auto", "cpu", "cuda", "cuda:1" or "mps". Raises InputError where it is not there."""
    kind, colon, number = name.partition(":")
    if kind not in DEVICES or (colon and not (kind == "cuda" and number.isdecimal())):
        raise InputError(f"no device {name!r}; there are: {', '.join(DEVICES)}, cuda:N")
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if kind == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")
    if there[kind] <= int(number or 0):
        raise InputError(f"device {name}: not on this machine; leave it out, or say cpu")
    return torch.device(name)
