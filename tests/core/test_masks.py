from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from masklet.core.masks import (
    count_common_pixels,
    encode_masks,
    find_nonempty,
    find_run_edges,
    mask_iou,
    mask_nms,
    matrix_nms,
    pack_bits,
    resize_bilinear,
    resolve_overlaps_by_area,
    stack_masks,
    unpack_bits,
)
from masklet.core.rle import (
    Rle,
    are_rle_counts_sound,
    compute_rle_iou,
    decode_rle_counts,
    encode_run_edges,
    find_rle_overlaps,
    join_pairs,
    join_runs,
    paint_mask_numbers,
)

seeds = st.integers(0, 2**32 - 1)
JoinMasks = Callable[[Sequence[Rle], Sequence[Rle]], tuple[np.ndarray, np.ndarray, np.ndarray]]


def random_masks(seed: int, n: int = 5, h: int = 12, w: int = 9) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, h, w, generator=g) < torch.rand((), generator=g)


def literal_iou(a: torch.Tensor, b: torch.Tensor) -> float:
    both, either = int((a & b).sum()), int((a | b).sum())
    return both / either if either else 0.0


@given(seeds)
def test_run_lengths_round_trip_and_know_area_and_box(seed: int) -> None:
    for mask in random_masks(seed):
        rle = Rle.encode(mask)
        assert torch.equal(rle.decode(), mask)
        assert rle.area == int(mask.sum())
        ys, xs = np.nonzero(mask.numpy())
        if len(ys):
            assert rle.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


@given(seeds)
def test_masks_that_are_encoded_by_the_ends_of_their_runs_are_the_same(seed: int) -> None:
    """What is done on a GPU, on the CPU; among the masks are an empty one, a full one, and runs across columns."""
    masks = random_masks(seed)
    masks[1], masks[3] = False, True
    masks[4, -1, 0] = masks[4, 0, 1] = True
    owners, places = find_run_edges(masks).numpy().T
    assert encode_run_edges(owners, places, 5, (12, 9)) == [Rle.encode(mask) for mask in masks] == encode_masks(masks)


def test_no_masks_have_no_run_lengths() -> None:
    assert encode_masks(torch.zeros(0, 4, 3, dtype=torch.bool)) == []
    owners, places = find_run_edges(torch.zeros(0, 4, 3, dtype=torch.bool)).numpy().T
    assert encode_run_edges(owners, places, 0, (4, 3)) == []


def test_run_lengths_are_cocos() -> None:
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[1:, 1] = True  # column-major: 4 zeros, 2 ones, 6 zeros
    assert Rle.encode(mask) == Rle((3, 4), b"426")


@given(seeds)
def test_mask_iou_is_the_definition_dense_and_on_run_lengths(seed: int) -> None:
    a, b = random_masks(seed), random_masks(seed + 1, n=3)
    want = torch.tensor([[literal_iou(x, y) for y in b] for x in a])
    assert torch.allclose(mask_iou(a, b), want, atol=1e-6)
    on_runs = compute_rle_iou([Rle.encode(x) for x in a], [Rle.encode(x) for x in b])
    np.testing.assert_allclose(on_runs, want, atol=1e-6)


@given(st.integers(0, 10**6), st.integers(0, 4))
def test_masks_in_several_places_and_none_at_all(seed: int, count: int) -> None:
    g = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(n, 9, 70, generator=g) > 0.7 for n in (3, count))
    assert torch.equal(mask_iou(a, list(b)), mask_iou(a, b))
    common = (a[:, None] & a).sum((2, 3))
    assert torch.equal(count_common_pixels(list(a), [2, 0]), common[[2, 0]][:, [2, 0]])


