"""Names of videos and of their frames: what a source is called, and in which order its images stand."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from glob import has_magic
from itertools import count, pairwise
from pathlib import Path

from masklet.core.errors import InputError
from masklet.io.video.network import is_address, name_address

STDIN, PIPE = "stdin", "pipe"
GIVE = "give a video file, a folder of images, a glob, or - for a pipe"
SHOWN = 5  # gaps in the numbers that are told one by one
# A sign belongs to a number at the start or after a separator; a point where there is one number on either side.
NUMBER = re.compile(r"((?:(?<=^)|(?<=[_=,( ]))-)?(?<!\d\.)(\d+\.\d+(?!\.?\d)|\d+)|(\d+)")
COUNTER = re.compile(r"\d+")

Source = str | tuple[str, ...]  # a path, a glob, an address, "-"; or image files that are one video


@lru_cache(maxsize=100_000)
def split_numbers(text: str, decimals: bool = True) -> tuple[tuple[int, Decimal | str], ...]:
    """The numbers of a name and what is between them, so that names are sorted by their numbers.

    Args:
        text: the name, without its suffix.
        decimals: whether 0.25 is a quarter and -1 below 0; else both are whole numbers after a separator.

    >>> [str(part) for _, part in split_numbers("t-2_-1.50")]
    ['t-', '2', '_', '-1.50']
    """
    parts: list[tuple[int, Decimal | str]] = []
    at = 0
    for found in (NUMBER if decimals else COUNTER).finditer(text):
        parts += [(1, text[at : found.start()])] if found.start() > at else []
        parts.append((0, Decimal(found.group())))
        at = found.end()
    return (*parts, *([(1, text[at:])] if at < len(text) else []))


def make_natural_key(path: Path, decimals: bool = True) -> tuple[object, ...]:
    """A sort key that counts: 2.png before 10.png, clip_0.5 before clip_0.75, -2 before -1; folders count as well."""
    folders = tuple(split_numbers(part, False) for part in path.parent.parts)
    return folders, split_numbers(path.stem, decimals), (1, str(path))


def sort_naturally(paths: Iterable[Path]) -> list[Path]:
    """Paths in the order in which people count.

    A point is a decimal point, unless names such as shot1.2 and shot1.10 show that a counter follows it: a fraction
    of several digits that ends in 0 beside shorter ones.
    """
    paths = list(paths)
    counter = read_plain_counter(paths)
    if counter is not None:
        return [paths[n] for n in sorted(range(len(paths)), key=lambda n: (counter[n], str(paths[n])))]
    decimals = not _is_counting_after_points([p.stem for p in paths])
    return sorted(paths, key=lambda p: make_natural_key(p, decimals))


def read_plain_counter(paths: Sequence[Path]) -> list[int] | None:
    """The number of each image of a series whose names differ in that alone, which nearly all are; else None.

    All are of one folder, of one suffix, and begin alike; a sign or a point before the number is left to others.

    >>> read_plain_counter([Path("a/cam2_7.png"), Path("a/cam2_08.png")]), read_plain_counter([Path("0.5.png")])
    ([7, 8], None)
    """
    texts = [str(path) for path in paths]
    if not texts:
        return None
    first, last = min(texts), max(texts)
    alike = first[: next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
    alike = alike.rstrip("0123456789")
    suffix = os.path.splitext(texts[0])[1]
    if not suffix or alike.endswith(("-", ".")):
        return None
    begin, end = len(alike), -len(suffix)
    numbers = [text[begin:end] for text in texts if text.endswith(suffix)]
    return list(map(int, numbers)) if len(numbers) == len(texts) and all(map(str.isdecimal, numbers)) else None


def _is_counting_after_points(stems: Sequence[str]) -> bool:
    fractions = [f for stem in stems for f in re.findall(r"(?<=\d\.)\d+", stem)]
    lengths = {len(f) for f in fractions}
    return len(lengths) > 1 and any(len(f) > 1 and f.endswith("0") for f in fractions)


def read_numbers(stem: str) -> tuple[Decimal, ...]:
    """The numbers in a file's name, in their order."""
    return tuple(part for _, part in split_numbers(stem) if isinstance(part, Decimal))


def read_words(stem: str) -> str:
    """What is in a file's name beside its numbers, a # for each of them.

    >>> read_words("frame_0007_mask")
    'frame_#_mask'
    """
    return "".join("#" if isinstance(part, Decimal) else str(part) for _, part in split_numbers(stem))


def describe_missing_numbers(stems: Sequence[str], counter: Sequence[int] | None = None) -> list[str]:
    """What a result says of numbers that are missing in the names of frames: a sentence each, for five of them.

    Nothing where the names do not count in a steady step. `counter` is the frames' numbers where they are known.
    """
    numbers: Sequence[Decimal | int] = _find_counter(stems) if counter is None else counter
    steps = [b - a for a, b in pairwise(numbers)]
    usual, times = Counter(steps).most_common(1)[0] if steps else (Decimal(0), 0)
    if len(steps) < 2 or usual <= 0 or 2 * times < len(steps) or any(s <= 0 or s % usual for s in steps):
        return []
    gaps = [(a, b, int(step / usual) - 1) for (a, b), step in zip(pairwise(stems), steps, strict=True) if step > usual]
    told = [f"{n} {'number is' if n == 1 else 'numbers are'} missing between {a} and {b}" for a, b, n in gaps[:SHOWN]]
    rest = sum(n for *_, n in gaps[SHOWN:])
    return [f"{one}; frames are counted without them" for one in told] + ([f"and {rest} more numbers"] if rest else [])


