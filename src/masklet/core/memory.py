"""Memories on disk. A memory is a value made of frozen dataclasses, containers and tensors: any of them can be saved,
and a stream goes on from a loaded one as if it had never stopped.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save as packed
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.files import write_atomically
from masklet.core.memory_kinds import find_memory_kind, find_memory_tag, make_memory_part

FORMAT = "masklet-memory/1"
DIGEST = re.compile("[0-9a-f]{64} ")  # sha256 of all that is in a file, before its text; older files have none


def save_memory(memory: Any, path: str | Path) -> None:
    """Writes a memory, or the state of a stream, into one safetensors file; tensors that are shared are written once.

    Raises:
        InputError: the file cannot be written.
        TypeError: something in it is not made of dataclasses with a tag (core.memory_kinds), containers, numbers, text
            and tensors.
    """
    tensors: Held = {}
    text = json.dumps(_encode_memory_value(memory, tensors))
    layout = {str(n): (find_axis_order(t), str(t.device)) for n, t in tensors.values()}
    named = {str(n): t.detach().permute(layout[str(n)][0]).cpu().clone().contiguous() for n, t in tensors.values()}
    odd = {n: told for n, told in layout.items() if told[0] != sorted(told[0]) or told[1] != "cpu"}
    told = f"{text}\n{json.dumps(odd)}" if odd else text  # one entry: several would come in any order
    with write_atomically(Path(path)) as file:
        file.write(packed(named, {FORMAT: f"{_compute_digest(told, named)} {told}"}))


def find_axis_order(tensor: Tensor) -> list[int]:
    """The axes of a tensor in the order in which it lies in memory, which decides how it is computed with; as they are
    where it does not lie there in one piece.

    >>> find_axis_order(torch.zeros(2, 3).T), find_axis_order(torch.zeros(2, 3)), find_axis_order(torch.zeros(4)[::2])
    ([1, 0], [0, 1], [0])
    """
    strides = tensor.stride()
    order = sorted(range(tensor.ndim), key=lambda axis: -strides[axis])
    return order if tensor.permute(order).is_contiguous() else list(range(tensor.ndim))


def load_memory(path: str | Path, device: str | None = "cpu") -> Any:
    """What `save_memory` has written, on `device`; None: each tensor where it was.

    Raises:
        InputError: there is no such file, or it is not a saved memory, or not as it was written.
    """
    try:
        with safe_open(str(path), "pt", device=device or "cpu") as file:
            told = file.metadata() or {}
            if FORMAT not in told:
                raise InputError(f"{path}: no saved memory ({FORMAT}); write one with masklet.core.memory.save_memory")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        digest = DIGEST.match(told[FORMAT])
        whole = told[FORMAT][digest.end() if digest else 0 :]
        if digest and digest[0].strip() != _compute_digest(whole, tensors):
            raise ValueError("its content is not what was written")
        text, _, layout = whole.partition("\n")
        for n, (order, place) in json.loads(layout or "{}").items():
            tensors[n] = tensors[n].permute(np.argsort(order).tolist()).to(place if device is None else device)
        return _decode_memory_value(json.loads(text), tensors)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged text makes values of any kind of any other kind
        raise InputError(f"{path}: damaged ({' '.join(str(error).split())[:120]}); save the memory again") from None


def _compute_digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """sha256 of a file's text and tensors, on whatever device they are."""
    hashed = hashlib.sha256(text.encode(errors="surrogatepass"))
    for name, tensor in sorted(tensors.items()):
        hashed.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hashed.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return hashed.hexdigest()


Held = dict[int, tuple[int, Tensor]]  # address: number in the file, tensor


def _encode_memory_value(value: Any, tensors: Held) -> Any:
    """A value as JSON: what JSON has is itself, anything else a list [kind, content]."""
    if value is None or (isinstance(value, bool | int | float | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Tensor):
        return ["tensor", tensors.setdefault(id(value), (len(tensors), value))[0]]
    if isinstance(value, np.ndarray):
        held = torch.from_numpy(np.ascontiguousarray(value))
        return ["array", tensors.setdefault(id(held), (len(tensors), held))[0]]
    if isinstance(value, bytes):
        return ["bytes", base64.b64encode(value).decode()]
    if isinstance(value, tuple | list):
        return [type(value).__name__, [_encode_memory_value(v, tensors) for v in value]]
    if isinstance(value, Mapping):
        return [
            "dict",
            [[_encode_memory_value(k, tensors), _encode_memory_value(v, tensors)] for k, v in value.items()],
        ]
    tag = find_memory_tag(type(value))
    if isinstance(value, Enum):
        return ["enum", [tag, value.name]]
    return ["made", [tag, {f.name: _encode_memory_value(getattr(value, f.name), tensors) for f in fields(value)}]]


def _decode_memory_value(told: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that `_encode_memory_value` was given."""
    if not isinstance(told, list):
        return told
    kind, content = told
    return _MAKERS[kind](content, tensors)


_MAKERS: Mapping[str, Callable[[Any, Mapping[str, Tensor]], Any]] = {
    "tensor": lambda n, tensors: tensors[str(n)],
    "array": lambda n, tensors: tensors[str(n)].numpy(),
    "bytes": lambda text, tensors: base64.b64decode(text),
    "tuple": lambda items, tensors: tuple(_decode_memory_value(v, tensors) for v in items),
    "list": lambda items, tensors: [_decode_memory_value(v, tensors) for v in items],
    "dict": lambda items, tensors: {
        _decode_memory_value(k, tensors): _decode_memory_value(v, tensors) for k, v in items
    },
    "enum": lambda names, tensors: find_memory_kind(names[0])[names[1]],
    "made": lambda parts, tensors: make_memory_part(
        parts[0], {k: _decode_memory_value(v, tensors) for k, v in parts[1].items()}
    ),
}
