"""Parts of masks: which of them belong to the object."""

from __future__ import annotations

import numpy as np
import pytest

from masklet.nn.parts import KNOWN, NEAR, detached_components, measure_component_spread


def squares(*places: tuple[int, int, int], size: tuple[int, int] = (64, 200)) -> np.ndarray:
    """A map that is 1 in squares: row, column, side."""
    made = np.zeros(size, np.float32)
    for y, x, side in places:
        made[y : y + side, x : x + side] = 1
    return made


MAIN = (10, 10, 40)
NOWHERE = np.zeros((64, 200), np.float32)


def detached(soft: np.ndarray, before: np.ndarray, scattered: float = 0.0) -> np.ndarray:
    return detached_components(np.where(soft > 0, 9, -9).astype(np.float32), before, scattered)


def away(soft: np.ndarray, before: np.ndarray, scattered: float = 0.0) -> int:
    return int(detached(soft, before, scattered).sum())


@pytest.mark.parametrize(("gap", "left"), [(8, True), (12, False)])
def test_a_new_part_belongs_where_it_is_near_the_main_one(gap: int, left: bool) -> None:
    """NEAR is a quarter: 10 pixels for an object of 40 x 40."""
    other = (20, 50 + gap, 10)
    assert away(squares(MAIN, other), squares(MAIN)) == (0 if left else 100)


@pytest.mark.parametrize(("gap", "left"), [(18, True), (22, False)])
def test_a_part_that_was_the_objects_may_be_farther_away(gap: int, left: bool) -> None:
    other = (20, 50 + gap, 10)
    assert away(squares(MAIN, other), squares(MAIN, other)) == (0 if left else 100)


def test_an_object_may_be_as_scattered_as_it_was_given() -> None:
    far = squares(MAIN, (20, 110, 10))
    assert measure_component_spread(far > 0.5) == pytest.approx(61 / 40, abs=0.1)
    assert away(far, squares(MAIN)) == 100
    assert away(far, squares(MAIN), measure_component_spread(far > 0.5)) == 0


def test_the_main_part_is_the_one_that_was_there_not_the_largest() -> None:
    small, large = (20, 20, 12), (10, 100, 40)
    assert detached(squares(small, large), squares(small))[30, 120]
    assert detached(squares(small, large), squares(large))[25, 25]


def test_without_a_last_mask_the_largest_part_is_the_main_one() -> None:
    assert away(squares(MAIN, (20, 150, 10)), NOWHERE) == 100


def test_one_part_and_none_are_left_alone() -> None:
    assert away(squares(MAIN), NOWHERE) == 0
    assert away(NOWHERE, squares(MAIN)) == 0


def test_small_objects_keep_what_is_a_few_pixels_away() -> None:
    assert away(squares((10, 10, 4), (10, 21, 4)), squares((10, 10, 4))) == 0


def test_a_part_stays_where_half_of_it_was_the_objects() -> None:
    other = (20, 65, 10)
    shifted = squares(MAIN, (20, 69, 10)), squares(MAIN, (20, 71, 10))
    assert [away(squares(MAIN, other), before) for before in shifted] == [0, 100]


def test_specks_do_not_make_an_object_scattered() -> None:
    assert measure_component_spread(squares(MAIN, (20, 150, 5)) > 0.5) == 0
    assert measure_component_spread(squares(MAIN) > 0.5) == measure_component_spread(NOWHERE > 0.5) == 0
    assert NEAR < KNOWN
