"""The command line, driven as a user would drive it: its exit code, its words, its files; as a process where one is
needed for what is tested: signals, pipes, and all that it says.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from commands import ForkedMasklet, call_masklet, fork_masklet
from PIL import Image
from typer.testing import CliRunner

from masklet.cli import COMMANDS, app
from masklet.core.result import VideoResult

FRAMES, H, W = 8, 96, 128
FAST = ("--preset", "fast")  # where it is not the segmenter or the propagator that is tested
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes started here: two tests share two cores


def picture(t: int) -> np.ndarray:
    """A textured square that moves before a textured background."""
    rng = np.random.default_rng(0)
    image = rng.integers(40, 120, (H // 4, W // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    tile = rng.integers(140, 255, (8, 8, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    x = 10 + 5 * (t % FRAMES)
    image[30:62, x : x + 32] = tile
    return image


def write_video(path: Path, frames: int = FRAMES) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        for t in range(frames):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture(t))))
        file.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4")


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames") / "street"
    folder.mkdir()
    for t in range(FRAMES):
        Image.fromarray(picture(t)).save(folder / f"{t:05d}.png")
    return folder


@pytest.fixture(scope="session")
def first_mask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    mask = np.zeros((H, W), np.uint8)
    mask[30:62, 10:42] = 255
    path = tmp_path_factory.mktemp("masks") / "first.png"
    Image.fromarray(mask).save(path)
    return path


def start_masklet(*args: object) -> subprocess.CompletedProcess[str]:
    """As a process of its own."""
    command = [sys.executable, "-m", "masklet", *map(str, args)]
    got = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    return subprocess.CompletedProcess(got.args, got.returncode, got.stdout.decode(), got.stderr.decode())


def refused(got: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2 and one sentence with these words."""
    assert got.returncode == 2, got.stderr
    assert "Traceback" not in got.stderr
    lines = [line for line in got.stderr.splitlines() if line.startswith("masklet: ")]
    assert len(lines) == 1, got.stderr
    assert all(word in lines[0] for word in words), lines[0]


def left(folder: Path) -> list[str]:
    kept = {"recipe.json", "manifest.jsonl"}  # what a run writes down of itself
    return sorted({p.name for p in folder.iterdir()} - kept) if folder.exists() else []


def test_run_finds_the_moving_square(clip: Path, tmp_path: Path) -> None:
    got = call_masklet("run", clip, "-o", tmp_path, "--format", "davis", "--format", "ytvis", "--set", "conf=0.5")
    assert got.returncode == 0, got.stderr
    there = tmp_path / "clip"
    assert left(there) == ["davis", "masklets.json", "overlay.mp4", "ytvis.json"] and left(tmp_path) == ["clip"]
    result = VideoResult.load(there / "masklets.json")
    assert (result.length, result.size, result.provenance.system) == (FRAMES, (H, W), "sam2bmp")
    assert result.provenance.weights and result.provenance.settings["conf"] == 0.5
    assert left(there / "davis") == [f"{t:05d}.png" for t in range(FRAMES)]
    with av.open(str(there / "overlay.mp4")) as file:
        assert sum(1 for _ in file.decode(video=0)) == FRAMES
    [masks] = [json.loads((there / "ytvis.json").read_text())]
    assert len(masks) == len(result.masklets)


def test_track_follows_the_mask_it_is_given_both_ways(clip: Path, first_mask: Path, tmp_path: Path) -> None:
    prompts = ["--prompt", f"0:3:{first_mask}", "--prompt", "6:7:box=40,30,72,62", "--prompt", "6:9:point=100,10"]
    got = start_masklet("track", clip, "-o", tmp_path, *prompts, "--no-overlay", "--quiet")
    assert (got.returncode, got.stdout, got.stderr) == (0, "", "")
    assert left(tmp_path / "clip") == ["masklets.json"]
    result = VideoResult.load(tmp_path / "clip" / "masklets.json")
    assert [m.id for m in result.masklets] == [3, 7, 9]
    truth = np.zeros((H, W), bool)
    truth[30:62, 10 + 5 * 7 : 42 + 5 * 7] = True
    mask = result.masklets[0].sightings[7].mask.decode().numpy()
    assert (mask & truth).sum() / (mask | truth).sum() > 0.7
    assert result.masklets[1].first < 6


