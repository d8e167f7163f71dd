"""`masklet view` and `masklet report`, as a user calls them; the page itself is tested in tests/view."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image
from typer.testing import CliRunner

from masklet.cli import app, view
from masklet.cli.view import Reading, open_desks, save_unsaved
from masklet.core.errors import InputError
from masklet.core.instances import Box
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.view.desk import Desk


def make_result(name: str = "clip", source: str = "") -> VideoResult:
    pixels = np.zeros((8, 10), bool)
    pixels[1:4, 1:5] = True
    seen = {t: Sighting(Rle.encode_pixels(pixels), Source.DETECTED, 0.5, 0) for t in range(3)}
    return VideoResult(name, (8, 10), 3, 25.0, (Masklet(1, seen, 0, 0.5),), ("cat",), Provenance("hand", source=source))


def write_frames(folder: Path, size: tuple[int, int] = (8, 10), length: int = 3) -> Path:
    folder.mkdir(parents=True)
    for t in range(length):
        Image.fromarray(np.full((*size, 3), 50 * t, np.uint8)).save(folder / f"f{t}.png")
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """out/clip with its video where it says, out/other without one."""
    for name in ("clip", "other"):
        (tmp_path / "out" / name).mkdir(parents=True)
    make_result("clip", str(write_frames(tmp_path / "frames"))).save(tmp_path / "out" / "clip" / "masklets.json")
    make_result("other", str(tmp_path / "gone.mp4")).save(tmp_path / "out" / "other" / "masklets.json")
    return tmp_path


def run(*words: Any) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Desk]:
    """What would be served, in place of serving it; what is read is read before it is closed."""
    found: list[Desk] = []

    def look(desks: Any, *rest: Any) -> None:
        found.extend(desks)
        for desk in desks:
            if desk.frames is not None:
                assert desk.frames.read_jpeg(2)

    monkeypatch.setattr(view, "serve_page", look)
    return found


def test_results_find_their_videos_or_say_that_they_do_not(saved: Path, opened: list[Desk]) -> None:
    assert run("view", saved / "out")[0] == 0
    clip, other = opened
    assert (clip.name, other.name) == ("clip", "other") and clip.frames is not None and clip.notes == ()
    assert other.frames is None and other.make_session is None and "give it by --video" in other.notes[0]
    assert list(clip.others) == ["other"]  # one is compared with the other
    assert ("overlay" in dict(clip.forms), "overlay" in dict(other.forms)) == (True, False)


def test_a_video_that_is_told_must_be_that_of_the_result(saved: Path, opened: list[Desk]) -> None:
    assert run("view", saved / "out" / "other", "--video", saved / "frames")[0] == 0
    assert opened[0].frames is not None
    code, text = run("view", saved / "out" / "other", "--video", write_frames(saved / "large", (16, 20)))
    assert code == 2 and "its frames are 20x16, those of the result other 10x8" in " ".join(text.split())
    assert run("view", saved / "out" / "clip", "--stride", "2")[0] == 0
    assert opened[1].frames is None and "has 2 frames, the result clip 3" in opened[1].notes[0]


def test_a_video_in_which_nothing_is_marked(saved: Path, opened: list[Desk]) -> None:
    assert run("view", saved / "frames", "--max-side", "5", "-o", saved / "mine")[0] == 0
    [desk] = opened
    assert (desk.result.size, desk.result.length, desk.result.masklets) == ((4, 5), 3, ())
    assert desk.out == saved / "mine" / "frames" and desk.make_session is not None
    assert desk.result.provenance.source == str(saved / "frames")


def test_what_was_begun_in_a_bare_video_is_read_again(saved: Path) -> None:
    with ExitStack() as stack:
        [desk] = open_desks([str(saved / "frames")], [], [], saved / "mine", Reading(propagator="affinity"), stack)
        desk.take_session().prompt(0, None, Box(2, 2, 6, 6))
        desk.save()
        assert VideoResult.load(saved / "mine" / "frames") == desk.result


def test_what_cannot_be_saved_costs_nothing_else(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was not saved is saved when the server ends."""
    with ExitStack() as stack:
        sources = [str(saved / "out" / name) for name in ("clip", "other")]
        desks = open_desks(sources, [], [], saved / "mine", Reading(), stack)
        for desk in desks:
            desk.editor.edit("rename", id=1, name="cat")
        (saved / "mine").mkdir()
        desks[0].out = saved / "frames" / next((saved / "frames").iterdir()).name / "clip"
        with pytest.raises(InputError, match="cannot be written"):
            save_unsaved(desks)
    assert f"saved: {saved / 'mine' / 'other' / 'masklets.json'}" in capsys.readouterr().out.replace("\n", "")


