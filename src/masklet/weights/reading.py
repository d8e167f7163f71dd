"""Weight files of others: where a name's file is, and its tensors, read without running anything that it holds."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.files import read_json
from masklet.weights.catalog import CHECKPOINTS, CONFIG, TENSORS
from masklet.weights.store import compute_hash, find_checkpoint, resolve_weights

FILES = (".pt", ".pth", ".safetensors")


def locate_weights(name: str | Path) -> tuple[Path, Mapping[str, str]]:
    """The weight file that a name stands for, and {name: sha256} of it."""
    path = Path(name).expanduser()
    if isinstance(name, Path) or (name not in CHECKPOINTS and (path.exists() or is_path(name))):
        file = find_weight_file(path)
        label = f"{path.resolve().name}/{file.name}" if path.is_dir() else file.name
        return file, {label: compute_hash(file).sha256}
    model = find_checkpoint(name)
    located, sha256 = resolve_weights(model)
    return located.path, {f"{model.name}/{located.path.name}": sha256}


def is_path(name: str) -> bool:
    """Whether a text can only be meant as a path."""
    return name.startswith(("/", ".", "~")) or name.endswith(FILES)


def find_weight_file(path: Path) -> Path:
    """The weight file of a folder, or the file itself."""
    if path.is_dir():
        missing = [f for f in (CONFIG, TENSORS) if not (path / f).is_file()]
        if missing:
            raise InputError(f"{path}: no {missing[0]}; a folder of weights holds {CONFIG} and {TENSORS}")
        return path / TENSORS
    if not path.is_file():
        raise InputError(f"{path}: no such file; pass a .pt or .safetensors file, a folder, or a name")
    if path.suffix not in FILES:
        raise InputError(f"{path}: weights are read from {', '.join(FILES)} files and folders")
    return path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by key, without running anything that it holds. Raises InputError on damage."""
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise InputError(f'{path}: holds no table of tensors, neither as it is nor under "model"')
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: damaged or cut off ({error}); fetch or copy it again") from None


def _read_pickle(path: Path) -> Any:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: damaged, or holds more than tensors, which is not read ({reason})") from None
    except Exception as error:  # a damaged pickle calls what is allowed with anything
        reason = " ".join(str(error).split())[:120] or "it ends too early"
        raise InputError(f"{path}: damaged or cut off ({reason}); fetch or copy it again") from None
    return content.get("model", content) if isinstance(content, dict) else content


def read_network_config(path: Path) -> dict[str, Any]:
    """What a config says, whatever network it is of. Raises InputError where it is damaged."""
    told = read_json(path, "the config that came with the weights")
    return told if isinstance(told, dict) else {}
