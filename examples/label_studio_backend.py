"""masklet as an ML backend of Label Studio: smart key points and rectangles become brush masks.

Start it with `python examples/label_studio_backend.py --images FOLDER`, where FOLDER holds the images of the project
(no other file is read, nothing is fetched), and connect http://127.0.0.1:9090 as a model with interactive
preannotations. The labelling interface needs <BrushLabels>, and <KeyPointLabels smart="true"> or <RectangleLabels
smart="true">, over an <Image>.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import masklet
from masklet.io.exports.label_studio import encode_brush

PROPAGATOR = "nano"
VERSION = f"masklet-{masklet.__version__}"


@cache
def load_model() -> masklet.Model:
    """The model, loaded at the first request."""
    return masklet.load(propagator=PROPAGATOR, segmenter="motion")


def find_image(folder: Path, address: str) -> Path:
    """The file that a task's address means: /data/local-files/?d=a/1.jpg, a path or an address that ends like one in
    the `folder`. Raises InputError where there is none; what leads out of the folder is none.
    """
    parts = urlsplit(address)
    told = parse_qs(parts.query).get("d", [unquote(parts.path)])[0]
    names = [name for name in told.split("/") if name]
    for n in range(len(names)):
        path = folder.joinpath(*names[n:]).resolve()
        if path.is_file() and path.is_relative_to(folder.resolve()):
            return path
    raise masklet.InputError(f"{address}: no such image in {folder}")


def find_brush(config: str) -> tuple[str, str, str]:
    """The name of the brush, of its image, and of the image's address in a task. Raises InputError without a brush."""
    if "<!" in config:  # no entities from elsewhere
        raise masklet.InputError("the labelling interface must not declare anything")
    try:
        root = ElementTree.fromstring(config)
    except ElementTree.ParseError:
        raise masklet.InputError("the labelling interface is no XML") from None
    brush = root.find(".//BrushLabels")
    images = {image.get("name"): image.get("value", "").lstrip("$") for image in root.iter("Image")}
    if brush is None or brush.get("toName") not in images:
        raise masklet.InputError("the labelling interface needs BrushLabels over an Image")
    return str(brush.get("name")), str(brush.get("toName")), images[brush.get("toName")]


def read_clicks(marks: Sequence[Mapping[str, Any]]) -> tuple[masklet.Clicks, str]:
    """What was marked, in pixels, and the label. Places come in percent of the image."""
    points, box, label = [], None, ""
    for mark in marks:
        value, kind = mark["value"], mark["type"]
        x, y = value["x"] * mark["original_width"] / 100, value["y"] * mark["original_height"] / 100
        label = value[kind][0]
        if kind == "keypointlabels":
            points.append(masklet.Point(x, y, inside=bool(mark.get("is_positive", 1))))
        elif kind == "rectanglelabels":
            width = value["width"] * mark["original_width"] / 100
            box = masklet.Box(x, y, x + width, y + value["height"] * mark["original_height"] / 100)
    return masklet.Clicks(tuple(points), box), label


def predict(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to /predict: a brush mask where somebody has marked something, else nothing. Raises InputError where
    the request cannot be answered.
    """
    marks = ((asked.get("params") or {}).get("context") or {}).get("result") or []
    if not marks:
        return {"results": []}
    brush, image, key = find_brush(asked["label_config"])
    clicks, label = read_clicks(marks)
    with load_model().open(str(find_image(folder, asked["tasks"][0]["data"][key]))) as session:
        mask = session.prompt(0, None, clicks)
        [(masklet_, sighting)] = session.result.at(0) if mask.area else [(None, None)]
    if masklet_ is None or sighting is None:
        return {"results": []}
    found = {
        "id": "masklet",
        "type": "brushlabels",
        "from_name": brush,
        "to_name": image,
        "original_width": mask.size[1],
        "original_height": mask.size[0],
        "image_rotation": 0,
        "score": sighting.score,
        "value": {"format": "rle", "rle": encode_brush(mask.decode_pixels()), "brushlabels": [label]},
    }
    return {"results": [{"result": [found], "score": sighting.score, "model_version": VERSION}]}


def build_app(folder: Path) -> Starlette:
    """The backend over the images of a `folder`."""

    def serve(work: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Callable[[Request], Any]:
        async def handle(request: Request) -> JSONResponse:
            try:
                return JSONResponse(await run_in_threadpool(work, await request.json()))
            except masklet.InputError as error:
                return JSONResponse({"error": str(error)}, status_code=400)

        return handle

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"status": "UP", "model_class": "masklet"})

    return Starlette(
        routes=[
            Route("/", health),
            Route("/health", health),
            Route("/setup", serve(lambda asked: {"model_version": VERSION}), methods=["POST"]),
            Route("/predict", serve(lambda asked: predict(folder, asked)), methods=["POST"]),
        ]
    )


if __name__ == "__main__":
    import uvicorn

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9090)
    told = parser.parse_args()
    uvicorn.run(build_app(told.images), host=told.host, port=told.port)
