"""SAM 2 through `torch.compile`: the same masks. By Dynamo alone, which needs no compiler."""

from __future__ import annotations

import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_everything import saved_sam2, small_sam2
from typer.testing import CliRunner

from masklet.cli import app
from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.models.encoder import Encoder
from masklet.models.sam2 import compiled
from masklet.models.sam2.compiled import compile_attention, compile_sam2
from masklet.models.sam2.propagator import Sam2
from masklet.nn import compilation, memory_attention
from masklet.nn.compilation import check_compiler
from masklet.parts import load_propagator

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 255, (3, 48, 64, 3), np.uint8)


def follow(sam2: Sam2) -> None:
    """An object from the first frame through the others."""
    first, *rest = [sam2.encode([Frame(t, image)])[0] for t, image in enumerate(IMAGES)]
    memory, _ = sam2.prompt(sam2.empty(), first, {1: torch.ones(48, 64, dtype=torch.bool)})
    for features in rest:
        memory = sam2.commit(memory, features, sam2.predict(memory, features))


def load_unchecked(module: Any) -> Any:
    """A module again, without the checks of types that tests have on and Dynamo cannot look through."""
    spec: Any = spec_from_file_location(f"unchecked_{module.__name__.rpartition('.')[2]}", module.__file__)
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_attention_is_the_same_for_memories_of_all_lengths() -> None:
    """All of SAM 2 takes Dynamo 18 s; it was seen to give equal masks."""
    module = load_unchecked(memory_attention)
    net = module.MemoryAttentionLayers(2, 16, 24, 8, cells=4, step=1.0).eval().requires_grad_(False)
    plain = module.MemoryAttention(net)
    run = compile_attention(plain, "eager")
    draw = torch.Generator().manual_seed(0)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for frames in (1, 2, 3, 5):
        keys, values = (torch.randn(2, 16 * frames + 4, 8, generator=draw) for _ in range(2))
        look = torch.randn(16, 16, generator=draw)
        got, want = (one(one.look(look), keys, values, 4) for one in (run, plain))
        assert torch.allclose(got, want, atol=1e-6)
    counts = torch._dynamo.utils.counters["stats"]
    assert counts["unique_graphs"] <= 3  # looking around, a frame alone, and any number of them


def test_every_network_that_a_frame_goes_through_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a compiler that only counts: calls of the encoder, of memory attention's two parts, and of three modules."""
    called: list[str] = []

    def compile_counting(function: Any, *, dynamic: bool, backend: str) -> Any:
        def run(*inputs: Any) -> Any:
            called.append(f"{function.__name__} {dynamic} {backend}")
            return function(*inputs)

        return run

    def compile_module(module: Any, backend: str) -> None:
        module.register_forward_pre_hook(lambda *_: called.append(type(module).__name__))

    monkeypatch.setattr(compiled, "compile_function", compile_counting)
    monkeypatch.setattr(compiled, "compile_module", compile_module)
    monkeypatch.setattr("masklet.models.sam2.image_encoder.compile_function", compile_counting)
    follow(compile_sam2(Sam2(small_sam2.__wrapped__())))
    names = ("MaskDecoder", "MaskDownSampler", "MemoryFuser")
    assert {n for n in names if any(n in one for one in called)} == set(names), called
    for name in ("_encode_by_hiera False inductor", "look False inductor", "__call__ True inductor"):
        assert name in called


def test_without_a_compiler_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    check_compiler("x", CPU)
    monkeypatch.setattr(compilation, "find_spec", lambda name: None)
    check_compiler("x", CPU)
    with pytest.raises(InputError, match="x: compile on a GPU needs the package triton; install it, or leave"):
        check_compiler("x", torch.device("cuda"))
    with pytest.raises(InputError, match="x: nothing compiles for mps; leave compile out"):
        check_compiler("x", torch.device("mps"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for name in ("sam2.1-tiny", "sam2long:sam2.1-tiny", "sam3"):  # before weights are looked for
        with pytest.raises(InputError, match=f"^{name}: compile needs a C\\+\\+ compiler such as g\\+\\+; install one"):
            load_propagator(name, Encoder(), "cpu", {"compile": True})


@pytest.mark.parametrize("tree", ["", "sam2long:"])
def test_a_setting_has_it_compiled(tree: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(compiled, "compile_sam2", lambda made: asked.append(made) or made)
    name = f"sam2long:{saved_sam2(tmp_path / 'net')}"
    load_propagator(name, Encoder(), "cpu", {"compile": True} if tree else {})
    assert [type(made) for made in asked] == ([Sam2] if tree else [])


@pytest.mark.parametrize("propagator", ["nano", "affinity", "sam2long:nano", "still"])
@pytest.mark.parametrize("command", ["run", "track"])
def test_what_is_not_compiled_refuses_the_option(propagator: str, command: str, tmp_path: Path) -> None:
    given = ["--prompt", "0:1:point=4,4"] if command == "track" else ["--segmenter", "motion"]
    words = [command, str(tmp_path), "-o", str(tmp_path / "out"), "--propagator", propagator, "--compile", *given]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 2 and "compile" in ended.output and "Traceback" not in ended.output
