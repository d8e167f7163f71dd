"""Deformable attention as sums of rows of a table, against transformers', which samples every map."""

from __future__ import annotations

import importlib
from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from masklet.nn.deformable_attention import average_sampled_values

SIDES = st.integers(1, 7)


@settings(max_examples=80, deadline=None)
@given(
    shapes=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=3),
    sizes=st.tuples(*[st.integers(1, 3)] * 5),
    far=st.sampled_from([0.5, 1.5, 30.0]),
    seed=st.integers(0, 99),
)
def test_it_is_the_sum_of_what_is_sampled(
    shapes: list[tuple[int, int]], sizes: tuple[int, ...], far: float, seed: int
) -> None:
    from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention

    (b, q, heads, points, width), draw = sizes, torch.Generator().manual_seed(seed)
    values = torch.randn(b, sum(h * w for h, w in shapes), heads, width, generator=draw)
    where = 0.5 + far * torch.randn(b, q, heads, len(shapes), points, 2, generator=draw)  # of the map
    weights = torch.randn(b, q, heads, len(shapes), points, generator=draw)
    wanted = multi_scale_deformable_attention(values, shapes, where, weights)
    places = where * torch.tensor([(w, h) for h, w in shapes])[:, None]
    found = average_sampled_values(values, shapes, places, weights)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=2e-5 * max(far, 1.0))


def sample(x: float, y: float) -> list[float]:
    """What is at a place in two maps, of 2 x 2 and 1 x 1 cells, of one head: [1 2; 3 4] and 100."""
    values = torch.tensor([1.0, 2, 3, 4, 100]).view(1, 5, 1, 1)
    place = torch.tensor([x, y]).view(1, 1, 1, 1, 1, 2).expand(-1, -1, -1, 2, -1, -1)
    maps = [(2, 2), (1, 1)]
    both = torch.eye(2).view(2, 1, 1, 1, 2, 1)
    return [average_sampled_values(values, maps, place, weights).item() for weights in both]


@pytest.mark.parametrize(
    ("place", "seen"),
    [
        ((0.5, 0.5), [1.0, 100.0]),
        ((1.5, 0.5), [2.0, 0.0]),
        ((1.0, 1.0), [2.5, 25.0]),
        ((0.5, 1.25), [2.5, 25.0]),
        ((0.0, 0.5), [0.5, 50.0]),  # half in the zeros around
        ((2.0, 1.5), [2.0, 0.0]),
        ((-0.5, 0.5), [0.0, 0.0]),
        ((2.5, 0.5), [0.0, 0.0]),
        ((-40.0, 900.0), [0.0, 0.0]),
    ],
)
def test_a_place_worked_out_by_hand(place: tuple[float, float], seen: list[float]) -> None:
    assert sample(*place) == pytest.approx(seen, abs=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_place_that_is_no_number_spoils_its_own_query_alone(axis: int) -> None:
    draw = torch.Generator().manual_seed(0)
    values, places = torch.randn(1, 15, 2, 4, generator=draw), 6 * torch.rand(1, 6, 2, 1, 3, 2, generator=draw)
    weights = torch.rand(1, 6, 2, 1, 3, generator=draw)
    sound = average_sampled_values(values, [(3, 5)], places, weights)
    places[0, 2, 1, 0, 1, axis] = torch.nan
    found = average_sampled_values(values, [(3, 5)], places, weights)
    assert found[0, 2, 4:].isnan().all()
    found[0, 2, 4:] = sound[0, 2, 4:]
    assert torch.equal(found, sound)


# -- in the place of transformers'

SHAPES = [(3, 5), (6, 10), (12, 20)]


def make_layer() -> Any:
    from transformers.models.mask2former.modeling_mask2former import (
        Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention as Layer,
    )

    torch.manual_seed(0)
    layer = Layer(32, 4, 3, 2).eval().requires_grad_(False)
    for parameter in layer.parameters():
        parameter.normal_(0, 0.3)
    return layer


def quicken(layer: Any) -> Any:
    from masklet.models.mask2former.quick_attention import quicken_deformable_attention

    quick = deepcopy(layer)
    quicken_deformable_attention(quick)
    return quick


def draw_inputs(batch: int = 2) -> dict[str, Any]:
    n = sum(h * w for h, w in SHAPES)
    draw = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(batch, n, 32, generator=draw),
        "encoder_hidden_states": torch.randn(batch, n, 32, generator=draw),
        "position_embeddings": torch.randn(batch, n, 32, generator=draw),
        "attention_mask": torch.rand(batch, n, generator=draw) < 0.1,
        "reference_points": torch.rand(batch, n, 3, 2, generator=draw),
        "spatial_shapes_list": SHAPES,
    }


