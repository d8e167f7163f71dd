"""Association: who is who. Fed by mask IoU or by the cosine of queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int

FEW = 32  # rows or columns, whichever are fewer: an assignment of so many takes less time than loading scipy's


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


def solve_small_assignment(costs: Float64[np.ndarray, "n m"]) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """As `solve_assignment`, without scipy, which takes half a second to load: by shortest augmenting paths (Jonker and
    Volgenant 1987), row by row.

    >>> solve_small_assignment(np.array([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0]]))
    (array([0, 1]), array([1, 0]))
    """
    if costs.shape[0] > costs.shape[1]:
        cols, rows = solve_small_assignment(costs.T)
        order = rows.argsort()
        return rows[order], cols[order]
    owner = np.full(costs.shape[1], -1)  # the row that each column belongs to, -1: none
    row_price, column_price = np.zeros(costs.shape[0]), np.zeros(costs.shape[1])
    for row in range(len(costs)):
        _assign_one_more(costs, row, owner, row_price, column_price)
    taken = np.flatnonzero(owner >= 0)
    order = owner[taken].argsort()
    return owner[taken][order], taken[order]


def _assign_one_more(
    costs: Float64[np.ndarray, "n m"],
    row: int,
    owner: Int[np.ndarray, " m"],
    row_price: Float64[np.ndarray, " n"],
    column_price: Float64[np.ndarray, " m"],
) -> None:
    """Gives a `row` a column, for which those before may change theirs: along the cheapest path to a free column. In
    place: the columns' `owner`, and the prices, which no pair's cost is below the sum of.
    """
    m = len(owner)
    length, before = np.full(m, np.inf), np.full(m, -1)  # of the path to each column, and the column before it
    visited, at, column, so_far = np.zeros(m, bool), row, -1, 0.0
    while True:
        longer = so_far + costs[at] - row_price[at] - column_price
        nearer = ~visited & (longer < length)
        length[nearer], before[nearer] = longer[nearer], column
        column = int(np.where(visited, np.inf, length).argmin())
        so_far = length[column]
        if owner[column] < 0:
            break
        visited[column], at = True, owner[column]
    row_price[row] += so_far
    row_price[owner[visited]] += so_far - length[visited]
    column_price[visited] -= so_far - length[visited]
    while column >= 0:  # each column of the path goes to the row that came to it
        owner[column] = row if before[column] < 0 else owner[before[column]]
        column = int(before[column])


def match(affinity: Float[np.ndarray, "n m"], above: float) -> Matching:
    """One-to-one matching of greatest total affinity among the pairs with affinity > `above` (strictly).

    >>> match(np.array([[0.9, 0.6], [0.8, 0.1]]), above=0.5).pairs
    ((0, 1), (1, 0))
    """
    allowed = affinity > above
    rows, cols = allowed.nonzero()
    if len({*rows}) < len(rows) or len({*cols}) < len(cols):  # else there is nothing to choose
        some = np.ix_(np.unique(rows), np.unique(cols))
        gain = np.where(allowed[some], affinity[some] - min(above, 0.0), 0.0)  # a forbidden pair must add nothing
        solve = solve_small_assignment if min(gain.shape) <= FEW else solve_assignment
        here, there = solve(-gain.astype(np.float64))
        rows, cols = some[0][here, 0], some[1][0, there]
    pairs = tuple((int(r), int(c)) for r, c in zip(rows, cols, strict=True) if allowed[r, c])
    taken_rows, taken_cols = {r for r, _ in pairs}, {c for _, c in pairs}
    n, m = affinity.shape
    return Matching(
        pairs,
        tuple(r for r in range(n) if r not in taken_rows),
        tuple(c for c in range(m) if c not in taken_cols),
    )
