"""Videos of image files, one a frame, and of the pages of one file."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from glob import has_magic
from pathlib import Path

import numpy as np
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.limits import check_frame_size
from masklet.io.video.frame_source import FrameSource, ReadFrame, fill_gaps, format_size
from masklet.io.video.images import (
    IMAGE_ERRORS,
    RATE,
    ImageHeader,
    convert_page,
    explain_image_error,
    is_image_file,
    read_image,
    read_image_header,
)
from masklet.io.video.orientation import ALPHA_NOTE
from masklet.io.video.source_names import (
    check_one_series,
    describe_missing_numbers,
    read_plain_counter,
    sort_naturally,
)
from masklet.io.video.value_range import (
    ValueRange,
    choose_range,
    has_deep_values,
    read_deep_values,
    read_foreign_tiff,
    read_page_values,
)

SAMPLED = 16  # images of more than 8 bits, whose values tell the range of all
TOLD = 3  # files that a message names
REDUCED = 254  # TIFF's tag of pages that are smaller copies, whose lowest bit is set


class ImageSequence(FrameSource):
    """A video of image files, one a frame. All headers are read before the first frame is given, none but one before
    frames are asked for.
    """

    def __init__(self, paths: Sequence[Path], label: str, name: str, rate: float = RATE) -> None:
        super().__init__(label, name, rate)
        self.paths = tuple(paths)
        self.frame_names = tuple(p.stem for p in paths)
        counter = read_plain_counter(self.paths)
        if counter is None:
            check_one_series(self.paths, label)
        self.notes += [f"{label}: {told}" for told in describe_missing_numbers(self.frame_names, counter)]
        first = next(self._iterate_headers(), None)
        if first is None:
            raise InputError(f"{label}: damaged before its first frame ({self.lost[0]}); give an intact copy")
        self.size = check_frame_size(label, *first[1].size)  # before any pixel is read
        self._is_checked = False
        self._range: ValueRange | None = None

    @property
    def origin(self) -> str:
        """The folder, where all images in it are meant and in its order; else the glob, or the only image."""
        folder = self.paths[0].parent
        inside = sort_naturally(path for path in folder.iterdir() if is_image_file(path)) if folder.is_dir() else []
        if len(self.paths) > 1 and tuple(inside) == self.paths:
            return str(folder)
        return self.label if has_magic(self.label) or len(self.paths) == 1 else ""

    def _iterate_headers(self) -> Iterator[tuple[Path, ImageHeader]]:
        """The files with their headers; those that cannot be read are `lost`."""
        for n, path in enumerate(self.paths):
            try:
                yield path, read_image_header(path)
            except IMAGE_ERRORS as error:
                self.lost[n] = f"{path.name}: {explain_image_error(error)}"

    def check_before_reading(self) -> None:
        if self._is_checked:
            return
        headers = list(self._iterate_headers())
        self.size = check_frame_size(self.label, *self._agree_on_size(headers))
        self._range = self._find_range(headers)
        self._is_checked = True

    def _agree_on_size(self, headers: Sequence[tuple[Path, ImageHeader]]) -> tuple[int, int]:
        """The size of all images. Raises InputError that names those of another size, or of several pages."""
        paged = [f"{path.name} ({h.pages})" for path, h in headers if h.pages > 1]
        if paged:
            held = f"holds images of several pages, {list_some(paged)}"
            raise InputError(f"{self.label}: {held}; give one such file, or one image a frame")
        [(size, _)] = Counter(h.size for _, h in headers).most_common(1)
        odd = [f"{path.name} is {format_size(h.size)}" for path, h in headers if h.size != size]
        if odd:
            raise InputError(f"{self.label}: {list_some(odd)}, the others {format_size(size)}; give frames of one size")
        return size

    def _find_range(self, headers: Sequence[tuple[Path, ImageHeader]]) -> ValueRange | None:
        """What is black and white in images of more than 8 bits; None where there are none."""
        deep = [path for path, h in headers if h.is_deep]
        if not deep:
            return None
        chosen = [deep[n] for n in sorted({round(n) for n in np.linspace(0, len(deep) - 1, SAMPLED)})]
        found = choose_range([v for v in map(_read_values, chosen) if v is not None])
        self.note(f"{self.label}: {found.describe()}, as {len(chosen)} of {len(deep)} images tell")
        return found

    def said(self) -> int:
        return len(self.paths)

    def frames(self) -> Iterator[Frame]:
        self.check_before_reading()
        return fill_gaps((self._load(n) for n in range(len(self.paths))), self.lost)

    def frames_from(self, first: int) -> Iterator[Frame]:
        for n in range(first, len(self.paths)):
            yield from self.read(n, n + 1)

    def read(self, start: int, stop: int) -> list[Frame]:
        self.check_before_reading()
        found: list[Frame] = []
        for n in range(start, min(stop, len(self.paths))):
            own = self._load(n)
            image = own.image if not isinstance(own.image, str) else (found[-1].image if found else self._stand_in(n))
            found.append(Frame(n, image, own.time, own.name))
        return found

    def _stand_in(self, n: int) -> np.ndarray:
        """The pixels of the good image before the broken one `n`, else of the next after it."""
        for m in (*range(n - 1, -1, -1), *range(n + 1, len(self.paths))):
            image = self._load(m).image
            if not isinstance(image, str):
                return image
        raise InputError(f"{self.label}: none of its images can be read; give an intact copy")

    def _load(self, n: int) -> ReadFrame:
        path, time, name = self.paths[n], n / self.rate, self.frame_names[n]
        try:
            image, is_transparent = read_image(path, self._range)
        except IMAGE_ERRORS as error:
            self.lost[n] = f"{path.name}: {explain_image_error(error)}"
            return ReadFrame(self.lost[n], time, name)
        if is_transparent:
            self.note(ALPHA_NOTE)
        return ReadFrame(image, time, name)


def _read_values(path: Path) -> np.ndarray | None:
    """The colours of an image of more than 8 bits; None where it is damaged."""
    try:
        with Image.open(path) as image:
            values = read_deep_values(image, path)
    except IMAGE_ERRORS:
        try:
            values = read_foreign_tiff(path)
        except IMAGE_ERRORS:
            return None
    return values[..., :3] if values.ndim == 3 else values


def list_some(names: Sequence[str]) -> str:
    """The first few of `names` for a message, and how many more there are.

    >>> list_some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    rest = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return ", ".join(names[:TOLD]) + rest