@pytest.mark.parametrize("left_out", [(), ("position_embeddings",), ("attention_mask",)])
def test_the_quick_layer_answers_as_transformers(left_out: tuple[str, ...]) -> None:
    told = {name: None if name in left_out else value for name, value in draw_inputs().items()}
    layer = make_layer()
    quick = quicken(layer)
    assert type(quick) is not type(layer) and isinstance(quick, type(layer))
    for found, wanted in zip(quick(**told), layer(**told), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_what_learns_is_computed_as_transformers_does(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Tensor] = []
    monkeypatch.setattr("masklet.models.mask2former.quick_attention.average_sampled_values", lambda v, *_: called.append(v))  # fmt: skip
    layer = quicken(make_layer()).requires_grad_(True)
    layer(**draw_inputs())[0].sum().backward()
    assert not called and layer.sampling_offsets.weight.grad.abs().max() > 0
    with torch.no_grad(), pytest.raises(TypeError):
        layer(**draw_inputs())
    assert len(called) == 1


def test_a_copy_is_quick_and_has_the_same_weights() -> None:
    layer = make_layer()
    quick = deepcopy(quicken(layer))
    assert quick.state_dict().keys() == layer.state_dict().keys()
    assert all(torch.equal(quick.state_dict()[name], value) for name, value in layer.state_dict().items())
    told = draw_inputs(1)
    torch.testing.assert_close(quick(**told)[0], layer(**told)[0], rtol=1e-4, atol=1e-4)


# -- in Grounding DINO, whose kinds each have a sampler of their own


def find_sampler(kind: str) -> Any:
    return importlib.import_module(f"transformers.models.{kind}.modeling_{kind}").MultiScaleDeformableAttention()


@pytest.mark.parametrize("kind", ["grounding_dino", "mm_grounding_dino"])
def test_what_dino_samples_is_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from masklet.models.segmenters import quick_sampling

    layer = nn.Module()
    layer.attn = plain = find_sampler(kind)
    net = nn.ModuleList([layer, nn.Linear(2, 2)])
    names = list(net.state_dict())
    quick_sampling.quicken_sampling(net)
    quick_sampling.quicken_sampling(net)  # once is enough
    quick: Any = layer.attn
    assert quick.plain is plain and list(net.state_dict()) == names
    draw = torch.Generator().manual_seed(0)
    n = sum(h * w for h, w in SHAPES)
    values = torch.randn(2, n, 4, 8, generator=draw)
    places = torch.rand(2, 9, 4, 3, 5, 2, generator=draw) * 1.4 - 0.2
    weights = torch.rand(2, 9, 4, 3, 5, generator=draw)
    told = values, torch.tensor(SHAPES), SHAPES, torch.zeros(3), places, weights, 64
    used = []
    monkeypatch.setattr(
        quick_sampling, "average_sampled_values", lambda *x: used.append(1) or average_sampled_values(*x)
    )
    torch.testing.assert_close(quick(*told), plain(*told), rtol=1e-4, atol=1e-5)
    assert len(used) == 1
    quick(values.clone().requires_grad_(), *told[1:]).sum().backward()
    assert len(used) == 1
