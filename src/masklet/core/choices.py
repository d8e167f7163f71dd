"""One of several names: what users choose, and what is said where they name another."""

from __future__ import annotations

from collections.abc import Iterable

from masklet.core.errors import InputError


def check_choice(kind: str, name: str, known: Iterable[str]) -> str:
    """A `name` that is among those `known` of a `kind`. Raises InputError with the nearest one where it is not."""
    known = tuple(dict.fromkeys(known))
    if name not in known:
        from difflib import get_close_matches  # of no use to who chose what there is

        near = get_close_matches(name, known, n=1) or [one for one in known if name and one.startswith(name)]
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"no {kind} {name!r}; {hint}there are: {', '.join(known)}")
    return name
