"""The page's server: who may ask, what it gives, and that it changes what it is told to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from desks import PLACES, make_desk, make_truth, take
from PIL import Image
from starlette.testclient import TestClient
from toys import ToyPropagator, World

from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.statistics import compute_statistics
from masklet.session.session import Session
from masklet.view.desk import Desk
from masklet.view.server import MOST_BODY, REFUSED, Gate, build_app
from masklet.view.verbs import VERBS

TOKEN, PORT = "t0ken-of-a-test", 4711
HOME = f"http://127.0.0.1:{PORT}"
BEARER = {"authorization": f"Bearer {TOKEN}"}

Call = Callable[..., Any]


def make_client(*desks: Desk, hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")) -> TestClient:
    return TestClient(build_app(desks, Gate(TOKEN, hosts, PORT)), base_url=HOME)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return make_desk(tmp_path / "out")


@pytest.fixture
def call(desk: Desk) -> Call:
    return make_call(desk)


def make_call(*desks: Desk) -> Call:
    """Asks one verb of a video; what comes back, or the sentence of the error."""
    client = make_client(*desks)

    def call(verb: str, video: int = 0, **given: Any) -> Any:
        told = client.post(f"/videos/{video}/{verb}", json=given, headers=BEARER)
        assert told.status_code in (200, 400), told.text
        return told.json() if told.status_code == 200 else told.json()["error"]

    return call


def wait(call: Call) -> Any:
    """What the work came to."""
    for _ in range(500):
        told = call("progress")
        if not told["running"]:
            return told
        time.sleep(0.01)
    raise AssertionError("the work does not end")


# -- who may ask


def test_nobody_sees_anything_without_the_token(desk: Desk) -> None:
    client = make_client(desk)
    paths = ("/", "/page/page.js", "/videos", "/videos/0/frames/0.jpg", f"/videos?token={TOKEN}", "/?token=other")
    for told in [*(client.get(path) for path in paths), client.post("/videos/0/describe", json={})]:
        assert told.status_code == 403 and told.text == f"masklet: {REFUSED}"
    assert client.get("/videos", headers={"authorization": "Bearer other"}).status_code == 403
    assert client.get("/videos", headers={"authorization": f"Basic {TOKEN}"}).status_code == 403


def test_the_address_with_the_token_gives_a_cookie_that_is_enough(desk: Desk) -> None:
    client = make_client(desk)
    first = client.get("/", params={"token": TOKEN}, headers={"sec-fetch-site": "cross-site"})  # a link in a notebook
    assert first.status_code == 200 and TOKEN not in first.text and 'content="0;url=/"' in first.text
    cookie = first.headers["set-cookie"].lower()
    assert cookie.startswith(f"masklet-{PORT}={TOKEN}") and "httponly" in cookie and "samesite=strict" in cookie
    assert "<!doctype html>" in client.get("/").text.lower()
    assert client.get("/videos").json() == [{"name": "toy", "objects": 3}]


def test_a_cookie_alone_changes_nothing_and_no_other_page_may_use_it(desk: Desk) -> None:
    client = make_client(desk)
    client.get("/", params={"token": TOKEN})
    drop = {"json": {"ids": [1]}}
    assert client.post("/videos/0/drop", **drop).status_code == 403  # a browser says where it comes from
    for origin in (
        "http://evil.example",
        "null",
        f"http://127.0.0.1:{PORT + 1}",
        f"http://127.0.0.1:{PORT}.evil.example",
    ):
        assert client.post("/videos/0/drop", **drop, headers={"origin": origin}).status_code == 403
        assert client.get("/videos", headers={"origin": origin}).status_code == 403
    for site in ("cross-site", "same-site"):
        assert client.get("/videos", headers={"sec-fetch-site": site}).status_code == 403
    assert len(desk.result.masklets) == 3
    assert client.post("/videos/0/drop", **drop, headers={"origin": HOME}).status_code == 200
    assert len(desk.result.masklets) == 2


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", "", "10.0.0.7:4711"]
)
def test_a_name_that_leads_here_from_elsewhere_is_refused(desk: Desk, host: str) -> None:
    told = make_client(desk).get("/", params={"token": TOKEN}, headers={"host": host})
    assert told.status_code == 403 and "set-cookie" not in told.headers


def test_other_machines_may_ask_by_address_where_the_user_wants_it(desk: Desk) -> None:
    client = make_client(desk, hosts=("127.0.0.1", "*"))
    assert client.get("/videos", headers={**BEARER, "host": f"10.0.0.7:{PORT}"}).status_code == 200
    assert client.get("/videos", headers={**BEARER, "host": f"evil.example:{PORT}"}).status_code == 403


def test_every_answer_says_that_nothing_else_may_run_or_keep_it(desk: Desk) -> None:
    client = make_client(desk)
    answers = [client.get(path, headers=BEARER) for path in ("/", "/page/page.js", "/videos", "/nowhere")]
    for told in (*answers, client.get("/"), client.post("/videos/0/nothing", json={}, headers=BEARER)):
        policy = told.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        assert told.headers["x-content-type-options"] == "nosniff" and told.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/page/../server.py",
            "/page/..%2fserver.py",
            "/page/%2e%2e/server.py",
            "/page/index.html",
            "/page//etc/passwd",
        ),
        *("/videos/0/frames/../../../etc/passwd", "/videos/0/frames/-1.jpg", "/videos/0/frames/16.jpg"),
        *(
            "/videos/1/frames/0.jpg",
            "/videos/0/frames/0.jpg?side=x",
            f"/videos/0/frames/{10**30}.jpg",
            "/static/page.js",
        ),
    ],
)
def test_no_file_is_read_that_a_request_names(desk: Desk, path: str) -> None:
    told = make_client(desk).get(path, headers=BEARER)
    assert told.status_code == 404 and "import" not in told.text and "root:" not in told.text


# -- what it gives


def test_frames_and_masks_are_those_of_the_very_frame(desk: Desk, call: Call) -> None:
    client = make_client(desk)
    world, told = World(PLACES), call("masks", start=4, stop=9)
    assert told["start"] == 4 and len(told["frames"]) == 5
    for n, rows in enumerate(told["frames"]):
        image = client.get(f"/videos/0/frames/{4 + n}.jpg", headers=BEARER)
        assert image.headers["content-type"] == "image/jpeg"
        pixels = np.asarray(Image.open(BytesIO(image.content)))
        assert np.abs(pixels.astype(int) - world.frame(4 + n).image).mean() < 12  # JPEG, small squares
        want = [[m.id, s.mask.counts.decode(), s.source.value] for m, s in desk.result.at(4 + n)]
        assert [row[:3] for row in rows] == want


def test_windows_end_with_the_video_and_are_never_long(tmp_path: Path) -> None:
    call = make_call(make_desk(tmp_path, World(PLACES, length=100)))
    assert [len(call("masks", start=a, stop=b)["frames"]) for a, b in ((0, 100), (90, 200), (100, 101), (7, 7))] == [
        64,
        10,
        0,
        0,
    ]


def test_frames_are_reduced_for_small_pages_and_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from masklet.view import frame_store

    world = World(PLACES, length=60)
    store = frame_store.FrameStore(world)
    assert Image.open(BytesIO(store.read_jpeg(3, 16))).size == (16, 16)
    for t in (10, 11, 12, 13):
        store.read_jpeg(t)
    assert world.reads == 1 + 1 + frame_store.AHEAD  # one alone, one alone, then those that follow
    monkeypatch.setattr(frame_store, "MOST_BYTES", 5_000)
    for t in range(60):
        store.read_jpeg(t)
    assert store._bytes == sum(map(len, store._kept.values())) <= 5_000


def test_the_timeline_says_when_each_object_is_seen_and_how(call: Call, desk: Desk) -> None:
    told = call("timeline", start=0, stop=16, bins=16)
    assert {id: row["sources"] for id, row in told["objects"].items()} == {"1": "d" * 16, "2": "f" * 16, "3": "b" * 16}
    assert told["objects"]["2"]["scores"] == "5" * 16  # 0.6 of 9
    half = call("timeline", start=8, stop=40, bins=4)
    assert (half["start"], half["stop"], half["bins"]) == (8, 16, 4) and half["objects"]["1"]["shares"] == "9999"


def test_suspicious_frames_are_those_of_the_statistics(tmp_path: Path) -> None:
    world = World([lambda t: (3, 1) if t < 40 else (20, 20), lambda t: (12, 3)], length=80)
    desk = make_desk(tmp_path, world)
    call = make_call(desk)
    while (told := call("suspicious"))["done"] < 1:
        time.sleep(0.01)
    want = compute_statistics(desk.result).suspicious
    assert told["frames"] == [[s.frame, s.id, s.reason, round(s.value, 3)] for s in want] and want


def test_names_are_given_as_they_are(tmp_path: Path) -> None:
    odd = "<script>alert(1)</script>", "half \ud800 a character", "\x1b[31m"
    call = make_call(make_desk(tmp_path, result=make_truth(World(PLACES), odd)))
    assert [one["name"] for one in call("describe")["objects"]] == list(odd)


# -- what is wrong with a request


@pytest.mark.parametrize(
    ("verb", "given", "words"),
    [
        ("nothing", {}, "no verb 'nothing'; there are: describe"),
        ("split", {"id": 1}, "give frame, the frame's number"),
        ("split", {"id": 1, "frame": 2, "more": 1}, "no argument 'more'; there are: id, frame"),
        ("split", {"id": True, "frame": 2}, "id must be a whole number"),
        ("split", {"id": 1, "frame": 0}, "not seen both before frame 0"),
        ("drop", {"ids": [1, "2"]}, "ids must be a list of whole numbers"),
        ("drop", {"ids": [9]}, "no object 9; there are: 1, 2, 3"),
        ("rename", {"id": 1, "name": 5}, "name must be a text"),
        ("rename", {"id": 1, "name": ""}, "is empty; give it one"),
        ("prompt", {"frame": 3, "id": 1, "points": []}, "needs a box, or a click"),
        ("prompt", {"frame": 3, "id": None, "points": [[1, 1, False]]}, "points outside alone"),
        ("prompt", {"frame": 16, "id": 1, "points": [[1, 1, True]]}, "no frame 16"),
        ("prompt", {"frame": 3, "id": 1, "points": [[1, 1]]}, "a point is"),
        ("prompt", {"frame": 3, "id": 1, "points": [[1, "x", True]]}, "y must be a number"),
        ("prompt", {"frame": 3, "id": 1, "box": [5, 5, 5, 9]}, "has no inside"),
        ("paint", {"frame": 3, "id": 1, "counts": "00"}, "run lengths"),
        ("paint", {"frame": 3, "id": 1, "counts": "é"}, "run lengths"),
        ("compare", {"other": "../../etc/passwd"}, "to compare with"),
        ("undo", {}, "nothing to undo"),
        ("redo", {}, "nothing to redo"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_done_says_why(call: Call, desk: Desk, verb: str, given: Any, words: str) -> None:
    before = desk.result
    assert words in call(verb, **given) and desk.result is before


def test_bodies_are_json_objects_of_a_bounded_size(desk: Desk) -> None:
    client = make_client(desk)

    def send(data: bytes, kind: str = "application/json") -> str:
        told = client.post("/videos/0/describe", content=data, headers={**BEARER, "content-type": kind})
        assert told.status_code == 400
        return str(told.json()["error"])

    assert send(b"{}", "text/plain") == "request: send application/json"  # what a form of another page can send
    assert send(b"{") == "request: no JSON" == send(b"[" * 10**6)
    assert "named arguments" in send(b"[]")
    assert "larger than" in send(b" " * (MOST_BODY + 1))


def test_the_verbs_are_one_table_with_a_line_of_help_each() -> None:
    for name, verb in VERBS.items():
        assert verb.name == name and verb.help.endswith(".")
        for argument in verb.arguments.values():
            assert json.dumps(argument.kind.schema) and argument.help


# -- what it changes


def ids(result: VideoResult) -> list[int]:
    return [m.id for m in result.masklets]


def test_edits_are_those_of_the_library_and_are_undone_and_done_again(call: Call, desk: Desk) -> None:
    before = desk.result
    steps = [
        (("rename", {"id": 2, "name": "frog"}), before.rename(2, "frog")),
        (("merge", {"ids": [1, 3]}), before.rename(2, "frog").merge(1, 3)),
        (("split", {"id": 1, "frame": 5}), before.rename(2, "frog").merge(1, 3).split(1, 5)),
        (("drop", {"ids": [2]}), before.rename(2, "frog").merge(1, 3).split(1, 5).drop(2)),
    ]
    for (verb, given), want in steps:
        told = call(verb, **given)
        assert desk.result == want and told["edits"] == list(want.provenance.edits) and told["unsaved"]
    revisions = {call("describe")["revision"]}
    for _, want in reversed([(None, before), *steps[:-1]]):
        revisions.add(call("undo")["revision"])
        assert desk.result == want
    assert not call("describe")["can_undo"]
    for _, want in steps:
        revisions.add(call("redo")["revision"])
        assert desk.result == want
    assert len(revisions) == 9  # a page that has masks of another revision knows it


def test_a_prompt_answers_in_its_frame_and_propagation_carries_it_on(tmp_path: Path) -> None:
    world = World(PLACES)
    truth = make_truth(world)
    desk = make_desk(tmp_path, world, take(truth, 2, 3))
    call = make_call(desk)
    told = call("prompt", frame=4, points=[[7, 5, True]])
    assert told["id"] == 4 and [one["frames"] for one in told["objects"]] == [16, 16, 1]
    assert desk.result.masklets[-1].sightings[4].mask == truth.masklets[0].sightings[4].mask
    call("propagate", id=4)
    told = wait(call)
    assert told["error"] == "" and told["can_undo"]
    want = {t: s.mask for t, s in truth.masklets[0].sightings.items()}
    assert {t: s.mask for t, s in desk.result.masklets[-1].sightings.items()} == want
    assert desk.result.masklets[:2] == take(truth, 2, 3).masklets


def test_undo_goes_back_beyond_the_first_prompt_and_on_again(call: Call, desk: Desk) -> None:
    before = desk.result
    call("rename", id=1, name="frog")
    call("confirm", frame=3, id=1)
    confirmed = desk.result
    call("undo")
    assert desk.result == before.rename(1, "frog")
    assert call("undo")["can_redo"] and desk.result == before
    call("redo")
    call("redo")
    assert desk.result == confirmed
    call("undo")
    call("undo")
    assert not call("drop", ids=[2])["can_redo"]  # another way was taken
    assert ids(desk.result) == [1, 3] and call("undo")["can_redo"] and desk.result == before


def test_a_painted_mask_is_taken_as_it_is(call: Call, desk: Desk) -> None:
    pixels = np.zeros((32, 32), bool)
    pixels[2:9, 4:30] = True
    assert call("paint", frame=2, id=2, counts=Rle.encode_pixels(pixels).counts.decode())["id"] == 2
    assert (desk.result.masklets[1].sightings[2].mask.decode_pixels() == pixels).all()
    assert call("paint", frame=2, counts=Rle.encode_pixels(pixels).counts.decode())["id"] == 4


class SlowPropagator(ToyPropagator):
    """Takes its time, so that somebody can stop it."""

    def encode(self, frames: Any) -> Any:
        time.sleep(0.02)
        return super().encode(frames)


def test_work_is_told_stopped_and_waited_for(tmp_path: Path) -> None:
    world = World(PLACES, length=400)
    desk = make_desk(tmp_path, world)
    desk.make_session = lambda begun: Session(world, SlowPropagator(), begun)
    call = make_call(desk)
    call("confirm", frame=0, id=1)
    call("propagate", id=1, start=0, stop=400)
    assert "wait until the work (propagate) is done" in call("drop", ids=[2])
    while not (told := call("progress"))["done"]:
        time.sleep(0.01)
    assert told["running"] and told["total"] == 399
    assert call("masks", start=0, stop=4)["frames"]  # looking goes on
    call("stop")
    told = wait(call)
    assert told["error"] == "stopped" and 0 < told["done"] < 399
    assert ids(desk.result) == [1, 2, 3] and "drop 2" in call("drop", ids=[2])["edits"]


def test_a_part_that_fails_costs_its_work_alone(tmp_path: Path) -> None:
    world = World(PLACES)

    class BrokenPropagator(ToyPropagator):
        def predict(self, memory: Any, features: Any) -> Any:
            raise ZeroDivisionError("no such thing")

    desk = make_desk(tmp_path, world)
    desk.make_session = lambda begun: Session(world, BrokenPropagator(), begun)
    call = make_call(desk)
    call("confirm", frame=0, id=1)
    call("propagate", id=1, start=0, stop=9)
    assert wait(call)["error"] == "ZeroDivisionError: no such thing"
    assert call("drop", ids=[2])["can_undo"]


def test_without_its_video_a_result_has_no_frames_and_no_prompts(tmp_path: Path) -> None:
    desk = replace(make_desk(tmp_path), frames=None, make_session=None)
    call = make_call(desk)
    told = call("describe")
    assert not told["has_frames"] and not told["can_prompt"]
    assert "give it by `video`" in call("confirm", frame=0, id=1)
    assert make_client(desk).get("/videos/0/frames/0.jpg", headers=BEARER).status_code == 404
    assert "merge 1 2" in call("merge", ids=[1, 2])["edits"]


# -- where results go


def test_saving_replaces_only_what_was_saved_from_here(tmp_path: Path) -> None:
    first, second = (make_desk(tmp_path) for _ in range(2))
    one, two = make_call(first), make_call(second)
    one("rename", id=1, name="frog")
    path = Path(one("save")["path"])
    assert path == tmp_path / "toy" / "masklets.json" and VideoResult.load(path) == first.result
    assert not one("describe")["unsaved"]
    one("drop", ids=[1])
    assert one("save")["path"] == str(path) and VideoResult.load(path) == first.result
    assert two("save")["path"] == str(tmp_path / "toy-2" / "masklets.json")
    assert VideoResult.load(path) == first.result


def test_exports_are_those_of_the_command_line(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    call = make_call(desk)
    call("drop", ids=[2])
    call("export", form="coco")
    told = wait(call)
    assert told["error"] == "" and told["value"] == str(tmp_path / "toy-coco")
    content = json.loads((tmp_path / "toy-coco" / "annotations.json").read_text())
    assert len(content["annotations"]) == 32 and len(list((tmp_path / "toy-coco" / "images" / "toy").iterdir())) == 16
    call("export", form="coco")
    assert wait(call)["value"] == str(tmp_path / "toy-coco-2")
    for odd in ("../coco", "nothing", ""):
        call("export", form=odd)
        assert wait(call)["error"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toy-coco", "toy-coco-2"]


def test_a_comparison_measures_each_frame(tmp_path: Path) -> None:
    world = World(PLACES)
    truth = make_truth(world)
    other = replace(truth, masklets=(truth.masklets[1], replace(truth.masklets[0], id=7)))
    desk = make_desk(tmp_path, world, take(truth, 1, 2).trim(0, 8, 1), others={"truth": other})
    call = make_call(desk)
    call("compare", other="truth")
    told = wait(call)["value"]
    assert told["frames"] == list(range(16)) and told["only_here"] == told["only_there"] == []
    pairs = {(p["here"], p["there"]): p for p in told["pairs"]}
    assert pairs[1, 7]["frames"] == [1.0] * 8 + [0.0] * 8 and pairs[1, 7]["iou"] == 0.5
    assert pairs[2, 2]["frames"] == [1.0] * 16
    assert [row[0] for row in call("other_masks", other="truth", start=0, stop=1)["frames"][0]] == [2, 7]


def test_a_click_beside_an_object_alone_corrects_the_mask_that_is_there(desk: Desk, call: Call) -> None:
    told = call("prompt", frame=3, id=1, points=[[6, 5, False]])
    assert told["id"] == 1 and told["edits"][-1] == "prompt 1 3 outside=6,5"
