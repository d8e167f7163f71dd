"""The temporal refiner: who looks at whom, and that long videos need no more room than queries."""

from __future__ import annotations

import pytest
import torch

from masklet.core.errors import InputError
from masklet.nn import temporal_refiner
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner, build_released_refiner

AT = {"classes": 3, "width": 16, "heads": 2, "hidden": 32, "layers": 2, "mask_width": 12}


@pytest.fixture(autouse=True)
def no_gradients(request):
    with torch.set_grad_enabled("trained" in request.node.name):
        yield


@pytest.fixture
def net():
    torch.manual_seed(0)
    return TemporalRefiner(RefinerSettings(**AT)).eval()


def clip(frames=9, slots=5):
    draw = torch.Generator().manual_seed(6)
    return torch.randn(2, frames, slots, 16, generator=draw)


def test_shapes(net):
    tracks, context = clip()
    normed, logits = net.refine(tracks, context)
    assert normed.shape == (9, 5, 16) and logits.shape == (5, 4)
    assert net.predict_masks(normed[0], torch.zeros(12, 3, 4)).shape == (5, 3, 4)
    layers = list(net(tracks, context))
    assert len(layers) == 2
    torch.testing.assert_close(normed, layers[-1], atol=1e-5, rtol=0)
    assert torch.equal(tracks, clip()[0])  # what was given is left as it was


def test_a_clip_in_parts_is_the_clip(net, monkeypatch):
    """The parts in which layers work change nothing but the room they need."""
    tracks, context = clip()
    want, logits = net.refine(tracks, context)
    monkeypatch.setattr(temporal_refiner, "FRAMES", 4)
    monkeypatch.setattr(temporal_refiner, "OBJECTS", 2)
    got, same = net.refine(tracks, context)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    torch.testing.assert_close(same, logits, atol=1e-5, rtol=0)


def test_the_order_of_slots_does_not_matter(net):
    tracks, context = clip()
    turn = torch.tensor([3, 1, 4, 0, 2])
    want, logits = net.refine(tracks, context)
    got, same = net.refine(tracks[:, turn], context)  # what is looked at has an order of its own
    torch.testing.assert_close(got, want[:, turn], atol=1e-5, rtol=0)
    torch.testing.assert_close(same, logits[turn], atol=1e-5, rtol=0)


def test_the_order_of_time_does(net):
    tracks, context = clip()
    want, _ = net.refine(tracks, context)
    got, _ = net.refine(tracks.flip(0), context.flip(0))
    assert (got.flip(0) - want).abs().max() > 1e-2  # convolutions know before from after, attention does not


def test_every_frame_looks_at_its_own_context_and_at_all_of_time(net):
    tracks, context = clip()
    want = next(net(tracks, context))
    context[4] += 1
    changed = (next(net(tracks, context)) - want).abs().amax((1, 2)) > 1e-6
    assert changed.nonzero()[:, 0].tolist() == [4]  # one layer; the next one spreads it
    tracks[4, 2] += 1
    assert ((next(net(tracks, context)) - want).abs().amax((1, 2)) > 1e-6).all()


def test_weights_sum_to_one_over_time_and_a_class_is_one_for_all_frames(net):
    tracks, context = clip()
    normed, logits = net.refine(tracks, context)
    torch.testing.assert_close(net.weights(normed).sum(0), torch.ones(5))
    alone = net.class_embed((net.weights(normed)[:, 2, None] * normed[:, 2]).sum(0))
    torch.testing.assert_close(logits[2], alone)


def test_a_single_frame_and_a_single_slot(net):
    tracks, context = clip(1, 1)
    normed, logits = net.refine(tracks, context)
    assert normed.isfinite().all() and torch.equal(net.weights(normed), torch.ones(1, 1))
    torch.testing.assert_close(logits, net.class_embed(normed[0]))


def test_it_can_be_trained(net):
    tracks, context = clip()
    layers = torch.stack(list(net.train()(tracks, context)))
    loss = net.mask_embed(layers).square().sum()
    for layer in layers:
        loss = loss + net.classify(layer).square().sum()
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())


def test_released_weights(net):
    assert build_released_refiner(net.state_dict(), heads=2).settings == RefinerSettings(**AT)
    with pytest.raises(InputError, match="hold no refiner of DVIS"):
        build_released_refiner({})
    with pytest.raises(InputError, match="not those of a refiner"):
        build_released_refiner({k: v for k, v in net.state_dict().items() if "conv" not in k}, heads=2)


def without(part, tracks, context):
    """The refined clip, without a part of every block."""
    torch.manual_seed(0)
    return TemporalRefiner(RefinerSettings(**AT, removed=part)).eval().refine(tracks, context)[0]


def test_parts_can_be_removed():
    """Table 8: without context it is not read, without convolution there is no order of time, without attention nothing
    far away is seen (two layers of a kernel of 5 and one of 3 see six frames on each side).
    """
    tracks, context = clip()
    near = {"atol": 1e-5, "rtol": 0}
    assert torch.equal(without("context", tracks, context), without("context", tracks, context.flip(0)))
    turned = without("short", tracks.flip(0), context.flip(0)).flip(0)
    torch.testing.assert_close(turned, without("short", tracks, context), **near)
    local = without("long", tracks[:8], context[:8])[0], without("long", tracks, context)[0]
    torch.testing.assert_close(*local, **near)
    for part in ("short", "context"):
        assert not torch.allclose(
            without(part, tracks[:8], context[:8])[0], without(part, tracks, context)[0], atol=1e-4
        )
    assert not torch.equal(without("long", tracks, context), without("long", tracks, context.flip(0)))
