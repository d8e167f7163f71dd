"""BURST's form: per video and annotated frame, the RLEs by track id.

What it cannot say: things and stuff, how a mask came about. A track has no score of its own: its masklet's is written
with each of its frames, and the mean of the frames' is read. A masklet without a name comes back as an "object".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from masklet.core.files import write_atomically
from masklet.core.limits import (
    check_frame_count,
    check_frame_rate,
    check_relative_path,
    check_text,
    parse_whole_number,
)
from masklet.core.result import VideoResult
from masklet.io.formats.json_entry import JsonEntry, parse_coco_mask, read_json_object
from masklet.io.formats.split import (
    DatasetSplit,
    ListedVideo,
    VideoObjects,
    build_video_result,
    find_category_id,
    index_categories,
    read_categories,
    resolve_frame_names,
)

BURST = "a BURST json"


def write_burst(
    results: Sequence[VideoResult],
    path: Path,
    names: Mapping[str, Sequence[str]] | None = None,
    categories: Mapping[int, str] | None = None,
    split: str = "val",
) -> None:
    """Writes `results` to the json file `path`; a result's name is <dataset>/<sequence>, or the sequence alone.

    `names` has, by video, the names of its frames without suffix, 00000 on where there are none; all count as
    annotated. `categories` are id: name of the data set; without them the names of the results are numbered from 1.
    `split` is what the file says of itself, such as "val". Raises InputError where an object's category is not in
    `categories`, two results have one name, or a video's frames not one name each.
    """
    ids = {name: id for id, name in categories.items()} if categories else index_categories(results)
    DatasetSplit.of(str(path), [ListedVideo(r.name) for r in results])
    content = {
        "split": split,
        "categories": [{"id": id, "name": name} for name, id in ids.items()],
        "sequences": [
            {"id": n, **_format_burst_sequence(r, resolve_frame_names(r, (names or {}).get(r.name)), ids)}
            for n, r in enumerate(results, start=1)
        ],
    }
    with write_atomically(path) as file:
        file.write(json.dumps(content).encode())


def _format_burst_sequence(result: VideoResult, names: Sequence[str], ids: Mapping[str, int]) -> dict[str, Any]:
    dataset, _, sequence = result.name.rpartition("/")
    files = [f"{name}.jpg" for name in names]
    return {
        "seq_name": sequence,
        "dataset": dataset,
        "width": result.size[1],
        "height": result.size[0],
        "fps": result.rate,
        "all_image_paths": files,
        "annotated_image_paths": files,
        "neg_category_ids": [],  # as ground truth has them, for tools that take the file for one
        "not_exhaustive_category_ids": [],
        "track_category_ids": {str(m.id): find_category_id(result, m, ids) for m in result.masklets},
        "segmentations": [
            {str(m.id): {"rle": s.mask.counts.decode(), "score": m.score} for m, s in result.at(t)}
            for t in range(result.length)
        ],
    }


def read_burst(path: Path, categories: Mapping[int, str] | None = None) -> list[VideoResult]:
    """The sequences of a BURST file, called <dataset>/<sequence>; their frames are all images, annotated or not.

    Which frames are annotated is lost: objects are merely not seen in the others. A mask without a score has 1.
    Category names are those given, else the file's own, else the ids. Raises InputError naming the file, sequence,
    frame and track that are malformed, given twice or not listed.
    """
    content = read_json_object(path, BURST, "sequences")
    sequences = list(content.entries("sequences"))
    known = categories or (
        read_categories(content) if "categories" in content else _collect_burst_categories(sequences)
    )
    split = DatasetSplit(str(path), {}, known)
    results = [_read_burst_sequence(path, s, split) for s in sequences]
    DatasetSplit.of(str(path), [ListedVideo(r.name) for r in results])
    return results


def _collect_burst_categories(sequences: Sequence[JsonEntry]) -> dict[int, str]:
    found = [(s.entry("track_category_ids"), k) for s in sequences for k in s.entry("track_category_ids")]
    return {id: str(id) for id in {entry.whole(key) for entry, key in found}}


def _read_burst_sequence(path: Path, sequence: JsonEntry, split: DatasetSplit) -> VideoResult:
    dataset = check_text(sequence.where, "'dataset'", sequence.content.get("dataset") or "")
    name = check_relative_path(sequence.where, f"{dataset}/" * bool(dataset) + sequence.text("seq_name"))
    sequence.where = f"{path}: {name}"
    files, annotated = sequence.texts("all_image_paths"), sequence.texts("annotated_image_paths")
    pages = list(sequence.entries("segmentations"))
    if len(pages) != len(annotated):
        raise sequence.wrong(f"{len(pages)} segmentations for {len(annotated)} annotated images")
    at = {file: t for t, file in enumerate(files)}
    if len(at) < len(files) or len(set(annotated)) < len(annotated):
        raise sequence.wrong("an image is listed twice; keep one of them")
    rate = check_frame_rate(sequence.where, sequence.number("fps", 25.0))
    check_frame_count(sequence.where, len(files))
    labels, objects, size = _map_track_labels(sequence, split), VideoObjects(), sequence.size()
    for file, page in zip(annotated, pages, strict=True):
        if file not in at:
            raise sequence.wrong(f"the annotated image {file} is not in 'all_image_paths'")
        for track in page:
            entry = JsonEntry(f"{path}: {name}, {file}, track {track}", page.get(track))
            if track not in labels:
                raise entry.wrong("the track is not in 'track_category_ids'")
            mask = parse_coco_mask(entry.where, {"size": list(size), "counts": entry.get("rle")}, size)
            if not objects.add(int(track), at[file], mask, entry.number("score", 1.0), labels[track]):
                raise entry.wrong("the track is given twice; keep one of them")
    return build_video_result(name, size, len(files), objects, split.names, path, rate)


def _map_track_labels(sequence: JsonEntry, split: DatasetSplit) -> dict[str, int]:
    """{track id: label} of a sequence, a label being the category's place in the split's names."""
    tracks, labels = sequence.entry("track_category_ids"), split.labels
    for track in tracks:
        if parse_whole_number(track) is None or tracks.whole(track) not in labels:
            raise tracks.wrong(f"track {track:.40} is of category {tracks.whole(track)}, which is not listed")
    return {track: labels[tracks.whole(track)] for track in tracks}
