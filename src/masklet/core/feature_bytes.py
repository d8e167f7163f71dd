"""Features as raw bytes: their tensors apart from the rest, in a file and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ALIGNED = 64  # bytes: where each tensor begins in a file


@dataclass(frozen=True)
class TensorPlace:
    """Stands where a tensor was: the `number` of the tensor, and where it was before it was kept."""

    number: int
    device: torch.device


@dataclass(frozen=True)
class TensorForm:
    """How a tensor lies in a file."""

    start: int  # its first byte
    shape: tuple[int, ...]  # in the order of memory
    order: tuple[int, ...]  # of the dimensions in memory
    dtype: torch.dtype


def take_tensors(value: Any) -> tuple[Any, list[Tensor]]:
    """A value made of dataclasses, mappings, tuples and lists with a `TensorPlace` for each tensor, and the tensors.

    >>> rest, tensors = take_tensors({"a": torch.ones(2), "b": 3})
    >>> rest["b"], len(tensors), put_tensors(rest, tensors)["a"]
    (3, 1, tensor([1., 1.]))
    """
    tensors: list[Tensor] = []

    def take(tensor: Any) -> TensorPlace:
        tensors.append(tensor.detach())
        return TensorPlace(len(tensors) - 1, tensor.device)

    return replace_inside(value, Tensor, take), tensors


def put_tensors(rest: Any, tensors: Sequence[Tensor]) -> Any:
    """The value of which `take_tensors` left the `rest`, each of the `tensors` where it was."""
    return replace_inside(
        rest, TensorPlace, lambda place: tensors[place.number].to(place.device, non_blocking=True), (Tensor,)
    )


def replace_inside(value: Any, kind: type, change: Callable[[Any], Any], leaves: tuple[type, ...] = ()) -> Any:
    """A copy of a value made of dataclasses, mappings, tuples and lists, with everything in it that is of a `kind`
    changed; what is of other kinds, and of `leaves`, is the very same.
    """

    def go(inner: Any) -> Any:
        return replace_inside(inner, kind, change, leaves)

    if isinstance(value, kind):
        return change(value)
    if isinstance(value, (TensorPlace, type, *leaves)):
        return value
    if is_dataclass(value):
        made = object.__new__(type(value))  # as it was, whatever its constructor would make of it
        for f in fields(value):
            object.__setattr__(made, f.name, go(getattr(value, f.name)))
        return made
    if isinstance(value, Mapping) and type(value) is dict:
        return {name: go(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        inner = [go(one) for one in value]
        return type(value)(*inner) if hasattr(value, "_fields") else tuple(inner)
    return [go(one) for one in value] if type(value) is list else value


def write_tensors(path: Path, tensors: Sequence[Tensor], forms: Sequence[TensorForm]) -> None:
    """Writes tensors, which are on the CPU, to a new file as their `forms` say. Raises OSError where there is no room;
    then there is no file.
    """
    try:
        with path.open("xb", buffering=0) as file:
            for tensor, form in zip(tensors, forms, strict=True):
                data = tensor.permute(form.order).contiguous().view(-1).view(torch.uint8).numpy().data
                done = 0
                while done < len(data):
                    done += os.pwrite(file.fileno(), data[done:], form.start + done)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def read_tensors(path: Path, forms: Sequence[TensorForm], *, pinned: bool = False) -> list[Tensor]:
    """The tensors that `write_tensors` wrote, with the same strides; `pinned`: in page-locked memory. Raises OSError
    where they cannot be read.
    """
    size = path.stat().st_size
    data = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
    with path.open("rb", buffering=0) as file:
        view, done = data.numpy().data, 0
        while done < size:
            done += (got := file.readinto(view[done:]) or 0)
            if not got:
                raise OSError(f"{path}: {done} of {size} bytes")
    return [read_one(data, form) for form in forms]


def read_one(data: Tensor, form: TensorForm) -> Tensor:
    """The tensor of that form in a file's `data`."""
    count = form.dtype.itemsize * torch.Size(form.shape).numel()
    whole = data[form.start : form.start + count].view(form.dtype).view(form.shape)
    return whole.permute(sorted(range(len(form.order)), key=form.order.__getitem__))


def lay_out(tensors: Sequence[Tensor]) -> list[TensorForm]:
    """Where tensors lie in a file, one after the other, each in its own order of memory.

    >>> [(form.start, form.order) for form in lay_out([torch.zeros(3), torch.zeros(2, 3).T])]
    [(0, (0,)), (64, (1, 0))]
    """
    forms, start = [], 0
    for tensor in tensors:
        steps = tensor.stride()
        order = tuple(sorted(range(tensor.dim()), key=steps.__getitem__, reverse=True))
        forms.append(TensorForm(start, tuple(tensor.shape[d] for d in order), order, tensor.dtype))
        start += -(-tensor.nbytes // ALIGNED) * ALIGNED
    return forms
