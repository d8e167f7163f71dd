"""What is found out beside the showing is what would be found at once, whatever the windows."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).resolve().parents[1] / "io"))

from desks import PLACES, make_truth
from forms import drafts, made
from toys import World

from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.statistics import compute_statistics
from masklet.core.timeline import LETTERS, bin_track, guess_presence, trace_presence
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.view import survey as survey_module
from masklet.view.survey import QUIET, Courtesy, Survey


@given(drafts(ids=st.integers(1, 50)), st.integers(1, 5))
@settings(max_examples=40)
def test_windows_find_what_one_look_finds(draft, window) -> None:
    result, before = made(draft), survey_module.WINDOW
    survey_module.WINDOW = window
    try:
        survey = Survey(result)
        survey.run()
    finally:
        survey_module.WINDOW = before
    assert tuple(survey.suspicious) == compute_statistics(result).suspicious
    assert survey.done == 1.0 and not survey.damage


@given(st.lists(st.sampled_from([(0, 20), (30, 20), (30, 26), (60, 20)]), min_size=12, max_size=16), st.integers(1, 5))
@settings(max_examples=40)
def test_windows_find_the_same_jumps_and_begin_no_event_anew(places, window) -> None:
    seen = {}
    for t, (x, side) in enumerate(places):
        pixels = np.zeros((60, 99), bool)
        pixels[9 : 9 + side, 5 + x : 5 + x + side] = True
        seen[t] = Sighting(Rle.encode_pixels(pixels), Source.FORWARD)
    made_of = Masklet(1, seen)
    result = VideoResult("clip", (60, 99), len(places), 25.0, (made_of,), (), Provenance("test"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey_module, "WINDOW", window)
        survey = Survey(result)
        survey.run()
    assert tuple(survey.suspicious) == compute_statistics(result).suspicious


@given(drafts(), st.integers(1, 9))
@settings(max_examples=40)
def test_bins_say_what_frames_say(draft, bins) -> None:
    result = made(draft)
    for m in result.masklets:
        track = trace_presence(m, result.length)
        assert track.count == len(m.sightings) and track.span == (min(m.sightings), max(m.sightings))
        each = bin_track(track, 0, result.length, result.length)
        assert [c != "." for c in each.sources] == [t in m.sightings for t in range(result.length)]
        binned = bin_track(track, 0, result.length, bins)
        assert len(binned.sources) == len(binned.shares) == len(binned.scores) == min(bins, result.length)
        assert (np.array(list(binned.shares)) == "0").sum() == binned.sources.count(".")


def test_a_result_on_the_disk_is_looked_at_without_its_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = make_truth(World(PLACES, length=600))  # more than a block of the file
    truth.save(tmp_path / "r.json")
    stored = VideoResult.open(tmp_path / "r.json")
    monkeypatch.setattr("masklet.core.stored_result.read_sighting", None)  # which decodes
    for known, m in zip(truth.masklets, stored.masklets, strict=True):
        assert (trace_presence(m, 600).codes == trace_presence(known, 600).codes).all()
        assert (trace_presence(m, 600).scores == trace_presence(known, 600).scores).all()
        guess = guess_presence(m, 600)
        assert {LETTERS[code] for code in guess.codes} <= {"?", "."} and (guess.codes > 0).sum() >= len(m.sightings)


def test_what_is_the_same_after_an_edit_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = make_truth(World(PLACES))
    first = Survey(truth)
    first.run()
    looked: list[int] = []
    monkeypatch.setattr(survey_module, "trace_presence", lambda m, n: looked.append(m.id) or trace_presence(m, n))
    second = Survey(truth.rename(2, "frog").split(1, 5), first)
    second.run()
    assert looked == [1, 4] and second.find_track(second.result.masklets[1]) is first.find_track(truth.masklets[1])
    assert second.before is None


def test_damage_is_told_and_a_stop_ends_it(tmp_path: Path) -> None:
    make_truth(World(PLACES, length=600)).save(tmp_path / "r.json")
    data = (tmp_path / "r.json").read_bytes()
    (tmp_path / "r.json").write_bytes(data.replace(b'[300,"forward"', b'[300,"sideway"'))
    survey = Survey(VideoResult.open(tmp_path / "r.json"))
    survey.run()
    assert "masklet 1" in survey.damage and survey.done == 1.0
    stopped = Survey(make_truth(World(PLACES)))
    stopped.stop()
    stopped.run()
    assert not stopped.suspicious and stopped.done < 1


def test_threads_may_read_one_result_from_its_file(tmp_path: Path) -> None:
    truth = make_truth(World(PLACES, length=1200))
    truth.save(tmp_path / "r.json")
    stored, wrong = VideoResult.open(tmp_path / "r.json"), []

    def read(frames: range) -> None:
        for t in frames:
            for known, m in zip(truth.masklets, stored.masklets, strict=True):
                if (t in m.sightings) != (t in known.sightings) or m.sightings.get(t) != known.sightings.get(t):
                    wrong.append((m.id, t))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=read, args=(range(a, 1200, 97),)) for a in (0, 300, 600, 900)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    finally:
        sys.setswitchinterval(before)
    assert not wrong


def test_what_looks_through_stands_back_while_somebody_waits_for_frames() -> None:
    courtesy, stopped = Courtesy(), threading.Event()
    before = time.monotonic()
    courtesy.wait(stopped)
    assert time.monotonic() - before < QUIET / 2
    courtesy.note()
    courtesy.wait(stopped)
    assert time.monotonic() - before >= QUIET
    courtesy.note()
    stopped.set()
    before = time.monotonic()
    courtesy.wait(stopped)
    assert time.monotonic() - before < QUIET / 2
