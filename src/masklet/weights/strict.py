"""A network gets exactly the tensors that it has, or one sentence says which do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from masklet.core.errors import InputError

N = TypeVar("N", bound=nn.Module)


def load_exactly(net: N, state: Mapping[str, Tensor], path: Path, what: str) -> N:
    """A network with exactly the given tensors in the types of its own, in eval mode and without gradients.

    Args:
        net: the network; its parameters may hold nothing yet (`meta`).
        state: tensors by name.
        path: of their file, for errors.
        what: the network is, for errors.

    Raises:
        InputError: one is missing, left over or of another shape.
    """
    own = net.state_dict()
    check_tensors(own, state, path, what)
    net.load_state_dict({key: value.to(own[key].dtype) for key, value in state.items()}, assign=True)
    return net.requires_grad_(False).eval()


def lay_out_for_convolution(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in float32, and those of convolutions in the order in which a CPU convolves in two thirds of the time
    (channels_last): in one step, for each more is a copy.
    """
    orders = {4: torch.channels_last}
    return {k: v.to(torch.float32, memory_format=orders.get(v.ndim, torch.preserve_format)) for k, v in state.items()}


def check_tensors(own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Raises InputError, which names the file `path` and up to three names, where the tensors `given` are not those
    that `what`, a network with the tensors `own`, has.
    """
    odd = {
        "lacks": own.keys() - given.keys(),
        "has besides": given.keys() - own.keys(),
        "has in another shape": {k for k in own.keys() & given.keys() if own[k].shape != given[k].shape},
    }
    said = [f"{how} {format_keys(keys)}" for how, keys in odd.items() if keys]
    if said:
        raise InputError(f"{path}: not the weights of {what}: it {', it '.join(said)}")


def format_keys(keys: Iterable[str]) -> str:
    """Up to three keys, and how many more there are.

    >>> format_keys(["d", "a", "c", "b"])
    'a, b, c and 1 more'
    """
    ordered = sorted(keys)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return (", ".join(ordered[:3]) or "nothing") + more
