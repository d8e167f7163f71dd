"""Where a result says that its video is, however that was given: it is found there again, and so are its frames' names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import write_clip
from PIL import Image
from toys import ToyPropagator

import masklet
from masklet.core.result import VideoResult
from masklet.evaluate.prediction_form import index_annotated_frames
from masklet.io.video.sources import find_own_video, list_own_frame_names, open_video, reopen_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("own")
    write_clip(made / "clip.mp4", frames=8)
    (made / "frames").mkdir()
    for n in range(8):
        Image.fromarray(np.full((16, 20, 3), 20 * n, np.uint8)).save(made / "frames" / f"shot{5 * n:03}.png")
    return made


WAYS: dict[str, Any] = {
    "file": lambda at: at / "clip.mp4",
    "open file": lambda at: open_video(at / "clip.mp4"),
    "part of a file": lambda at: open_video(at / "clip.mp4", start=1, stride=2, max_side=20),
    "folder": lambda at: at / "frames",
    "glob": lambda at: str(at / "frames" / "*.png"),
    "glob of some": lambda at: str(at / "frames" / "shot00*.png"),
    "images": lambda at: tuple(sorted((at / "frames").iterdir())),
    "part of a folder": lambda at: open_video(at / "frames", stride=3, max_side=10),
    "part of images": lambda at: open_video(sorted((at / "frames").iterdir()), start=2),
}


@pytest.fixture(params=WAYS)
def result(request: pytest.FixtureRequest, folder: Path) -> VideoResult:
    with masklet.open(WAYS[request.param](folder), propagator=ToyPropagator()) as session:
        return session.result


def test_the_video_of_a_result_is_found_again_however_it_was_given(result: VideoResult, tmp_path: Path) -> None:
    with reopen_video(result, find_own_video(result), {}) as video:
        assert (video.size, len(video)) == (result.size, result.length)
    assert "data:image/jpeg" in result._repr_html_()
    result.show(folder=tmp_path / "film")


def test_frames_are_called_as_the_images_that_were_chosen(result: VideoResult) -> None:
    names = list_own_frame_names(result)
    if result.provenance.source.endswith(".mp4"):
        assert not names
        return
    chosen = result.provenance.settings.get("reading", {})
    own = [f"shot{5 * n:03}" for n in range(chosen.get("start", 0), 8, chosen.get("stride", 1))][: result.length]
    assert list(names) == own
    assert index_annotated_frames(result, own[1:]) == list(range(1, len(own)))


@pytest.mark.parametrize("source", ["", "none.mp4", "*.mp4", "x" * 5000, "a\0b", "/dev/null", "ndarray"])
def test_what_is_no_video_any_more_is_not_found(source: str, folder: Path) -> None:
    made = masklet.Provenance("session", source=source)
    result = VideoResult("a", (16, 20), 8, 25.0, (), (), made)
    assert find_own_video(result) == "" and not list_own_frame_names(result)
    with pytest.raises(masklet.InputError, match="is not there"):
        result.show()
