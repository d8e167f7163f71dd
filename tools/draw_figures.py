"""Draws the figures of the concept pages into docs/figures, as SVG that takes the colours of the page it stands on.

    python tools/draw_figures.py              # all but the measured one
    python tools/draw_figures.py bounded      # measures memories over frames first; a minute

Where a figure is shown alone (on a forge, in a viewer) its own style says by the theme of the reader what ink is;
on the site it is put into the page (tools/site_hooks.py), whose theme says it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "figures"
MEASURED = FOLDER / "bounded.json"
STYLE = """svg{color:#24292f;font:13px sans-serif}
@media (prefers-color-scheme:dark){svg{color:#dce1e8;background:#1e2129}}"""
ORANGE, BLUE, GREEN, VIOLET = "#e0782f", "#4f86f0", "#2f9e62", "#a06be0"  # legible on white and on near black
HUES = ORANGE, BLUE, GREEN, VIOLET
DASHES = 'stroke-dasharray="4 3"'


@dataclass
class Drawing:
    """Shapes in the order in which they are painted; ink is the text colour of where it is shown."""

    width: int
    height: int
    title: str
    shapes: list[str] = field(default_factory=list)

    def put_text(
        self, x: float, y: float, text: str, anchor: str = "middle", size: int = 13, faint: bool = False
    ) -> None:
        """One line, its baseline at `y`."""
        dim = ' opacity="0.75"' if faint else ""
        self.shapes.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="currentColor"{dim}>'
            f"{escape(text)}</text>"
        )

    def put_box(self, x: float, y: float, w: float, h: float, text: str = "", hue: str = "currentColor") -> None:
        """A box with lines of text in its middle."""
        self.shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="5" fill="{hue}" fill-opacity="'
            f'{0.06 if hue == "currentColor" else 0.18}" stroke="{hue}"/>'
        )
        lines = text.split("\n") if text else []
        for n, line in enumerate(lines):
            self.put_text(x + w / 2, y + h / 2 + 4.5 + 16 * (n - (len(lines) - 1) / 2), line)

    def put_mark(self, x: float, y: float, side: float, hue: str, kind: str) -> None:
        """A square that says how a mask came about: detected, forward, backward or prompted."""
        opacity = {"detected": 0.9, "prompted": 0.9, "forward": 0.3, "backward": 0.08}[kind]
        dashed = f" {DASHES}" if kind == "backward" else ""
        self.shapes.append(
            f'<rect x="{x - side / 2:g}" y="{y - side / 2:g}" width="{side:g}" height="{side:g}" rx="3" fill="{hue}" '
            f'fill-opacity="{opacity}" stroke="{hue}"{dashed}/>'
        )
        if kind == "prompted":
            self.shapes.append(f'<circle cx="{x:g}" cy="{y:g}" r="{side / 5:g}" fill="#fff"/>')

    def put_disc(self, x: float, y: float, r: float, hue: str, opacity: float = 0.85) -> None:
        """A disc."""
        self.shapes.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{r:g}" fill="{hue}" fill-opacity="{opacity:g}" stroke="{hue}"/>'
        )

    def put_line(self, points: Sequence[tuple[float, float]], hue: str = "currentColor", dashed: bool = False,
                 wide: float = 1.4, arrow: bool = False) -> None:  # fmt: skip
        """A line through points, with an arrow at its end where it is one."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        more = (f" {DASHES}" if dashed else "") + (f' marker-end="url(#{self.name_arrow(hue)})"' if arrow else "")
        self.shapes.append(f'<polyline points="{path}" fill="none" stroke="{hue}" stroke-width="{wide:g}"{more}/>')

    def put_arrow(
        self, x0: float, y0: float, x1: float, y1: float, hue: str = "currentColor", dashed: bool = False
    ) -> None:
        """A straight arrow."""
        self.put_line([(x0, y0), (x1, y1)], hue, dashed, arrow=True)

    def name_arrow(self, hue: str) -> str:
        """The id of the arrow head of a colour in this drawing; ids of all drawings of a page are different."""
        return f"{self.title.split()[0].lower().strip(':,')}-{hue.strip('#')}"

    def format(self) -> str:
        """The file's text."""
        heads = "".join(
            f'<marker id="{self.name_arrow(hue)}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0,0 L8,4 L0,8 z" fill="{hue}"/></marker>'
            for hue in ("currentColor", ORANGE, BLUE, GREEN, VIOLET)
        )
        body = "\n".join(self.shapes)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(self.title)}">\n<title>{escape(self.title)}</title>\n<style>{STYLE}</style>\n'
            f"<defs>{heads}</defs>\n{body}\n</svg>\n"
        )


