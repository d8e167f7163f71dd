"""Objects, functions and settings of parts at the front door; one model for many videos."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision
import torch
from typer.testing import CliRunner

import masklet
from masklet import Box, Detections, InputError
from masklet.cli import app
from masklet.models.affinity import Affinity
from masklet.models.encoder import Encoder
from masklet.models.segmenters.motion import Motion

SIZE = 64, 96


def make_frames(length: int = 4) -> np.ndarray:
    draw = np.random.default_rng(0)
    frames = np.repeat(draw.integers(60, 110, (1, *SIZE, 3), np.uint8), length, 0)
    for t in range(length):
        frames[t, 16:48, 20 + 2 * t : 60 + 2 * t] = (220, 60, 40)
    return frames


def find_red(frame: np.ndarray) -> Detections:
    return Detections(torch.from_numpy(frame[..., 0] > 200)[None], torch.tensor([0.9]), torch.tensor([0]))


def is_right(result: masklet.VideoResult) -> bool:
    [one] = result.masklets
    return sorted(one.sightings) == list(range(4)) and all(
        (torch.from_numpy(frame[..., 0] > 200) == one.sightings[t].mask.decode()).float().mean() > 0.95
        for t, frame in enumerate(make_frames())
    )


def test_a_function_that_gives_detections() -> None:
    result = masklet.segment(make_frames(), segmenter=find_red, name="red", rate=5)
    assert is_right(result) and result.categories == ("object",)
    assert (result.name, result.rate) == ("red", 5)
    assert result.provenance.settings["segmenter"] == "function find_red"


@pytest.mark.parametrize("masks", [True, False])
def test_a_function_that_gives_detections_of_supervision(masks: bool) -> None:
    """With masks they are taken, with boxes alone the image predictor draws them."""

    def find(frame: np.ndarray) -> supervision.Detections:
        mask = frame[..., 0] > 200
        y, x = np.nonzero(mask)
        box = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], float)
        names = {"class_name": np.array(["brick"])}
        return supervision.Detections(box, mask[None] if masks else None, np.array([0.8]), np.array([7]), data=names)

    result = masklet.segment(make_frames(), segmenter=find)
    assert [result.categories[m.label] for m in result.masklets] == ["brick"]
    assert is_right(result)


def test_parts_of_ones_own_are_used_as_they_are() -> None:
    encoder = Encoder()
    motion, affinity = Motion(encoder), Affinity(encoder, learning=0.1)
    model = masklet.load(segmenter=motion, propagator=affinity)
    assert model.system.segmenter is motion and model.system.propagator is affinity and model.tracker is affinity
    result = model.track(make_frames(), {0: {1: Box(20, 16, 60, 48)}})
    assert [m.id for m in result.masklets] == [1]
    assert masklet.load(masklet.Track(affinity, {})).system.propagator is affinity


def test_settings_of_parts() -> None:
    made: Any = masklet.load(propagator=("affinity", {"learning": 0.1}), **{"propagator.present": -0.5}).system
    assert (made.propagator.learning, made.propagator.present) == (0.1, -0.5)
    made = masklet.load(segmenter=("everything:nano", {"points_per_side": 4})).system
    assert made.segmenter.points_per_side == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"segmenter": object()}, "segmenter: object lacks categories, look_ahead, empty, segment"),
        ({"segmenter": Motion}, "segmenter: Motion is a class; give an object of it"),
        ({"propagator": object()}, "propagator: object lacks encode"),
        ({"propagator": Affinity}, "propagator: Affinity is a class"),
        ({"system": object()}, "system: object is no name of one, and has no `run`"),
        ({"segmenter": find_red, "segmenter.points": 4}, "function: a segmenter of your own has no settings"),
        ({"segmenter": "motion", "segmenter.points": 4}, "motion: motion has no settings"),
        ({"propagator.lerning": 0.1}, "no setting of affinity 'lerning'; did you mean learning?"),
        ({"propagator.learning": "fast"}, "setting affinity.learning = 'fast' must be a number"),
        ({"tracker.learning": 1}, "setting tracker.learning: tracker is no part"),
        ({"segmenter": find_red, "text": "dog"}, "your own segmenter knows what it finds"),
        ({"device": "cuda:7"}, "device cuda:7: not on this machine"),
        ({"device": "gpu"}, "no device 'gpu'; there are: auto, cpu, cuda, mps, cuda:N"),
    ],
)
def test_what_cannot_be_used_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        masklet.load(**given)
    assert message in str(caught.value)


@pytest.mark.parametrize("way", ["run", "track"])
def test_what_is_computed_ahead_is_the_same(way: str) -> None:
    """On two threads, one of which works ahead, the answer is that of one thread."""

    def answer(threads: int) -> masklet.VideoResult:
        torch.set_num_threads(threads)
        model = masklet.load(segmenter=find_red, propagator=Affinity(Encoder(64)))
        prompts = {2: {1: Box(20, 16, 64, 48)}}
        return model.segment(make_frames(8)) if way == "run" else model.track(make_frames(8), prompts)

    threads = torch.get_num_threads()
    try:
        assert answer(2).masklets == answer(1).masklets != ()
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("segmenter", "wanted"),
    [
        ("auto", {"conf": 0.3, "low_conf": 0.3, "max_lost": 30, "confirm": 3, "twin_join": 0.5}),
        ("motion", {"conf": 0.69, "low_conf": 0.69}),
        ("nano-objects", {"conf": 0.4, "low_conf": 0.3, "score_gamma": 1.0}),
        ("everything:nano", {"conf": 0.75, "low_conf": 0.7}),
    ],
)
def test_a_segmenter_advises_settings_that_the_user_left_open(segmenter: str, wanted: dict[str, Any]) -> None:
    made: Any = masklet.load(segmenter=segmenter).system
    assert made.settings == masklet.Sam2BmpSettings(**wanted)
    made = masklet.load(segmenter=segmenter, conf=0.9, max_lost=7).system
    assert made.settings == masklet.Sam2BmpSettings(**{**wanted, "conf": 0.9, "max_lost": 7})


class Telling(Motion):
    """A segmenter that says things of itself, and has attributes that are called like settings of systems."""

    memory = "everything"
    merge_every = 99
    description = "telling"
    weights: Any = {"mine": "0" * 64}  # noqa: RUF012
    notes: Any = ("mine were trained in the dark",)


def test_only_declared_facts_of_a_part_are_taken() -> None:
    model = masklet.load(segmenter=Telling(Encoder(64)))
    settings: Any = model.system
    assert settings.settings == masklet.Sam2BmpSettings(conf=Motion.conf, low_conf=Motion.low_conf)
    told = model.segment(make_frames()).provenance
    assert told.settings["segmenter"] == "telling" and told.weights["mine"] == "0" * 64
    assert "mine were trained in the dark" in told.notes


@pytest.mark.parametrize(
    ("fact", "value", "message"),
    [
        ("weights", "mine.pt", "segmenter: Telling: `weights` must be a mapping from names to sha256"),
        ("device", 0, "segmenter: Telling: `device` must be a torch.device"),
        ("notes", "one sentence", "segmenter: Telling: `notes` must be a list of sentences"),
    ],
)
def test_facts_that_no_result_can_hold_are_refused_before_work(fact: str, value: Any, message: str) -> None:
    part = Telling(Encoder(64))
    setattr(part, fact, value)
    with pytest.raises(InputError) as caught:
        masklet.load(segmenter=part)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "function odd: gave NoneType in frame 0; it must give masklet.Detections or supervision.Detections"),
        (Detections.none((9, 9)), "masks of 9x9 in frame 0 of 96x64"),
        (Detections(torch.ones(1, *SIZE, dtype=torch.bool), torch.ones(1), torch.tensor([3])), "label 3 in frame 0"),
    ],
)
def test_functions_that_give_something_else(answer: Any, message: str) -> None:
    def odd(frame: np.ndarray) -> Any:
        return answer

    with pytest.raises(InputError) as caught:
        masklet.segment(make_frames(), segmenter=odd)
    assert message in str(caught.value)


def test_a_list_of_sources_is_taken_one_by_one(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        for n, frame in enumerate(make_frames()):
            supervision.cv2_to_pillow(frame[..., ::-1]).save(tmp_path / name / f"{n}.png")
    results = masklet.segment([tmp_path / "first", str(tmp_path / "second")], segmenter=find_red)
    assert [r.name for r in results] == ["first", "second"]


def test_watch_may_be_left_out_and_progress_shows_bars(capsys: pytest.CaptureFixture[str]) -> None:
    model = masklet.load(segmenter=find_red)
    with masklet.open_video(make_frames()) as video:
        assert is_right(model.system.run(video))
    assert is_right(model.segment(make_frames(), progress=True))
    assert "forward" in capsys.readouterr().err


def test_numbers_of_numpy_are_as_good_as_those_of_python(tmp_path: Path) -> None:
    script = Path(__file__).parent / "numbers_of_numpy.py"
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    heavy = "{'torch', 'cv2', 'transformers', 'supervision', 'scipy'} & set(sys.modules)"
    code = f"import sys, masklet, masklet.cli, masklet.builtins; print({heavy}); masklet.Detections; print('torch' in sys.modules)\n"
    code += "import masklet.cli.run, masklet.models.sam2.weights; print({'transformers', 'huggingface_hub'} & {*sys.modules}, masklet.models.sam2.weights.KINDS != ())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["set()", "True", "set() True"]
    assert set(masklet.__all__) == set(dir(masklet))
    for name in masklet.__all__:
        assert getattr(masklet, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        masklet.nothing  # noqa: B018


def test_track_loads_nothing_heavy_that_it_does_not_need(tmp_path: Path) -> None:
    """With its defaults: a second or two before the first frame hang on it."""
    (tmp_path / "clip").mkdir()
    for n, frame in enumerate(make_frames()[:2]):
        supervision.cv2_to_pillow(frame[..., ::-1]).save(tmp_path / "clip" / f"{n}.png")
    heavy = "{'transformers', 'supervision', 'scipy', 'huggingface_hub.file_download', 'av', 'xml', 'PIL.ImageFont', "
    heavy += "'sympy', 'pandas', 'matplotlib', 'torch._dynamo', 'torch._inductor', 'torch.onnx'}"
    parts = "{n for n in sys.modules if n.startswith(('masklet.models.sam3', 'masklet.io.formats.mots'))}"
    code = (
        f"import atexit, gc, sys; atexit.register(lambda: print({heavy} & {{*sys.modules}} | {parts}, gc.isenabled()))"
    )
    code += "\nimport masklet.cli; masklet.cli.main(); print('never')"
    told = ["track", str(tmp_path / "clip"), "--prompt", "0:1:box=4,4,20,20", "-o", str(tmp_path / "out"), "-q"]
    done = subprocess.run([sys.executable, "-c", code, *told, "--no-overlay"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "set() True\n"), done.stderr
    assert (tmp_path / "out" / "clip" / "masklets.json").is_file()


THREAD = "import threading; threading.Thread(target=lambda: (threading.main_thread().join(), print('late'))).start()"


@pytest.mark.parametrize(
    ("before", "word", "code", "said"),
    [
        ("", "--version", 0, f"masklet {masklet.__version__}\nlast\n"),
        ("", "nonsense", 2, "last\n"),
        (THREAD, "--version", 0, f"masklet {masklet.__version__}\nafterwards\nlate\nlast\n"),
        ("sys.setprofile(lambda *_: None)", "nonsense", 2, "afterwards\nlast\n"),
        ("sys.stdout = None", "nonsense", 2, ""),
    ],
)
def test_the_end_of_a_command_leaves_nothing_undone(before: str, word: str, code: int, said: str) -> None:
    """What was put off until the end is done, all that was written is there, and others are waited for."""
    script = f"import atexit, sys; atexit.register(print, 'last'); {before or 'pass'}\nimport masklet.cli\n"
    script += "try:\n    masklet.cli.main()\nfinally:\n    print('afterwards')"
    done = subprocess.run([sys.executable, "-c", script, word], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, said), done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "a.mp4", "-o", "out", "--text", ""), "--text: its value is empty"),
        (("run", "a.mp4", "-o", "out", "--segmenter="), "--segmenter: its value is empty"),
        (("run", "", "-o", "out"), "an argument is empty"),
        (("track", "a.mp4", "-o", "", "--prompt", "0:1:point=1,2"), "-o: its value is empty"),
        (("weights", "verify", ""), "an argument is empty"),
        (("export", "coco", "r", "-o", "x", "--frames", ""), "--frames: its value is empty"),
    ],
)
def test_an_empty_argument_is_refused(words: tuple[str, ...], said: str) -> None:
    """With a shell's variable that is not set, `run` would find everything where one thing was asked for."""
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and said in " ".join(done.stderr.replace("\u2502", " ").split())


def test_an_empty_setting_is_the_setting_s_to_judge() -> None:
    done = CliRunner().invoke(app, ["run", "nowhere.mp4", "-o", "out", "--set", "conf="])
    assert done.exit_code == 2 and "setting conf = '' must be a number" in done.stderr


def test_a_segmenter_that_cannot_be_told_what_to_find() -> None:
    with pytest.raises(InputError, match=r"segmenter='nano': finds what it knows, .* sam3, or leave `text` out"):
        masklet.load(segmenter="nano", text="dog")


def test_a_command_or_a_form_of_another_kind_is_named() -> None:
    wrong = CliRunner().invoke(app, ["runn", "a.mp4"])
    assert wrong.exit_code == 2 and "no command 'runn'; did you mean run?" in wrong.stderr
    form = CliRunner().invoke(app, ["run", "a.mp4", "-o", "out", "--format", "labelme"])
    assert form.exit_code == 2 and "run first, then `masklet export labelme`" in " ".join(form.stderr.split())
