"""MPEG-1 and MPEG-2 number the pictures of a group in the order of display: where one is missing, its number is.

A hole in the times alone does not tell: some programs write what was shown longer without the pictures between.
"""

from __future__ import annotations

GROUP, PICTURE = b"\0\0\1\xb8", b"\0\0\1\0"  # with what a group and a picture begin
BETWEEN = 3  # the kind of picture that comes after one that is displayed later, which none refers to
HEAD = 512  # bytes of a packet in which its headers are


class PictureOrder:
    """The numbers of the pictures of a group so far, in the order in which they were decoded."""

    def __init__(self, rate: float) -> None:
        """`rate`: frames per second, in which groups say when they begin."""
        self._rate = round(rate)
        self._begin: int | None = None  # the number of the group's first picture within the stream
        self._seen: set[int] = set()
        self._last = -1  # the number of the last picture that others refer to
        self._ahead = 0  # by how much that was ever greater than the one before

    def take(self, packet: memoryview) -> bool | None:
        """Whether pictures before that of a `packet` are missing; None where it does not tell."""
        head = bytes(packet[:HEAD])
        at = head.find(PICTURE)
        if at < 0 or at + 6 > len(head):
            return None
        number, kind = head[at + 4] << 2 | head[at + 5] >> 6, head[at + 5] >> 3 & 7
        group = head.find(GROUP, 0, at)
        if group >= 0 or not self._seen:
            is_missing = self._is_missing_before_group(self._read_group(head, group))
            self._seen, self._last = {number}, number
            return is_missing
        is_missing = self._is_missing(number, kind)
        self._seen.add(number)
        if kind != BETWEEN:
            self._ahead = self._ahead if is_missing else max(self._ahead, number - self._last)
            self._last = max(self._last, number)
        return is_missing

    def _is_missing_before_group(self, begin: int | None) -> bool | None:
        """Whether pictures are missing before the next group, which begins with the picture of that number."""
        before, self._begin = self._begin, begin
        if self._find_first_unseen() <= self._last:
            return True
        if before is None or begin is None or begin <= before:
            return None
        return begin - before > len(self._seen)

    def _read_group(self, head: bytes, at: int) -> int | None:
        """The number of a group's first picture, by the time code in its header; None where there is none."""
        bits = int.from_bytes(head[at + 4 : at + 8], "big")
        if at < 0 or bits >> 31:  # numbers are left out
            return None
        hours, minutes, seconds, pictures = bits >> 26 & 31, bits >> 20 & 63, bits >> 13 & 63, bits >> 7 & 63
        return (3600 * hours + 60 * minutes + seconds) * self._rate + pictures

    def _is_missing(self, number: int, kind: int) -> bool:
        first = self._find_first_unseen()
        if kind == BETWEEN:
            return number > first
        return first <= self._last or number - self._last > (self._ahead or BETWEEN)

    def _find_first_unseen(self) -> int:
        return next(n for n in range(len(self._seen) + 1) if n not in self._seen)