def test_a_mask_of_the_video_is_reduced_as_its_frames_are(clip: Path, first_mask: Path, tmp_path: Path) -> None:
    labels = np.asarray(Image.open(first_mask)) // 255 * 4
    labels[70:90, 100:120] = 9
    Image.fromarray(labels).save(tmp_path / "labels.png")
    Image.open(first_mask).resize((64, 48), Image.Resampling.NEAREST).save(tmp_path / "small.png")
    Image.new("L", (100, 75), 255).save(tmp_path / "other.png")
    (tmp_path / "prompts.json").write_text(json.dumps([{"frame": 0, "id": 4, "mask": str(first_mask)}]))
    rest = ("--max-side", 64, "--end", 3, "--propagator", "affinity", "--no-overlay", "--quiet")
    given: dict[str, tuple[object, ...]] = {
        "mask": ("--prompt", f"0:4:{first_mask}"),
        "small": ("--prompt", f"0:4:{tmp_path / 'small.png'}"),
        "labels": ("--prompt", f"0:{tmp_path / 'labels.png'}"),
        "file": ("--prompts", tmp_path / "prompts.json"),
    }
    for name, prompt in given.items():
        got = call_masklet("track", clip, "-o", tmp_path / name, *prompt, *rest)
        assert got.returncode == 0, got.stderr
        result = VideoResult.load(tmp_path / name / "clip" / "masklets.json")
        assert result.size == (48, 64) and [m.id for m in result.masklets] == ([4, 9] if name == "labels" else [4])
        mask = result.masklets[0].sightings[0].mask.decode().numpy()
        assert mask[15:31, 5:21].all() and mask.sum() == 256
    other = ("--prompt", f"0:4:{tmp_path / 'other.png'}")
    refused(call_masklet("track", clip, "-o", tmp_path / "other", *other, *rest), "100x75", "64x48", "from 128x96")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
def test_frames_by_folder_glob_and_pipe_give_the_same(frames: Path, tmp_path: Path) -> None:
    stream = b"".join(p.read_bytes() for p in sorted(frames.iterdir()))
    words = ["--prompt", "0:1:box=10,30,42,62", "--propagator", "affinity", "--no-overlay", "--quiet"]
    for n, source in enumerate((frames, frames / "*.png")):
        got = call_masklet("track", source, "-o", tmp_path / str(n), *words)
        assert got.returncode == 0, got.stderr
    assert fork_masklet("track", "-", "-o", tmp_path / "2", *words).finish(stream) == (0, b"", b"")
    results = [VideoResult.load(next((tmp_path / str(n)).glob("*/masklets.json"))) for n in range(3)]
    assert results[0].masklets == results[1].masklets == results[2].masklets
    assert results[0].length == FRAMES and [r.name for r in results] == ["street", "street", "stdin"]


def test_what_a_shell_makes_of_a_glob_is_one_video_of_which_a_part_is_used(frames: Path, tmp_path: Path) -> None:
    out, listed = tmp_path / "out", sorted(frames.iterdir())
    chosen = ("--start", 2, "--end", "0.32s", "--stride", 2, "--max-side", 64)
    got = call_masklet("run", *listed, "-o", out, "--quiet", *chosen)
    assert got.returncode == 0, got.stderr
    result = VideoResult.load(out / "street" / "masklets.json")
    assert (result.length, result.size, result.rate) == (3, (48, 64), 12.5)
    assert "frame 0 here is its frame 2 up to 0.32s, one in 2" in " ".join(result.provenance.notes)
    assert result.provenance.source == str(frames)


