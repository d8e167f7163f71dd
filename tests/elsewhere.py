"""A device that is not there: tensors that say they are on a GPU, refuse to meet those that are not, and compute here.

It finds what breaks on a machine with a GPU and nowhere else: a tensor made on the wrong device, `numpy()` of one on
the GPU, a network that was left behind. What kernels do there it does not tell, and there is no going backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

GPU = torch.device("meta")  # the one other device that any PyTorch knows
aten: Any = torch.ops.aten
# These may read from one device and write to the other, or index with what is on the CPU.
BETWEEN = {aten.copy_.default, aten._to_copy.default, aten.set_data.default}
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


FETCHED: list[str] = []  # what was asked for by the CPU, one entry each: for all of them the GPU has to be waited for


class Elsewhere(torch.Tensor):
    """A tensor on the GPU that is not there."""

    held: Tensor
    is_cuda = True
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        assert held.device.type == "cpu", "what is held is here"
        how = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made: Any = torch.Tensor._make_wrapper_subclass(cls, held.shape, **how, device=GPU)
        made.held = held
        return made  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"Elsewhere({self.held!r})"

    def __getitem__(self, at: Any) -> Any:
        return Elsewhere(self.held[tree_map(here, at)])

    def __setitem__(self, at: Any, value: Any) -> None:
        if isinstance(value, Tensor):
            check("setitem", [self, value])
        self.held[tree_map(here, at)] = here(value)

    def tolist(self) -> Any:
        FETCHED.append(f"tolist {tuple(self.shape)}")
        return self.held.tolist()

    def item(self) -> Any:
        FETCHED.append("item")
        return self.held.item()

    def numpy(self, *, force: bool = False) -> Any:
        assert force, "numpy() of a tensor on the GPU"
        return self.held.numpy()

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class WithGpu(TorchDispatchMode):
    """Where this is on, there is a GPU."""

    def __enter__(self) -> WithGpu:
        self.before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # in place they cannot change their kind
        return super().__enter__()  # type: ignore[no-any-return]

    def __exit__(self, *error: Any) -> None:
        torch.__future__.set_overwrite_module_params_on_conversion(self.before)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The function of what is held, on the device where PyTorch would compute it; an error where it would be one."""
    given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    asked = kwargs.get("device")
    there = any(isinstance(x, Elsewhere) for x in given) and asked is None
    if func is aten.copy_.default:
        there = isinstance(args[0], Elsewhere)
    elif asked is not None:
        there = torch.device(asked).type == GPU.type
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if func not in BETWEEN:
        check(func, given)
    if func in BETWEEN and not there and isinstance(given[-1], Elsewhere):
        FETCHED.append(f"copy {tuple(given[-1].shape)}")
    out = func(*tree_map(here, args), **tree_map(here, kwargs))
    if func._schema.name.endswith("_") and not func._schema.name.endswith("__"):
        return args[0]
    if "out" in kwargs:
        return kwargs["out"]
    return tree_map(lambda x: Elsewhere(x) if isinstance(x, Tensor) else x, out) if there else out


def here(x: Any) -> Any:
    """What is held."""
    return x.held if isinstance(x, Elsewhere) else x


def check(func: Any, given: list[Tensor]) -> None:
    """Numbers on the CPU may meet what is on the GPU, and so may indices; nothing else may."""
    apart = [x for x in given if not isinstance(x, Elsewhere) and x.dim() > 0]
    if func in INDEXED and isinstance(given[0], Elsewhere):
        apart = [x for x in apart if x.dtype not in (torch.int64, torch.bool, torch.uint8)]
    if apart and any(isinstance(x, Elsewhere) for x in given):
        told = ", ".join(f"{tuple(x.shape)} on {x.device}" for x in given)
        raise AssertionError(f"{func}: tensors on two devices: {told}")


def attention(q: Tensor, k: Tensor, v: Tensor, *_: object, **__: object) -> Tensor:
    """In place of PyTorch's, which has kernels for real devices only; masks aside."""
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
