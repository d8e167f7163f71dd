"""Windows of soft masks: what lies in them is what it would be in the whole frame."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import contention

from masklet.nn.mask_windows import (
    CELL,
    FlowOrigins,
    Window,
    average_over_cells,
    bound_cells,
    enlarge_cells,
    exclude_rivals,
    find_touching_windows,
    reduce_cells,
    scale_to_cells,
)

ROWS, COLUMNS = 4, 6
SIZE = ROWS * CELL, COLUMNS * CELL
WHOLE = slice(0, SIZE[0]), slice(0, SIZE[1])
seeds = st.integers(0, 99)


def window(draw: np.random.Generator) -> Window:
    """Some cells of the frame."""
    (y0, y1), (x0, x1) = (sorted(draw.choice(n + 1, 2, replace=False).tolist()) for n in (ROWS, COLUMNS))
    return slice(y0 * CELL, y1 * CELL), slice(x0 * CELL, x1 * CELL)


def contenders(seed: int, n: int = 4) -> tuple[list[Window], np.ndarray, np.ndarray, np.ndarray]:
    """Windows, logits and claims of whole frames, and who is whose rival how much."""
    draw = np.random.default_rng(seed)
    logits, claims = (draw.normal(0, 3, (n, *SIZE)).astype(np.float32) for _ in range(2))
    rivals = draw.random((n, n)).astype(np.float32).round() * (1 - np.eye(n, dtype=np.float32))
    return [window(draw) for _ in range(n)], logits, np.minimum(claims, 0), rivals


def contend(
    windows: list[Window],
    logits: np.ndarray,
    claims: np.ndarray,
    rivals: np.ndarray,
    inside: np.ndarray,
    outside: float,
) -> list[np.ndarray]:
    logits, claims, inside = ([m[w] for m, w in zip(maps, windows, strict=True)] for maps in (logits, claims, inside))
    return exclude_rivals(windows, logits, claims, rivals, rivals.T > 0, inside, outside)


@given(seeds)
def test_contention_in_windows_is_that_of_whole_frames_which_are_constant_elsewhere(seed: int) -> None:
    windows, logits, claims, rivals = contenders(seed)
    outside = 0.3
    inside = np.random.default_rng(seed).random(logits.shape) > 0.5
    for one, claim, own in zip(logits, claims, windows, strict=True):
        beyond = np.ones(SIZE, bool)
        beyond[own] = False
        one[beyond], claim[beyond] = np.log(outside), 0
    got = contend(windows, logits, claims, rivals, inside, outside)
    touching = find_touching_windows(windows)
    within = np.zeros(logits.shape, bool)
    for row, own in enumerate(windows):
        within[(row, *own)] = True
    pairs = [(a, b) for a, b in np.argwhere(rivals.T > 0).tolist() if touching[a, b]]
    common = {(a, b): torch.from_numpy(inside[a] & inside[b] & within[a] & within[b]) for a, b in pairs}
    want = contention.exclude_rivals(*(torch.from_numpy(x) for x in (logits, claims, rivals)), common)
    for row, own in enumerate(windows):
        np.testing.assert_allclose(got[row], want[row].numpy()[own], atol=2e-3)


@given(seeds)
def test_of_two_rivals_one_at_most_wins_a_pixel(seed: int) -> None:
    _, logits, claims, _ = contenders(seed)
    rivals = 1 - np.eye(4, dtype=np.float32)
    nowhere = np.zeros(logits.shape, bool)
    won = np.stack(contend([WHOLE] * 4, logits, claims, rivals, nowhere, 0.0)) > 0
    assert (won.sum(0) <= 1).all() and won.any()
    alone = contend([WHOLE] * 4, logits, claims, rivals * 0, nowhere, 0.0)
    np.testing.assert_array_equal(np.stack(alone), logits)


def test_a_common_part_is_not_contended() -> None:
    _, logits, claims, _ = contenders(1, 2)
    rivals, inside = 1 - np.eye(2, dtype=np.float32), np.random.default_rng(0).random((2, *SIZE)) > 0.5
    got = np.stack(contend([WHOLE] * 2, logits, claims, rivals, inside, 0.0))
    both = inside.all(0)
    np.testing.assert_allclose(got[:, both], logits[:, both], atol=1e-3)
    assert (got[:, ~both] < logits[:, ~both]).all()


def test_a_claim_decides_between_rivals() -> None:
    logits = np.full((2, *SIZE), 3, np.float32)
    claims = np.stack([logits[0] * 0, logits[0] * 0 - 2])
    one, other = contend([WHOLE] * 2, logits, claims, 1 - np.eye(2, dtype=np.float32), logits < 0, 0.0)
    assert (one > 0).all() and (other < 0).all()


@given(seeds)
def test_cells_enlarged_in_a_window_are_those_of_the_enlarged_frame(seed: int) -> None:
    draw = np.random.default_rng(seed)
    cells, own = draw.random((ROWS, COLUMNS)).astype(np.float32), window(draw)
    large = torch.nn.functional.interpolate(torch.from_numpy(cells)[None, None], SIZE, mode="bilinear")[0, 0].numpy()
    np.testing.assert_allclose(enlarge_cells(cells, own), large[own], atol=1e-6)
    assert average_over_cells(large)[scale_to_cells(own)] == pytest.approx(average_over_cells(large[own]))


@given(seeds, st.floats(0, 20))
def test_a_carried_mask_is_within_the_cells_that_are_found_for_it(seed: int, speed: float) -> None:
    draw = np.random.default_rng(seed)
    flow = cv2.resize(draw.normal(0, speed, (3, 4, 2)).astype(np.float32), SIZE[::-1])
    soft, own = np.zeros(SIZE, np.float32), window(draw)
    soft[own] = 1
    origins = FlowOrigins.of(flow)
    carried = origins.carry(soft, WHOLE)
    cells = origins.find_cells(own)
    assert not carried[~cells.repeat(CELL, 0).repeat(CELL, 1)].any()
    box = bound_cells(cells, 0)
    np.testing.assert_array_equal(origins.carry(soft, box), carried[box])


@given(seeds)
def test_a_cell_is_reduced_to_one_value_of_all_its_pixels(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
    cells = values.reshape(ROWS, CELL, COLUMNS, CELL)
    for how, plain in ((np.minimum, cells.min((1, 3))), (np.maximum, cells.max((1, 3)))):
        np.testing.assert_array_equal(reduce_cells(values, how), plain)
    bounds = FlowOrigins.of(np.full((*SIZE, 2), -3, np.float32)).bounds
    assert bounds[:, 0, 0].tolist() == [0, 0, CELL - 4, CELL - 4]  # beyond the border: as at the border


def test_no_cell_has_no_window() -> None:
    assert bound_cells(np.zeros((ROWS, COLUMNS), bool), 2) == (slice(0, 0), slice(0, 0))
    assert bound_cells(np.ones((ROWS, COLUMNS), bool), 2) == WHOLE
