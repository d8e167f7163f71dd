"""Features of boxes, against the definition sample by sample."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.roi_align import align_slowly

from masklet.nn.roi_align import align_boxes

PLACES = st.floats(-3, 12, width=32)


@settings(max_examples=40, deadline=None)
@given(x0=PLACES, y0=PLACES, wide=st.floats(0, 9, width=32), high=st.floats(0, 9, width=32), bins=st.integers(1, 7))
def test_it_is_the_average_of_samples(x0: float, y0: float, wide: float, high: float, bins: int) -> None:
    features = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0))
    box = torch.tensor([[x0, y0, x0 + wide, y0 + high]])
    expected = align_slowly(features.numpy(), box[0].tolist(), bins)
    torch.testing.assert_close(align_boxes(features, box, bins)[0], torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_a_ramp_is_its_value_in_the_middle_of_each_bin() -> None:
    ramp = torch.arange(8.0).expand(1, 8, 8).contiguous()
    [found] = align_boxes(ramp, torch.tensor([[1.0, 1.0, 5.0, 5.0]]), 2)
    assert found[0].tolist() == [[2.0, 4.0], [2.0, 4.0]]


def test_no_box() -> None:
    assert align_boxes(torch.zeros(3, 4, 4), torch.zeros(0, 4), 7).shape == (0, 3, 7, 7)


@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_each_axis_for_itself(shift: float) -> None:
    features = torch.randn(1, 5, 7, generator=torch.Generator().manual_seed(1))
    box = torch.tensor([[1 + shift, 0.5, 6 + shift, 4.0]])
    turned = align_boxes(features.transpose(1, 2), box[:, [1, 0, 3, 2]], 3)
    torch.testing.assert_close(align_boxes(features, box, 3), turned.transpose(2, 3))
    assert math.isclose(float(align_boxes(torch.ones(1, 5, 7), box, 3).mean()), 1.0, rel_tol=1e-6)
