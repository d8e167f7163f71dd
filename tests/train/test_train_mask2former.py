"""`masklet train segmenter --from` a Mask2Former of transformers: Swin and ResNet, to a folder that `masklet run` loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from masklet.cli import app
from masklet.core.frames import Frame
from masklet.models.encoder import Encoder
from masklet.models.mask2former.weights import build_mask2former
from masklet.models.transformers_output import drop_transformers_output
from masklet.parts import load_segmenter
from masklet.train.data.synthetic import SyntheticClips
from masklet.train.tasks.segmenter import draw_held_out_clips

STAGES = ["stage1", "stage2", "stage3", "stage4"]
TINY = ("--data", "synthetic", "--size", "64x96", "--steps", "1", "--batch", "2", "--seed", "3", "--lr", "0.001")


@pytest.fixture(scope="module", autouse=True)
def few_held_out() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "masklet.training.draw_held_out_clips", lambda source, clips, frames: draw_held_out_clips(source, 1, frames)
        )
        yield


def backbone(kind: str) -> Any:
    import transformers

    if kind == "swin":
        swin: Any = transformers.SwinConfig
        return swin(embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, out_features=STAGES)
    resnet: Any = transformers.ResNetConfig
    return resnet(embedding_size=8, hidden_sizes=[16, 24, 32, 40], depths=[1] * 4, out_features=STAGES)


@pytest.fixture(scope="module", params=["swin", "resnet"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Mask2Former with random weights in a folder, and that of the run that begins with it."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    at = tmp_path_factory.mktemp(request.param)
    sizes = dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim", "encoder_feedforward_dim"), 32)
    torch.manual_seed(0)
    with drop_transformers_output():
        config = Mask2FormerConfig(
            backbone_config=backbone(request.param), **sizes, encoder_layers=1, decoder_layers=2,
            num_attention_heads=2, dim_feedforward=32, num_queries=6, id2label=dict(enumerate("abc")),
        )  # fmt: skip
        Mask2FormerForUniversalSegmentation(config).save_pretrained(at / "start")
    command = ["train", "segmenter", "--from", str(at / "start"), "--out", str(at / "run"), *TINY]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "Writing" not in result.output
    return at / "start", at / "run"


def state(folder: Path) -> Mapping[str, Tensor]:
    return build_mask2former(folder).net.state_dict()


def test_all_of_it_moves_the_backbone_a_tenth_as_far(run: tuple[Path, Path]) -> None:
    before, after = state(run[0]), state(run[1] / "weights")
    assert before.keys() == after.keys()
    far = {k: float((after[k] - v).abs().max()) for k, v in before.items() if v.shape == after[k].shape}
    inside = "model.pixel_level_module.encoder."
    learnt = {k: d for k, d in far.items() if "running_" not in k and "num_batches" not in k}
    near, others = ({k: d for k, d in learnt.items() if k.startswith(inside) == own} for own in (True, False))
    assert 0.000009 < max(near.values()) < 0.000012  # a step of Adam is as long as the rate, 1e-4
    assert 0.00009 < max(others.values()) < 0.00012
    assert sum(d > 0 for d in near.values()) > 0.8 * len(near)  # what no stage's norm reads stays
    assert all(d == 0 for k, d in far.items() if "running_" in k)  # batch norms keep their statistics


def test_run_loads_the_folder_with_the_datas_categories(run: tuple[Path, Path]) -> None:
    segmenter: Any = load_segmenter(f"{run[1] / 'weights'}@64", Encoder())
    assert segmenter.categories == SyntheticClips().categories and segmenter.shortest == 64
    [found], _ = segmenter.segment(None, [Frame(0, np.zeros((64, 96, 3), np.uint8))], [])
    assert found.masks.shape[1:] == (64, 96)


def test_transformers_loads_it_too(run: tuple[Path, Path]) -> None:
    from transformers import Mask2FormerForUniversalSegmentation

    with drop_transformers_output():
        net: Any = Mask2FormerForUniversalSegmentation.from_pretrained(run[1] / "weights")
    assert torch.equal(net.class_predictor.weight, state(run[1] / "weights")["class_predictor.weight"])
    assert tuple(net.config.id2label.values()) == SyntheticClips().categories


def test_a_tracker_is_trained_over_it(run: tuple[Path, Path], tmp_path: Path) -> None:
    command = ["train", "tracker", "--segmenter", str(run[1] / "weights"), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [*command, *TINY, "--frames", "2"])
    assert result.exit_code == 0, (result.output, result.exception)
