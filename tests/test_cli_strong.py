"""Cutie, MM-Grounding-DINO and SAM-HQ on the command line, slim and of drawn weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from models.test_sam_hq import bert_words, small_mm_dino, small_sam_hq
from PIL import Image
from safetensors.torch import save_file
from test_cli_sam3 import QUIET, call_masklet, run, source  # noqa: F401

from masklet.models.segmenters import text


def test_cutie_takes_masks(source: Path, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("cutie")
    from models.test_cutie import small_net

    weights = tmp_path / "cutie.safetensors"
    save_file({name: value.contiguous() for name, value in small_net().state_dict().items()}, weights)
    mask = source.parent / "mask.png"
    words = ("--propagator", f"cutie:{weights}", "--set", "propagator.size=112")
    made = run("track", source, "--out", tmp_path / "out", *words, "--prompt", f"0:1:{mask}")
    assert made["recipe"]["parts"]["propagator"] == "cutie, 112 px"
    [masklet] = made["result"].masklets
    assert np.array_equal(masklet.sightings[0].mask.decode().numpy(), np.array(Image.open(mask)) > 0)
    done = call_masklet("track", source, "--out", tmp_path / "no", *words, "--prompt", "0:1:point=27,35", *QUIET)
    assert done.returncode != 0 and "cutie takes masks, not clicks" in done.stderr


def test_words_and_masks_of_saved_folders(
    source: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small_sam_hq().save_pretrained(tmp_path / "hq")
    small_mm_dino().save_pretrained(tmp_path / "dino")
    bert_words().save_pretrained(tmp_path / "dino")
    kind, detector = text.KINDS[text.MM_DINO]
    low = lambda *given, **more: detector(*given, **more, box_threshold=0.0, text_threshold=0.0)  # noqa: E731
    monkeypatch.setitem(text.KINDS, text.MM_DINO, (kind, low))  # drawn weights are sure of nothing
    words = ("--segmenter", f"{tmp_path / 'dino'}:{tmp_path / 'hq'}", "--text", "dog. red car.")
    made = run("run", source, "--out", tmp_path / "out", *words, "--propagator", "still", "--set", "conf=0.01")
    assert "mm-grounding-dino" in made["recipe"]["parts"]["segmenter"]
    assert "sam-hq, 64 px" in made["recipe"]["parts"]["segmenter"] and len(made["recipe"]["weights"]) == 2
    assert made["result"].masklets and made["result"].categories == ("dog", "red car")