@given(st.integers(0, 10**6), st.integers(0, 3), st.integers(1, 20))
def test_packed_masks_are_the_masks_in_an_eighth_of_the_memory(seed: int, count: int, width: int) -> None:
    masks = torch.rand(count, 5, width, generator=torch.Generator().manual_seed(seed)) > 0.5
    packed = pack_bits(masks)
    assert torch.equal(unpack_bits(packed, width), masks) and packed.nbytes == count * 5 * ((width + 7) // 8)


def test_two_empty_masks_have_no_iou_and_none_have_a_shape() -> None:
    empty = torch.zeros(1, 4, 4, dtype=torch.bool)
    assert mask_iou(empty, empty).item() == 0
    assert mask_iou(empty, empty[:0]).shape == (1, 0)
    assert compute_rle_iou([], [Rle.encode(empty[0])]).shape == (0, 1)


@given(seeds)
def test_paint_partitions_the_union(seed: int) -> None:
    masks = random_masks(seed)
    painted = resolve_overlaps_by_area(masks)
    assert (painted.sum(0) <= 1).all()
    assert torch.equal(painted.any(0), masks.any(0))
    assert not (painted & ~masks).any()
    assert torch.equal(resolve_overlaps_by_area(painted), painted)


def test_paint_gives_the_pixel_to_the_smaller_mask_and_on_a_tie_to_the_first() -> None:
    big, small = torch.ones(4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)
    small[1:3, 1:3] = True
    assert torch.equal(resolve_overlaps_by_area(torch.stack([big, small]))[1], small)
    assert torch.equal(resolve_overlaps_by_area(torch.stack([small, small])), torch.stack([small, small & False]))


@given(st.integers(0, 2**32 - 1))
def test_numbers_of_masks_are_painted_as_overlaps_are_resolved(seed: int) -> None:
    masks = torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(seed)) > 0.6
    masks[3] = masks[1]  # a tie
    numbers = paint_mask_numbers([Rle.encode(m) for m in masks], (5, 6))
    owned = resolve_overlaps_by_area(masks).numpy()
    assert all((owned[n] == (numbers == n + 1)).all() for n in range(4)) and ((numbers == 0) == ~owned.any(0)).all()
    assert paint_mask_numbers([], (5, 6)).max() == 0


def test_nms_keeps_the_higher_score_and_the_order() -> None:
    a, b = torch.zeros(2, 4, 4, dtype=torch.bool)
    a[:2], b[2:] = True, True
    assert mask_nms(torch.stack([a, b, a]), torch.tensor([0.5, 0.1, 0.9]), 0.5).tolist() == [1, 2]
    assert mask_nms(torch.stack([a, b, a]), torch.tensor([0.5, 0.1, 0.9]), 1.0).tolist() == [0, 1, 2]
    assert mask_nms(torch.stack([a, a]), torch.tensor([0.5, 0.5]), 0.5).tolist() == [0]


@given(seeds)
def test_nms_leaves_no_twins_and_drops_none_without_one(seed: int) -> None:
    masks = random_masks(seed, n=6)
    scores = torch.rand(6, generator=torch.Generator().manual_seed(seed))
    kept = mask_nms(masks, scores, 0.3).tolist()
    iou = mask_iou(masks, masks)
    assert all(iou[i, j] <= 0.3 for i in kept for j in kept if i != j)
    assert all(any(iou[i, j] > 0.3 and scores[j] >= scores[i] for j in kept) for i in range(6) if i not in kept)


def test_matrix_nms_by_hand() -> None:
    """Three strips: the second shares half of itself with the first (IoU 1/3), the third half with the second."""
    masks = torch.zeros(3, 1, 8, dtype=torch.bool)
    for n in range(3):
        masks[n, 0, 2 * n : 2 * n + 4] = True
    got = matrix_nms(masks, torch.tensor([0.9, 0.8, 0.7]), 2.0)
    less = math.exp(-2 / 9)
    torch.testing.assert_close(
        got, torch.tensor([0.9, 0.8 * less, 0.7])
    )  # what takes from the third is itself taken from
    again = matrix_nms(masks[[2, 0, 1]], torch.tensor([0.7, 0.9, 0.8]), 2.0)
    torch.testing.assert_close(again, got[[2, 0, 1]])