def find_regular_step(names: Sequence[str]) -> Decimal | None:
    """By how much the numbers in the names of images rise from each to the next; None where that is not always the
    same.

    >>> find_regular_step(["5.png", "10.png", "15.png"]), find_regular_step(["1.png", "2.png", "4.png"])
    (Decimal('5'), None)
    """
    numbers = _find_counter([Path(name).stem for name in names])
    steps = {b - a for a, b in pairwise(numbers)}
    return steps.pop() if len(steps) == 1 else None


def _find_counter(stems: Sequence[str]) -> list[Decimal]:
    """The number in each name that counts, the last one that is not the same in all; none where names differ more."""
    numbers = [read_numbers(stem) for stem in stems]
    if len(stems) < 3 or len({read_words(stem) for stem in stems}) > 1 or not numbers[0]:
        return []
    columns = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    return list(columns[0]) if len(columns) == 1 else []


def check_one_series(paths: Sequence[Path], label: str) -> None:
    """Raises InputError where image files are of several kinds or series, such as frames with their masks beside."""
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        kinds[name_kind(path)].append(path)
    if len(kinds) > 1:
        stems = Counter((p.parent, p.stem) for p in paths)
        twice = [stem for (_, stem), n in stems.items() if n > 1]
        held = " and ".join(f"{len(found)} {kind} ({found[0].name}, ...)" for kind, found in sorted(kinds.items()))
        same = f"; {len(twice)} names are there twice, as frames with their masks beside are" if twice else ""
        raise InputError(f"{label}: holds {held}{same}; say which are the frames: {_suggest_kind(paths, kinds)}")
    _check_twin_numbers(paths, label)


def name_kind(path: Path) -> str:
    """The kind of an image file by its suffix.

    >>> name_kind(Path("a.JPEG"))
    'jpg'
    """
    suffix = path.suffix.lower().removeprefix(".")
    return {"jpeg": "jpg", "tiff": "tif"}.get(suffix, suffix)


def _suggest_kind(paths: Sequence[Path], kinds: dict[str, list[Path]]) -> str:
    most = max(kinds.values(), key=lambda found: (len(found), name_kind(found[0]) == "jpg"))
    return f"give '{paths[0].parent / ('*' + most[0].suffix)}', or move the others away"


def _check_twin_numbers(paths: Sequence[Path], label: str) -> None:
    """Raises InputError where files of two series bear the same numbers, as 7.png and 7_mask.png."""
    series: dict[tuple[Path, str], dict[tuple[Decimal, ...], Path]] = defaultdict(dict)
    for path in paths:
        if numbers := read_numbers(path.stem):
            series[path.parent, read_words(path.stem)].setdefault(numbers, path)
    if len(series) < 2:
        return
    (_, first), *others = sorted(series.items(), key=lambda item: -len(item[1]))
    for (folder, words), other in others:
        if len(other) > 1 and 2 * len(first.keys() & other.keys()) >= len(other):
            a, b = (next(iter(one.values())).name for one in (first, other))
            pattern = folder / (words.replace("#", "*") + Path(b).suffix)
            raise InputError(
                f"{label}: holds two series of the same numbers, {len(first)} as {a} and {len(other)} as {b}; "
                f"give a folder with one of them, or a glob such as '{pattern}'"
            )


def name_source(source: Source) -> str:
    """What a video is called: a file's stem, a folder's name as it was given, for a glob that of the folder it looks
    in, for image files that of their folder.
    """
    if isinstance(source, tuple):
        return name_source(str(Path(source[0]).parent))
    if source == "-":
        return STDIN
    if is_address(source):
        return name_address(source)
    path = Path(source)
    if str(path.parent) in ("/dev/fd", "/proc/self/fd"):
        return PIPE
    if not path.exists() and has_magic(source):
        path = next(p for p in path.parents if p.is_dir() or not has_magic(str(p)))
    # A link keeps its own name; only . and .. have to be followed.
    name = Path(os.path.abspath(path)).name if path.is_dir() else path.stem
    return name.lstrip(".-") or "video"


def make_unique_names(given: Sequence[Source], reserved: Iterable[str] = ()) -> list[str]:
    """A name for each source, none of those that are `reserved`; equal ones are numbered, in order: clip, clip-2,
    clip-3.
    """
    taken = set(reserved)
    names = []
    for name in map(name_source, given):
        free = (name if n == 1 else f"{name}-{n}" for n in count(1))
        names.append(next(n for n in free if n not in taken))
        taken.add(names[-1])
    return names


def describe_source(source: object) -> str:
    """A source for people and records: a path as it is, image files by the first, of an object its type.

    >>> describe_source(("clip/0.png", "clip/1.png"))
    'clip/0.png and 1 more images'
    """
    if isinstance(source, tuple | list) and source and isinstance(source[0], str | Path):
        return f"{source[0]} and {len(source) - 1} more images"
    return str(source) if isinstance(source, str | Path) else type(source).__name__
