"""masklet behind CVAT's "AI tools": an interactor that makes a mask of clicks and a box, as CVAT asks its functions.

CVAT sends an image, points on the object and beside it, and a box, and wants the object's mask back. Start this with
`python examples/cvat_function.py --port 8070`, or import `answer` in the handler of a nuclio function of your own,
whose function.yaml says `type: interactor`, `min_pos_points: 1`, `min_neg_points: 0`, `startswith_box_optional: true`.
"""

from __future__ import annotations

import argparse
import base64
import io
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import masklet

PROPAGATOR = "nano"  # what draws the masks; "sam2.1-tiny" once its weights are fetched


@cache
def load_model() -> masklet.Model:
    """The model, loaded at the first request."""
    return masklet.load(propagator=PROPAGATOR, segmenter="motion")


def read_clicks(asked: Mapping[str, Any]) -> masklet.Clicks:
    """The clicks and the box of a request. Raises InputError where they are none."""

    def read_points(name: str) -> Sequence[Sequence[float]]:
        points = asked.get(name) or []
        if not all(isinstance(p, list) and len(p) == 2 for p in points):
            raise masklet.InputError(f"{name}: a list of [x, y] is needed")
        return points

    inside = [masklet.Point(float(x), float(y)) for x, y in read_points("pos_points")]
    outside = [masklet.Point(float(x), float(y), inside=False) for x, y in read_points("neg_points")]
    corners = read_points("obj_bbox")
    box = masklet.Box(*map(float, (*corners[0], *corners[1]))) if len(corners) == 2 else None
    return masklet.Clicks((*inside, *outside), box)


def answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request: the mask of the object, a row of 0 and 1 for each row of the image. Raises InputError
    where the request marks nothing, or has no image.
    """
    try:
        image = Image.open(io.BytesIO(base64.b64decode(asked["image"]))).convert("RGB")
    except (KeyError, ValueError, OSError):
        raise masklet.InputError("image: a picture in base64 is needed") from None
    with load_model().open([np.array(image)]) as session:
        mask = session.prompt(0, None, read_clicks(asked))
    return {"mask": mask.decode_pixels().astype(int).tolist()}


async def handle(request: Request) -> JSONResponse:
    """Answers a request over HTTP, as nuclio passes it on."""
    try:
        return JSONResponse(await run_in_threadpool(answer, await request.json()))
    except masklet.InputError as error:
        return JSONResponse({"error": str(error)}, status_code=400)


app = Starlette(routes=[Route("/", handle, methods=["POST"])])

if __name__ == "__main__":
    import uvicorn

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8070)
    told = parser.parse_args()
    uvicorn.run(app, host=told.host, port=told.port)
