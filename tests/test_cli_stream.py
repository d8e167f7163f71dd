"""`masklet stream` and `masklet run --watch`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import masklet
from masklet.cli import app
from masklet.cli.stream import pair_with_frames
from masklet.core.frames import Frame
from masklet.core.rle import Rle
from masklet.io.video.sources import open_video
from masklet.run import watch
from masklet.run.watch import watch_folder

H, W, FRAMES = 48, 64, 6
BOX = ["--prompt", "0:7:box=2,8,22,28", "--propagator", "affinity"]


def draw(t: int) -> bytes:
    image, file = np.full((H, W, 3), 30, np.uint8), BytesIO()
    image[8:28, 2 + t : 22 + t] = (200, 60, 60)
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    for t in range(FRAMES):
        (folder / f"{t}.png").write_bytes(draw(t))
    return folder


def stream(*words: str, data: bytes = b"") -> Any:
    return CliRunner().invoke(app, ["stream", *words], input=data)


def test_a_line_comes_before_the_next_frame_and_ctrl_c_ends_between_two_lines(tmp_path: Path) -> None:
    """One process for all that needs one: somebody waits for each answer before he sends the next image."""
    os.mkfifo(tmp_path / "pipe.ts")
    seen: list[bytes] = []
    reader = threading.Thread(target=lambda: seen.append((tmp_path / "pipe.ts").read_bytes()), daemon=True)
    reader.start()
    command = [sys.executable, "-m", "masklet", "stream", "-", *BOX, "--overlay", str(tmp_path / "pipe.ts")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        late = threading.Timer(90, process.kill)
        late.start()
        lines = []
        for t in range(4):
            process.stdin.write(draw(t))
            process.stdin.flush()
            lines.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"" and process.wait(20) == 0, process.stderr.read()
        late.cancel()
    reader.join(20)
    assert [line["frame"] for line in lines] == [0, 1, 2, 3] and [line["time"] for line in lines][:2] == [0, 0.04]
    for t, line in enumerate(lines):
        [thing] = line["objects"]
        mask = Rle.checked((H, W), thing["rle"]["counts"].encode())
        assert (thing["id"], thing["name"], tuple(thing["box"])) == (7, "object", mask.box) and 0 < thing["score"] <= 1
        assert abs(mask.box[0] - (2 + t)) <= 1
    with av.open(BytesIO(seen[0])) as video:
        assert sum(1 for _ in video.decode(video=0)) == 4


def test_the_stream_of_prompts_is_the_forward_phase_of_track(clip: Path) -> None:
    done = stream(str(clip), *BOX)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    result = masklet.track(clip, {0: {7: masklet.Box(2, 8, 22, 28)}}, propagator="affinity")
    assert [line["objects"][0]["rle"]["counts"] for line in lines] == [
        result.masklets[0].sightings[t].mask.counts.decode() for t in range(FRAMES)
    ]


def test_a_system_streams_with_names_and_an_overlay_that_can_be_read(clip: Path, tmp_path: Path) -> None:
    data = b"".join(draw(t) for t in range(FRAMES))
    done = stream("-", "--segmenter", "motion", "--preset", "fast", "--overlay", str(tmp_path / "o.mp4"), data=data)
    assert done.exit_code == 0 and [json.loads(line)["frame"] for line in done.stdout.splitlines()] == list(
        range(FRAMES)
    )
    assert len(list(open_video(tmp_path / "o.mp4"))) == FRAMES


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.mp4"], "no such file"),
        (["-"], "nothing was piped"),
        (["{clip}", "--system", "deva-offline"], "needs the whole video before it answers"),
        (["{clip}", "--prompt", "0:1:box=0,0,9,9", "--text", "dog"], "leave --system, --segmenter and --text out"),
        (["{clip}", "--prompt", "0:1:point=900,9"], "outside the 64x48 video"),
        (["{clip}", "--overlay", "o.avi"], "ends in .mp4, .mkv or .ts"),
        (["{clip}", "--overlay", "none/o.mp4"], "there is no folder none"),
        (["{clip}", "--overlay", "{clip}/0.png"], "ends in .mp4"),
    ],
)
def test_what_cannot_be_streamed_is_refused_in_a_sentence(words: list[str], said: str, clip: Path) -> None:
    done = stream(*(word.format(clip=clip) for word in words), "--preset", "fast")
    assert done.exit_code == 2 and said in done.output and "Traceback" not in done.output


def test_a_source_that_breaks_off_gives_what_was_there_and_exit_code_1() -> None:
    done = stream("-", *BOX, data=draw(0) + draw(1)[:-9])
    assert done.exit_code == 1 and len(done.stdout.splitlines()) == 1 and "cut off" in done.stderr


def test_frames_are_let_go_when_they_are_answered() -> None:
    class Late:
        """Answers two frames late."""

        def stream(self, frames: Any) -> Any:
            held: list[Frame] = []
            for frame in frames:
                held.append(frame)
                if len(held) > 2:
                    yield held.pop(0).index
            yield from (frame.index for frame in held)

    alive: list[Any] = []
    frames = (Frame(t, np.zeros((2, 2, 3), np.uint8)) for t in range(50))
    pairs = pair_with_frames(Late(), frames)
    for index, frame in pairs:
        assert index == frame.index
        alive.append(len(pairs.gi_frame.f_locals["waiting"]))
    assert max(alive) == 2 and len(alive) == 50


# -- a watched folder


def test_a_file_is_taken_once_it_has_settled_and_again_when_it_changes(tmp_path: Path) -> None:
    clock, taken = 0.0, list[tuple[float, str]]()

    def wait(seconds: float) -> None:
        nonlocal clock
        clock += seconds
        changes = {1: "a.mp4", 2: "a.mp4", 4: ".hidden.mp4", 5: "note.txt", 9: "a.mp4"}
        if clock in changes:
            with (tmp_path / changes[int(clock)]).open("a") as file:
                file.write("more")
        if clock == 3:
            (tmp_path / "empty.mp4").touch()
        if clock > 20:
            raise SystemExit(130)

    for path in watch_folder(tmp_path, wait, lambda: clock):
        taken.append((clock, path.name))
    assert taken == [(2 + watch.SETTLED, "a.mp4"), (9 + watch.SETTLED, "a.mp4")]


def test_a_watched_folder_makes_what_is_there_once(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    with av.open(str(tmp_path / "in/a.mp4"), "w") as file:
        video = file.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = W, H, "yuv420p"
        for t in range(FRAMES):
            file.mux(
                video.encode(av.VideoFrame.from_ndarray(np.asarray(Image.open(clip / f"{t}.png")), format="rgb24"))
            )
        file.mux(video.encode())
    (tmp_path / "in/b.mkv").write_bytes(b"no video")
    monkeypatch.setattr(watch, "SETTLED", -1.0)
    waits = iter([None, None])

    def wait(seconds: float) -> None:
        if next(waits, 0) == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr("masklet.run.watch.watch_folder", lambda folder: watch_folder(folder, wait))
    words = ["run", "--watch", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--preset", "fast", "--no-overlay"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1 and "2 videos: 1 done, 1 failed" in done.output, done.output
    assert (tmp_path / "out/a/masklets.json").exists()
    waits = iter([None])
    (tmp_path / "in/b.mkv").unlink()
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"), [(["--watch", "none"], "no such folder"), (["--watch", ".", "a.mp4"], "one by one")]
)
def test_what_cannot_be_watched(words: list[str], said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", *words, "-o", str(tmp_path / "out"), "--preset", "fast"])
    assert done.exit_code == 2 and said in done.output
