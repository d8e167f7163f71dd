from __future__ import annotations

import subprocess
import sys
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from masklet.core.matching import FEW, match, solve_assignment, solve_small_assignment

tables = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 2**32 - 1)).map(
    lambda x: torch.rand(x[0], x[1], generator=torch.Generator().manual_seed(x[2]))
)


def best_total(affinity: torch.Tensor, above: float) -> float:
    """Every one-to-one assignment, tried."""
    n, m = affinity.shape
    if n > m:
        return best_total(affinity.T, above)
    totals = [
        sum(float(affinity[r, c]) for r, c in enumerate(cols) if affinity[r, c] > above)
        for cols in permutations(range(m), n)
    ]
    return max(totals, default=0.0)


@given(tables, st.sampled_from([0.0, 0.3, 0.5, 0.9]))
def test_match_is_one_to_one_complete_and_the_best_of_all(affinity: torch.Tensor, above: float) -> None:
    links = match(affinity.numpy(), above)
    rows, cols = [r for r, _ in links.pairs], [c for _, c in links.pairs]
    assert sorted(rows + list(links.free_rows)) == list(range(affinity.shape[0]))
    assert sorted(cols + list(links.free_cols)) == list(range(affinity.shape[1]))
    assert all(affinity[r, c] > above for r, c in links.pairs)
    assert abs(sum(float(affinity[r, c]) for r, c in links.pairs) - best_total(affinity, above)) < 1e-5


def test_exactly_the_threshold_is_no_match() -> None:
    assert match(np.array([[0.5]]), above=0.5).pairs == ()


def test_two_tracks_cannot_take_one_detection() -> None:
    assert match(np.array([[0.9], [0.8]]), above=0.5).pairs == ((0, 0),)


def test_pairs_below_the_threshold_do_not_push_aside_a_pair_above_it() -> None:
    # Without the threshold the diagonal is the better assignment (0.45 + 0.45 > 0.6).
    assert match(np.array([[0.45, 0.6], [0.2, 0.45]]), above=0.5).pairs == ((0, 1),)


def test_a_threshold_below_zero_allows_negative_cosines() -> None:
    assert match(np.array([[-0.2, -0.9]]), above=-0.5).pairs == ((0, 0),)


shapes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))


@given(shapes, st.sampled_from([0.0, 0.3, 0.8]))
def test_small_assignments_are_those_of_scipy(shape: tuple[int, int, int], empty: float) -> None:
    rng = np.random.default_rng(shape[2])
    costs = rng.normal(size=shape[:2])
    costs[rng.random(shape[:2]) < empty] = 0.0  # as where there is no choice: the totals are the same then
    rows, cols = solve_small_assignment(costs)
    expected = solve_assignment(costs)
    assert rows.tolist() == sorted({*rows.tolist()}) and len({*cols.tolist()}) == len(cols) == min(shape[:2])
    assert abs(costs[rows, cols].sum() - costs[expected].sum()) < 1e-9
    if not empty:
        assert (rows.tolist(), cols.tolist()) == tuple(x.tolist() for x in expected)


def test_few_are_matched_without_scipy() -> None:
    """It takes half a second to load, and a run over a few objects needs nothing else of it."""
    code = "import sys, numpy as np; from masklet.core.matching import match\n"
    code += "print(match(np.array([[0.9, 0.6], [0.8, 0.1]]), 0.5).pairs, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "((0, 1), (1, 0)) False\n", done.stderr


def test_many_are_matched_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    affinity = np.random.default_rng(0).random((FEW + 8, FEW + 3))
    links = match(affinity, 0.5)
    monkeypatch.setattr("masklet.core.matching.FEW", len(affinity))
    assert match(affinity, 0.5) == links
