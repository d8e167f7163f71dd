"""What is taken of anything, and what is refused before it costs anything."""

from __future__ import annotations

from typing import Any

import pytest

from masklet.core import limits
from masklet.core.errors import InputError, escape_control_characters

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "name", ["clip", "a b", "clip_0.25", "..a", "a..b", "\u00e9", "x" * 255, "a\\b", "caf\udce9", "\x1b"]
)
def test_names_of_files(name: str) -> None:
    assert limits.check_file_name("f", name) == name


EVIL = ["", ".", "..", "../a", "a/../b", "/a", "a/", "a//b", "./a", "a\0b", "..\\a", "\\a", "x" * 256, "\u00e9" * 128]


@pytest.mark.parametrize("name", [*EVIL, "\ud800", None, 3, True, ["a"]])
def test_names_that_lead_elsewhere_or_are_no_file_s(name: Any) -> None:
    for check in (limits.check_file_name, limits.check_relative_path):
        with pytest.raises(InputError, match=r"^f: the name"):
            check("f", name)


def test_a_name_with_folders() -> None:
    assert limits.check_relative_path("f", "BDD/b1c9") == "BDD/b1c9"
    for name in ("BDD/" + "x" * 256, "/".join(["abc"] * 300)):
        with pytest.raises(InputError, match="too long"):
            limits.check_relative_path("f", name)
    with pytest.raises(InputError, match="separator"):
        limits.check_file_name("f", "BDD/b1c9")


@pytest.mark.parametrize("size", [(1, 1), (2160, 3840), (8640, 15360), (65535, 2048), (1, 65535)])
def test_sizes_that_are_taken(size: tuple[int, int]) -> None:
    assert limits.check_frame_size("f", *size) == size


@pytest.mark.parametrize(
    "size",
    [
        *((65536, 65536), (65536, 1), (1, 65536), (20000, 20000), (0, 5), (5, 0), (-3, -3), (2.0, 3), (True, 5)),
        *(("4", 4), (None, 4), (NAN, 4), (2**70, 2**70)),
    ],
)
def test_sizes_that_are_not(size: tuple[Any, Any]) -> None:
    with pytest.raises(InputError, match=r"^f: "):
        limits.check_frame_size("f", *size)


@pytest.mark.parametrize("value", [-1, 1.0, True, None, "3", NAN, 2**53 + 1, 10**400, [1]])
def test_what_is_no_whole_number(value: Any) -> None:
    with pytest.raises(InputError, match=r"^f: n must be a whole number"):
        limits.check_whole_number("f", "n", value)


@pytest.mark.parametrize("value", [NAN, INF, -INF, True, None, "3", 10**400, [1]])
def test_what_is_no_finite_number(value: Any) -> None:
    with pytest.raises(InputError, match=r"^f: n must be a number"):
        limits.check_number("f", "n", value)
    with pytest.raises(InputError):
        limits.check_frame_rate("f", value)


def test_lengths_rates_and_counts() -> None:
    assert limits.check_frame_count("f", 0) == 0 and limits.check_frame_count("f", limits.MOST_FRAMES)
    assert limits.check_frame_rate("f", 30) == 30.0
    for frames in (10**9, limits.MOST_FRAMES + 1):
        with pytest.raises(InputError, match=r"the number of frames is .*; at most"):
            limits.check_frame_count("f", frames)
    for rate in (0, -1, 1e9):
        with pytest.raises(InputError, match="frames per second"):
            limits.check_frame_rate("f", rate)
    with pytest.raises(InputError, match="f: 4 objects; at most 3"):
        limits.check_count("f", "objects", 4, 3)
    limits.check_mask_pixels("f", 1000, (2160, 3840))
    with pytest.raises(InputError, match="f: 100000 masks of 3840x2160"):
        limits.check_mask_pixels("f", 100_000, (2160, 3840))


def test_texts_and_plain_values() -> None:
    assert limits.check_text("f", "a name", "") == ""
    for value in (3, None, "x" * 10_001):
        with pytest.raises(InputError, match="f: a name"):
            limits.check_text("f", "a name", value)
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    assert limits.check_plain_json("f", {"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}
    for value in (deep, {"a": [NAN]}, INF):
        with pytest.raises(InputError, match=r"^f: "):
            limits.check_plain_json("f", value)


def test_a_message_shows_little_of_what_is_large() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, "x" * 10**6, list(range(10**6)), 10**5000, {n: n for n in range(10**5)}):
        assert len(limits.quote_value(value)) <= 40
    while deep:  # or Python takes it apart by recursion
        deep = deep[0]


def test_messages_cannot_command_a_terminal() -> None:
    error = InputError("clip\x1b[31m\x07\u202e\ud800\n\x9b: no such file")
    assert str(error) == r"clip\x1b[31m\x07\u202e\ud800\n\x9b: no such file"
    assert escape_control_characters("d\u00f6g \u732b \U0001f431") == "d\u00f6g \u732b \U0001f431"
