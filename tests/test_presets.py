"""What `--preset` stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from masklet import InputError
from masklet.presets import PRESETS, SAM2_BY_QUALITY, choose_run_parts, choose_track_parts


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder in which nothing lies, and no cache of the hub."""
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("masklet.weights.store._find_cached", lambda model: None)
    return tmp_path


def fetch(weights: Path, name: str) -> None:
    """As if `masklet weights fetch` had been there."""
    (weights / name).mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        (weights / name / file).touch()


def test_what_is_taken_where_nothing_was_fetched(weights: Path) -> None:
    run = [(p.segmenter, p.propagator) for p in map(choose_run_parts, PRESETS)]
    assert run == [("motion", "affinity"), ("auto", "affinity"), ("auto", "nano")]
    assert [choose_track_parts(p).propagator for p in PRESETS] == ["affinity", "nano", "sam2long:nano"]
    for preset in PRESETS:
        assert "weights fetch sam2.1-tiny" in choose_run_parts(preset).hint
        assert "weights fetch sam2.1-tiny" in choose_track_parts(preset).hint


def test_the_best_of_what_was_fetched(weights: Path) -> None:
    fetch(weights, "sam2.1-tiny")
    assert choose_track_parts("best").propagator == choose_run_parts("best").propagator == "sam2long:sam2.1-tiny"
    fetch(weights, SAM2_BY_QUALITY[0])
    fetch(weights, "facebook/mask2former-swin-base-coco-instance")
    best = choose_run_parts("best")
    assert (best.segmenter, best.propagator) == (
        "facebook/mask2former-swin-base-coco-instance",
        "sam2long:sam2.1-large",
    )
    assert best.hint == "" and "preset='best'" in choose_run_parts("good").hint
    assert choose_run_parts("good").segmenter == "auto"  # what was fetched is used where it is asked for


def test_sam3_is_best_where_it_is(weights: Path) -> None:
    fetch(weights, "sam2.1-tiny")
    fetch(weights, "sam3")
    assert choose_run_parts("best").text_segmenter is None  # not without its tokenizer
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (weights / "sam3" / file).touch()
    best = choose_run_parts("best")
    assert (best.segmenter, best.propagator, best.hint) == ("auto", "sam3", "")
    assert choose_track_parts("best").propagator == "sam3"
    assert best.choose_segmenter("dog.") == "sam3" and best.choose_segmenter("") == "auto"
    assert choose_run_parts("good").choose_segmenter("dog.") is None  # the library's
    assert "SAM 3 is on this machine" in choose_run_parts("good").hint


def test_there_are_three() -> None:
    for choose in (choose_run_parts, choose_track_parts):
        with pytest.raises(InputError, match="preset='quick': there are fast, good, best"):
            choose("quick")
