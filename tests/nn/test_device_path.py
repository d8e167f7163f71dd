"""What a GPU is spared, as far as that can be told without one: casts of weights, and copies that wait."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from masklet.nn.half_weights import halve_weights, has_bfloat16_matrices
from masklet.nn.pinned_upload import PinnedUpload

CPU = torch.device("cpu")


def build_layers() -> nn.Sequential:
    """Layers that autocast casts, and layers that it does not."""
    torch.manual_seed(0)
    convs = nn.Conv2d(3, 8, 3, padding=1), nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(8, 4, 1)
    return nn.Sequential(*convs, nn.Flatten(2), nn.LayerNorm(64), nn.Linear(64, 5)).requires_grad_(False)


def test_halved_weights_answer_as_autocast_does() -> None:
    net, x = build_layers(), torch.randn(2, 3, 4, 4)
    halved = deepcopy(net)
    halve_weights(halved)
    assert halved[0].weight.dtype == halved[5].bias.dtype == torch.bfloat16
    assert halved[4].weight.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(halved(x), net(x), rtol=0, atol=0)


def test_what_learns_stays_precise() -> None:
    net = build_layers()
    net[5].requires_grad_(True)
    halve_weights(net)
    assert net[5].weight.dtype == torch.float32 and net[0].weight.dtype == torch.bfloat16


@pytest.mark.parametrize(("amx", "avx", "quick"), [(False, False, False), (True, False, True), (False, True, True)])
def test_a_cpu_is_quick_in_bfloat16_that_has_a_unit_for_it(
    amx: bool, avx: bool, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    assert has_bfloat16_matrices() == (quick and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class Event:
    """In the place of one of the GPU's; says what happens to it."""

    said: list[str]

    def record(self) -> None:
        self.said.append("recorded")

    def synchronize(self) -> None:
        self.said.append("waited")


def test_two_buffers_take_turns_and_are_waited_for() -> None:
    said, locked = list[str](), list[Tensor]()
    Event.said = said

    def lock_pages(tensor: Tensor) -> Tensor:
        locked.append(tensor)
        return tensor

    upload = PinnedUpload(CPU, lock_pages, Event)
    images = [np.full((2, 3), n, np.uint8) for n in range(4)]
    sent = [upload(image).clone() for image in images]  # to a CPU nothing is copied: what is sent is the buffer
    assert [int(x[0, 0]) for x in sent] == [0, 1, 2, 3]
    assert len(locked) == 2 and said == ["recorded"] * 2 + ["waited", "recorded"] * 2
    assert upload(np.zeros((5, 5), np.uint8)).shape == (5, 5) and len(locked) == 3  # of another size


def test_to_a_cpu_nothing_is_copied() -> None:
    image = np.zeros((2, 3), np.uint8)
    image_there = PinnedUpload(CPU)(image)
    image[0, 0] = 7
    assert int(image_there[0, 0]) == 7
