"""Clips of several sources in turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from masklet.core.errors import InputError
from masklet.train.data.clips import ClipSource, TrainingClip


class ClipMixture:
    """A `ClipSource` that draws each clip's source, as often as the ratios say (DVIS: COCO 1, YouTube-VIS 0.75)."""

    def __init__(self, sources: Sequence[ClipSource], ratios: Sequence[float]) -> None:
        """Raises InputError where ratios are not one each and above 0, or sources differ in their categories."""
        if len(ratios) != len(sources) or not sources or min(ratios) <= 0:
            raise InputError(f"{len(ratios)} ratios for {len(sources)} sources; give each source one, above 0")
        for source in sources:
            if source.categories != sources[0].categories:
                raise InputError(
                    f"sources name different categories ({', '.join(source.categories[:3])}... and "
                    f"{', '.join(sources[0].categories[:3])}...); give all of them one list"
                )
        self.sources, self.categories = tuple(sources), sources[0].categories
        self._shares = np.array(ratios, float) / sum(ratios)

    def clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        """One more clip of one of the sources."""
        return self.sources[random.choice(len(self.sources), p=self._shares)].clip(random, frames)
