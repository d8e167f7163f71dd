"""Parts by name: what ships (`masklet.builtins`), and what other packages bring as entry points."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from functools import cache, cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple, get_type_hints

from masklet.core.choices import check_choice
from masklet.core.settings import is_setting_kind


@dataclass(frozen=True)
class PartEntry:
    """A part by name.

    Attributes:
        name: what users type.
        help: a line of it.
        loader: where the function is that makes it of a `PartRequest` (of a metric or a format: the function itself),
            as "package.module:function"; it is imported when it is used.
        settings: where the class or function is whose keyword arguments are its settings; "": it has none.
        form: how it may be written besides, such as "NAME:FILE".
        takes: what its loader can be told besides, "text" and "exemplars" (of segmenters).
        live: settings for a live source, which has no end: the memory must have a size (of systems).
        usual: what it has where the user says nothing, in place of the defaults of `settings` (of systems, whose modes
            are entries of their own); "segmenter" is a name, "segmenter.NAME" a setting of a segmenter of that name.
    """

    name: str
    help: str
    loader: str
    settings: str = ""
    form: str = ""
    takes: tuple[str, ...] = ()
    live: Mapping[str, Any] = field(default_factory=dict)
    usual: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Any:
        """The object that `loader` names, imported now."""
        return import_object(self.loader)


@dataclass(frozen=True)
class NoSettings:
    """The settings of a system that has none."""


def import_object(place: str) -> Any:
    """The object at "package.module:name", whose module is imported."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


@dataclass(frozen=True)
class Registry:
    """All parts of one kind.

    Attributes:
        kind: what errors call one of them, such as "segmenter".
        group: of the entry points in which other packages name theirs.
        builtins: those that ship.
    """

    kind: str
    group: str
    builtins: Sequence[PartEntry]

    @cached_property
    def entries(self) -> Mapping[str, PartEntry]:
        """Every part by its name; one of another package never takes the place of one that ships."""
        points = read_entry_points(tuple(sys.path)).select(group=self.group)
        brought = {point.name: describe_entry_point(point) for point in points}
        return {**brought, **{entry.name: entry for entry in self.builtins}}

    @property
    def names(self) -> tuple[str, ...]:
        """The names, those that ship first."""
        own = tuple(entry.name for entry in self.builtins)
        return (*own, *(name for name in self.entries if name not in own))

    def find(self, name: str) -> PartEntry:
        """The part of a name. Raises InputError with what there is where it does not exist."""
        entry = self.entries[check_choice(self.kind, name, self.names)]
        brought = entry.load() if entry not in self.builtins else None
        return brought if isinstance(brought, PartEntry) else entry

    def __getitem__(self, name: str) -> Any:
        """What the part of a name is made by, imported. Raises InputError where there is none."""
        return self.find(name).load()

    def describe(self) -> str:
        """Names as a line of help."""
        return ", ".join(self.entries[name].form or name for name in self.names)


@cache
def read_entry_points(path: tuple[str, ...]) -> Any:
    """What the packages in all folders of the `path`, which is `sys.path`, bring: to look through them takes long."""
    return entry_points()


def describe_entry_point(point: EntryPoint) -> PartEntry:
    """The entry of another package's part: what an entry point names is a loader, or a `PartEntry` with settings.
    Nothing of that package is imported before the part is used.
    """
    return PartEntry(point.name, f"of the package {point.dist.name if point.dist else point.module}", point.value)


class PartSetting(NamedTuple):
    """One setting of a part."""

    name: str
    kind: Any
    default: Any
    meaning: str


def list_part_settings(entry: PartEntry) -> Mapping[str, PartSetting]:
    """The settings of a part by name: the keyword arguments of plain kinds of what its entry points to."""
    if not entry.settings:
        return {}
    target = import_object(entry.settings)
    # A dataclass's own `__init__` does not find the kinds of fields that it has from a class elsewhere.
    is_plain_class = inspect.isclass(target) and not is_dataclass(target)
    kinds = get_type_hints(target.__init__ if is_plain_class else target)
    meanings = find_setting_meanings(target)
    return {
        name: PartSetting(name, kinds[name], parameter.default, meanings.get(name, ""))
        for name, parameter in inspect.signature(target).parameters.items()
        if not name.startswith("_") and parameter.default is not parameter.empty and is_setting_kind(kinds[name])
    }


def find_setting_meanings(target: Any) -> Mapping[str, str]:
    """What the source says of each setting: the comment behind it, or its line in a docstring."""
    families = [kind for kind in getattr(target, "__mro__", [target]) if kind is target or is_dataclass(kind)]
    text = "".join(inspect.getsource(kind) for kind in reversed(families))
    behind = re.findall(r"^\s+(\w+): [^\n#]+ = [^\n#]+  # (.+)$", text, re.MULTILINE)
    listed = re.findall(r"^\s{8,}(\w+): ([a-z].+)$", text, re.MULTILINE)
    return {**dict(listed), **dict(behind)}
