"""The command line: `masklet stream`."""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import av
import typer

from masklet.api import check_prompts, load, make_propagator, split_settings
from masklet.builtins import QUERY_SYSTEMS, SEGMENTERS, SYSTEMS, has_own_segmenter
from masklet.cli.options import DeviceName, HelpSettings, PresetName, PropagatorName, Settings, Silent
from masklet.cli.run import exit_on_input_error
from masklet.cli.settings import parse_settings
from masklet.core.annotations import VideoFrames
from masklet.core.errors import InputError, escape_control_characters
from masklet.core.frames import Frame
from masklet.core.instances import FrameMasks
from masklet.core.protocols import LiveSystem
from masklet.io.formats.frame_line import format_frame_line
from masklet.io.prompts import PromptFile, add_prompts, read_prompt_file, read_prompts
from masklet.io.video.encode import LiveVideoWriter
from masklet.io.video.live import LiveFrames
from masklet.parts import load_bystanders, make_encoder, refuse_part_settings
from masklet.presets import GOOD, choose_run_parts, choose_track_parts
from masklet.systems.track import Track
from masklet.view.drawing import collect_live_objects, draw_objects
from masklet.view.progress import QuietReporter


def stream_command(
    source: Annotated[
        str,
        typer.Argument(help="- for a pipe, a named pipe, a camera (/dev/video0), an address (rtsp://...), or a file."),
    ],
    prompt: Annotated[
        list[str],
        typer.Option(
            metavar="FRAME:ID:WHAT",
            help="Follow what is given, and nothing else: as in masklet track; frames count from the first that comes.",
        ),
    ] = [],  # noqa: B006
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="A json of prompts (docs/prompts.md).")] = None,
    system: Annotated[
        str, typer.Option(metavar="NAME", help=f"{', '.join((*SYSTEMS.names, *QUERY_SYSTEMS))}; one that answers live.")
    ] = "sam2bmp",
    segmenter: Annotated[str | None, typer.Option(metavar="NAME", help=f"{SEGMENTERS.describe()}.")] = None,
    text: Annotated[str, typer.Option(metavar="WORDS", help="What to find: 'dog. red car.'.")] = "",
    propagator: PropagatorName = None,
    preset: PresetName = GOOD,
    device: DeviceName = "auto",
    set_: Settings = None,
    help_settings: HelpSettings = False,
    overlay: Annotated[
        Path | None,
        typer.Option(metavar="FILE|PIPE", help="Write the frames with their objects drawn in (mp4, mkv, ts)."),
    ] = None,
    reconnect: Annotated[
        int, typer.Option(min=0, metavar="N", help="Open an address or a camera again, so many times in a row.")
    ] = 0,
    quiet: Silent = False,
) -> None:
    """Write a line of JSON for every frame of a pipe, a camera or an address, as it comes.

    {"frame", "time", "objects": [{"id", "name", "score", "box", "rle"}]}; ends with the source, or with Ctrl-C.
    Exit code 1 where the source broke off.
    """
    with exit_on_input_error(QuietReporter()):
        settings, given = parse_settings(set_ or []), (prompt, prompts)
        check_overlay(overlay)
        if any(given):
            tracker = make_tracker(given, system, segmenter, text, propagator, preset, device, settings)
        else:
            live = load_live_system(system, segmenter, text, propagator, preset, device, settings)
        frames = LiveFrames(source, reconnect, lambda told: say(told, quiet))
        answering = tracker(frames) if any(given) else live
        categories = ("object",) if any(given) else tuple(live.segmenter.categories)
        with StoppableOutput() as out, open_overlay(overlay, frames) as drawing:
            for masks, frame in pair_with_frames(answering, frames):
                with out.delay_stop():
                    out.write(format_frame_line(masks, frame.time, categories))
                    drawing.draw(masks, frame, categories)
                if out.is_stopped:
                    break
        if frames.damage:
            say(frames.damage)
            raise typer.Exit(1)


def say(sentence: str, quiet: bool = False) -> None:
    """A sentence on standard error, unless `quiet`."""
    if not quiet:
        typer.echo(f"masklet: {escape_control_characters(sentence)}", err=True)


def load_live_system(
    system: str,
    segmenter: str | None,
    text: str,
    propagator: str | None,
    preset: str,
    device: str,
    settings: dict[str, Any],
) -> Any:
    """The system of `masklet.load` by the command's options. Raises InputError where it gives no live answer."""
    parts = choose_run_parts(preset)
    finder = segmenter or (None if has_own_segmenter(system) else parts.choose_segmenter(text))
    carrier = propagator or parts.propagator
    made = load(system, segmenter=finder, text=text, propagator=carrier, device=device, live=True, **settings).system
    if not isinstance(made, LiveSystem):
        raise InputError(f"--system {system}: needs the whole video before it answers; take sam2bmp or deva")
    return made


