"""How a part is asked for by name, and what its loader is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from masklet.core.errors import InputError

if TYPE_CHECKING:  # names are taken apart without torch
    from masklet.core.instances import Exemplar


class PartName(NamedTuple):
    """A name as users write it: NAME, NAME@SIZE, NAME:ARGUMENT or NAME:ARGUMENT@SIZE."""

    text: str
    base: str
    argument: str
    size: str

    @property
    def below(self) -> str:
        """The name after the colon with its size, of a part that is made over another one."""
        return f"{self.argument}@{self.size}" if self.size else self.argument


def parse_part_name(text: str) -> PartName:
    """The parts of a name.

    >>> parse_part_name("sam2long:sam2.1-tiny@512")
    PartName(text='sam2long:sam2.1-tiny@512', base='sam2long', argument='sam2.1-tiny', size='512')
    """
    whole, at, size = text.rpartition("@")
    base, _, argument = (whole if at else text).partition(":")
    return PartName(text, base, argument, size if at else "")


@dataclass(frozen=True)
class PartRequest:
    """What a part is made of, for its loader."""

    name: PartName
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1" or "mps"
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the part, checked
    make_encoder: Callable[[], Any] | None = None  # gives the encoder that all parts of a system share
    make_below: Callable[..., Any] | None = None  # gives the propagator that another one is made over
    text: str = ""  # what to find, of a part that takes it
    exemplars: Sequence[Exemplar] = ()  # of what to find, likewise

    def load_below(self, name: PartName, policy: Any, **more: Any) -> Any:
        """The propagator of a `name` with a `policy` of reading its memory (`models.sam2.memory.MemoryPolicy`), and
        what `more` is told of it, for one that is made over it. Raises InputError where no name is given.
        """
        if not name.text or self.make_below is None:
            raise InputError(f"{self.name.text}: say over which propagator, such as {self.name.base}:nano")
        return self.make_below(name, policy, **more)
