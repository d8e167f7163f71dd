"""DEVA's modes are one word each: what `--system deva-...` stands for, and how it is overridden."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import masklet
from masklet import InputError, api
from masklet.builtins import SYSTEMS, has_own_segmenter
from masklet.cli import app
from masklet.systems.deva.online import DevaSettings


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The segmenters that are asked for, by name, with their settings; the one that is given is `motion`."""
    calls: list[tuple[Any, ...]] = []
    load = api.load_segmenter

    def note(name: str, encoder: Any, device: str, settings: Any, *_: Any) -> Any:
        calls.append((name, dict(settings)))
        own = {**settings, "points_per_side": 3} if name.startswith("everything") else {}
        return load("everything:nano" if own else "motion", encoder, device, own)

    monkeypatch.setattr(api, "load_segmenter", note)
    return calls


def settings_of(system: str, **chosen: Any) -> dict[str, Any]:
    """What differs from the settings of "deva"."""
    own, usual = asdict(masklet.load(system, **chosen).system.settings), asdict(DevaSettings())
    return {name: value for name, value in own.items() if value != usual[name] and name != "conf"}


def test_each_mode_is_deva_with_other_settings(asked: list[Any]) -> None:
    """The paper's numbers: clips of three every five frames; every frame; the demos' in docs/deva.md."""
    assert settings_of("deva") == {}
    assert (DevaSettings().clip, DevaSettings().every, DevaSettings().max_missed) == (3, 5, 5)
    assert settings_of("deva-online") == {"clip": 1, "every": 1}
    automatic = {"look": "outside", "count": "invisible", "max_objects": 200, "overflow": "all"}
    assert settings_of("deva-automatic") == automatic
    assert settings_of("deva-text", segmenter="motion") == {"max_missed": 10}


def test_the_automatic_mode_prompts_a_grid_of_64(asked: list[Any]) -> None:
    masklet.load("deva-automatic")
    masklet.load("deva-automatic", segmenter="everything:nano", **{"segmenter.points_per_side": 5})
    masklet.load("deva-automatic", segmenter="everything:nano")
    masklet.load("deva")
    assert asked == [
        ("everything", {"points_per_side": 64}),
        ("everything:nano", {"points_per_side": 5}),
        ("everything:nano", {"points_per_side": 64}),
        ("auto", {}),
    ]
    with pytest.raises(InputError, match="look=outside: only segmenters that prompt a grid"):
        masklet.load("deva-automatic", segmenter="motion")


def test_what_the_user_says_wins(asked: list[Any]) -> None:
    assert settings_of("deva-online", every=2) == {"clip": 1, "every": 2}
    assert settings_of("deva-automatic", max_objects=None)["max_objects"] is None
    assert settings_of("deva-text", segmenter="motion", max_missed=3) == {"max_missed": 3}


def test_the_text_mode_asks_for_words() -> None:
    with pytest.raises(InputError, match=r"say what to find, such as text='dog. red car.'"):
        masklet.load("deva-text")


def test_a_preset_s_segmenter_does_not_take_the_mode_s_place(asked: list[Any], tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(tmp_path / "clip/0.png")
    for system in ("deva-automatic", "deva-online"):
        words = [
            "run",
            str(tmp_path / "clip"),
            "-o",
            str(tmp_path / system),
            "--system",
            system,
            "--preset",
            "fast",
            "-q",
        ]
        done = CliRunner().invoke(app, [*words, "--no-overlay", "--propagator", "still"])
        assert done.exit_code == 0, done.output
    assert asked == [("everything", {"points_per_side": 64}), ("motion", {})]
    assert [name for name in SYSTEMS.names if has_own_segmenter(name)] == ["deva-automatic", "deva-text"]
    assert has_own_segmenter("minvis") and not has_own_segmenter("nothing")


def test_a_live_source_has_at_most_32_objects_in_every_mode(asked: list[Any]) -> None:
    made = masklet.load("deva-online", live=True).system.settings
    assert made == replace(DevaSettings(conf=made.conf), clip=1, every=1, max_objects=32)
    assert masklet.load("deva-automatic", live=True).system.settings.max_objects == 32
    assert masklet.load("deva-automatic", live=True, max_objects=7).system.settings.max_objects == 7


def test_help_shows_the_modes_and_what_they_set() -> None:
    told = CliRunner().invoke(app, ["run", "--help-settings"]).output
    part = told[told.index("system deva-automatic:") : told.index("system deva-text:")]
    for line in (
        "--set look=outside",
        "--set max_objects=200",
        "--segmenter=everything",
        "--set segmenter.points_per_side=64",
    ):
        assert line in part
    assert "--set look=everywhere  outside: where" in told
    told = CliRunner().invoke(app, ["run", "--help"]).output
    assert all(mode in told for mode in ("deva-online", "deva-automatic", "deva-text"))
