"""What a result shows of itself in notebooks, and outside of them."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[1] / "io"))

from forms import masklet, video

from masklet import Model, VideoResult, open_video
from masklet.api import follow_progress
from masklet.core.errors import InputError
from masklet.core.result import Provenance
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.view.drawing import pick_object_colour
from masklet.view.notebook_bars import is_in_notebook, show_notebook_bars
from masklet.view.strip import FRAMES, choose_strip_frames, render_strip
from masklet.view.timeline import THICKEST, THINNEST, measure_confidence, plot_timeline


def make_result(source: str = "", length: int = 20, size: tuple[int, int] = (40, 60)) -> VideoResult:
    """A square that goes to the right a pixel a frame."""
    seen = {}
    for t in range(length):
        pixels = np.zeros(size, bool)
        pixels[10:30, t % 40 : t % 40 + 20] = True
        seen[t] = Sighting(Rle.encode_pixels(pixels), Source.FORWARD, 0.5)
    return VideoResult("clip", size, length, 10.0, (Masklet(1, seen, 0, 0.5),), ("cat",), Provenance("", source=source))


def read_images(page: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)" alt="frame (\d+)"', page)
    return [np.asarray(Image.open(BytesIO(base64.b64decode(data)))) for data, _ in found]


class Tags(HTMLParser):
    """The tags of a page with what they say, and whether all are closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append((tag, dict(attrs)))
        self.open += [tag] if tag not in ("img", "input") else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_strip_shows_masks_in_their_place() -> None:
    page = render_strip(make_result(), {0: np.full((40, 60, 3), 200, np.uint8)})
    first, *rest = images = read_images(page)
    assert len(images) == FRAMES and first.shape == (40, 60, 3)
    orange = 0.6 * 200 + 0.4 * np.array(pick_object_colour(1))
    assert np.abs(first[20, 8:12] - orange).max() < 25 and np.abs(first[5, 50] - 200.0).max() < 10
    assert rest[-1][20, 30, 0] > rest[-1][20, 5, 0] + 60 and rest[-1][5, 5].max() < 60  # on grey
    tags = Tags(page)
    assert tags.open == []
    figures = [told for tag, told in tags.seen if tag == "figure"]
    assert ["hidden" in told for told in figures] == [False] + 11 * [True]
    [slider] = [told for tag, told in tags.seen if tag == "input"]
    assert (slider["type"], slider["max"], slider["aria-label"]) == ("range", "11", "frame")
    assert "cat 1" in tags.text and "20 frames" in tags.text


def test_a_strip_is_small_whatever_the_video() -> None:
    one = make_result(length=24, size=(300, 400))
    rng = np.random.default_rng(0)
    noise = {t: rng.integers(0, 256, (300, 400, 3), np.uint8) for t in choose_strip_frames(24)}
    many = replace(one, masklets=tuple(replace(one.masklets[0], id=n) for n in range(1, 60)))
    page = render_strip(replace(many, name="n" * 9000, categories=("c" * 9000,)), noise)
    assert len(page) < 310_000
    assert "47 more objects" in page
    assert all(max(image.shape) <= 320 for image in read_images(page))


@pytest.mark.parametrize("length", [0, 1, 2, 12, 13, 108_000])
def test_frames_of_a_strip_go_from_the_first_to_the_last(length: int) -> None:
    frames = choose_strip_frames(length)
    assert len(frames) == min(length, FRAMES) and frames == sorted(set(frames))
    assert not length or (frames[0], frames[-1]) == (0, length - 1)


def test_names_cannot_be_more_than_names() -> None:
    evil = "<script>alert(1)</script>\"'&"
    result = replace(make_result(length=2), name=evil, categories=(evil,))
    tags = Tags(result._repr_html_())
    assert tags.text.count(evil) == 2 and tags.open == []
    assert "script" not in {tag for tag, _ in tags.seen}
    assert not any("://" in str(value) for _, told in tags.seen for value in told.values())


def test_nothing_in_it_is_shown_too() -> None:
    assert "no objects" in video(length=0)._repr_html_()
    assert "no objects" in video(length=1)._repr_html_()
    flat = replace(make_result(length=1), pixel_aspect=2.0)
    assert read_images(flat._repr_html_())[0].shape == (40, 120, 3)


def write_frames(folder: Path, length: int = 20, size: tuple[int, int] = (40, 60)) -> Path:
    folder.mkdir()
    for t in range(length):
        Image.fromarray(np.full((*size, 3), 200, np.uint8)).save(folder / f"{t:03d}.png")
    return folder


def test_images_are_the_video_s_where_it_is_there(tmp_path: Path) -> None:
    same = write_frames(tmp_path / "same")
    for source, bright in (
        (same, True),
        (write_frames(tmp_path / "short", 19), False),
        (write_frames(tmp_path / "large", size=(80, 120)), False),
        (tmp_path / "none", False),
        ("x" * 3000, False),
        ("\0", False),
        ("", False),
    ):
        page = make_result(str(source))._repr_html_()
        assert (read_images(page)[0][2, 50].min() > 150) == bright, source


