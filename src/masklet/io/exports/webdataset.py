"""Webdataset's tars: for each frame a json, and its image where the video is given, under one key."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from masklet.core.errors import InputError
from masklet.io.exports.exported_results import ExportedResults, encode_jpeg
from masklet.io.exports.frame_entry import format_frame


def write_webdataset(results: ExportedResults, folder: Path, samples: int = 1000) -> None:
    """Writes tars of frames, called <video>/<frame's number>; the same results give the same bytes.

    Args:
        results: of videos.
        folder: which gets 000000.tar on.
        samples: how many frames a tar has at most
    """
    if samples < 1:
        raise InputError("webdataset: a tar needs at least one frame; give samples from 1 on")
    shard: tarfile.TarFile | None = None
    for n, (key, files) in enumerate(_list_samples(results)):
        if n % samples == 0:
            if shard is not None:
                shard.close()
            shard = tarfile.open(folder / f"{n // samples:06d}.tar", "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        assert shard is not None
        for suffix, data in files.items():
            info = tarfile.TarInfo(f"{key}.{suffix}")
            info.size = len(data)
            shard.addfile(info, BytesIO(data))
    if shard is not None:
        shard.close()


def _list_samples(results: ExportedResults) -> Iterator[tuple[str, dict[str, bytes]]]:
    for result in results:
        names = results.name_frames(result)
        frames: Iterator[Any] = (
            results.read_frames(result) if results.has_video(result) else results.iterate_frame_numbers(result)
        )
        for t, frame in enumerate(frames):
            image = {"jpg": encode_jpeg(frame.image)} if results.has_video(result) else {}
            entry = json.dumps(format_frame(result, t, names[t])).encode()
            yield f"{result.name}/{t:06d}", {**image, "json": entry}