@given(seeds)
def test_matrix_nms_only_takes_and_only_where_masks_overlap(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    masks, scores = torch.rand(6, 4, 5, generator=random) > 0.6, torch.rand(6, generator=random)
    got = matrix_nms(masks, scores, 1.5)
    assert (got <= scores).all() and (got > 0).all()
    assert got[scores.argmax()] == scores.max()
    alone = torch.eye(6, dtype=torch.bool).view(6, 2, 3)
    assert torch.equal(matrix_nms(alone, scores, 1.5), scores)
    assert len(matrix_nms(masks[:0], scores[:0], 1.5)) == 0


def test_resize_keeps_a_flat_map_and_its_place() -> None:
    half = torch.tensor([[[-1.0, 1.0]]])
    assert (resize_bilinear(half, (4, 8))[0] > 0).sum(1).tolist() == [4] * 4
    assert resize_bilinear(half[:0], (4, 8)).shape == (0, 4, 8)


def test_stack_of_none() -> None:
    assert stack_masks([], (3, 4)).shape == (0, 3, 4)


@pytest.mark.parametrize("count", [0, 3])
def test_masks_with_pixels_are_told_from_empty_ones(count: int) -> None:
    masks = torch.zeros(count, 5, 7, dtype=torch.bool)
    masks[1:2, 4, 6] = True
    assert find_nonempty(masks).tolist() == masks.flatten(1).any(1).tolist() == [n == 1 for n in range(count)]
    assert find_nonempty(masks.transpose(1, 2)).tolist() == [n == 1 for n in range(count)]  # in no order of memory


def test_masks_of_different_sizes_are_refused_by_the_shape_check() -> None:
    with pytest.raises(Exception, match="type"):
        mask_iou(torch.zeros(1, 4, 4, dtype=torch.bool), torch.zeros(1, 5, 4, dtype=torch.bool))


@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.integers(1, 400))
def test_run_lengths_are_read_as_written(seed: int, h: int, w: int) -> None:
    g = np.random.default_rng(seed)
    flat = np.repeat(np.arange(99) % 2 == 1, g.integers(0, 1 + h * w // 20, 99))[: h * w]
    pixels = np.zeros(h * w, bool)
    pixels[: len(flat)] = flat
    mask = torch.from_numpy(pixels.reshape(w, h).T.copy())
    changes = np.flatnonzero(np.diff(pixels)) + 1
    want = np.diff([0, *([0] if pixels[0] else []), *changes, h * w])
    assert decode_rle_counts(Rle.encode(mask).counts).tolist() == want.tolist()


@given(st.binary(max_size=12), st.integers(1, 9), st.integers(1, 9))
def test_run_lengths_from_outside_are_a_mask_of_the_size_or_refused(counts: bytes, h: int, w: int) -> None:
    try:
        rle = Rle.checked((h, w), counts)
    except ValueError:
        return
    assert rle.decode().shape == (h, w)


def draw_masks(draw: np.random.Generator, count: int, size: tuple[int, int]) -> list[Rle]:
    """Masks of every density, the empty and the full one among them; they overlap."""
    return [Rle.encode_pixels(draw.random(size) < draw.choice([0, 0.2, 0.5, 1])) for _ in range(count)]


@pytest.mark.parametrize("join", [join_pairs, join_runs])
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 5), m=st.integers(1, 5))
def test_common_pixels_are_those_of_the_dense_masks(join: JoinMasks, seed: int, n: int, m: int) -> None:
    draw = np.random.default_rng(seed)
    size = tuple(draw.integers(1, 9, 2).tolist())
    a, b = draw_masks(draw, n, size), draw_masks(draw, m, size)
    found = np.zeros((n, m), int)
    rows, cols, common = join(a, b)
    np.add.at(found, (rows, cols), common)
    assert found.tolist() == [[int((x.decode_pixels() & y.decode_pixels()).sum()) for y in b] for x in a]
    assert (common > 0).all()


def test_of_many_masks_those_alone_are_looked_at_that_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("masklet.core.rle.compute_rle_iou")
    masks = [Rle.encode_pixels(np.arange(200).reshape(10, 20) == n) for n in range(200)]
    rows, cols, common = find_rle_overlaps(masks, masks[::-1])
    assert (rows + cols == 199).all() and sorted(rows) == list(range(200)) and (common == 1).all()


def is_taken_as_it_is(counts: bytes, size: tuple[int, int]) -> bool:
    try:
        return Rle.checked(size, counts).counts == counts
    except ValueError:
        return False


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(0, 3))
def test_run_lengths_of_many_masks_are_checked_at_once_as_one_by_one(seed: int, count: int, damaged: int) -> None:
    draw = np.random.default_rng(seed)
    h, w = draw.integers(1, 9, 2).tolist()
    texts = [Rle.encode_pixels(draw.random((h, w)) < draw.random()).counts for _ in range(count)]
    for n in draw.integers(count, size=damaged):
        text, place = bytearray(texts[n]), draw.integers(len(texts[n]) + 1)
        text[place : place + draw.integers(2)] = bytes(draw.choice(list(b"0123PT`o "), draw.integers(3)).tolist())
        texts[n] = bytes(text)
    assert are_rle_counts_sound(texts, (h, w)) == all(is_taken_as_it_is(text, (h, w)) for text in texts)


@pytest.mark.parametrize(
    "texts", [[b"P", b"0"], [b"", b"04"], [b"04", b""], [b"0P`0", b"04"], [b"0200"], [b"13", b"22", b"0212", b"121"]]
)
def test_masks_whose_run_lengths_lie_one_after_another_are_kept_apart(texts: list[bytes]) -> None:
    assert are_rle_counts_sound(texts, (2, 2)) == all(is_taken_as_it_is(text, (2, 2)) for text in texts)


def test_damaged_run_lengths_are_refused() -> None:
    counts = Rle.encode(random_masks(3)[0]).counts
    for bad in (counts[:-1], counts + b"1", b"", b"\x00", b"oooooooooo", b"O0"):
        with pytest.raises(ValueError, match="run lengths"):
            Rle.checked((12, 9), bad)
    assert Rle.checked((12, 9), counts).counts == counts
