"""A result for other tools, COCO, CVAT, Label Studio and YOLO: `python examples/export.py masklets.json clip.mp4`."""

import sys
from pathlib import Path

from masklet import VideoResult

FORMS = {"coco": {"polygons": True}, "cvat-video": {}, "label-studio": {}, "ultralytics": {}}


def main(result: str, video: str, out: str = "exports") -> list[Path]:
    tidy = VideoResult.load(result).filter(min_frames=2)
    return [tidy.export(form, Path(out) / form, frames=video, **settings) for form, settings in FORMS.items()]


if __name__ == "__main__":
    for folder in main(*sys.argv[1:]):
        print(folder, *sorted(p.name for p in folder.iterdir()))
