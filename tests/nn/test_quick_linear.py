"""Products of matrices by oneDNN, against plain ones in double precision."""

from __future__ import annotations

from copy import deepcopy

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from masklet.nn.quick_linear import QuickLinear, multiply_by_transposed, quicken_linear_layers


@given(
    shape=st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 300)),
    gap=st.integers(0, 7),
    seed=st.integers(0, 99),
)
def test_a_product_is_the_plain_one(shape: tuple[int, int, int], gap: int, seed: int) -> None:
    """Also of matrices of no row, and of some columns of a wider one."""
    n, m, k = shape
    draw = torch.Generator().manual_seed(seed)
    a, b = torch.randn(n, k + gap, generator=draw)[:, :k], torch.randn(m, k, generator=draw)
    found = multiply_by_transposed(a, b)
    assert found.shape == (n, m)
    torch.testing.assert_close(found.double(), a.double() @ b.double().T, rtol=1e-5, atol=1e-4)


def test_gradients_flow_and_other_numbers_stay_what_they_are() -> None:
    a, b = torch.randn(3, 4, requires_grad=True), torch.randn(2, 4)
    multiply_by_transposed(a, b).sum().backward()
    torch.testing.assert_close(a.grad, b.sum(0).expand(3, 4))
    assert multiply_by_transposed(b.double(), b.double()).dtype == torch.float64
    with torch.no_grad():
        torch.testing.assert_close(multiply_by_transposed(a, b), a @ b.T)


def test_a_network_of_quick_layers_is_the_network() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 3, bias=False)))
    x, before = torch.randn(2, 5, 6), dict(net.state_dict())
    wanted = net(x).detach()
    quicken_linear_layers(net)
    assert [type(part) for part in net.modules() if isinstance(part, nn.Linear)] == [QuickLinear, QuickLinear]
    assert list(net.state_dict()) == list(before) and isinstance(deepcopy(net)[0], QuickLinear)
    with torch.no_grad():
        torch.testing.assert_close(net(x), wanted)
        with torch.autocast("cpu", torch.bfloat16):
            assert net(x).dtype == torch.bfloat16
        assert net.double()(x.double()).dtype == torch.float64
    net.float()(x).sum().backward()
    assert net[0].weight.grad is not None
