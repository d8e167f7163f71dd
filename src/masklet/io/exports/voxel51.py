"""FiftyOne: a data set of its own form, through its own library, which is imported when it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from masklet.core.errors import InputError
from masklet.core.result import VideoResult
from masklet.io.exports.exported_results import IMAGES, ExportedResults

BIT = 1e-6  # of a pixel: FiftyOne cuts fractions off, and 55 / 432 * 432 is less than 55


def write_fiftyone(results: ExportedResults, folder: Path) -> None:
    """Writes a FiftyOneDataset into `folder`/fiftyone, a sample a frame, and the images beside it. Raises InputError
    where FiftyOne is not installed or a video is not given.
    """
    try:
        import fiftyone  # an adapter: it brings a database
    except ImportError:
        raise InputError("fiftyone is not installed: pip install fiftyone") from None
    for result in results:
        results.require_video(result)
    results.write_images(folder / IMAGES)
    dataset = build_dataset(fiftyone, results, folder / IMAGES)
    try:
        dataset.export(export_dir=str(folder / "fiftyone"), dataset_type=fiftyone.types.FiftyOneDataset)
    finally:
        dataset.delete()


def build_dataset(fiftyone: Any, results: ExportedResults, images: Path) -> Any:
    """A data set of frames whose images lie in `images`/<video>/<frame>.jpg."""
    dataset = fiftyone.Dataset()
    for result in results:
        for t, name in enumerate(results.name_frames(result)):
            sample = fiftyone.Sample(filepath=str(images / result.name / f"{name}.jpg"))
            sample["video"], sample["frame"] = result.name, t
            sample["masklets"] = fiftyone.Detections(detections=_list_detections(fiftyone, result, t))
            dataset.add_sample(sample)
    return dataset


def _list_detections(fiftyone: Any, result: VideoResult, frame: int) -> list[Any]:
    h, w = result.size
    found = []
    for m, seen in result.at(frame):
        x0, y0, x1, y1 = seen.mask.box
        found.append(
            fiftyone.Detection(
                label=result.name_of(m),
                bounding_box=[(x0 + BIT) / w, (y0 + BIT) / h, (x1 - x0) / w, (y1 - y0) / h],
                mask=seen.mask.decode_pixels()[y0:y1, x0:x1],
                confidence=m.score,
                index=m.id,
            )
        )
    return found
