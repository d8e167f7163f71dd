"""Systems within a budget of memory: how many objects fit at once, said before a run begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from masklet.core.budget import MemoryBudget, estimate_need
from masklet.core.errors import InputError
from masklet.core.frames import Video
from masklet.core.protocols import SizedPropagator
from masklet.core.wording import name_argument
from masklet.systems.track import Track


def fit_system(system: Any, video: Video, budget: MemoryBudget, tell: Callable[[str], None]) -> Any:
    """A system for one video that tracks no more objects at once than fit the `budget`, and keeps no more features in
    memory; a system that has no such settings, or whose propagator does not say what an object takes, as it is.

    Args:
        system: with its settings.
        video: that it is for.
        budget: of the process.
        tell: is given a sentence where less fits than the settings allow.

    Raises:
        InputError: not even one object fits, or not all that were prompted.
    """
    if isinstance(system, Track):
        check_prompted_objects(system.propagator, video, system.count_objects(), budget)
        return system
    settings, propagator = getattr(system, "settings", None), getattr(system, "propagator", None)
    if not is_dataclass(settings) or isinstance(settings, type):
        return system
    names, changed = {f.name for f in fields(settings)}, dict[str, int]()
    if "feature_memory" in names:
        kept = getattr(settings, "feature_memory")  # noqa: B009
        changed |= {"feature_memory": budget.features} if budget.features < kept else {}
    if "max_objects" in names and isinstance(propagator, SizedPropagator):
        wanted, each = getattr(settings, "max_objects"), propagator.count_object_bytes(video.size)  # noqa: B009
        fit = budget.count_objects(each)
        if not fit:
            least = name_argument("budget", estimate_need(1, each), option="memory")
            raise InputError(f"{video.name}: {budget} hold no object of it; give {least}")
        if wanted is None or fit < wanted:
            changed["max_objects"] = fit
            tell(describe_limit(video, budget, fit, wanted, each))
    return replace(system, settings=replace(settings, **changed)) if changed else system


def describe_limit(video: Video, budget: MemoryBudget, fit: int, wanted: int | None, each: int) -> str:
    """The sentence that says beforehand that not all objects fit that a system may track."""
    h, w = video.size
    most = f"; all {wanted} take {estimate_need(wanted, each)}" if wanted else ""
    how = name_argument("budget", option="memory")
    return f"{video.name}: {budget} hold {fit} objects at once at {w}x{h}, more begin no object{most} ({how})"


def check_prompted_objects(propagator: Any, video: Video, objects: int, budget: MemoryBudget) -> None:
    """Raises InputError where so many prompted `objects` of a `video` do not fit the `budget`."""
    if not isinstance(propagator, SizedPropagator):
        return
    each = propagator.count_object_bytes(video.size)
    if objects > budget.count_objects(each):
        need, (h, w) = estimate_need(objects, each), video.size
        raise InputError(
            f"{video.name}: {objects} objects at {w}x{h} take about {need}, and there are {budget}; "
            f"track fewer at a time, or give more with {name_argument('budget', option='memory')}"
        )
