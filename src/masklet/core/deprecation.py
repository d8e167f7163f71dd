"""How a public name or argument goes: it works for a while, and says what to use."""

from __future__ import annotations

import warnings


def warn_of_deprecation(old: str, new: str, gone: str, level: int = 2) -> None:
    """Says once for each place that calls it that a name will go; the caller goes on as before.

    Args:
        old: what was used, as a user writes it.
        new: what to use in its place.
        gone: the version in which `old` is no longer there.
        level: how many calls up the user's line is; 2 is the caller of the function that calls this.

    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as said:
    ...     warnings.simplefilter("always")
    ...     warn_of_deprecation("masklet.find", "masklet.segment", "1.0")
    >>> str(said[0].message)
    'masklet.find goes with masklet 1.0; use masklet.segment'
    """
    warnings.warn(f"{old} goes with masklet {gone}; use {new}", FutureWarning, stacklevel=level + 1)
