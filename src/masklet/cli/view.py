"""The command line: `masklet view` and `masklet report`."""

from __future__ import annotations

import os
import socket
import sys
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from masklet.builtins import EXPORTS, FORMATS
from masklet.cli.edit import find_one_result
from masklet.cli.export import make_lazy_watch
from masklet.core.errors import InputError, Interruption, escape_control_characters
from masklet.core.frames import Video
from masklet.core.progress import Watch
from masklet.core.result import VideoResult
from masklet.exports import export_results, find_frame_sources
from masklet.io.exports.exported_results import check_same_video
from masklet.io.formats.davis import read_davis
from masklet.io.formats.submission import RESULT, find_result_files
from masklet.io.output_folder import OutputFolder
from masklet.io.video.packet_index import ForwardReader, learn_frames
from masklet.io.video.source_names import Source, make_unique_names
from masklet.io.video.sources import (
    begin_result,
    find_own_video,
    group_video_sources,
    open_video,
    reopen_video,
)
from masklet.io.video.video_file import VideoFile
from masklet.version import __version__
from masklet.view.desk import Desk, PromptedVideo, ResultEditor, make_folder
from masklet.view.frame_store import FrameStore
from masklet.view.progress import BarReporter, QuietReporter

LOCAL = "127.0.0.1"
SHORTEST_TOKEN = 16  # characters
PATIENCE = 0.0005  # seconds that an answer waits for what is looked through beside it, each time

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="RESULT|VIDEO...",
        help="masklets.json files, folders that masklet run wrote, or videos in which nothing is marked yet.",
    ),
]
OneResult = Annotated[
    Path, typer.Argument(metavar="RESULT", help="A masklets.json, or the folder of a video's results.")
]
Videos = Annotated[
    list[str],
    typer.Option(
        "--video",
        metavar="SOURCE",
        help="The video that a result is of, where it is not where it was. Repeat it for several results, or give the "
        "folder that all their videos are in.",
    ),
]
OneVideo = Annotated[
    list[str], typer.Option("--video", metavar="SOURCE", help="The video that it is of, where it is not where it was.")
]
Others = Annotated[
    list[Path],
    typer.Option(
        "--compare",
        metavar="RESULT|FOLDER",
        help="Another result of the video, or a folder of annotated label images, to compare with. Repeatable.",
    ),
]
Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where what is saved and exported goes, by video.")
]
Host = Annotated[
    str, typer.Option(help="The address to listen at. Any other than this one lets other machines reach the page.")
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: a free one.")]
Browser = Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")]
PropagatorName = Annotated[
    str, typer.Option("--propagator", metavar="NAME", help="What answers clicks and propagates.")
]
DeviceName = Annotated[str, typer.Option("--device", metavar="NAME", help="Where its networks run.")]
Start = Annotated[
    str,
    typer.Option(
        metavar="FRAME|TIME", help="First frame that is used; for a result the frames that it was made of, unless told."
    ),
]
End = Annotated[str | None, typer.Option(metavar="FRAME|TIME", help="The frame before which they end.")]
Stride = Annotated[int, typer.Option(help="Use every so many-th frame.")]
Fps = Annotated[float | None, typer.Option(help="Use at most so many frames a second.")]
MaxSide = Annotated[int | None, typer.Option(metavar="PIXELS", help="Reduce larger frames to this longer side.")]
ReportPath = Annotated[Path, typer.Option("--out", "-o", metavar="PATH", help="The HTML file, or the folder.")]
AsFolder = Annotated[bool, typer.Option("--folder", help="Write a folder, which may hold a long video.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
Silent = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]


@dataclass(frozen=True)
class Reading:
    """How videos are read, and with what prompts are answered."""

    options: Mapping[str, Any] = field(default_factory=dict)  # of `open_video`
    propagator: str = "nano"
    device: str = "auto"


def view_command(
    sources: Sources,
    videos: Videos = [],  # noqa: B006
    compare: Others = [],  # noqa: B006
    out: Out = Path("corrected"),
    propagator: PropagatorName = "nano",
    device: DeviceName = "auto",
    host: Host = LOCAL,
    port: Port = 0,
    browser: Browser = True,
    start: Start = "0",
    end: End = None,
    stride: Stride = 1,
    fps: Fps = None,
    max_side: MaxSide = None,
) -> None:
    """Look at results in a browser, and correct them; begin new ones in videos."""
    reading = Reading(
        {"start": start, "end": end, "stride": stride, "fps": fps, "max_side": max_side}, propagator, device
    )
    try:
        with ExitStack() as stack:
            desks = open_desks(sources, videos, compare, out, reading, stack)
            serve_page(desks, host, port, browser)
    except InputError as error:
        typer.echo(f"masklet: {error}", err=True)
        raise typer.Exit(2) from None


def serve_command(
    sources: Sources,
    videos: Videos = [],  # noqa: B006
    compare: Others = [],  # noqa: B006
    out: Out = Path("corrected"),
    propagator: PropagatorName = "nano",
    device: DeviceName = "auto",
    host: Host = LOCAL,
    port: Port = 0,
    start: Start = "0",
    end: End = None,
    stride: Stride = 1,
    fps: Fps = None,
    max_side: MaxSide = None,
) -> None:
    """Answer other programs' requests about results and videos, in JSON; the page is there, too.

    The token that requests need is in the address that is printed, or what MASKLET_TOKEN says. What can be asked is
    shown at /api and in /openapi.json.
    """
    view_command(
        sources, videos, compare, out, propagator, device, host, port, False, start, end, stride, fps, max_side
    )


def report_command(
    result: OneResult,
    out: ReportPath,
    video: OneVideo = [],  # noqa: B006
    folder: AsFolder = False,
    overwrite: Overwrite = False,
    quiet: Silent = False,
    start: Start = "0",
    end: End = None,
    stride: Stride = 1,
    fps: Fps = None,
    max_side: MaxSide = None,
) -> None:
    """Write a result with its video as one HTML file to look at, or as a folder."""
    reading = Reading({"start": start, "end": end, "stride": stride, "fps": fps, "max_side": max_side})
    try:
        with ExitStack() as stack:
            watch = make_lazy_watch(QuietReporter() if quiet else BarReporter(), "report", stack)
            write_report_files(find_one_result(result), video, out, folder, overwrite, reading, watch, stack)
    except InputError as error:
        typer.echo(f"masklet: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(escape_control_characters(out))


def write_report_files(
    path: Path,
    videos: Sequence[str],
    out: Path,
    folder: bool,
    overwrite: bool,
    reading: Reading,
    watch: Watch,
    stack: ExitStack,
) -> None:
    """Writes the report of the result at `path`; `folder` says as what, the rest is as in `report_command`. Raises
    InputError where it cannot be written, or something is there already and not to be replaced.
    """
    from masklet.view import report

    if not folder and out.exists() and not overwrite:
        raise InputError(f"{out}: is there already; add --overwrite to replace it")
    result = VideoResult.open(path)
    make_folder(out.parent)
    source = find_frame_sources([result], videos).get(result.name) or find_own_video(result)
    video, note = open_result_video(result, source, bool(videos), reading, stack)
    if note:
        typer.echo(f"masklet: {escape_control_characters(note)}", err=True)
    if folder:
        with OutputFolder(out.parent, out.name, overwrite) as made:
            report.write_report_folder(result, video, made, watch)
    else:
        report.write_report_page(result, video, out, watch)


# -- what is opened


def open_desks(
    sources: Sequence[str],
    videos: Sequence[str],
    compare: Sequence[Path],
    out: Path,
    reading: Reading,
    stack: ExitStack,
) -> list[Desk]:
    """The videos of a page; what they hold open goes with the `stack`. The arguments are those of `view_command`.

    Raises InputError where something cannot be opened, or is no result of its video.
    """
    paths = [path for one in sources if is_result(one) for path in find_result_files([Path(one)])]
    results = [VideoResult.open(path) for path in paths]
    told = find_frame_sources(results, videos) if videos else {}
    others = {describe_other(path): read_other(path) for path in compare}
    plain = group_video_sources([one for one in sources if not is_result(one)])
    names = make_unique_names([*(r.name for r in results), *plain])
    desks = []
    for result, name in zip(results, names, strict=False):
        source = told.get(result.name) or find_own_video(result)
        desks.append(make_desk(result, name, source, bool(videos), out, reading, stack))
    for one, name in zip(plain, names[len(results) :], strict=True):
        desks.append(open_empty_desk(one, name, out, reading, stack))
    for desk in desks:
        desk.others = find_comparable(desk, desks, others)
    return desks


def is_result(source: str) -> bool:
    """Whether a source is a saved result, or a folder of such; else it is a video."""
    path = Path(source)
    if path.is_dir():
        return any(path.glob(RESULT)) or any(path.glob(f"*/{RESULT}"))
    return path.suffix == ".json"


def open_result_video(
    result: VideoResult, source: str, is_told: bool, reading: Reading, stack: ExitStack
) -> tuple[Video | None, str]:
    """The video of a `result` at `source`, or a sentence on why there is none; `reading` and `stack` as in
    `make_desk`. Raises InputError where the user has told the source (`is_told`), and it is not that of the result.
    """
    if not source:
        return None, f"{result.name}: its video is not at hand; give it by --video to see it"
    try:
        video = stack.enter_context(reopen_video(result, source, reading.options))
        learn_frames(video)
        check_same_video(result, video)
    except InputError as error:
        if is_told:
            raise
        return None, f"{error}; only masks are shown"
    return video, ""


def make_desk(
    result: VideoResult, name: str, source: str, is_told: bool, out: Path, reading: Reading, stack: ExitStack
) -> Desk:
    """A result as it lies open.

    Args:
        result: of one video.
        name: of the desk, and of its folder in `out`.
        source: of its video; "": none.
        is_told: whether the user has told the source.
        out: the folder in which changed results are saved.
        reading: how videos are read, and by what prompts are answered.
        stack: closes the video.

    Raises InputError as `open_result_video`.
    """
    video, note = open_result_video(result, source, is_told, reading, stack)
    return Desk(
        name,
        ResultEditor(result),
        out / name,
        FrameStore(make_reader(video, result.length)) if video is not None else None,
        make_session=make_session_opener(source, reading, stack) if video is not None else None,
        export=make_exporter(source if video is not None else "", reading),
        forms=list_forms(has_video=video is not None),
        notes=(note,) if note else (),
    )


def open_empty_desk(source: Source, name: str, out: Path, reading: Reading, stack: ExitStack) -> Desk:
    """The video `source` in which nothing is marked yet, as it lies open; `name`, `out`, `reading` and `stack` as in
    `make_desk`. Raises InputError where it cannot be read.
    """
    given: Any = source if isinstance(source, str) else list(source)
    video = stack.enter_context(open_video(given, **reading.options))
    learn_frames(video)
    result = begin_result(given, video, __version__, name)
    return Desk(
        name,
        ResultEditor(result),
        out / name,
        FrameStore(make_reader(video, result.length)),
        make_session=make_session_opener(given, reading, stack),
        export=make_exporter(given, reading),
        forms=list_forms(has_video=True),
    )


def make_reader(video: Video, length: int) -> Video:
    """What reads a `video` of so many frames for the page: of a file it goes on where it stopped."""
    return ForwardReader(video, length) if isinstance(video, VideoFile) else video


def make_session_opener(source: Any, reading: Reading, stack: ExitStack) -> Callable[[VideoResult], PromptedVideo]:
    """What opens a session over a result of the video at `source`, with networks, at the first prompt; `reading` and
    `stack` as in `make_desk`.
    """

    def open_session(result: VideoResult) -> PromptedVideo:
        from masklet import api  # loads torch

        video = stack.enter_context(reopen_video(result, source, reading.options))
        opened = api.open(video, result=result, propagator=reading.propagator, device=reading.device)
        stack.callback(opened.close)
        return opened

    return open_session


def make_exporter(source: Any, reading: Reading) -> Callable[[VideoResult, str, Path, Watch], Path]:
    """What exports a result with the frames of the video at `source`, if there is one."""

    def export(result: VideoResult, form: str, folder: Path, watch: Watch) -> Path:
        frames = {result.name: source} if source else {}
        return export_results([result], form, folder, frames, reading=reading.options, watch=watch)

    return export


def list_forms(has_video: bool) -> list[tuple[str, str]]:
    """The forms of `masklet export` with a line of help each."""
    entries = [*FORMATS.entries.values(), *EXPORTS.entries.values()]
    return [(e.name, e.help) for e in entries if has_video or e.name not in NEED_FRAMES]


NEED_FRAMES = ("fiftyone", "rgba", "overlay")  # forms that are nothing without the video


def describe_other(path: Path) -> str:
    """What a result to compare with is called: its last folder and file."""
    return "/".join(path.resolve().parts[-2:])


def read_other(path: Path) -> VideoResult:
    """A result to compare with, or annotations in a folder of label images. Raises InputError where it is neither."""
    return VideoResult.open(find_one_result(path)) if is_result(str(path)) else read_davis(path)


def find_comparable(desk: Desk, desks: Sequence[Desk], others: Mapping[str, VideoResult]) -> dict[str, VideoResult]:
    """The results of the other `desks`, and those of `others`, that are of the size and length of the video of one
    `desk`.
    """
    known = {**others, **{one.name: one.result for one in desks if one is not desk and one.result.masklets}}
    shape = desk.result.size, desk.result.length
    return {name: result for name, result in known.items() if (result.size, result.length) == shape}


# -- the server


def serve_page(desks: Sequence[Desk], host: str, port: int, browser: bool) -> None:
    """Serves the page of some open videos, the `desks`, at an address of `host` and `port` until a signal ends it;
    what was not saved by then is saved. With `browser` one is opened.

    Raises InputError where the address is taken.
    """
    import uvicorn

    from masklet.view.server import LOOPBACK, Gate, build_app

    listening = listen(host, port)
    number = listening.getsockname()[1]
    is_local = host in (*LOOPBACK, "::1")
    gate = Gate(find_token(), LOOPBACK if is_local else (*LOOPBACK, host, "*"), number)
    name = f"[{host}]" if ":" in host else host
    address = f"http://{name if host not in ('0.0.0.0', '::') else socket.gethostname()}:{number}/?token={gate.token}"
    for desk in desks:
        for note in desk.notes:
            typer.echo(f"masklet: {escape_control_characters(note)}", err=True)
    if not is_local:
        typer.echo("masklet: other machines can reach the page; who has its address can change the results", err=True)
    typer.echo(f"{address}\nCtrl-C ends it.")
    if browser and has_display():
        webbrowser.open(address)
    config = uvicorn.Config(
        build_app(desks, gate),
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    sys.setswitchinterval(PATIENCE)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except (Interruption, KeyboardInterrupt):
        pass
    finally:
        listening.close()
        save_unsaved(desks)


def find_token(name: str = "MASKLET_TOKEN") -> str:
    """The token that the environment has under a `name`, or a new one. Raises InputError where it is easily guessed."""
    from masklet.view.server import make_token

    told = os.environ.get(name, "")
    if told and not (len(told) >= SHORTEST_TOKEN and told.isascii() and told.isprintable() and " " not in told):
        raise InputError(
            f"{name}: give {SHORTEST_TOKEN} characters or more, without blanks; or leave it out for a new one"
        )
    return told or make_token()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address. Raises InputError where it cannot."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise InputError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror or error}); leave --port out for a "
            "free one"
        ) from None


def has_display() -> bool:
    """Whether a browser would have a window; in a terminal alone one would take its place."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def save_unsaved(desks: Sequence[Desk]) -> None:
    """Saves what was changed and not saved, and says where. Raises InputError of what could not be saved, after all
    else was.
    """
    problems = []
    for desk in desks:
        if desk.editor.revision != desk.saved:
            try:
                typer.echo(f"saved: {escape_control_characters(desk.save())}")
            except InputError as error:
                problems.append(str(error))
    if problems:
        raise InputError("; ".join(problems))
