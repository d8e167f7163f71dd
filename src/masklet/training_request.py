"""What is asked of a training, what it begins with, and which views of the data it sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import median_low
from typing import Any, Literal

import torch

from masklet.core.errors import InputError
from masklet.core.wording import name_argument, name_setting
from masklet.starts import StartingHeads, StartingSegmenter
from masklet.train.data.framing import FixedFraming, Framing, ShortSideFraming
from masklet.train.loop.loop import Task, TrainingPlan
from masklet.train.loop.processes import ALONE, Processes
from masklet.train.losses import LossSettings
from masklet.train.settings import SamplingSettings, ScheduleSettings, choose_settings
from masklet.train.tasks.segmenter import choose_point_count

Size = tuple[int, int]  # h, w
WIDE = 16 / 9  # the sides of a usual video
SIZE = (96, 160)  # of clips, where nothing says another


@dataclass(frozen=True)
class TrainingRequest:
    """What the user asks for, checked."""

    data: tuple[str, ...]
    val: tuple[str, ...]  # none: other clips of the data
    size: Size | None  # none: that of the weights below, or the published short sides
    frames: int  # of a clip
    steps: int
    batch: int
    lr: float
    seed: int
    start: str  # weights to begin with, or none
    segmenter: str  # of what is trained over one, or none
    settings: Mapping[str, Any]  # by name
    device: torch.device
    categories: str = ""  # names of the classes of official weights
    processes: Processes = ALONE  # that train together

    @property
    def schedule(self) -> ScheduleSettings:
        """What is set of how the training goes."""
        return choose_settings(ScheduleSettings, self.settings)

    @property
    def sampling(self) -> SamplingSettings:
        """What is set of how clips are made."""
        return choose_settings(SamplingSettings, self.settings)

    @property
    def parts(self) -> int:
        """In how many parts a batch goes through a network that takes clips together: one after the other, or in
        several processes. Raises InputError where it cannot be cut so.
        """
        parts = max(self.schedule.accumulate, self.processes.count)
        if parts % self.processes.count or self.batch % parts:
            raise InputError(
                f"{name_argument('batch', self.batch)} in {self.processes.count} processes, accumulate = "
                f"{self.schedule.accumulate}: "
                "the batch must be a multiple of accumulate, and that of the processes"
            )
        return parts


@dataclass(frozen=True)
class Begun:
    """What a training begins with, loaded before its data is.

    Attributes:
        segmenter: the Mask2Former that is trained, or below what is trained.
        heads: of DVIS.
        slots: the network of a slot model.
        size: of the clips where the user says none.
        short: likewise, the published short sides of the clips over such weights.
        side: pixels of the short side at which what was trained is to look at frames, where the user says it.
        weights: {file: sha256} of all that it begins with.
        notes: what is to be said.
    """

    segmenter: StartingSegmenter | None = None
    heads: StartingHeads | None = None
    slots: Any = None
    size: Size | None = SIZE
    short: tuple[int, ...] = ()
    side: int | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ClipViews:
    """Which views of images are trained on and validated on.

    Attributes:
        framing: of training.
        plain: of validation.
        side: pixels of the short side at which what was trained looks at frames.
    """

    framing: Framing
    plain: Framing
    side: int

    @property
    def size(self) -> Size:
        """Of the clips, or of the widest that there may be at the short side."""
        return self.framing.size if isinstance(self.framing, FixedFraming) else (self.side, round(self.side * WIDE))

    @property
    def losses(self) -> LossSettings:
        """As published, with as many points as suit the size."""
        return (
            LossSettings(points=choose_point_count(self.framing.size))
            if isinstance(self.framing, FixedFraming)
            else LossSettings()
        )


@dataclass(frozen=True)
class PreparedTraining:
    """A training that is ready to start: what `loop.train` takes, and what is to be said before."""

    task: Task
    plan: TrainingPlan
    about: Mapping[str, object]  # what tells it from others
    notes: Sequence[str]


@dataclass(frozen=True)
class TrainingRecipe:
    """One thing that can be trained, with what it takes where the user does not say."""

    task: Callable[[TrainingRequest], tuple[Task, Begun]]
    plan: Callable[[TrainingRequest], TrainingPlan]
    frames: int
    steps: int
    batch: int
    lr: float
    settings: Sequence[type[Any]] = ()  # dataclasses whose fields are its own settings
    size: Size | None = None  # of what has one size only


@dataclass(frozen=True)
class DvisOptions:
    """What can be set of the training of DVIS's refiner; "released" are defects of the released program."""

    given: Literal["once", "released"] = "once"  # a query; released: maybe to several objects
    labels: Literal["own", "released"] = "own"  # released: as annotated in the last frame
    over: Literal["same", "any"] = "same"  # started from: the segmenter that it was trained over, or any


@dataclass(frozen=True)
class TrackerOptions(DvisOptions):
    """What can be set of the training of DVIS's tracker besides."""

    begin: Literal["minvis", "random"] = "minvis"  # with the segmenter's heads, or as in the paper
    noise: Literal["none", "shuffled", "mixed"] = "none"  # of matched queries (DVIS++)
    noisy: float = 0.5  # share of the frames with that noise


@dataclass(frozen=True)
class RocovisOptions:
    """What can be set of the training of RoCoVIS."""

    row: Literal["uvla++", "masks", "direct", "queries"] = "uvla++"  # of its Table 2; queries: GenVIS
    through: int = 5  # frames that gradients go back through
    similarity: float | None = None  # weight of GenVIS's loss of frame and object queries; none: 0.5 with row=queries


@dataclass(frozen=True)
class Sam2Options:
    """What can be set of the training of SAM 2."""

    encoder: Literal["frozen", "trained"] = "frozen"


def choose_views(wish: TrainingRequest, begun: Begun) -> ClipViews:
    """The views that are asked for: of one size (`wish.size`), or with short sides of which one is drawn for each clip;
    where neither is said, as the weights were trained, or as is published for them.

    Raises InputError where both are said.
    """
    names = [f.name for f in fields(ShortSideFraming)]
    told = {name: value for name, value in wish.settings.items() if name in names}
    short = told.get("short") or begun.short
    if told and (wish.size is not None or not short):
        raise InputError(
            f"{name_setting(next(iter(told)))}: is of clips whose short side is drawn "
            f"({name_setting('short', (240, 360, 480))}), not of one size ({name_argument('size')}); give one of them"
        )
    size = wish.size or (None if short else begun.size)
    if size is not None:
        plain = FixedFraming(size, scale=(1.0, 1.0), flip=0.0)
        return ClipViews(FixedFraming(size), plain, begun.side or min(size))
    framing = ShortSideFraming(**{**told, "short": tuple(short)})
    side = begun.side or median_low(framing.short)
    return ClipViews(framing, ShortSideFraming((side,), framing.longest, crop=0.0, flip=0.0), side)
