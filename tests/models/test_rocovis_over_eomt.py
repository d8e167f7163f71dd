"""RoCoVIS and GenVIS over a plain ViT: EoMT's numbers before any training, queries and masks that go on after it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Float
from models.test_eomt import KINDS, frames, network
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.memory import load_memory, save_memory
from masklet.models.mask2former.networks import wrap_query_network
from masklet.models.mask2former.segmenter import Mask2Former
from masklet.models.query_video.genvis import Genvis, GenvisNet, GenvisNetSettings
from masklet.models.query_video.rocovis import Rocovis, RocovisNet, RocovisNetSettings
from masklet.models.query_video.slot_weights import load_slot_model, save_slot_model
from masklet.systems.rocovis import RocovisSystemSettings, build_rocovis_system

CPU = torch.device("cpu")
SETTINGS = RocovisNetSettings(width=16, heads=2, frames=2)


def eomt(kind: str = "eomt") -> Any:
    """One whose training is over: its attention is not masked."""
    net = deepcopy(network(kind))
    net.attn_mask_probs.fill_(0)
    return net


def rocovis(kind: str = "eomt", trained: bool = False) -> RocovisNet:
    torch.manual_seed(1)
    net = RocovisNet(eomt(kind), SETTINGS).eval()
    if trained:
        for part in (net.propagation, net.query_update):
            for weight in part.parameters():
                torch.nn.init.normal_(weight, std=0.3)
    return net


def follow(net: RocovisNet, images: Float[Tensor, "t 3 h w"]) -> tuple[list[Any], Any]:
    """The slots of each frame, and the memory after them; every query is trusted."""
    memory, found = net.empty(), []
    for image in images:
        maps = net.encode(image[None])
        found.append(net.predict(memory, maps))
        memory = net.commit(memory, maps, found[-1], torch.ones(1, 6))
    return found, memory


def noise(n: int) -> Float[Tensor, "n 3 64 64"]:
    return torch.randn(n, 3, 64, 64, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("kind", KINDS)
def test_two_halves_are_one_pass(kind: str) -> None:
    """What transformers' module says, and in training what it supervises: before each of the last blocks, too."""
    net, images = eomt(kind), noise(2)
    halves = wrap_query_network(net)
    with torch.no_grad():
        want = net(images)
        last, every = (halves.decode(halves.encode(images), every=told) for told in (False, True))
    assert (len(last.mask_logits), len(every.mask_logits)) == (1, 3)
    for found in (last, every):
        torch.testing.assert_close(found.mask_logits[-1], want.masks_queries_logits)
        torch.testing.assert_close(found.class_logits[-1], want.class_queries_logits)
    again = torch.einsum("bnd,bdhw->bnhw", halves.embed(last.queries), last.pixel_features)
    torch.testing.assert_close(again, last.mask_logits[-1])
    torch.testing.assert_close(net.layernorm(last.queries), want.last_hidden_state[:, :6])


@pytest.mark.parametrize("kind", KINDS)
def test_untrained_it_is_its_eomt_in_every_frame(kind: str) -> None:
    model, plain = Rocovis(rocovis(kind), shortest=64), Mask2Former(eomt(kind))
    memory = model.empty()
    for frame in frames(n=2):
        [maps] = model.encode([frame])
        slots, want = model.predict(memory, maps), plain.slots([frame])
        torch.testing.assert_close(slots.mask_logits, want.mask_logits)
        torch.testing.assert_close(slots.class_logits, want.class_logits)
        assert slots.inside == want.inside == (32, 64)
        memory = model.commit(memory, maps, slots, model.trust(slots))


def test_queries_and_masks_of_the_last_frame_change_the_next() -> None:
    net, images = rocovis(trained=True), noise(2)
    found, memory = follow(net, images)
    [alone], _ = follow(net, images[1:])
    assert (found[1].mask_logits - alone.mask_logits).abs().max() > 1e-2
    maps, after = net.encode(images[1:]), [memory]
    clear = replace(found[0], mask_logits=torch.full_like(found[0].mask_logits, 5.0))
    for trust in (0.0, 1.0):  # the same queries, whose masks are propagated or are not
        first = net.encode(images[:1])
        after.append(net.commit(net.empty(), first, clear, torch.full((1, 6), trust)))
    without, within = (net.predict(m, maps).mask_logits for m in after[1:])
    assert (without - within).abs().max() > 1e-3
    assert len(memory.frames) == 2 and len(follow(net, noise(5))[1].frames) == 2


def test_all_of_it_is_trained_and_nothing_in_it_is_random() -> None:
    net = rocovis("eomt_dinov3", trained=True).requires_grad_(True).train()
    one, _ = follow(net, noise(2))
    two, _ = follow(net, noise(2))
    assert not net.segmenter.training and torch.equal(one[1].mask_logits, two[1].mask_logits)
    decoded = net.decoded(net.empty(), net.encode(noise(1)))
    assert len(decoded.mask_logits) == 3  # each is supervised
    (one[1].mask_logits.square().mean() + one[1].class_logits.square().mean()).backward()
    unread = ("attn", "criterion", "k_proj.bias")  # a softmax does not feel a bias of keys
    still = [n for n, p in net.named_parameters() if (p.grad is None or not p.grad.any()) and not n.endswith(unread)]
    assert not still
    assert any("embeddings" in name for name, _ in net.named_parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_holds_all_and_a_stream_goes_on(kind: str, tmp_path: Path) -> None:
    net = rocovis(kind, trained=True)
    save_slot_model(tmp_path / "w.safetensors", "rocovis", net, 64)
    back = load_slot_model(tmp_path / "w.safetensors", "rocovis", CPU)
    assert back.categories == ("cat", "dog", "bird") and back.net.settings == SETTINGS
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in back.net.state_dict().items())
    with pytest.raises(InputError, match="@480: an EoMT looks at the one size"):
        load_slot_model(tmp_path / "w.safetensors", "rocovis", CPU, shortest=480)
    system, clip = build_rocovis_system(back, RocovisSystemSettings(top=3, foreground=False)), frames(n=4)
    whole = [(f.ids, f.masks.tolist()) for f in system.stream(clip)]
    begun = system.stream(clip)
    first = [next(begun) for _ in range(2)]
    save_memory(begun.state, tmp_path / "state")
    rest = [*system.stream(clip[2:], load_memory(tmp_path / "state"))]
    assert [(f.ids, f.masks.tolist()) for f in (*first, *rest)] == whole and any(ids for ids, _ in whole)


def test_a_vit_has_one_level() -> None:
    with pytest.raises(InputError, match="levels = 2, but the backbone has 1"):
        RocovisNet(eomt(), RocovisNetSettings(levels=2, width=16, heads=2))


def test_genvis_looks_at_its_queries() -> None:
    net = GenvisNet(eomt(), GenvisNetSettings(1, 1, 32, 2, 5)).eval()
    model, [frame] = Genvis(net, shortest=64), frames(n=1)
    [maps] = model.encode([frame])
    want = Mask2Former(eomt()).slots([frame])
    torch.testing.assert_close(maps.maps[0], want.queries)
    torch.testing.assert_close(maps.maps[1], want.pixel_features)
    slots = model.predict(model.empty(), maps)
    assert slots.mask_logits.shape == (1, 5, 16, 16) and slots.class_logits.shape == (1, 5, 4)
