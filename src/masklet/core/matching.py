"""Association: who is who. Fed by mask IoU or by the cosine of queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Matching:
    """Rows and columns that belong together, and those left over."""

    pairs: tuple[tuple[int, int], ...]
    free_rows: tuple[int, ...]
    free_cols: tuple[int, ...]


def solve_assignment(costs: Float[np.ndarray, "n m"]) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """Rows and columns of the one-to-one assignment of least total cost, as many as there can be, rows in order.

    >>> solve_assignment(np.array([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0]]))
    (array([0, 1]), array([1, 0]))
    """
    from scipy.optimize import linear_sum_assignment  # a third of a second, which only those pay who assign

    rows, cols = linear_sum_assignment(costs)
    return rows, cols


def match(affinity: Float[np.ndarray, "n m"], above: float) -> Matching:
    """One-to-one matching of greatest total affinity among the pairs with affinity > `above` (strictly).

    >>> match(np.array([[0.9, 0.6], [0.8, 0.1]]), above=0.5).pairs
    ((0, 1), (1, 0))
    """
    allowed = affinity > above
    rows, cols = allowed.nonzero()
    if len({*rows}) < len(rows) or len({*cols}) < len(cols):  # else there is nothing to choose
        gain = np.where(allowed, affinity - min(above, 0.0), 0.0)  # a forbidden pair must add nothing
        rows, cols = solve_assignment(-gain)
    pairs = tuple((int(r), int(c)) for r, c in zip(rows, cols, strict=True) if allowed[r, c])
    taken_rows, taken_cols = {r for r, _ in pairs}, {c for _, c in pairs}
    n, m = affinity.shape
    return Matching(
        pairs,
        tuple(r for r in range(n) if r not in taken_rows),
        tuple(c for c in range(m) if c not in taken_cols),
    )