def make_tracker(
    given: tuple[Sequence[str], Path | None],
    system: str,
    segmenter: str | None,
    text: str,
    propagator: str | None,
    preset: str,
    device: str,
    settings: dict[str, Any],
) -> Any:
    """What makes a `Track` of the prompts that are `given`, for frames whose size is known. Raises InputError where an
    option is of no use beside prompts, or a prompt is none.
    """
    if segmenter or text or system != "sam2bmp":
        raise InputError("--prompt says what is followed; leave --system, --segmenter and --text out")
    own, of_parts = split_settings(settings)
    refuse_part_settings("a stream of prompts", "it", {**own, **of_parts["segmenter"]})
    typed, file = read_prompts(given[0]), read_prompt_file(given[1]) if given[1] else PromptFile("", ())
    name = propagator or choose_track_parts(preset).propagator
    carrier = make_propagator(name, make_encoder(device), device, of_parts["propagator"])

    def make(frames: LiveFrames) -> Track[Any, Any]:
        told = file.select(VideoFrames.of(frames))
        for frame, marks in typed.items():
            add_prompts("--prompt", told, frame, marks)
        return Track(carrier, check_prompts(told, frames), load_bystanders(carrier))

    return make


def pair_with_frames(system: Any, frames: Iterable[Frame]) -> Iterator[tuple[FrameMasks, Frame]]:
    """What a live `system` answers for each of `frames`, with it; those that wait for their answer are held."""
    waiting: deque[Frame] = deque()

    def pass_on() -> Iterator[Frame]:
        for frame in frames:
            waiting.append(frame)
            yield frame

    for masks in system.stream(pass_on()):
        yield masks, waiting.popleft()


class StoppableOutput:
    """Standard output, a line at a time: Ctrl-C ends the command between two frames, as does a reader who leaves."""

    def __init__(self) -> None:
        self.is_stopped = self._is_busy = False

    def __enter__(self) -> StoppableOutput:
        self._before = {n: signal.signal(n, self._stop) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, at: object) -> None:
        self.is_stopped = True
        if not self._is_busy:
            raise typer.Exit(0)

    @contextmanager
    def delay_stop(self) -> Iterator[None]:
        """Within the block Ctrl-C is only noted."""
        self._is_busy = True
        try:
            yield
        finally:
            self._is_busy = False

    def write(self, line: str) -> None:
        """Writes a line at once; notes that the command is to end where nobody reads any more."""
        try:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.is_stopped = True


def check_overlay(path: Path | None) -> None:
    """Raises InputError where an overlay cannot be written under this name."""
    if path is None or path.is_fifo():
        return
    if path.suffix.lower() not in (".mp4", ".mkv", ".ts"):
        raise InputError(f"--overlay {path}: give a name that ends in .mp4, .mkv or .ts, or a named pipe")
    if path.exists():
        raise InputError(f"--overlay {path}: is there already; choose another name")
    if not path.parent.is_dir():
        raise InputError(f"--overlay {path}: there is no folder {path.parent}; make it first")


class Overlay:
    """The frames with what was answered drawn in; without a writer nothing."""

    def __init__(self, writer: LiveVideoWriter | None) -> None:
        self._writer = writer

    def draw(self, masks: FrameMasks, frame: Frame, categories: Sequence[str]) -> None:
        """Writes one more `frame`. What cannot be written is told, and no more is written: the lines go on."""
        if self._writer is None:
            return
        try:
            self._writer.write(draw_objects(frame.image, collect_live_objects(masks, categories)), frame.time)
        except (OSError, av.FFmpegError) as error:
            say(f"the overlay ends at frame {frame.index} ({error.strerror or error}); the lines go on")
            self._writer = None


@contextmanager
def open_overlay(path: Path | None, frames: LiveFrames) -> Iterator[Overlay]:
    """The overlay of these `frames` at `path`, which is whole at the end of the context."""
    if path is None:
        yield Overlay(None)
        return
    try:
        writer = LiveVideoWriter(path, frames.size, frames.rate, frames.pixel_aspect)
    except (OSError, av.FFmpegError) as error:
        raise InputError(f"--overlay {path}: cannot be written ({error.strerror or error})") from None
    overlay = Overlay(writer)
    try:
        yield overlay
    finally:
        try:
            writer.__exit__(None)
        except (OSError, av.FFmpegError) as error:
            say(f"the overlay could not be ended ({error.strerror or error})")
