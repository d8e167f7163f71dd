"""The referring tracker: shapes, what it remembers, and the paper's ablations."""

from __future__ import annotations

import pytest
import torch

from masklet.core.errors import InputError
from masklet.nn.referring_tracker import ReferringTracker, TrackerMemory, TrackerSettings, build_released_tracker

AT = {"classes": 3, "width": 16, "heads": 2, "hidden": 32, "layers": 2, "mask_width": 12}


def tracker(**own):
    torch.manual_seed(0)
    return ReferringTracker(TrackerSettings(**AT, **own)).eval()


def clip(frames=5, slots=6):
    """Queries that drift, in another order in every frame."""
    draw = torch.Generator().manual_seed(5)
    base = torch.randn(slots, 16, generator=draw)
    drift = [base + 0.1 * torch.randn(slots, 16, generator=draw) for _ in range(frames)]
    return torch.stack([d[torch.randperm(slots, generator=draw)] if t else d for t, d in enumerate(drift)])


@torch.no_grad()
def test_shapes():
    net, queries = tracker(), clip()
    normed, order, memory = net(queries)
    assert normed.shape == (2, 5, 6, 16) and order.shape == (5, 6)
    assert net.classify(normed).shape == (2, 5, 6, 4)
    assert net.predict_masks(normed[-1, 0], torch.zeros(12, 3, 4)).shape == (6, 3, 4)
    assert torch.equal(memory.matched, queries[-1][order[-1]])


@pytest.mark.parametrize("cut", range(1, 5))
@pytest.mark.parametrize("matching", ["paper", "released"])
@torch.no_grad()
def test_a_clip_in_two_parts_is_the_clip(cut, matching):
    net, queries = tracker(matching=matching), clip()
    whole, order, end = net(queries)
    first, early, memory = net(queries[:cut])
    second, late, last = net(queries[cut:], memory)
    assert torch.equal(torch.cat([first, second], 1), whole) and torch.equal(torch.cat([early, late]), order)
    assert torch.equal(end.output, last.output) and torch.equal(end.matched, last.matched)


@torch.no_grad()
def test_the_paper_s_matching_follows_shuffled_slots():
    net, queries = tracker(), clip()
    normed, order, _ = net(queries)
    lined_up = queries.gather(1, order[..., None].expand_as(queries))
    assert (lined_up - lined_up[0]).abs().max() < 1
    other, *_ = net(lined_up)
    torch.testing.assert_close(other, normed, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_released_matching_is_its_inverse():
    queries = clip(2)
    _, paper, _ = tracker()(queries)
    _, released, _ = tracker(matching="released")(queries)
    assert not torch.equal(paper, released)
    assert torch.equal(paper[1][released[1]], torch.arange(6))


@torch.no_grad()
def test_a_first_frame_is_a_frame_alone():
    net, queries = tracker(), clip()
    for t in range(5):
        normed, order, _ = net(queries[t : t + 1])
        torch.testing.assert_close(net.alone(queries)[t], normed[-1, 0], atol=1e-6, rtol=0)
        assert order[0].tolist() == list(range(6))


def spied(net, memory, queries):
    """What the first layer's cross-attention is given."""
    given = []
    hook = net.transformer_cross_attention_layers[0].register_forward_pre_hook(
        lambda module, inputs: given.append(inputs)
    )
    with torch.no_grad():
        net.step(memory, queries)
    hook.remove()
    return given[0]


def test_initial_values():
    queries = clip(2)
    with torch.no_grad():
        *_, memory = tracker()(queries[:1])
    matched = queries[1][tracker().step(memory, queries[1])[1]]
    wanted = {"matched": matched, "unmatched": queries[1], "previous": memory.output, "zero": torch.zeros(6, 16)}
    for initial, want in wanted.items():
        identity, reference, frame = spied(tracker(initial=initial), memory, queries[1])
        assert torch.equal(identity, want)
        assert torch.equal(reference, memory.output) and torch.equal(frame, queries[1])


@torch.no_grad()
def test_standard_attention_keeps_what_looks():
    """Table 7: the tracks' last outputs are looked with and kept, and the matched queries are not read at all."""
    queries, reference = clip(2), torch.randn(6, 16)
    kept = tracker(attention="standard").transformer_cross_attention_layers[0]
    referring = tracker().transformer_cross_attention_layers[0]
    looked = referring(reference, reference, queries[1])
    assert torch.equal(kept(queries[0], reference, queries[1]), looked)
    assert torch.equal(kept(torch.zeros(6, 16), reference, queries[1]), looked)
    assert not torch.equal(referring(queries[0], reference, queries[1]), looked)
    memory = TrackerMemory(queries[0], reference)
    matched, zero = (tracker(attention="standard", initial=n).step(memory, queries[1])[0] for n in ("matched", "zero"))
    assert torch.equal(matched, zero)


def test_every_setting_has_the_released_names():
    names = set(tracker().state_dict())
    for own in ({"initial": "zero"}, {"attention": "standard"}, {"matching": "released"}):
        assert set(tracker(**own).state_dict()) == names


def test_it_can_be_trained():
    net = tracker().train()
    normed, *_ = net(clip())
    (net.mask_embed(normed).square().sum() + net.classify(normed).square().sum()).backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in net.named_parameters() if "in_proj_bias" not in n
    )


def test_released_weights():
    state = tracker().state_dict()
    net = build_released_tracker(state, heads=2)
    assert net.settings == TrackerSettings(**AT, matching="released") and not net.training
    with pytest.raises(InputError, match="hold no tracker of DVIS"):
        build_released_tracker({})
    with pytest.raises(InputError, match=r"decoder_norm.bias is missing, left over or of another shape"):
        build_released_tracker({k: v for k, v in state.items() if k != "decoder_norm.bias"}, heads=2)
    with pytest.raises(InputError, match=r"extra\.weight"):
        build_released_tracker(state | {"extra.weight": torch.zeros(1)}, heads=2)
