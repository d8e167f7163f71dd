"""The losses and the validation of all five trainings where the weights are on a GPU, as far as that can be told here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from elsewhere import GPU, Elsewhere, WithGpu, attention
from small_sam2 import build_small_config
from torch import Tensor

from masklet.models.mask2former.small import SmallMask2FormerSettings, create_small_mask2former, save_small
from masklet.models.nano.network import NanoSettings
from masklet.models.transformers_output import drop_transformers_output
from masklet.train.data.clips import seed_item_generator
from masklet.train.data.synthetic import SyntheticClips
from masklet.train.loop.loop import Task
from masklet.train.tasks.segmenter import draw_held_out_clips
from masklet.training import choose_training, prepare_training
from masklet.training_request import TrainingRequest

CPU = torch.device("cpu")
SIZE = (64, 96)
KINDS = ("segmenter", "tracker", "refiner", "rocovis", "propagator")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of what the trainings begin with, all tiny."""
    from transformers import Sam2VideoModel

    at = tmp_path_factory.mktemp("weights")
    settings = SmallMask2FormerSettings(32, 1, 2, 6, 2, 32, 32)
    save_small(
        at / "small.safetensors", create_small_mask2former(settings, SyntheticClips().categories), settings, SIZE
    )
    torch.manual_seed(4)
    with drop_transformers_output():
        net: Any = Sam2VideoModel(build_small_config(NanoSettings(side=64, layers=1, width=32)))
        torch.nn.init.constant_(net.mask_decoder.pred_obj_score_head.proj_out.bias, 1.0)
        net.save_pretrained(at / "sam2")
    found = {"small": str(at / "small.safetensors"), "sam2": str(at / "sam2")}
    task = made("tracker", found, CPU)
    task.save(at / "tracker.safetensors")
    return {**found, "tracker": str(at / "tracker.safetensors")}


def made(kind: str, weights: dict[str, str], device: torch.device) -> Task:
    start = {"propagator": weights["sam2"], "refiner": weights.get("tracker", "")}.get(kind, "")
    below = weights["small"] if kind in ("tracker", "refiner", "rocovis") else ""
    lr = choose_training(kind, start).lr
    wish = TrainingRequest(("synthetic",), (), SIZE, 2, 4, 1, lr, 0, start, below, {}, device)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "masklet.training.draw_held_out_clips", lambda source, clips, frames: draw_held_out_clips(source, 1, frames)
        )
        return prepare_training(kind, wish).task


def losses(task: Task, step: int) -> dict[str, Tensor]:
    return task.loss(step, seed_item_generator(5, step))


# -- a GPU that is not there


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    plain, tensor = torch.Generator, torch.tensor
    monkeypatch.setattr(torch, "Generator", lambda device=CPU: plain())
    monkeypatch.setattr(torch, "tensor", lambda *of, device=CPU, **how: tensor(*of, **how).to(device))
    monkeypatch.setattr(torch, "autocast", lambda *how, **more: nullcontext())
    monkeypatch.setattr("masklet.parts.resolve_device", torch.device)
    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", attention)
    with WithGpu(), torch.no_grad():
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_on_the_wrong_device(kind: str, weights: dict[str, str], gpu: None, tmp_path: Path) -> None:
    task = made(kind, weights, GPU)
    assert all(isinstance(p, Elsewhere) for p in task.module.parameters())
    task.module.train()
    for step in (0, 3):  # DVIS's: guided, and by themselves
        assert all(torch.isfinite(loss.cpu()) for loss in losses(task, step).values())
    task.module.eval()
    assert task.validate()
    task.save(tmp_path / "weights.safetensors")


def test_the_gpu_that_is_not_there_finds_mistakes(gpu: None) -> None:
    there, here = torch.ones(3, device=GPU), torch.ones(3)
    assert (there * 2).tolist() == [2, 2, 2] and torch.tensor([1.0], device=GPU).device == GPU
    assert torch.equal((there[torch.tensor([0, 1])] + 1).cpu(), torch.full((2,), 2.0))
    for wrong in (lambda: there + here, lambda: torch.cat([there, here]), lambda: here[there.long()], there.numpy):
        with pytest.raises((AssertionError, TypeError)):
            wrong()


# -- bfloat16


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_finite_in_mixed_precision(kind: str, weights: dict[str, str]) -> None:
    """bfloat16 as autocast has it on a CPU: its list of what stays in float32 is nearly that of a GPU."""
    task = made(kind, weights, CPU)
    task.module.train()
    for step in (0, 3):
        with torch.autocast("cpu", torch.bfloat16):
            found = losses(task, step)
        assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in found.values())
        torch.stack([*found.values()]).sum().backward()
    assert all(p.grad.isfinite().all() for p in task.module.parameters() if p.grad is not None)
    assert any(p.grad is not None and p.grad.any() for p in task.module.parameters())
