"""What is done to a good input to make it a bad one. Everything is drawn from a generator that is handed in."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Draw = np.random.Generator
NUMBERS = (
    *(0, -1, 1, 2, 255, 65_535, 65_536, 10**9, 2**31, 2**32, 2**53 + 1, 2**63, 2**64, 10**400),
    *(0.5, -0.5, 1e9, 1e300, -1e308, 5e-324, float("nan"), float("inf"), -float("inf"), True, False),
)
# Texts that stand for what Python's encoder cannot write; `write_json` puts it in their place.
RAW = {
    "@DEEP@": "[" * 100_000 + "]" * 100_000,
    "@NESTED@": "[" * 900 + "]" * 900,
    "@LONG@": "9" * 5000,
    "@FAR@": "1e999",
}
OTHERS: tuple[Any, ...] = (None, [], {}, "", "text", [None], {"a": 1}, *RAW)
COCO = "".join(map(chr, range(48, 112)))  # the letters of compressed run lengths


def list_evil_names(root: Path) -> list[str]:
    """Names that lead out of a folder, cannot be a file's, or command a terminal; `root` is where they may lead."""
    return [
        *("../evil", "../../../evil", "a/../../../evil", "..", ".", "", "/", "a//b", "./a", "..\\..\\evil", "a\0b"),
        *(f"{root}/absolute", "x" * 300, "\u00e9" * 200, "a/" * 600 + "b", "\x1b[31mred\x07", "\ud800", "caf\udce9"),
        *("\u202egnp.evil", "line\nbreak", "con", "~", "-rf", "$(touch evil)", "b/c"),
    ]


def mutate_bytes(data: bytes, draw: Draw) -> bytes:
    """Bytes in which some are others, missing, twice there, or cut off at the end."""
    changed = bytearray(data)
    for _ in range(int(draw.integers(1, 5))):
        if not changed:
            break
        at, length = int(draw.integers(len(changed))), int(draw.choice([1, 1, 2, 4, 64]))
        kind = draw.integers(5)
        if kind == 0:
            changed[at] ^= 1 << int(draw.integers(8))
        elif kind == 1:
            changed[at : at + length] = draw.bytes(length)
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = changed[at : at + length]
        else:
            del changed[at:]
    return bytes(changed)


def mutate_header(data: bytes, draw: Draw) -> bytes:
    """Bytes with numbers of another size near their beginning, where files say how large they are."""
    changed, at = bytearray(data), int(draw.integers(4, min(len(data), 200) - 8))
    number = int(draw.choice([0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF]))
    changed[at : at + 4] = number.to_bytes(4, "big" if draw.integers(2) else "little")
    return bytes(changed)


def mutate_json(content: Any, draw: Draw, names: Sequence[str]) -> Any:
    """A copy in which one to three values (most often one) are of another kind, extreme, missing, twice there or moved."""
    changed = copy.deepcopy(content)
    for _ in range(int(draw.choice([1, 1, 1, 2, 3]))):
        places = list(_list_places(changed))
        if not places:
            break
        container, key = places[int(draw.integers(len(places)))]
        _CHANGES[int(draw.integers(len(_CHANGES)))](container, key, draw, names)
    return changed


def _list_places(content: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ():
        yield content, key
        yield from _list_places(content[key])


def _set_number(container: Any, key: Any, draw: Draw, names: Sequence[str]) -> None:
    container[key] = NUMBERS[int(draw.integers(len(NUMBERS)))]


def _set_other(container: Any, key: Any, draw: Draw, names: Sequence[str]) -> None:
    container[key] = OTHERS[int(draw.integers(len(OTHERS)))]


def _set_name(container: Any, key: Any, draw: Draw, names: Sequence[str]) -> None:
    if isinstance(container[key], str) or draw.integers(4) == 0:
        container[key] = names[int(draw.integers(len(names)))]
    else:
        _change_text(container, key, draw, names)


def _change_text(container: Any, key: Any, draw: Draw, names: Sequence[str]) -> None:
    value = container[key]
    if isinstance(value, str) and value:
        container[key] = mutate_run_lengths(value, draw)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        container[key] = value + int(draw.choice([-1, 1]))
    else:
        _set_number(container, key, draw, names)


def _remove(container: Any, key: Any, draw: Draw, names: Sequence[str]) -> None:
    del container[key]


def _repeat(container: Any, key: Any, draw: Draw, names: Sequence[str]) -> None:
    if isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    else:
        container[names[int(draw.integers(len(names)))]] = copy.deepcopy(container[key])


def _swap(container: Any, key: Any, draw: Draw, names: Sequence[str]) -> None:
    keys = list(container) if isinstance(container, dict) else list(range(len(container)))
    other = keys[int(draw.integers(len(keys)))]
    container[key], container[other] = container[other], container[key]


_CHANGES: Sequence[Callable[[Any, Any, Draw, Sequence[str]], None]] = (
    *(_set_number, _set_name, _set_other, _remove, _repeat, _swap),
    *(_change_text,) * 6,  # most often by little: what is nearly right gets farthest
)


def mutate_run_lengths(text: str, draw: Draw) -> str:
    """Run lengths with other letters, more of them, or far too long a number."""
    at = int(draw.integers(len(text)))
    letters = "".join(draw.choice(list(COCO), int(draw.integers(1, 9))))
    return [
        text[:at] + letters + text[at + len(letters) :],
        text[:at] + letters + text[at:],
        text[:at],
        text[:at] + "\u00e9" + text[at:],
        text + "o" * 40 + "0",
        text[:at] + "0" * 1000 + text[at:],
        "\ud800" + text,
    ][int(draw.integers(7))]


def mutate_text(text: str, draw: Draw, names: Sequence[str]) -> bytes:
    """A text with words exchanged for extreme ones, or with damaged bytes."""
    if draw.integers(2):
        return mutate_bytes(text.encode(errors="surrogateescape"), draw)
    words = text.split(" ")
    words[int(draw.integers(len(words)))] = str(draw.choice([*names, *map(repr, NUMBERS), *RAW.values()]))
    return " ".join(words).encode(errors="surrogatepass")


def write_json(path: Path, content: Any, draw: Draw) -> None:
    """Writes what JSON can hold, and what it cannot; now and then with damaged bytes too."""
    text = json.dumps(content)
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    data = text.encode()
    path.write_bytes(mutate_bytes(data, draw) if draw.integers(8) == 0 else data)
