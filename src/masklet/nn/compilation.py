"""Networks that are compiled by `torch.compile`, where there is a compiler for the device that they are on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar, cast

import torch
from torch import nn

from masklet.core.errors import InputError

C = TypeVar("C", bound=Callable[..., Any])
INDUCTOR = "inductor"  # the backend of `torch.compile` that needs a compiler
COMPILERS = ("g++", "clang++", "c++")


def check_compiler(name: str, device: torch.device) -> None:
    """Raises InputError where nothing compiles networks for a `device`; `name` says of what."""
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"{name}: nothing compiles for {device.type}; leave compile out")
    if device.type == "cuda" and find_spec("triton") is None:
        raise InputError(f"{name}: compile on a GPU needs the package triton; install it, or leave compile out")
    if not any(map(shutil.which, (os.environ.get("CXX") or "g++", *COMPILERS))):
        raise InputError(f"{name}: compile needs a C++ compiler such as g++; install one, or leave compile out")


def compile_function(function: C, *, dynamic: bool, backend: str = INDUCTOR) -> C:
    """A function of tensors, compiled at its first call; `dynamic`: once for inputs of all sizes, else for each."""
    compiled: Any = torch.compile(function, dynamic=dynamic, backend=backend)
    return cast(C, compiled)


def compile_module(module: nn.Module, backend: str = INDUCTOR) -> None:
    """Has a module compiled at its next call, for each size of its inputs; in place."""
    module.compile(dynamic=False, backend=backend)