def put_legend(drawing: Drawing, x: float, y: float, entries: Iterable[tuple[str, str]], step: float = 125) -> None:
    """Marks with their words."""
    for n, (kind, words) in enumerate(entries):
        drawing.put_mark(x + step * n, y - 4, 13, BLUE, kind)
        drawing.put_text(x + step * n + 13, y, words, "start")


def draw_masklets() -> Drawing:
    """Frames with two objects, and when each is seen and by what."""
    drawing = Drawing(720, 330, "Masklets: two objects through five frames, and where each mask came from")
    sources: Mapping[str, tuple[str, list[str]]] = {
        "1 person": (ORANGE, ["detected", "detected", "forward", "detected", "forward"]),
        "2 car": (BLUE, ["backward", "backward", "detected", "forward", "prompted"]),
    }
    for t in range(5):
        x = 105 + 122 * t
        drawing.put_box(x, 30, 110, 82)
        drawing.put_text(x + 55, 22, f"frame {t}")
        drawing.put_disc(x + 24 + 14 * t, 60, 15, ORANGE)
        drawing.shapes.append(
            f'<rect x="{x + 62 - 10 * t}" y="82" width="36" height="20" rx="3" fill="{BLUE}" fill-opacity="0.85"/>'
        )
    for row, (name, (hue, kinds)) in enumerate(sources.items()):
        y = 160 + 52 * row
        drawing.put_text(14, y + 5, name, "start")
        drawing.put_line([(105, y), (105 + 122 * 4 + 110, y)], hue, wide=1)
        for t, kind in enumerate(kinds):
            drawing.put_mark(160 + 122 * t, y, 28, hue, kind)
    drawing.put_text(360, 256, "a masklet: one id, one name, one sighting a frame", faint=True)
    put_legend(drawing, 120, 300, [(k, k) for k in ("detected", "forward", "backward", "prompted")], 135)
    return drawing


def draw_memory() -> Drawing:
    """Memories as values: a chain, a copy that goes on apart, one on the disk."""
    drawing = Drawing(720, 290, "Memory: a value that goes in and comes out")
    for t in range(5):
        x = 40 + 140 * t
        drawing.put_disc(x, 120, 22, BLUE, 0.2)
        drawing.put_text(x, 125, f"m{t}")
        if t < 4:
            drawing.put_arrow(x + 23, 120, x + 116, 120)
            drawing.put_box(x + 38, 40, 62, 34, f"frame {t}")
            drawing.put_arrow(x + 69, 75, x + 69, 116)
    drawing.put_text(
        360, 24, "commit(memory, frame, belief) gives the next memory; the one before is as it was", faint=True
    )
    for n in range(2):
        drawing.put_disc(460 + 140 * n, 205, 22, ORANGE, 0.2)
        drawing.put_text(460 + 140 * n, 210, f"m{3 + n}'")
    drawing.put_line([(330, 140), (375, 205), (436, 205)], ORANGE, arrow=True)
    drawing.put_arrow(483, 205, 576, 205, ORANGE)
    drawing.put_text(530, 255, "another hypothesis: a copy goes on apart", faint=True)
    drawing.put_box(130, 186, 100, 40, "on the disk", GREEN)
    drawing.put_line([(303, 137), (270, 206), (233, 206)], GREEN, arrow=True)
    drawing.put_text(180, 255, "saved after any frame, resumed later", faint=True)
    return drawing


