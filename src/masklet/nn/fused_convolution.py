"""Convolutions that do what follows them in the same pass.

A framework that runs a network layer by layer writes every convolution's answer to memory, reads it for the activation
and writes it again, and lays the weights out anew at every call. After `fuse_convolutions`, in a network whose weights
stay as they are, they are laid out once, and oneDNN does convolution, activation and sum in one pass. Other layers, on
a GPU or in training, compute the same step by step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Activation:
    """What follows a convolution, as oneDNN is told it."""

    name: str
    scalars: tuple[float, ...] = ()

    def apply(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """`x` after the activation, in place."""
        match self.name:
            case "hardtanh":
                return nn.functional.hardtanh_(x, *self.scalars)
            case "leaky_relu":
                return nn.functional.leaky_relu_(x, *self.scalars)
            case "relu":
                return nn.functional.relu_(x)
        return x


SIZES = 4  # of inputs for which a layer keeps its weights laid out
_BEGINS_AT_RANDOM = ContextVar("begins_at_random", default=True)
NONE, RELU, RELU6 = Activation("none"), Activation("relu"), Activation("hardtanh", (0.0, 6.0))


class FusedConv2d(nn.Conv2d):
    """A convolution with its activation, and perhaps something that is added in between."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        activation: Activation = NONE,
    ) -> None:
        """The arguments up to `groups` are those of `nn.Conv2d`; the `activation` follows the convolution."""
        super().__init__(inputs, outputs, kernel, stride, padding, dilation, groups)
        self.activation = activation
        self.fuses = False  # whether the weights stay as they are, on a CPU
        self._packed: dict[tuple[int, int], Tensor] = {}  # the weights as oneDNN wants them, by height and width

    def reset_parameters(self) -> None:
        """Random weights, but for networks that get others at once."""
        if _BEGINS_AT_RANDOM.get():
            super().reset_parameters()

    def forward(
        self, input: Float[Tensor, "b c h w"], other: Float[Tensor, "b d h2 w2"] | None = None
    ) -> Float[Tensor, "b d h2 w2"]:
        """The activation of what the convolution makes of `input`, with `other` added to it."""
        if not self.fuses or self.weight.requires_grad:
            out = super().forward(input)
            return self.activation.apply(out if other is None else out.add_(other))
        shape = (list(x) for x in (self.padding, self.stride, self.dilation))
        told = (self._pack(input), self.bias, *shape, self.groups)
        run: Any = torch.ops.mkldnn._convolution_pointwise
        if other is None:
            found: Tensor = run(input, *told, self.activation.name, list(self.activation.scalars), "")
            return found
        return self.activation.apply(run.binary(input, other, *told, "add", 1.0, None, [], ""))

    def _pack(self, input: Float[Tensor, "b c h w"]) -> Tensor:
        """The weights as oneDNN wants them for inputs of this size: for another size, they would be laid out anew at
        every call.
        """
        size = input.shape[2], input.shape[3]
        found = self._packed.get(size)
        if found is None:
            shape = (list(x) for x in (self.padding, self.stride, self.dilation))
            told = self.weight.detach(), *shape, self.groups
            found = torch.ops.mkldnn._reorder_convolution_weight(*told, list(input.shape))
            self._packed = {**dict([*self._packed.items()][1 - SIZES :]), size: found}
        return found

    def __getstate__(self) -> dict[str, Any]:  # of copies: what is packed cannot be copied
        return {**self.__dict__, "_packed": {}}


@contextmanager
def leave_weights_undrawn() -> Iterator[None]:
    """In networks that are made within, each `FusedConv2d` holds whatever lies in its memory: for those that get the
    weights of a file at once. To draw others takes half of the time in which such a network is made.
    """
    before = _BEGINS_AT_RANDOM.set(False)
    try:
        yield
    finally:
        _BEGINS_AT_RANDOM.reset(before)


def fuse_convolutions(net: nn.Module) -> None:
    """Lets all `FusedConv2d` of a network whose weights do not change any more compute in one pass, where they are in
    float32 or bfloat16 on a CPU; elsewhere, or where this build of torch is without oneDNN, nothing changes.
    """
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return
    for part in net.modules():
        if isinstance(part, FusedConv2d):
            part.fuses = part.weight.device.type == "cpu" and part.weight.dtype in (torch.float32, torch.bfloat16)
