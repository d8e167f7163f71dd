from __future__ import annotations

from dataclasses import dataclass, is_dataclass
from enum import Enum
from pathlib import Path

import pytest

from masklet.core import memory
from masklet.core.memory_kinds import (
    KINDS,
    PLACES_BEFORE_TAGS,
    find_memory_kind,
    find_memory_tag,
    register_memory_kind,
)
from masklet.models.affinity import Affinity
from masklet.models.encoder import Encoder
from masklet.models.nano.segmenter import load_nano_segmenter
from masklet.models.segmenters.auto import AutoSegmenter
from masklet.models.segmenters.motion import Motion
from tests.core.test_memory import rewritten


@register_memory_kind("tests.counter")
@dataclass(frozen=True)
class Counter:
    frames: int


@dataclass(frozen=True)
class Untagged:
    frames: int


@pytest.mark.parametrize("tag", KINDS)
def test_every_tag_has_a_class_and_every_class_one_tag(tag: str) -> None:
    kind = find_memory_kind(tag)
    assert is_dataclass(kind) or issubclass(kind, Enum)
    assert find_memory_tag(kind) == tag


def test_every_place_of_before_leads_to_a_class() -> None:
    assert set(PLACES_BEFORE_TAGS.values()) <= set(KINDS)
    assert len(set(PLACES_BEFORE_TAGS.values())) == len(PLACES_BEFORE_TAGS)


def test_a_file_of_before_there_were_tags_is_read_and_new_fields_have_their_defaults(tmp_path: Path) -> None:
    memory.save_memory(1, tmp_path / "m")
    tally = '["made", ["masklet.systems.sam2bmp:Tally", {"lost": 3, "votes": ["dict", [[1, 0.5]]]}]]'
    rewritten(tmp_path / "m", tally)
    back = memory.load_memory(tmp_path / "m")
    assert (back.lost, back.votes, back.masks) == (3, {1: 0.5}, 0)


def test_classes_of_other_packages(tmp_path: Path) -> None:
    memory.save_memory({"n": Counter(3)}, tmp_path / "m")
    assert memory.load_memory(tmp_path / "m") == {"n": Counter(3)}
    with pytest.raises(TypeError, match=r"Untagged: only dataclasses with a tag"):
        memory.save_memory(Untagged(3), tmp_path / "m")
    with pytest.raises(ValueError, match=r"tests.counter: another class"):
        register_memory_kind("tests.counter")(Untagged)


def test_memories_before_the_first_frame(tmp_path: Path) -> None:
    encoder = Encoder()
    for part in (Affinity(encoder), AutoSegmenter(load_nano_segmenter(), Motion(encoder))):
        memory.save_memory(part.empty(), tmp_path / "m")
        assert type(memory.load_memory(tmp_path / "m")) is type(part.empty())
