"""Parquet as Hugging Face's `datasets` reads it: a row a frame with its objects, and its image where it is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from masklet.core.errors import InputError
from masklet.io.exports.exported_results import ExportedResults, encode_jpeg
from masklet.io.exports.frame_entry import format_frame

ROWS = 100  # that are in memory at once, and a group in the file

FEATURES = {
    "video": {"dtype": "string", "_type": "Value"},
    "frame": {"dtype": "int64", "_type": "Value"},
    "frame_name": {"dtype": "string", "_type": "Value"},
    "time": {"dtype": "float64", "_type": "Value"},
    "height": {"dtype": "int64", "_type": "Value"},
    "width": {"dtype": "int64", "_type": "Value"},
    "image": {"_type": "Image"},
    "objects": [
        {
            "id": {"dtype": "int64", "_type": "Value"},
            "name": {"dtype": "string", "_type": "Value"},
            "score": {"dtype": "float64", "_type": "Value"},
            "source": {"dtype": "string", "_type": "Value"},
            "area": {"dtype": "int64", "_type": "Value"},
            "box": {"feature": {"dtype": "int64", "_type": "Value"}, "_type": "Sequence"},
            "counts": {"dtype": "string", "_type": "Value"},
        }
    ],
}
CARD = """---
configs:
- config_name: default
  data_files: data/train-*.parquet
---
# Masklets

A row a frame. `objects` has each object's id, name, score, source, area and box (x0, y0, x1, y1 in pixels), and its
mask as COCO's compressed run lengths: `pycocotools.mask.decode({"size": [height, width], "counts": counts})`.
"""


def import_pyarrow() -> Any:
    """pyarrow with its parquet. Raises InputError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet  # the extra [hf]
    except ImportError:
        raise InputError("Parquet needs pyarrow, which is not installed: pip install 'masklet[hf]'") from None
    return pyarrow


def build_schema(arrow: Any) -> Any:
    """The columns as pyarrow and `datasets` have them."""
    whole, number, text = arrow.int64(), arrow.float64(), arrow.string()
    facts = {"id": whole, "name": text, "score": number, "source": text, "area": whole}
    one = arrow.struct([*facts.items(), ("box", arrow.list_(whole)), ("counts", text)])
    columns = {"video": text, "frame": whole, "frame_name": text, "time": number, "height": whole, "width": whole}
    image = arrow.struct([("bytes", arrow.binary()), ("path", text)])
    made = arrow.schema([*columns.items(), ("image", image), ("objects", arrow.list_(one))])
    return made.with_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})


def write_hugging_face(results: ExportedResults, folder: Path) -> None:
    """Writes `folder`/data/train-00000-of-00001.parquet and README.md, the data set's card. Raises InputError where
    there is no pyarrow.
    """
    arrow = import_pyarrow()
    (folder / "data").mkdir()
    schema, rows = build_schema(arrow), list[dict[str, Any]]()
    with arrow.parquet.ParquetWriter(folder / "data" / "train-00000-of-00001.parquet", schema) as writer:
        for row in _list_rows(results):
            rows.append(row)
            if len(rows) == ROWS:
                writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
                rows.clear()
        if rows:
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
    (folder / "README.md").write_text(CARD)


def _list_rows(results: ExportedResults) -> Iterator[dict[str, Any]]:
    for result in results:
        names = results.name_frames(result)
        frames: Iterator[Any] = (
            results.read_frames(result) if results.has_video(result) else results.iterate_frame_numbers(result)
        )
        for t, frame in enumerate(frames):
            shown = results.has_video(result)
            image = {"bytes": encode_jpeg(frame.image), "path": f"{names[t]}.jpg"} if shown else None
            yield {**format_frame(result, t, names[t]), "image": image}