def test_strict_refuses_what_is_damaged_and_track_takes_one_video(
    clip: Path, frames: Path, first_mask: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(frames, broken)
    (broken / "00003.png").write_bytes(b"")
    out = ("-o", tmp_path / "out", "--quiet")
    refused(call_masklet("run", broken, *out, "--strict"), "00003.png", "--strict")
    assert not (tmp_path / "out" / "broken").exists()
    refused(call_masklet("track", clip, frames, *out, "--prompt", f"0:1:{first_mask}"), "prompts are for one")
    refused(call_masklet("run", clip, *out, "--stride", "0"), "stride 0")
    refused(call_masklet("run", clip, *out, "--start", "soon"), "'soon'")


def test_a_last_image_of_another_size_is_refused_before_anything_is_made(frames: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(frames, odd)
    Image.new("RGB", (W - 1, H)).save(odd / f"{FRAMES - 1:05d}.png")
    for command in (("run", odd), ("track", odd, "--prompt", "0:1:point=20,40")):
        got = call_masklet(*command, "-o", tmp_path / "out", *FAST, "--json-log")
        assert got.returncode == 2 and not (tmp_path / "out" / "odd").exists()
        events = [json.loads(line) for line in got.stdout.splitlines()]
        assert [e["event"] for e in events if e["event"] in ("progress", "error")] == ["error"], events
        assert f"{FRAMES - 1:05d}.png is {W - 1}x{H}" in got.stdout


def test_several_sources_and_one_that_is_none(clip: Path, frames: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video at all\n" * 50)
    out = tmp_path / "out"
    got = call_masklet("run", clip, tmp_path / "text.mp4", frames, "-o", out, *FAST, "--no-overlay", "--quiet")
    assert got.returncode == 1 and "text.mp4" in got.stderr and "Traceback" not in got.stderr
    assert left(out) == ["clip", "street"]


def test_json_log_says_what_happens(clip: Path, tmp_path: Path) -> None:
    got = call_masklet("run", clip, "-o", tmp_path, *FAST, "--json-log", "--no-overlay")
    events = [json.loads(line) for line in got.stdout.splitlines()]
    assert got.returncode == 0 and got.stderr == ""
    assert [events[0]["event"], events[-1]["event"]] == ["start", "done"]
    assert any(e["event"] == "progress" and e["phase"] == "forward" and e["frame"] == FRAMES for e in events)
    assert events[-1]["folder"] == str(tmp_path / "clip") and events[-1]["frames"] == FRAMES
    bad = call_masklet("run", "none.mp4", "-o", tmp_path, "--json-log")
    assert json.loads(bad.stdout.splitlines()[-1])["event"] == "error" and bad.returncode == 2


def test_a_filled_folder_is_left_alone_until_overwrite(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "mine.txt").write_text("mine")
    command = ("track", clip, "-o", tmp_path, "--prompt", "0:1:point=20,40", *FAST, "--no-overlay", "--quiet")
    refused(call_masklet(*command), "clip", "--overwrite")
    assert left(tmp_path / "clip") == ["mine.txt"]
    assert call_masklet(*command, "--overwrite").returncode == 0
    assert left(tmp_path / "clip") == ["masklets.json"]


def test_a_truncated_file_gives_the_frames_before_the_damage_and_says_so(clip: Path, tmp_path: Path) -> None:
    long = write_video(tmp_path / "long.mkv", 40)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(long.read_bytes()[: long.stat().st_size * 2 // 3])
    got = call_masklet("track", cut, "-o", tmp_path / "out", "--prompt", "0:1:point=20,40", *FAST, "--no-overlay")
    assert got.returncode == 0, got.stderr
    result = VideoResult.load(tmp_path / "out" / "cut" / "masklets.json")
    assert 0 < result.length < 40
    [note] = result.provenance.notes
    assert "cut.mkv" in note and str(result.length) in note
    assert "note: " in got.stderr


def test_a_bad_frame_while_tracking_costs_that_frame_and_what_is_lost_is_told(first_mask: Path, tmp_path: Path) -> None:
    found = {}
    for name, bad in (("bad", [5]), ("lost", range(5, FRAMES))):
        (tmp_path / name).mkdir()
        for t in range(FRAMES):
            Image.fromarray(picture(t) * np.uint8(t not in bad)).save(tmp_path / name / f"{t:05d}.png")
        options = ("--propagator", "affinity", "--prompt", f"0:1:{first_mask}", "--no-overlay")
        got = call_masklet("track", tmp_path / name, "-o", tmp_path / "out", *options)
        assert got.returncode == 0, got.stderr
        found[name] = VideoResult.load(tmp_path / "out" / name / "masklets.json")
    assert found["bad"].provenance.notes == ()
    assert set(found["bad"].masklets[0].sightings) == set(range(FRAMES)) - {5}
    [note] = found["lost"].provenance.notes
    assert note.startswith("object 1: not found from frame 5 on") and f"note: {note}" in got.stderr


def start_long_run(folder: Path, frames: Path, out: Path) -> ForkedMasklet:
    """A run over hundreds of frames that has begun."""
    folder.mkdir()
    for n in range(300):
        (folder / f"{n:05d}.png").symlink_to(frames / f"{n % FRAMES:05d}.png")
    process = fork_masklet("run", folder, "-o", out, *FAST, "--json-log")
    while b"progress" not in (line := process.stdout.readline()):
        assert line, process.finish()
    return process


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_nothing_half_written(stop: int, frames: Path, tmp_path: Path) -> None:
    process = start_long_run(tmp_path / "many", frames, tmp_path / "out")
    os.kill(process.pid, stop)
    code, _, err = process.finish()
    assert code == 128 + stop and b"Traceback" not in err
    assert b"masklet: interrupted" in err
    assert left(tmp_path / "out") == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
def test_a_killed_run_is_cleaned_up_by_the_next(clip: Path, frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start_long_run(tmp_path / "clip", frames, out)
    os.kill(process.pid, signal.SIGKILL)
    assert process.finish()[0] == -signal.SIGKILL
    assert not (out / "clip").exists()
    got = call_masklet("track", clip, "-o", out, "--prompt", "0:1:point=20,40", *FAST, "--no-overlay", "--quiet")
    assert got.returncode == 0 and left(out) == ["clip"], got.stderr


BAD = {
    "no such file": (["run", "none.mp4"], ["none.mp4", "no such file"]),
    "not a video": (["run", "text.mp4"], ["text.mp4"]),
    "empty file": (["run", "empty.mp4"], ["empty.mp4"]),
    "no image": (["run", "folder"], ["folder"]),
    "glob": (["run", "*.none"], ["*.none"]),
    "empty pipe": (["run", "-"], ["stdin"]),
    "sizes": (["run", "sizes"], ["sizes", "16x16", "20x16"]),
    "system": (["run", "pic", "--system", "sam2bpm"], ["sam2bpm", "did you mean sam2bmp"]),
    "segmenter": (["run", "pic", "--segmenter", "moton"], ["moton", "motion"]),
    "propagator": (["run", "pic", "--propagator", "afinity"], ["afinity", "did you mean affinity"]),
    "setting": (["run", "pic", "--set", "cnof=0.5"], ["cnof", "did you mean conf"]),
    "setting's form": (["run", "pic", "--set", "conf"], ["NAME=VALUE"]),
    "setting's value": (["run", "pic", "--set", "conf=high"], ["conf", "number"]),
    "setting's word": (["run", "pic", "--set", "memory=all"], ["memory", "propagated, detected, key"]),
    "prompt's form": (["track", "pic", "--prompt", "mask.png"], ["mask.png", "FRAME:ID"]),
    "prompt's labels": (["track", "pic", "--prompt", "0:mask.png"], ["mask.png", "no such file"]),
    "prompt's frame": (["track", "pic", "--prompt", "9:1:point=3,3"], ["frame 9", "2 frames"]),
    "prompt's id": (["track", "pic", "--prompt", "0:0:point=3,3"], ["ids count from 1"]),
    "prompt's place": (["track", "pic", "--prompt", "0:1:point=30,3"], ["outside", "16x16"]),
    "prompt's box": (["track", "pic", "--prompt", "0:1:box=8,3,2,9"], ["x0 < x1"]),
    "prompt's size": (["track", "pic", "--prompt", "0:1:wide.png"], ["20x16", "16x16"]),
}


@pytest.mark.parametrize(("args", "words"), BAD.values(), ids=BAD)
def test_bad_input_ends_in_one_sentence(args: list[str], words: list[str], tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video at all\n" * 50)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for name, sizes in (("pic", [16, 16]), ("sizes", [16, 20])):
        (tmp_path / name).mkdir()
        for t, w in enumerate(sizes):
            Image.new("RGB", (w, 16), (90, t, 9)).save(tmp_path / name / f"{t}.png")
    Image.new("L", (20, 16), 255).save(tmp_path / "wide.png")
    refused(call_masklet(*args, "-o", "out", "--no-overlay", "--quiet", cwd=tmp_path), *words)
    assert left(tmp_path / "out") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder(clip: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    refused(call_masklet("run", clip, "-o", tmp_path / "out", "--quiet"), "out")


def test_a_file_where_the_folder_should_be(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    refused(call_masklet("run", clip, "-o", tmp_path / "out", "--quiet"), "out")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from masklet.core.errors import InputError
    from masklet.io.output_folder import OutputFolder

    with pytest.raises(InputError, match="disk"), OutputFolder(tmp_path, "clip", False):
        Path("/dev/full").write_bytes(b"x" * 100_000)
    assert left(tmp_path) == []


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("export", "reproduce", "weights")])
def test_help_shows_what_is_typed(command: str) -> None:
    """0:dog:box=... was shown with the picture of a dog."""
    said = CliRunner().invoke(app, [command, "--help"]).output
    assert "Usage" in said and not [c for c in said if ord(c) > 0xFFFF]


def test_help_and_no_command() -> None:
    assert "FRAME:ID" in call_masklet("track", "--help").stdout
    assert "run" in call_masklet().stdout + call_masklet().stderr


def test_a_source_is_never_replaced_by_its_results(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    source = folder / "clip.mp4"
    source.write_bytes(clip.read_bytes())
    rest = ("-o", tmp_path, "--overwrite", "--no-overlay", "--quiet")
    refused(call_masklet("track", source, "--prompt", "0:1:point=20,40", *rest), "choose another folder")
    refused(call_masklet("run", source, *rest), "choose another folder")
    elsewhere = tmp_path / "b" / "clip.mp4"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(clip.read_bytes())
    (folder / "found.json").write_text("[]")
    refused(call_masklet("run", elsewhere, "--segmenter", folder / "found.json", *rest), "choose another folder")
    assert left(folder) == ["clip.mp4", "found.json"]


def test_every_mistake_is_an_event_of_the_log(clip: Path, tmp_path: Path) -> None:
    for args in (["run", clip, "--set", "cnof=1"], ["track", "none.mp4", "--prompt", "0:1:point=2,4"]):
        got = call_masklet(*args, "-o", tmp_path, "--json-log")
        assert json.loads(got.stdout.splitlines()[-1])["event"] == "error" and got.returncode == 2
        assert "Traceback" not in got.stderr


def test_a_log_whose_reader_goes_away_ends_the_run(clip: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "masklet", "run", str(clip), "-o", str(tmp_path / "out"), *FAST, "--json-log"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1 and b"Traceback" not in err and left(tmp_path / "out") == []


def test_a_closed_standard_input(tmp_path: Path) -> None:
    command = f'exec "{sys.executable}" -m masklet run - -o "{tmp_path / "out"}" <&-'
    got = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    refused(got, "nothing was piped")