def draw_bounded() -> Drawing:
    """What memories took when they were measured."""
    told = json.loads(MEASURED.read_text())
    drawing = Drawing(720, 330, "Bounded: what a memory takes after each frame, measured")
    left, right, top, bottom = 70, 520, 30, 270
    highest = told["highest"]
    drawing.put_line([(left, top), (left, bottom), (right, bottom)])
    drawing.put_text((left + right) / 2, 310, "frames committed")
    drawing.put_text(left, 20, "MiB", "middle")
    frames = told["frames"]
    for t in (0, frames // 2, frames):
        x = left + (right - left) * t / frames
        drawing.put_text(x, 290, str(t))
    for share in (0.5, 1.0):
        y = bottom - (bottom - top) * share
        drawing.put_text(left - 8, y + 4, f"{highest * share:g}", "end")
    for (name, sizes), hue in zip(told["memories"].items(), (ORANGE, BLUE, GREEN), strict=False):
        points = [
            (left + (right - left) * (t + 1) / frames, max(bottom - (bottom - top) * size / highest, top))
            for t, size in enumerate(sizes)
        ]
        shown = [p for p in points if p[1] > top] + [next((p for p in points if p[1] <= top), points[-1])]
        drawing.put_line(shown, hue, dashed=name.startswith("every"), wide=2)
        place = min(shown[-1][0] + 8, right + 8)
        drawing.put_text(place, shown[-1][1] + 4, name, "start")
    return drawing


def draw_sam2bmp() -> Drawing:
    """Forward with key frames, backward to the beginning, clean-up."""
    drawing = Drawing(760, 350, "SAM2BMP: forward with key frames, backward completion, clean-up")
    rows = {
        "1": (ORANGE, ["detected", "forward", "detected", "forward", "detected", "forward", "detected"]),
        "2": (BLUE, ["backward", "backward", "backward", "detected", "forward", "detected", "forward"]),
        "3": (VIOLET, ["", "", "detected", "forward", "forward", "forward", "forward"]),
    }
    drawing.put_text(60, 30, "frame", "end", faint=True)
    for t in range(7):
        drawing.put_text(105 + 80 * t, 30, str(t))
    for row, (id, (hue, kinds)) in enumerate(rows.items()):
        y = 70 + 70 * row
        drawing.put_text(36, y + 5, id)
        for t, kind in enumerate(kinds):
            if not kind:
                continue
            drawing.put_mark(105 + 80 * t, y, 30, hue, kind)
            if (t < 6 and kinds[t + 1] == "forward") or (t < 6 and kind in ("detected", "forward")):
                drawing.put_arrow(123 + 80 * t, y, 167 + 80 * t, y, hue)
            elif t < 6 and kind == "backward":
                drawing.put_arrow(167 + 80 * t, y, 123 + 80 * t, y, hue, dashed=True)
    drawing.put_line([(250, 232), (612, 188)], "currentColor", wide=2)
    drawing.put_text(640, 75, "1: key frames", "start", faint=True)
    drawing.put_text(640, 145, "2: completed", "start", faint=True)
    drawing.put_text(640, 215, "3: dropped", "start", faint=True)
    drawing.put_text(
        360,
        268,
        "a key frame takes the detected mask; too few of them in its frames, and an object is dropped",
        faint=True,
    )
    put_legend(
        drawing,
        120,
        320,
        [("detected", "key frame"), ("forward", "propagated forward"), ("backward", "completed backward")],
        180,
    )
    return drawing


def draw_sam2long() -> Drawing:
    """A tree of pathways, of which three are kept in each frame."""
    drawing = Drawing(720, 330, "SAM2Long: pathways that branch in every frame, of which the best are kept")
    kept: list[list[int]] = [[1], [0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
    edges = {  # from frame to frame: the pathway that each of the three is a hypothesis of
        0: {0: 1, 1: 1, 2: 1}, 1: {0: 0, 1: 0, 2: 1}, 2: {0: 1, 1: 1, 2: 2}, 3: {0: 0, 1: 1, 2: 1},
    }  # fmt: skip
    best = [1, 0, 1, 1, 2]

    def place(t: int, path: int) -> tuple[float, float]:
        return 80 + 140 * t, 90 + 65 * path

    for t, links in edges.items():
        for path in kept[t]:
            x, y = place(t, path)
            for n in range(3):  # three hypotheses of every pathway; those that are not kept end here
                drawing.put_line([(x + 17, y), (x + 62, y + 16 * (n - 1))], "currentColor", dashed=True, wide=0.8)
        for path, before in links.items():
            is_best = best[t + 1] == path and best[t] == before
            (x0, y0), (x1, y1) = place(t, before), place(t + 1, path)
            drawing.put_line(
                [(x0 + 17, y0), (x1 - 18, y1)], ORANGE if is_best else BLUE, wide=3 if is_best else 1.6, arrow=True
            )
    for t, paths in enumerate(kept):
        drawing.put_text(80 + 140 * t, 50, f"frame {t}")
        for path in paths:
            drawing.put_disc(*place(t, path), 16, ORANGE if best[t] == path else BLUE, 0.35)
    drawing.put_text(
        360,
        275,
        "of nine hypotheses the three of highest summed score go on, each with a memory of its own",
        faint=True,
    )
    drawing.put_text(
        360,
        298,
        "(a node: a pathway; dashed: hypotheses that are not kept; orange: the one that wins in the end)",
        faint=True,
    )
    return drawing


def draw_deva() -> Drawing:
    """Clip consensus and propagation in turns."""
    drawing = Drawing(720, 330, "DEVA: consensus of a clip, merged with what was propagated")
    found = [[0, 1], [0, 1, 2], [0]]
    for t, things in enumerate(found):
        x = 30 + 92 * t
        drawing.put_box(x, 50, 82, 66)
        drawing.put_text(x + 41, 40, f"frame {t}")
        for n, (dx, dy, hue) in enumerate(((22, 72, ORANGE), (58, 72, BLUE), (40, 100, VIOLET))):
            if n in things:
                drawing.put_disc(x + dx, dy, 11, hue, 0.5)
        if t:
            drawing.put_line(
                [(x + 41, 120), (x + 41, 140 + 10 * t), (76, 140 + 10 * t), (76, 186)], dashed=True, arrow=True
            )
    drawing.put_line([(66, 118), (66, 186)], arrow=True)
    drawing.put_text(320, 90, "all carried to the first frame", "start", faint=True)
    drawing.put_box(30, 190, 150, 70, "consensus:\nmasks that agree", GREEN)
    drawing.put_text(30, 284, "two agree: stays; one alone: goes", "start", faint=True)
    drawing.put_arrow(182, 225, 258, 225)
    drawing.put_box(262, 190, 130, 70, "merge with\ntracked masks", GREEN)
    drawing.put_arrow(394, 225, 440, 225)
    for n in range(4):
        drawing.put_box(444 + 58 * n, 200, 50, 50)
        drawing.put_disc(462 + 58 * n, 218, 8, ORANGE)
        drawing.put_disc(478 + 58 * n, 232, 8, BLUE)
    drawing.put_text(560, 284, "propagated to the next clip", faint=True)
    drawing.put_line([(560, 198), (560, 165), (327, 165), (327, 188)], dashed=True, arrow=True)
    return drawing


def draw_dvis() -> Drawing:
    """Segmenter, tracker, refiner."""
    drawing = Drawing(720, 350, "DVIS: segmenter, referring tracker, temporal refiner")
    for t in range(4):
        x = 130 + 145 * t
        drawing.put_text(x + 50, 24, f"frame {t}")
        drawing.put_box(x, 36, 100, 44, "segmenter", BLUE)
        drawing.put_arrow(x + 50, 81, x + 50, 124)
        drawing.put_text(x + 56, 106, "queries", "start", 12, faint=True)
        drawing.put_box(x, 128, 100, 44, "tracker", ORANGE)
        drawing.put_arrow(x + 50, 173, x + 50, 226)
        if t < 3:
            drawing.put_arrow(x + 101, 150, x + 142, 150, ORANGE)
    drawing.put_box(130, 230, 535, 46, "refiner: attention and convolution over time, attention among objects", GREEN)
    for n, words in enumerate(("each frame alone", "who is who", "all frames")):
        drawing.put_text(118, 62 + 96 * n, words, "end", 12, faint=True)
    drawing.put_arrow(397, 278, 397, 312)
    drawing.put_text(397, 332, "one class and one masklet for each track; MinVIS is the first row and a matching")
    return drawing


def draw_rocovis() -> Drawing:
    """What goes from one frame to the next: queries, and pixels calibrated by masks."""
    drawing = Drawing(720, 360, "RoCoVIS: queries go on, and masks of the frames before calibrate the pixels")
    drawing.put_text(110, 26, "frame t - 1", faint=True)
    drawing.put_text(450, 26, "frame t", faint=True)
    drawing.put_box(30, 250, 150, 44, "queries Q(t-1)", ORANGE)
    drawing.put_box(30, 150, 150, 44, "masks M(t-1)", VIOLET)
    drawing.put_box(30, 50, 150, 44, "features F(t-1)", BLUE)
    drawing.put_box(270, 50, 130, 44, "features F(t)", BLUE)
    drawing.put_box(270, 140, 130, 60, "cross-attention:\ncalibrated", GREEN)
    drawing.put_box(455, 140, 110, 60, "pixel\ndecoder")
    drawing.put_box(455, 242, 110, 60, "decoder")
    drawing.put_box(610, 250, 80, 44, "Q(t)", ORANGE)
    drawing.put_box(610, 148, 80, 44, "M(t)", VIOLET)
    drawing.put_line([(181, 72), (225, 72), (225, 155), (266, 155)], BLUE, arrow=True)
    drawing.put_line([(181, 172), (266, 172)], VIOLET, arrow=True)
    drawing.put_text(190, 164, "Z", "start")
    drawing.put_line([(105, 249), (105, 222), (200, 222), (200, 176)], ORANGE)
    drawing.put_arrow(335, 95, 335, 137, BLUE)
    drawing.put_arrow(401, 170, 452, 170)
    drawing.put_arrow(510, 201, 510, 239)
    drawing.put_line([(181, 272), (452, 272)], ORANGE, arrow=True)
    drawing.put_arrow(566, 272, 607, 272, ORANGE)
    drawing.put_line([(650, 249), (650, 195)], VIOLET, arrow=True)
    drawing.put_text(
        360, 336, "one set of queries for the whole video; queries without an object leave no mask behind", faint=True
    )
    return drawing


FIGURES: Mapping[str, Callable[[], Drawing]] = {
    "masklets": draw_masklets,
    "memory": draw_memory,
    "bounded": draw_bounded,
    "sam2bmp": draw_sam2bmp,
    "sam2long": draw_sam2long,
    "deva": draw_deva,
    "dvis": draw_dvis,
    "rocovis": draw_rocovis,
}


# -- what is measured


def measure_memories(frames: int = 96, size: tuple[int, int] = (96, 160)) -> dict[str, Any]:
    """MiB that memories of one object take after each frame, and what keeping features of every frame would take."""
    import numpy as np
    import torch

    from masklet.core.frames import Frame
    from masklet.parts import load_propagator, make_encoder

    draw = np.random.default_rng(0)
    ground = draw.integers(60, 200, (*size, 3), np.uint8)
    sizes: dict[str, list[float]] = {}
    for name in ("nano", "affinity"):
        carrier = load_propagator(name, make_encoder("cpu"), "cpu")
        memory, kept = carrier.empty(), []
        for t in range(frames):
            image = ground.copy()
            x = 110 - abs(100 - t % 200)  # there and back
            image[30:60, x : x + 30] = (220, 60, 40)
            [features] = carrier.encode([Frame(t, image, t / 25)])
            if not t:
                mask = torch.zeros(size, dtype=torch.bool)
                mask[30:60, 10:40] = True
                memory, _ = carrier.prompt(memory, features, {1: mask})
            else:
                memory = carrier.commit(memory, features, carrier.predict(memory, features))
            kept.append(count_bytes(memory) / 2**20)
            every = count_bytes(features) / 2**20
        sizes[f"{name}"] = [round(one, 3) for one in kept]
        if name == "nano":
            sizes["every frame's features kept"] = [round(every * (t + 1), 3) for t in range(frames)]
    most = max(*sizes["nano"], *sizes["affinity"])
    return {"frames": frames, "highest": float(np.ceil(most * 2)), "memories": sizes}


def count_bytes(value: Any, seen: set[int] | None = None) -> int:
    """Bytes of all tensors within a value, each storage once."""
    import numpy as np
    import torch

    seen = set() if seen is None else seen
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        storage = value.untyped_storage()
        return 0 if storage.data_ptr() in seen else (seen.add(storage.data_ptr()) or storage.nbytes())
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(count_bytes(one, seen) for one in value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return sum(count_bytes(one, seen) for one in value)
    if hasattr(value, "__dict__") and not isinstance(value, torch.nn.Module | type):
        return sum(count_bytes(one, seen) for one in vars(value).values())
    return 0


def main(names: Sequence[str]) -> None:
    """Writes the figures of the names, or all but the measured one's numbers."""
    FOLDER.mkdir(exist_ok=True)
    if "bounded" in names:
        MEASURED.write_text(json.dumps(measure_memories()) + "\n")
    for name in names or FIGURES:
        (FOLDER / f"{name}.svg").write_text(FIGURES[name]().format())


if __name__ == "__main__":
    main(sys.argv[1:])
