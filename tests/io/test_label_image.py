"""One reader of label and mask images: what their pixels mean, by mode and values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from masklet.core.errors import InputError
from masklet.io.annotations.label_image import read_label_image

IDS = np.zeros((12, 16), np.uint8)
IDS[2:6, 2:8], IDS[7:10, 9:14] = 1, 2
GREY = [n for v in range(256) for n in (v, v, v)]


def palette(values: np.ndarray) -> Image.Image:
    image = Image.fromarray(values)
    image.putpalette(GREY)
    return image


def colours(values: np.ndarray, table: dict[int, tuple[int, int, int]]) -> Image.Image:
    out = np.zeros((*values.shape, 3), np.uint8)
    for value, colour in table.items():
        out[values == value] = colour
    return Image.fromarray(out)


def with_alpha(image: Image.Image, alpha: np.ndarray | int) -> Image.Image:
    image = image.convert("RGBA")
    image.putalpha(Image.fromarray(np.full(IDS.shape, alpha, np.uint8) if isinstance(alpha, int) else alpha))
    return image


WHITE = {1: (255, 255, 255), 2: (255, 255, 255)}
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*IDS.shape, 3), np.uint8))
SOFT = Image.fromarray((IDS == 1).astype(np.uint8) * 255).resize((160, 120), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("image", "ids", "pixels"),
    [
        (palette(IDS), (1, 2), {1: 24, 2: 15}),
        (Image.fromarray(IDS), (1, 2), {1: 24, 2: 15}),
        (Image.fromarray(IDS.astype(np.uint16) * 1000), (1000, 2000), {1000: 24}),
        (colours(IDS, {1: (1, 0, 0), 2: (0, 1, 0)}), (1, 256), {1: 24, 256: 15}),
        (colours(IDS, {1: (1, 1, 1), 2: (2, 2, 2)}), (1, 2), {2: 15}),
        (colours(IDS, WHITE), (255,), {7: 39}),
        (Image.fromarray(IDS > 0), (1,), {3: 39}),
        (with_alpha(colours(IDS, WHITE), 255), (255,), {1: 39}),
        (with_alpha(colours(IDS, {1: (1, 0, 0), 2: (2, 0, 0)}), 255), (1, 2), {1: 24}),
        (with_alpha(NOISE, (IDS == 1).astype(np.uint8) * 255), (1,), {5: 24}),
        (with_alpha(colours(IDS * 0 + 1, WHITE), (IDS == 2).astype(np.uint8) * 255), (1,), {5: 15}),
        (palette(np.where(IDS == 2, 255, IDS)), (1,), {1: 24}),
        (SOFT, (1,), {9: 2400}),
    ],
    ids=[
        "palette",
        "grey",
        "16-bit",
        "rgb-ids",
        "grey-rgb",
        "white-rgb",
        "1-bit",
        "opaque",
        "opaque-ids",
        "cut-out",
        "one-colour",
        "void",
        "soft",
    ],
)
def test_what_pixels_mean(image: Image.Image, ids: tuple[int, ...], pixels: dict[int, int], tmp_path: Path) -> None:
    image.save(tmp_path / "a.png")
    found = read_label_image(tmp_path / "a.png")
    assert found.ids == ids
    for id, n in pixels.items():
        assert found.select(id).sum() == pytest.approx(n, abs=30 if image is SOFT else 0)


def test_255_alone_is_an_object_in_a_palette_image_too(tmp_path: Path) -> None:
    palette(np.where(IDS == 1, 255, 0).astype(np.uint8)).save(tmp_path / "a.png")
    assert read_label_image(tmp_path / "a.png").ids == (255,)


@pytest.mark.parametrize(
    ("image", "id", "words"),
    [
        (Image.fromarray(IDS), 3, "no pixel of value 3; it holds the values 1, 2"),
        (palette((IDS == 2).astype(np.uint8) * 2), 1, "no pixel of value 1; it holds the values 2"),
        (Image.fromarray(IDS * 0), 1, "no pixel that is not black"),
        (with_alpha(colours(IDS, {1: (1, 0, 0), 2: (2, 0, 0)}), (IDS > 0).astype(np.uint8) * 255), 1, "transparent"),
    ],
)
def test_what_is_not_there_or_could_mean_two_things_is_refused(
    image: Image.Image, id: int, words: str, tmp_path: Path
) -> None:
    image.save(tmp_path / "a.png")
    with pytest.raises(InputError, match=words):
        read_label_image(tmp_path / "a.png").select(id)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG broken")
    for name, words in (("a.png", "not an image"), ("none.png", "no such file")):
        with pytest.raises(InputError, match=words):
            read_label_image(tmp_path / name)


@given(st.lists(st.integers(1, 254), min_size=2, max_size=12, unique=True), st.sampled_from(["P", "L", "RGB", "I;16"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_ids_are_read_as_written_in_every_mode(tmp_path: Path, ids: list[int], mode: Any) -> None:
    values = np.zeros((4, 16), np.uint8)
    values[1, : len(ids)] = ids
    image = Image.fromarray(values.astype(np.uint16)) if mode == "I;16" else palette(values)
    if mode in ("L", "RGB"):
        image = Image.fromarray(values).convert(mode)
    image.save(tmp_path / "a.png")
    found = read_label_image(tmp_path / "a.png")
    assert found.ids == tuple(sorted(ids)) and all(found.select(id).sum() == 1 for id in ids)


def test_a_blurred_mask_is_cut_at_one_half(tmp_path: Path) -> None:
    whole = np.zeros((200, 200), np.uint8)
    whole[50:150, 50:150] = 255
    Image.fromarray(whole).filter(ImageFilter.GaussianBlur(4)).save(tmp_path / "a.png")
    found = read_label_image(tmp_path / "a.png")
    assert found.is_mask and found.select(4).sum() == pytest.approx(100 * 100, rel=0.02)


def draw_regions(count: int) -> np.ndarray:
    """Ids in rows of boxes, shuffled."""
    ids = np.random.default_rng(0).permutation(np.arange(1, count + 1)).reshape(-1, 10)
    return np.kron(ids, np.ones((6, 8), int))


@pytest.mark.parametrize("mode", [np.uint8, np.uint16])
def test_many_ids_that_fill_regions_are_ids(mode: Any, tmp_path: Path) -> None:
    Image.fromarray(draw_regions(100).astype(mode)).save(tmp_path / "a.png")
    assert read_label_image(tmp_path / "a.png").ids == tuple(range(1, 101))


def blur(most: int) -> np.ndarray:
    whole = np.zeros((60, 60), np.uint8)
    whole[20:40, 20:40] = most
    return np.asarray(Image.fromarray(whole).filter(ImageFilter.GaussianBlur(4)))


NOISY = (np.random.default_rng(0).random((40, 40)) * 255).astype(np.uint8)


@pytest.mark.parametrize(
    "values",
    [blur(200), NOISY, np.hstack([draw_regions(100), np.full((60, 60), 255)])],
    ids=["dim", "noisy", "ids-and-white"],
)
def test_what_may_be_ids_or_a_soft_mask_is_refused_unless_it_is_declared(values: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(values.astype(np.uint8)).save(path)
    with pytest.raises(InputError, match=r"may be ids or a soft mask; say so in a file values\.json"):
        read_label_image(path)
    (tmp_path / "values.json").write_text('{"values": "probabilities"}')
    found = read_label_image(path)
    assert found.is_mask and np.array_equal(found.select(1), values >= 128)
    (tmp_path / "values.json").write_text('{"values": "ids"}')
    assert read_label_image(path).of_ids and len(read_label_image(path).ids) > 50


def test_a_palette_image_holds_ids_however_many(tmp_path: Path) -> None:
    palette(NOISY).save(tmp_path / "a.png")
    assert len(read_label_image(tmp_path / "a.png").ids) > 200


def test_probabilities_are_no_colours(tmp_path: Path) -> None:
    NOISE.save(tmp_path / "a.png")
    with pytest.raises(InputError, match="probabilities are grey"):
        read_label_image(tmp_path / "a.png", "probabilities")


@pytest.mark.parametrize("quality", [30, 60, 95])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_of_a_mask_is_that_mask_and_labels_in_one_are_refused(tmp_path: Path, quality: int, mode: str) -> None:
    path, mask = tmp_path / "mask.jpg", np.kron(IDS == 1, np.ones((8, 8), bool))
    Image.fromarray((mask * 255).astype(np.uint8)).convert(mode).save(path, quality=quality)
    assert len(np.unique(np.asarray(Image.open(path)))) > 1
    for id in (1, 7):
        assert np.array_equal(read_label_image(path).select(id), mask)
    for values in (IDS, IDS * 100, IDS * 120 + 5):
        Image.fromarray(np.kron(values, np.ones((8, 8), np.uint8)).astype(np.uint8)).convert(mode).save(path)
        with pytest.raises(InputError, match="which changes values"):
            read_label_image(path)
