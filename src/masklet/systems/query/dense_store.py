"""The large part of every frame, kept between the two passes as `core.features` keeps features.

What an accelerator makes is kept in bfloat16, in which networks compute there; on a CPU it stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from masklet.core import features as tiers
from masklet.core.features import FeatureStore


@dataclass(frozen=True)
class DenseFeatures:
    """The large part of one frame."""

    maps: Float[Tensor, "d h w"]
    inside: tuple[int, int]


class DenseStore(FeatureStore[DenseFeatures]):
    """Dense features by frame. What `get` does not find, the caller computes again."""

    def __enter__(self) -> DenseStore:
        return self

    def keep(self, index: int, features: DenseFeatures) -> None:
        """Keeps one frame's features where there is room for them."""
        halves = tiers.is_accelerator(features.maps.device)
        super().keep(index, replace(features, maps=features.maps.bfloat16()) if halves else features)

    def get(self, index: int) -> DenseFeatures | None:
        """The features of a frame in float32, or None where they were not kept."""
        found = super().get(index)
        return None if found is None else replace(found, maps=found.maps.float())
