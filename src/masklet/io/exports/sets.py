"""Several results in one file of a data set, with the images where the videos are given."""

from __future__ import annotations

from pathlib import Path

from masklet.io.exports.exported_results import IMAGES, ExportedResults
from masklet.io.formats.burst import write_burst
from masklet.io.formats.panoptic import write_panoptic
from masklet.io.formats.ytvis import write_ytvis_truth


def write_ytvis_set(results: ExportedResults, folder: Path) -> None:
    """Writes all results as YouTube-VIS's ground truth into `folder`/instances.json, with images as above."""
    write_ytvis_truth(results, folder / "instances.json", results.map_frame_names())
    results.write_images(folder / IMAGES)


def write_burst_set(results: ExportedResults, folder: Path) -> None:
    """Writes all results into `folder`/burst.json, with images as above."""
    write_burst(results, folder / "burst.json", results.map_frame_names())
    results.write_images(folder / IMAGES)


def write_vipseg_set(results: ExportedResults, folder: Path) -> None:
    """Writes all results in VIPSeg's form into `folder`/vipseg, with images as above."""
    write_panoptic(results, folder / "vipseg", results.map_frame_names())
    results.write_images(folder / IMAGES)
