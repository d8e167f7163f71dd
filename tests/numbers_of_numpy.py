"""What numbers of numpy and torch do at each door of the library; run by `test_doors.py` in a process of its own, for
types are not checked there, as they are not at a user's.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

import masklet
from masklet import Box, Clicks, InputError, Masklet, Point, Provenance, Rle, Sighting, Source, VideoResult

FULL = Rle.encode_pixels(np.ones((16, 24), bool))
VIDEO = np.zeros((6, 16, 24, 3), np.uint8)
SQUARE = np.zeros((16, 24), bool)
SQUARE[4:10, 4:10] = True


def list_no_prompts() -> list[object]:
    return [
        Box("1", 2, 3, 4),
        Point(None, 2),
        Clicks(Point(3, 3)),
        Clicks([(3, 3)]),
        [[1, 2], [3]],
        np.full((16, 24), "x"),
        np.full((16, 24), {}),
        np.full((16, 24), np.nan),
    ]


def make(length: object, rate: object, ids: object, frames: object, label: object, score: object) -> VideoResult:
    seen = Sighting(FULL, Source.FORWARD, score, label, score)
    masklets = tuple(Masklet(id, dict.fromkeys(frames, seen), label, score) for id in ids)
    return VideoResult("a", (16, 24), length, rate, masklets, ("cat", "dog"), Provenance("test", {"conf": score}))


def check_results(out: Path) -> None:
    plain = make(6, 25.0, [3, 4], [0, 2], 1, 0.5)
    for ids in (np.arange(3, 5), torch.arange(3, 5)):
        made = make(np.int64(6), np.float32(25), ids, np.arange(0, 3, 2), np.int64(1), np.float32(0.5))
        made.save(out / "r.json")
        assert VideoResult.load(out / "r.json") == plain
    for form in ("coco", "ytvis", "labelme"):
        made.export(form, out / form)
    opened = VideoResult.open(out / "r.json")
    tracked = masklet.track(VIDEO[:3], {np.int64(0): {np.int64(1): SQUARE}}, propagator="affinity")
    tracked.save(out / "tracked.json")
    for result, seen in ((plain, 2), (opened, 2), (tracked, 1)):
        assert len(result.at(np.int64(2))) == len(result.at(2)) == seen, result
        assert (np.uint8(2) in result.masklets[0].sightings) == (seen > 0)
    assert plain.trim(*np.arange(2)).masklets == plain.trim(0, 1).masklets


def check_session(out: Path) -> None:
    sessions = [masklet.open(VIDEO, propagator="affinity") for _ in range(2)]
    [zero, one, three] = np.array([0, 1, 3])
    for session, a, b, c in ((sessions[0], 0, 1, 3), (sessions[1], zero, one, three)):
        session.prompt(a, b, Box(*np.array([4, 4, 10, 10], np.float32)))
        session.prompt(c, 2, Point(c, b))
        session.paint(c, b, SQUARE)
        session.confirm(b, b)
        session.propagate(b, a, c)
        session.edit("trim", start=a, stop=4, ids=np.array([1]))
        session.edit("merge", ids=np.array([1, 2]))
    sessions[1].save(out / "session")
    assert sessions[0].result == sessions[1].result
    assert masklet.open(VIDEO, propagator="affinity", session=out / "session").anchors == sessions[0].anchors


def check_refusals(out: Path) -> None:
    plain = make(6, 25.0, [3, 4], [0, 2], 1, 0.5)
    for edit in (
        lambda: plain.trim(0.0, 2),
        lambda: plain.trim("0", 2),
        lambda: plain.split(3, "1"),
        lambda: plain.drop(3.0),
        lambda: plain.filter(labels="dog"),
        lambda: plain.at("2"),
        lambda: plain.at(2.5),
        lambda: VideoResult("a", (16, 24), 6, 25.0, (), ("cat", 3), Provenance("test")).save(out / "s.json"),
        lambda: make(6, 25.0, [3], [0], 1, {1}).save(out / "s.json"),
        *(lambda told=told: masklet.track(VIDEO, {0: {1: told}}, propagator="flow") for told in list_no_prompts()),
        lambda: masklet.track(VIDEO, [SQUARE], propagator="flow"),
        lambda: masklet.load("sam2bmp", segmenter="motion", conf=np.float32("nan")),
        lambda: masklet.load("sam2bmp", segmenter="motion", conf=np.array([0.5, 0.6])),
    ):
        try:
            edit()
        except InputError:
            continue
        raise AssertionError("not refused")
    assert not (out / "s.json").exists()


def check_settings() -> None:
    model = masklet.load("sam2bmp", segmenter="motion", conf=np.float32(0.5), max_objects=np.int64(3))
    assert (model.system.settings.conf, model.system.settings.max_objects) == (0.5, 3)
    json.dumps(asdict(model.system.settings))


if __name__ == "__main__":
    check_results(Path(sys.argv[1]))
    check_settings()
    check_session(Path(sys.argv[1]))
    check_refusals(Path(sys.argv[1]))
