from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from masklet.core import memory
from masklet.core.errors import InputError
from masklet.core.instances import Box
from masklet.core.rle import Rle
from masklet.core.tracks import Sighting, Source

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
values = st.recursive(
    plain,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.integers() | st.text(), inner),
)


@given(values)
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("memory") / "m"
    memory.save_memory(value, path)
    back = memory.load_memory(path)
    assert back == value and type(back) is type(value)


def test_dataclasses_enumerations_and_tensors(tmp_path: Path) -> None:
    shared = torch.arange(6.0).view(2, 3)
    value = {
        "sighting": Sighting(Rle((2, 3), b"\x01\x05"), Source.BACKWARD, 0.5),
        3: (shared, shared.T, shared),
        "half": torch.tensor([1.5, -0.0]).bfloat16(),
        "none": torch.zeros(0, 4, dtype=torch.uint8),
        "numpy": np.array([[1, 2]], np.int16),
    }
    memory.save_memory(value, tmp_path / "m")
    back = memory.load_memory(tmp_path / "m")
    assert back["sighting"] == value["sighting"]
    assert back[3][0] is back[3][2] and torch.equal(back[3][1], shared.T)
    assert back["half"].dtype == torch.bfloat16 and torch.equal(back["half"], value["half"])
    assert back["none"].shape == (0, 4) and back["none"].dtype == torch.uint8
    assert back["numpy"].dtype == np.int16 and back["numpy"].tolist() == [[1, 2]]


def test_the_same_memory_gives_the_same_file(tmp_path: Path) -> None:
    for name in "ab":
        memory.save_memory({1: torch.ones(3), 2: (torch.zeros(2), Box(1, 2, 3, 4))}, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_is_no_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot hold builtins"):
        memory.save_memory({"x": object()}, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def rewritten(path: Path, text: str) -> None:
    """The file with another description of its content."""
    raw = path.read_bytes()
    [size] = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    header["__metadata__"]["masklet-memory/1"] = text
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + raw[8 + size :])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["made", ["os:system", {}]]', "os:system is no part of a memory"),
        ('["made", ["masklet.api:segment", {}]]', "is no part of a memory"),
        ('["tensor", 9]', "damaged"),
        ('["odd", 1]', "damaged"),
        ("{", "damaged"),
    ],
)
def test_a_file_cannot_make_anything_else(tmp_path: Path, text: str, message: str) -> None:
    memory.save_memory(torch.ones(2), tmp_path / "m")
    rewritten(tmp_path / "m", text)
    with pytest.raises(InputError, match=message):
        memory.load_memory(tmp_path / "m")


def test_files_that_are_no_memory(tmp_path: Path) -> None:
    memory.save_memory(torch.ones(200), tmp_path / "cut")
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:-100])
    (tmp_path / "text").write_text("no memory at all")
    for name, message in (("cut", "damaged"), ("text", "damaged"), ("none", "cannot be read")):
        with pytest.raises(InputError, match=message):
            memory.load_memory(tmp_path / name)


def test_a_memory_with_whole_gram_matrices_is_read_as_today(tmp_path: Path) -> None:
    """As affinity and nano saved it before the matrices were folded."""
    from masklet.nn.propagation import Moments, compute_gram, unfold_lower

    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    today = Moments((compute_gram(x, None),), torch.randn(1, 6), torch.rand(1, 2, 4096))
    older = object.__new__(Moments)
    vars(older).update(gram=(x.T @ x)[None], moment=today.moment, colours=today.colours)
    memory.save_memory(older, tmp_path / "older.safetensors")
    read = memory.load_memory(tmp_path / "older.safetensors")
    torch.testing.assert_close(unfold_lower(read.gram[0]), unfold_lower(today.gram[0]))
    assert isinstance(read, Moments) and torch.equal(read.moment, today.moment)