def test_outside_of_a_notebook_the_overlay_is_a_file(tmp_path: Path, capsys: Any) -> None:
    frames = write_frames(tmp_path / "clip", 3)
    result = make_result(str(frames), 3)
    assert not is_in_notebook()
    result.show(folder=tmp_path / "out", numbers=True)
    assert capsys.readouterr().out == f"{tmp_path}/out/clip.mp4\n"
    assert len(list(open_video(tmp_path / "out" / "clip.mp4"))) == 3
    result.show(frames=str(frames))
    written = Path(capsys.readouterr().out.strip())
    assert written.is_file() and written.name == "clip.mp4"
    written.unlink()
    for source in ("", "gone.mp4"):
        with pytest.raises(InputError, match=r"is not there; give it: result.show\(frames="):
            make_result(source).show()
    with pytest.raises(InputError, match="no setting of overlay 'trail'; did you mean trails"):
        result.show(trail=3)


class Display:
    """IPython's display, as far as it is used."""

    def __init__(self) -> None:
        self.pages: list[str] = []

    def __call__(self, page: str, display_id: bool = False) -> SimpleNamespace:
        self.pages.append(page)
        place = len(self.pages) - 1
        return SimpleNamespace(update=lambda page: self.pages.__setitem__(place, page))


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Display:
    """This process as if it were a notebook's kernel."""
    shown = Display()
    stand_in = SimpleNamespace(display=shown, HTML=str, Video=lambda path, **told: (Path(path).exists(), told))
    monkeypatch.setitem(
        sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1), display=stand_in)
    )
    monkeypatch.setitem(sys.modules, "IPython.display", stand_in)
    return shown


def test_in_a_notebook_the_overlay_is_shown(notebook: Display, tmp_path: Path, capsys: Any) -> None:
    assert is_in_notebook()
    make_result(str(write_frames(tmp_path / "clip", 3)), 3).show()
    [(there, told)] = notebook.pages
    assert there and told["embed"] and told["width"] == 60
    assert capsys.readouterr().out == ""


def test_bars_in_a_notebook(notebook: Display) -> None:
    now = [0.0]
    with show_notebook_bars("<b>", lambda: now[0]) as watch:
        watch("forward", 1, 4, 0)
        now[0] = 0.1
        watch("forward", 2, 4, 3)  # too soon to be seen
        assert 'value="1" max="4"' in notebook.pages[0]
        now[0] = 2.0
        watch("forward", 4, 4, 3)
        watch("overlay", 1, None, 1)
    assert '&lt;b&gt; forward <progress value="4" max="4">' in notebook.pages[0]
    assert "4/4, 1.5 frames/s, 3 objects" in notebook.pages[0]
    assert "<progress></progress> 1, 0.0 frames/s, 1 object<" in notebook.pages[1]
    with follow_progress("clip", print, True) as told:
        told("forward", 1, 1, 1)
    assert "clip forward" in notebook.pages[2]


def test_a_row_is_as_thick_as_its_masks_are_sure() -> None:
    base = masklet(1, {0: "1"}).sightings[0]
    seen = {
        0: replace(base, score=1.0, source=Source.DETECTED),
        1: replace(base, score=0.0, source=Source.PROMPTED),
        3: replace(base, score=0.5, source=Source.FORWARD),
    }
    one = replace(masklet(1, {}), sightings=seen)
    result = replace(video(one, size=(1, 1), length=4), rate=2.0)
    edges, half = measure_confidence(result, one, (Source.DETECTED, Source.PROMPTED))
    assert edges.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert half.tolist()[:2] == pytest.approx([THICKEST, THINNEST]) and np.isnan(half[2:]).all()
    _, half = measure_confidence(result, one, (Source.FORWARD,))
    assert half[3] == pytest.approx((THICKEST + THINNEST) / 2) and np.isnan(half[:3]).all()
    long = replace(one, sightings=dict.fromkeys(range(10_001), base))
    edges, half = measure_confidence(replace(make_result(length=1), length=10_001), long, (Source.FORWARD,))
    assert len(half) == 1667 and len(edges) == 1668 and edges[-1] == pytest.approx(1000.1)


def test_a_timeline_has_a_row_for_each_object(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    one = make_result()
    many = tuple(
        replace(one.masklets[0], id=n, sightings=dict(list(one.masklets[0].sightings.items())[:n]))
        for n in range(1, 20)[::-1]
    )
    for masklets in ((), one.masklets, many * 2):
        ax = Figure().subplots()
        assert plot_timeline(replace(one, masklets=masklets, name="$x$"), ax) is ax
        assert len(ax.get_yticks()) == min(len(masklets), 30)
    ax.figure.savefig(BytesIO(), dpi=30)
    assert ax.get_title(loc="left") == r"\$x\$, without 8 objects" and ax.get_xlim() == (0.0, 2.0)
    assert [label.get_text() for label in ax.get_yticklabels()][-1] == "cat 19"
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(InputError, match="plot needs matplotlib"):
        one.plot()


def test_matplotlib_and_ipython_are_loaded_by_those_alone_who_use_them() -> None:
    script = (
        "import sys, masklet.notebook, masklet.cli, masklet.overlays, masklet.view.timeline\n"
        "print([m for m in ('matplotlib', 'IPython', 'supervision', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_a_model_is_a_line() -> None:
    class Toy:
        description = "toy squares"

    class Deva:
        segmenter, propagator = Toy(), 3

        def run(self, video: Any, watch: Any) -> Any: ...

    assert repr(Model(Deva(), "nano", "cpu")) == "<Model deva: toy squares, int, cpu>"