class ImagePages(FrameSource):
    """A video of the pages of one image file: a TIFF, or an animated WebP or PNG."""

    def __init__(self, path: Path, label: str, name: str, rate: float = RATE) -> None:
        super().__init__(label, name, rate)
        self.path = path
        with self._open() as image:
            check_frame_size(label, *reversed(image.size))
            self._pages = _list_pages(image, label)
            self._times = self._read_times(image)
            self._range = self._find_range(image)
        self.start()

    @property
    def origin(self) -> str:
        """The file, or the folder that it is alone in."""
        return self.label

    def _open(self) -> Image.Image:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(self.path)

    def _read_times(self, image: Image.Image) -> list[float]:
        """Seconds at which pages are shown; sets the rate to their mean where they say how long that is."""
        if image.format == "TIFF":
            return [n / self.rate for n in range(len(self._pages))]
        durations = [_read_duration(image, page) for page in self._pages]
        self.rate = len(durations) / sum(durations)
        return [sum(durations[:n]) for n in range(len(durations))]

    def _find_range(self, image: Image.Image) -> ValueRange | None:
        image.seek(0)
        if not has_deep_values(image):
            return None
        chosen = sorted({self._pages[round(n)] for n in np.linspace(0, len(self._pages) - 1, SAMPLED)})
        values = [v for v in (self._read_values(image, page) for page in chosen) if v is not None]
        found = choose_range(values) if values else ValueRange(0, 65535)
        self.note(f"{self.label}: {found.describe()}, as {len(chosen)} of {len(self._pages)} pages tell")
        return found

    def _read_values(self, image: Image.Image, page: int) -> np.ndarray | None:
        """The colours of a page of more than 8 bits; None where it is damaged."""
        try:
            image.seek(page)
            values = read_page_values(image, self.path, page)
        except IMAGE_ERRORS:
            return None
        return values[..., :3] if values.ndim == 3 else values

    def said(self) -> int:
        return len(self._pages)

    def foresee_times(self) -> Sequence[float]:
        """As the file says them."""
        return self._times

    def frames(self) -> Iterator[Frame]:
        return fill_gaps(self._load_all(), self.lost)

    def _load_all(self) -> Iterator[ReadFrame]:
        with self._open() as image:
            for n in range(len(self._pages)):
                yield self._load(image, n)

    def read(self, start: int, stop: int) -> list[Frame]:
        found: list[Frame] = []
        with self._open() as image:
            for n in range(start, min(stop, len(self._pages))):
                pixels = self._load(image, n).image
                if isinstance(pixels, str):
                    pixels = found[-1].image if found else self._stand_in(image, n)
                found.append(Frame(n, pixels, self._times[n]))
        return found

    def _stand_in(self, image: Image.Image, n: int) -> np.ndarray:
        for m in (*range(n - 1, -1, -1), *range(n + 1, len(self._pages))):
            pixels = self._load(image, m).image
            if not isinstance(pixels, str):
                return pixels
        raise InputError(f"{self.label}: none of its pages can be read; give an intact copy")

    def _load(self, image: Image.Image, n: int) -> ReadFrame:
        try:
            image.seek(self._pages[n])
            pixels, is_transparent = convert_page(image, self.path, self._pages[n], self._range)
        except IMAGE_ERRORS as error:
            return ReadFrame(f"page {self._pages[n]}: {explain_image_error(error)}", self._times[n])
        if is_transparent:
            self.note(ALPHA_NOTE)
        return ReadFrame(pixels, self._times[n])


def _list_pages(image: Image.Image, label: str) -> list[int]:
    """The pages that are frames: not the smaller copies that some TIFFs have beside each."""
    pages = range(getattr(image, "n_frames", 1))
    if image.format != "TIFF":
        return list(pages)
    sizes = {}
    for page in pages:
        image.seek(page)
        if not int(getattr(image, "tag_v2", {}).get(REDUCED, 0)) & 1:
            sizes[page] = image.size[::-1]
    odd = [f"page {page} is {format_size(size)}" for page, size in sizes.items() if size != sizes[min(sizes)]]
    if odd:
        raise InputError(
            f"{label}: {list_some(odd)}, the first {format_size(sizes[min(sizes)])}; give pages of one size"
        )
    return list(sizes or pages)


def _read_duration(image: Image.Image, page: int) -> float:
    """Seconds for which a page is shown; a tenth where it says nothing, as browsers do."""
    try:
        image.seek(page)
        image.load()
    except IMAGE_ERRORS:  # it becomes a gap when it is read
        return 0.1
    return (float(image.info.get("duration", 0)) or 100.0) / 1000
