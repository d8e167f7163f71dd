"""Open videos for tests of the page and its server: squares whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from toys import Place, ToyPropagator, World, moving, still

from masklet.core.progress import Watch
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.exports import export_results
from masklet.session.session import Session
from masklet.view.desk import Desk, ResultEditor
from masklet.view.frame_store import FrameStore

PLACES: Sequence[Place] = (moving(3, 1, 0, 1), still(22, 22), moving(14, 20, 0, -1))
SOURCES = (Source.DETECTED, Source.FORWARD, Source.BACKWARD)


def make_truth(world: World, names: Sequence[str] = ("red", "green", "blue"), name: str = "toy") -> VideoResult:
    """The result that is right: an object for each square, ids from 1 on, a way of coming about for each."""
    seen: list[dict[int, Sighting]] = [{} for _ in world.places]
    for t in range(len(world)):
        for o, mask in world.truth(t).items():
            seen[o][t] = Sighting(Rle.encode(mask), SOURCES[o], 0.5 + o / 10, o, 1.0)
    masklets = tuple(Masklet(o + 1, s, o, 0.9 - o / 10) for o, s in enumerate(seen) if s)
    return VideoResult(name, world.size, len(world), world.rate, masklets, tuple(names), Provenance("test"))


def take(result: VideoResult, *ids: int) -> VideoResult:
    """The result with these objects alone."""
    return replace(result, masklets=tuple(m for m in result.masklets if m.id in ids))


def make_desk(out: Path, world: World | None = None, result: VideoResult | None = None, **more: Any) -> Desk:
    """A world of squares as it lies open, with what follows colours for prompts."""
    world = World(PLACES) if world is None else world
    result = make_truth(world) if result is None else result

    def export(given: VideoResult, form: str, folder: Path, watch: Watch) -> Path:
        return export_results([given], form, folder, {given.name: world}, watch=watch)

    return Desk(
        result.name,
        ResultEditor(result),
        out / "toy",
        FrameStore(world),
        make_session=lambda begun: Session(world, ToyPropagator(), begun),
        export=export,
        forms=[("coco", "COCO"), ("davis", "palette PNGs")],
        **more,
    )
