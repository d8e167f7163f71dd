"""Which categories of stills are which of a video data set, so that both can be trained on together.

Categories are the same where their names are; of COCO some have another name in YouTube-VIS and OVIS, and several are
one there. DVIS and its kin train so on COCO's images as pseudo videos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OTHER_NAMES: Mapping[str, Sequence[str]] = {  # of a video data set: COCO's
    "sedan": ("car",),
    "vehical": ("car", "bus", "truck"),  # as OVIS spells it
    "motorbike": ("motorcycle", "bicycle"),
    "snowboard": ("snowboard", "skis"),
    "flying_disc": ("frisbee",),
}
HOMONYMS: Mapping[str, str] = {"mouse": "keyboard"}  # a name that means something else where there is also the other


def map_categories(source: Sequence[str], target: Sequence[str]) -> dict[str, str]:
    """For each category of `source` that is one of `target`, which one.

    >>> map_categories(("person", "car", "tennis racket", "fork"), ("person", "sedan", "tennis_racket"))
    {'person': 'person', 'car': 'sedan', 'tennis racket': 'tennis_racket'}
    """
    plain = {normalize_category(name) for name in source}
    wanted: dict[str, str] = {}
    for name in target:
        own = normalize_category(name)
        names = OTHER_NAMES.get(own, (own,)) if own not in plain else (own, *OTHER_NAMES.get(own, ()))
        for one in names:
            wanted.setdefault(one, name)
    return {
        name: wanted[own]
        for name in source
        if (own := normalize_category(name)) in wanted and HOMONYMS.get(own) not in plain
    }


def normalize_category(name: str) -> str:
    """A category's name as it is compared.

    >>> normalize_category("Giant panda") == normalize_category("giant_panda")
    True
    """
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def has_same_categories(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two lists name the same categories in the same order, however they are spelt."""
    return [*map(normalize_category, one)] == [*map(normalize_category, other)]
