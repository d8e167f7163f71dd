"""`masklet train propagator --from` weights of SAM 2: what moves, what holds still, and that it is SAM 2 after it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from small_sam2 import build_small_config
from torch import Tensor
from typer.testing import CliRunner

from masklet.cli import app
from masklet.models.encoder import Encoder
from masklet.models.nano.network import NanoSettings
from masklet.models.sam2.propagator import Sam2
from masklet.models.sam2.weights import build_sam2
from masklet.models.transformers_output import drop_transformers_output
from masklet.parts import load_propagator
from masklet.train.data.clips import seed_item_generator
from masklet.train.data.dataset_writer import write_dataset
from masklet.train.data.scenes import SyntheticSettings
from masklet.train.data.synthetic import SyntheticClips
from masklet.train.tasks.propagator import make_propagator_frames
from masklet.train.tasks.segmenter import draw_held_out_clips
from masklet.training import RECIPES, choose_training

TINY = ("--data", "synthetic", "--size", "96x160", "--steps", "2", "--frames", "3", "--seed", "3", "--lr", "0.001")


@pytest.fixture(scope="module", autouse=True)
def few_held_out() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "masklet.training.draw_held_out_clips", lambda source, clips, frames: draw_held_out_clips(source, 1, frames)
        )
        yield


def called(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["train", "propagator", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SAM 2 with random weights, as transformers saves it."""
    from transformers import Sam2VideoModel

    torch.manual_seed(4)
    with drop_transformers_output():
        net: Any = Sam2VideoModel(build_small_config(NanoSettings(side=64, layers=1, width=32)))
        torch.nn.init.constant_(net.mask_decoder.pred_obj_score_head.proj_out.bias, 1.0)  # it believes what it sees
        net.save_pretrained(folder := tmp_path_factory.mktemp("sam2") / "start")
    return folder