def test_what_is_compared_with_is_a_result_or_label_images(saved: Path, opened: list[Desk]) -> None:
    code, text = run("export", "davis", saved / "out" / "clip", "-o", saved / "davis")
    assert code == 0, text
    labels = next(saved.glob("davis/**/*.png")).parent
    code, text = run("view", saved / "out" / "clip", "--compare", labels, "--compare", saved / "out" / "other")
    assert code == 0, text
    assert list(opened[0].others) == [f"{labels.parent.name}/{labels.name}", "out/other"]
    assert opened[0].result.compare(opened[0].others["out/other"]).mean_iou == 1.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.mp4"], "no such file"),
        (["odd.json"], "odd.json"),
        (["out/clip", "--compare", "frames"], "palette images"),
        (["out/clip", "--port", "1", "--host", "203.0.113.9"], "cannot listen there"),
    ],
)
def test_what_cannot_be_opened_is_told_in_a_sentence(
    saved: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(saved)
    Path("odd.json").write_text("{}")
    code, text = run("view", *words)
    assert code == 2 and message in " ".join(text.split()) and "Traceback" not in text


def test_the_server_tells_its_address_and_saves_what_was_not(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []

    def serve(self: uvicorn.Server, sockets: Any) -> None:
        [listening] = sockets
        served.append((self.config, listening.getsockname()))
        raise KeyboardInterrupt

    def open_and_edit(*given: Any) -> Any:
        desks = original(*given)
        desks[0].editor.edit("rename", id=1, name="dog")
        return desks

    original = view.open_desks
    monkeypatch.setattr(uvicorn.Server, "run", serve)
    monkeypatch.setattr(view, "open_desks", open_and_edit)
    code, text = run("view", saved / "out", "--no-browser", "-o", saved / "mine")
    config, (host, port) = served[0]
    assert code == 0 and host == "127.0.0.1" and f"http://127.0.0.1:{port}/?token=" in text
    assert config.app.gate.hosts == ("127.0.0.1", "localhost", "[::1]") and len(config.app.gate.token) > 30
    assert f"saved: {saved / 'mine' / 'clip' / 'masklets.json'}" in text.replace("\n", "").replace("saved", "saved")
    assert VideoResult.load(saved / "mine" / "clip" / "masklets.json").categories == ("cat", "dog")
    assert not (saved / "mine" / "other").exists()


# -- reports


def read_data(page: Path) -> Any:
    text = page.read_text()
    start = text.index('<script id="data" type="application/json">') + 42
    return json.loads(text[start : text.index("</script>", start)])


def test_a_report_is_one_file_with_everything_in_it(saved: Path) -> None:
    code, text = run("report", saved / "out" / "clip", "-o", saved / "r.html", "-q")
    assert code == 0 and text.strip().replace("\n", "") == str(saved / "r.html")
    page, data = (saved / "r.html").read_text(), read_data(saved / "r.html")
    assert len(data["images"]) == len(data["masks"]) == 3 and not data["describe"]["can_prompt"]
    assert data["timeline"]["objects"]["1"] == {"sources": "ddd", "scores": "555", "shares": "999"}
    assert "/page/page.js" not in page and "default-src 'none'" in page
    code, text = run("report", saved / "out" / "clip", "-o", saved / "r.html")
    assert code == 2 and "--overwrite" in text
    assert run("report", saved / "out" / "clip", "-o", saved / "r.html", "--overwrite", "-q")[0] == 0
    assert run("report", saved / "out" / "clip", "-o", saved / "new" / "folder" / "r.html", "-q")[0] == 0
    code, text = run("report", saved / "out" / "clip", "-o", saved / "r.html" / "r.html", "-q")
    assert code == 2 and "cannot be written" in " ".join(text.split())


def test_a_report_without_its_video_has_masks_alone(saved: Path) -> None:
    code, text = run("report", saved / "out" / "other", "-o", saved / "r.html", "-q")
    data = read_data(saved / "r.html")
    assert code == 0 and "give it by --video" in " ".join(text.split())
    assert not data["describe"]["has_frames"] and data["images"] == [] and len(data["masks"]) == 3


def test_a_report_that_is_too_large_for_one_file_is_a_folder(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("masklet.view.report.MOST_BYTES", 1000)
    code, text = run("report", saved / "out" / "clip", "-o", saved / "r.html", "-q")
    assert code == 2 and "make a folder of it (--folder)" in text and not (saved / "r.html").exists()
    assert run("report", saved / "out" / "clip", "-o", saved / "r", "--folder", "-q")[0] == 0
    assert sorted(p.name for p in (saved / "r").iterdir()) == ["frames", "index.html", "masks"]
    assert len(list((saved / "r" / "frames").iterdir())) == 3 and (saved / "r" / "masks" / "0.js").is_file()
    assert run("report", saved / "out" / "clip", "-o", saved / "r", "--folder", "-q")[0] == 2
    short = replace(make_result(source=str(saved / "frames")), length=5)
    short.save(saved / "out" / "clip" / "masklets.json")
    code, text = run("report", saved / "out" / "clip", "-o", saved / "s", "--folder", "--video", saved / "frames")
    assert code == 2 and "has 3 frames, the result clip 5" in " ".join(text.split()) and not (saved / "s").exists()
