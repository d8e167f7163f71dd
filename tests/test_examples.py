"""The scripts of examples/, and its adapters, asked what CVAT and Label Studio ask.

The requests in tests/requests/ have the fields that CVAT's interactors and Label Studio's backends read; their image is
one of the toys.
"""

from __future__ import annotations

import importlib.util
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from page_world import put_toys, write_world
from PIL import Image
from starlette.testclient import TestClient
from toys import ToyPropagator, World, still

import masklet
from masklet.io.exports.label_studio import decode_brush
from masklet.systems.track import Track

ROOT = Path(__file__).resolve().parent
WORLD = World([still(4, 4), still(20, 18)])


def load_example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An example with toys in place of networks."""
    spec = importlib.util.spec_from_file_location(name, ROOT.parent / "examples" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = masklet.Model(Track(ToyPropagator(), {}), ToyPropagator())
    monkeypatch.setattr(module, "load_model", lambda: model)
    return module


def read_request(name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((ROOT / "requests" / f"{name}.json").read_text())
    return told


def test_cvat_gets_the_mask_of_clicks_and_of_a_box(monkeypatch: pytest.MonkeyPatch) -> None:
    client = TestClient(load_example("cvat_function", monkeypatch).app)
    asked = read_request("cvat_interactor")
    told = client.post("/", json=asked)
    assert told.status_code == 200 and list(told.json()) == ["mask"]
    assert (np.array(told.json()["mask"], bool) == WORLD.truth(0)[0].numpy()).all()
    boxed = {**asked, "pos_points": [], "neg_points": [], "obj_bbox": [[18, 20], [24, 26]]}
    assert (np.array(client.post("/", json=boxed).json()["mask"], bool) == WORLD.truth(0)[1].numpy()).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "###"}, "image: a picture"),
        ({"pos_points": [], "neg_points": [[3, 3]]}, "points outside alone"),
        ({"pos_points": [[3]]}, "pos_points: a list of [x, y]"),
        ({"pos_points": [[99, 3]]}, "outside the 32x32 video"),
    ],
)
def test_cvat_is_told_what_is_wrong(change: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = TestClient(load_example("cvat_function", monkeypatch).app)
    told = client.post("/", json={**read_request("cvat_interactor"), **change})
    assert told.status_code == 400 and words in told.json()["error"]


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    (tmp_path / "images" / "project").mkdir(parents=True)
    for path in (tmp_path / "images" / "project" / "red.png", tmp_path / "secret.png"):
        Image.fromarray(WORLD.frame(0).image).save(path)
    return TestClient(load_example("label_studio_backend", monkeypatch).build_app(tmp_path / "images"))


def test_label_studio_gets_a_brush_mask(backend: TestClient) -> None:
    assert backend.get("/health").json()["status"] == "UP"
    assert (
        backend.post("/setup", json=read_request("label_studio_setup")).json()["model_version"].startswith("masklet-")
    )
    asked = read_request("label_studio_predict")
    [one] = backend.post("/predict", json=asked).json()["results"]
    [found] = one["result"]
    assert (found["from_name"], found["to_name"], found["value"]["brushlabels"]) == ("tag", "image", ["Dog"])
    assert (decode_brush(found["value"]["rle"], (32, 32)) == WORLD.truth(0)[0].numpy()).all()
    box = {"x": 56.25, "y": 62.5, "width": 18.75, "height": 18.75, "rectanglelabels": ["Dog"]}
    mark = {**asked["params"]["context"]["result"][0], "type": "rectanglelabels", "value": box}
    asked["params"]["context"]["result"] = [mark]
    [again] = backend.post("/predict", json=asked).json()["results"]
    assert (decode_brush(again["result"][0]["value"]["rle"], (32, 32)) == WORLD.truth(0)[1].numpy()).all()
    asked["params"]["context"] = None
    assert backend.post("/predict", json=asked).json() == {"results": []}, "nobody has marked anything yet"


@pytest.mark.parametrize(
    ("image", "config", "words"),
    [
        ("/data/local-files/?d=../secret.png", None, "no such image"),
        ("/etc/passwd", None, "no such image"),
        (None, "<View/>", "needs BrushLabels"),
        (None, "<View", "no XML"),
        (None, '<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>', "must not declare"),
    ],
)
def test_label_studio_is_told_what_is_wrong(
    image: str | None, config: str | None, words: str, backend: TestClient
) -> None:
    asked = read_request("label_studio_predict")
    asked["tasks"][0]["data"]["image"] = image or asked["tasks"][0]["data"]["image"]
    asked["label_config"] = config or asked["label_config"]
    told = backend.post("/predict", json=asked)
    assert told.status_code == 400 and words in told.json()["error"]


# -- short scripts


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a clip, a result of it and a mask, and toys in place of networks."""
    write_world(tmp_path, 6)
    monkeypatch.chdir(tmp_path)
    put_toys(monkeypatch)
    return tmp_path


def run_example(name: str, *words: Any) -> Any:
    return runpy.run_path(str(ROOT.parent / "examples" / f"{name}.py"), run_name=name)["main"](*words)


RESULT = "result/clip/masklets.json"


def check_batch(failed: list[str]) -> bool:
    return failed == ["none.mp4"] and sorted(p.name for p in Path("results").iterdir()) == ["a.json", "b.json"]


SCRIPTS: dict[str, tuple[tuple[Any, ...], Callable[[Any], bool]]] = {  # arguments, and whether what comes back is right
    "segment": (("clip.mp4",), lambda r: len(r.masklets) == 7 and masklet.VideoResult.load("masklets.json") == r),
    "click": (("clip.mp4", "310", "95"), lambda r: [len(m.sightings) for m in r.masklets] == [6]),
    "correct": (("clip.mp4", RESULT, "3", "2", "310", "95"), lambda r: Path("corrected.json").is_file()),
    "stream": (("clip.mp4",), lambda answered: answered == [0, 1, 2, 3, 4, 5]),
    "batch": (("a.mp4", "none.mp4", "b.mp4"), check_batch),
    "export": ((RESULT, "clip.mp4"), lambda made: all((Path("exports") / p.name).is_dir() for p in made)),
    "own_segmenter": (("clip.mp4",), lambda r: [len(m.sightings) for m in r.masklets] == [6]),
    "own_propagator": (
        ("clip.mp4", "mask.png"),
        lambda r: len({s.mask for s in r.masklets[0].sightings.values()}) == 1,
    ),
    "own_metric": ((RESULT, RESULT), lambda report: report.scores == {"covered": 1.0}),
    "own_format": ((RESULT,), lambda path: len(path.read_text().splitlines()) == 1 + 6 * 7),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_does_what_it_says(name: str, here: Path) -> None:
    words, is_right = SCRIPTS[name]
    assert is_right(run_example(name, *words))


def count_lines(path: Path) -> int:
    """Lines that are not blank."""
    return sum(bool(line.strip()) for line in path.read_text().splitlines())


def test_every_script_is_short_and_tested() -> None:
    scripts = {path.stem: count_lines(path) for path in (ROOT.parent / "examples").glob("*.py")}
    assert scripts.keys() == {*SCRIPTS, "cvat_function", "label_studio_backend"}
    assert all(scripts[name] < 40 for name in SCRIPTS)