@pytest.fixture(scope="module")
def tuned(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "run"
    code, said = called("--from", start, "--out", out, *TINY)
    assert code == 0 and "2 steps are done" in said and "last validation: iou" in said, said
    return out / "weights"


def state(name: object) -> Mapping[str, Tensor]:
    return build_sam2(str(name))[0].state_dict()


def moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {key for key, value in before.items() if not torch.equal(value, after[key])}


def test_all_but_the_image_encoder_moves(start: Path, tuned: Path) -> None:
    changed = moved(state(start), state(tuned))
    assert not any(key.startswith("vision_encoder.") for key in changed)
    parts = {key.partition(".")[0] for key in changed}
    assert parts >= {"memory_attention", "memory_encoder", "mask_decoder", "object_pointer_proj", "mask_downsample"}
    heads = {key.split(".")[1] for key in changed if key.startswith("mask_decoder.")}
    assert heads >= {"pred_obj_score_head", "iou_prediction_head", "output_hypernetworks_mlps", "conv_s0"}


def test_the_result_is_a_propagator_that_answers(tuned: Path) -> None:
    propagator: Any = load_propagator(str(tuned), Encoder())
    assert isinstance(propagator, Sam2) and propagator.side == 64
    clip = SyntheticClips(SyntheticSettings(size=(96, 160))).clip(seed_item_generator(0, 0), 3)
    first, second, third = propagator.encode(make_propagator_frames(clip))
    memory, _ = propagator.prompt(propagator.empty(), first, {1: clip.masks[0, 0]})
    memory = propagator.commit(memory, second, propagator.predict(memory, second))
    answer = propagator.predict(memory, third)
    assert answer.logits.shape == (1, 3, 16, 16) and answer.logits.isfinite().all()


def test_there_is_no_leftover_beside_the_weights(tuned: Path) -> None:
    assert {p.name for p in tuned.iterdir()} == {"config.json", "model.safetensors"}
    assert {p.name for p in tuned.parent.iterdir()} == {
        "run.json", "log.jsonl", "checkpoint.pt", "weights", "curve.png",
    }  # fmt: skip


def test_transformers_loads_it_too(tuned: Path) -> None:
    from transformers import Sam2VideoModel

    with drop_transformers_output():
        net: Any = Sam2VideoModel.from_pretrained(tuned)
    assert not moved(state(tuned), net.state_dict())


def test_the_image_encoder_learns_slowly_where_it_is_wanted(start: Path, tmp_path: Path) -> None:
    code, said = called("--from", start, "--out", tmp_path / "run", *TINY, "--set", "encoder=trained")
    assert code == 0, said
    before, after = state(start), state(tmp_path / "run/weights")
    changed = {key for key in moved(before, after) if key.startswith("vision_encoder.")}
    assert any(".neck." in key for key in changed) and any(".backbone.blocks." in key for key in changed)
    assert not any("pos_embed" in key for key in changed)
    far = max(float((after[k] - before[k]).abs().max()) for k in moved(before, after) - changed)
    near = max(float((after[k] - before[k]).abs().max()) for k in changed)
    assert near == pytest.approx(0.1 * far, rel=0.1)  # a step of Adam is as long as the rate


def test_another_size_stays_with_the_weights(start: Path, tmp_path: Path) -> None:
    code, said = called("--from", f"{start}@128", "--out", tmp_path / "run", *TINY)
    assert code == 0, said
    alone, named = (load_propagator(f"{tmp_path}/run/weights{at}", Encoder()) for at in ("", "@128"))
    assert alone.side == 128
    clip = SyntheticClips(SyntheticSettings(size=(96, 160))).clip(seed_item_generator(0, 0), 2)
    answers = []
    for propagator in (alone, named):
        first, second = propagator.encode(make_propagator_frames(clip))
        memory, _ = propagator.prompt(propagator.empty(), first, {1: clip.masks[0, 0]})
        answers.append(propagator.predict(memory, second).logits)
    assert torch.equal(*answers) and answers[0].shape[2:] == (32, 32)


def test_a_run_that_was_left_goes_on_to_the_same_weights(start: Path, tuned: Path, tmp_path: Path) -> None:
    from masklet.train.loop import loop

    command = ("--from", start, "--out", tmp_path / "run", *TINY)
    with pytest.MonkeyPatch.context() as patched:
        real = loop.SilentWatch.stepped
        patched.setattr("masklet.view.training.TrainingBar.stepped", lambda *told: stop_after_one(*told, then=real))
        assert called(*command)[0] == 1
    assert called(*command)[0] == 0
    assert not moved(state(tuned), state(tmp_path / "run/weights"))


def stop_after_one(bar: object, step: int, *told: object, then: object) -> None:
    import signal

    if step == 1:
        signal.raise_signal(signal.SIGTERM)


def test_categories_do_not_matter(start: Path, tmp_path: Path) -> None:
    """Clips of several sets that name different things, and of generated ones."""
    write_dataset(SyntheticClips(SyntheticSettings(size=(96, 160))), tmp_path / "videos", 1, 3, 0)
    told = json.loads((tmp_path / "videos/annotations.json").read_text())
    for category in told["categories"]:
        category["name"] += " of another set"
    (tmp_path / "videos/annotations.json").write_text(json.dumps(told))
    code, said = called("--from", start, "--out", tmp_path / "run", "--data", tmp_path / "videos", *TINY)
    assert code == 0, said
    assert f"validation: on {tmp_path / 'videos'}, which is trained on, too; --val names data to judge it by" in said


# -- bad input


def test_what_is_trained_follows_from_the_weights(start: Path, tmp_path: Path) -> None:
    assert choose_training("propagator", "") is RECIPES["propagator"]
    assert choose_training("propagator", "sam2.1-tiny@512").lr < RECIPES["propagator"].lr
    assert choose_training("tracker", str(start)) is RECIPES["tracker"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "sam2.1-tiny"), "weights sam2.1-tiny are not on this machine"),
        (("--from", "gone/weights"), "gone/weights"),
        (("--from", "gone.safetensors"), "--from gone.safetensors: no such file or folder"),
        (("--from", "./gone@512"), "--from ./gone@512: no such file or folder"),
        (("--set", "encoder=trained"), "propagator has no setting 'encoder'"),
        (("--from", "sam2.1-tiny", "--set", "encoder=half"), "setting encoder = 'half' must be one of frozen, trained"),
        (("--from", "sam2.1-tiny", "--frames", "1"), "--frames 1: a propagator learns from one frame to the next"),
        (("--frames", "1"), "--frames 1: a propagator learns from one frame to the next; give 2 or more"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "none"))
    code, output = called("--data", "synthetic", "--steps", 2, *arguments, "--out", tmp_path / "run")
    assert code == 2 and said in output and output.count("masklet: ") == 1, output
    assert not (tmp_path / "run").exists()


def test_edgetam_is_refused(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from masklet.models.sam2.edgetam import EdgeTam

    monkeypatch.setattr("masklet.training.load_sam2", lambda name, policy, device: EdgeTam.__new__(EdgeTam))
    code, output = called("--from", "edgetam", *TINY, "--out", tmp_path / "run")
    assert code == 2 and "--from edgetam: EdgeTAM cannot be trained here; give a SAM 2, such as sam2.1-tiny" in output
