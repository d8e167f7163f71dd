import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from hypothesis import given
from hypothesis import strategies as st

from masklet.nn import propagation
from masklet.nn.flow import compute_dense_flow
from masklet.nn.outline import BINS, quantize_colours
from masklet.nn.propagation import (
    Moments,
    build_cell_descriptors,
    compute_fourier_features,
    compute_log_odds,
    compute_moments,
    fold_symmetric,
    match_exposure,
    measure_colour_shares,
    measure_frame_link,
    solve_regressions,
    tabulate_colour_odds,
    unfold_lower,
)


def some(n: int, m: int, d: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(m, d, generator=draw)
    return x, torch.rand(n, m, generator=draw), torch.rand(n, 2, BINS**3, generator=draw)


def learnt(n: int, m: int, d: int, seed: int) -> Moments:
    x, labels, colours = some(n, m, d, seed)
    return compute_moments(x, labels, 1 - labels, colours)


@given(st.integers(0, 99))
def test_moments_are_the_weighted_sums_written_out(seed):
    x, labels, colours = some(2, 30, 4, seed)
    beside = (1 - labels) * (torch.rand(2, 30, generator=torch.Generator().manual_seed(seed)) > 0.5)
    got = compute_moments(x, labels, beside, colours, heed=0.75)
    for n, (y, near) in enumerate(zip(labels, beside, strict=True)):
        outside = 0.25 * (1 - y) / (1 - y).sum() + 0.75 * near / near.sum().clamp(min=1)
        weights = 0.5 * y / y.sum() + 0.5 * outside
        gram = sum(w * torch.outer(v, v) for w, v in zip(weights, x, strict=True))
        moment = sum(w * t * v for w, t, v in zip(weights, 2 * y - 1, x, strict=True))
        torch.testing.assert_close(unfold_lower(got.gram[n]).tril(), gram.tril(), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(got.moment[n], moment, atol=1e-5, rtol=1e-4)


@given(st.integers(0, 99))
def test_regression_is_label_propagation_by_whitened_affinity(seed):
    """Every remembered cell votes with its label, weighted by its affinity to the cell that asks."""
    x, labels, colours = some(1, 30, 4, seed)
    asking = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed + 1))
    y = labels[0]
    weights = 0.5 * y / y.sum() + 0.5 * (1 - y) / (1 - y).sum()
    whitener = torch.linalg.inv((x * weights[:, None]).T @ x + 0.1 * torch.eye(4))
    votes = (asking @ whitener @ x.T) @ (weights * (2 * y - 1))
    answer = (solve_regressions(compute_moments(x, labels, labels * 0, colours, heed=0.0), 0.1) @ asking.T)[0]
    torch.testing.assert_close(answer, votes, atol=1e-4, rtol=1e-3)


@given(st.integers(1, 5), st.integers(0, 99))
def test_a_folded_matrix_holds_both_halves(k, seed):
    x = torch.randn(9, 2 * k, generator=torch.Generator().manual_seed(seed))
    whole = x.T @ x
    folded = fold_symmetric(whole[:, :k], whole[k:, k:])
    assert folded.numel() == k * (2 * k + 1)  # a triangle with its diagonal
    assert unfold_lower(folded).tril().equal(whole.tril())


def test_an_object_without_a_cell_attracts_nothing():
    x, _, colours = some(1, 30, 4, 0)
    x[:, 0] = 1  # the constant
    nothing = compute_moments(x, torch.zeros(1, 30), torch.zeros(1, 30), colours, heed=0.0)
    looks = solve_regressions(nothing, 1e-4) @ x.T
    assert (looks < -0.9).all()


def test_mixing_is_a_weighted_mean_for_each_object():
    a, b = (learnt(2, 30, 4, seed) for seed in (0, 1))
    mixed = a.mix(b, torch.tensor([0.0, 0.25]))
    torch.testing.assert_close(mixed.gram[0], a.gram[0])
    torch.testing.assert_close(mixed.moment[1], 0.75 * a.moment[1] + 0.25 * b.moment[1])


def test_rows_are_taken_put_and_joined():
    a, none = learnt(3, 30, 4, 0), Moments.none(1, 4)
    again = a[torch.tensor([0, 1])].join(a[torch.tensor([2])])
    assert all(map(torch.equal, again.gram, a.gram)) and again.moment.equal(a.moment)
    cleared = a.put(torch.tensor([1]), none)
    assert a.moment[1].any() and a.gram[1].any()
    assert [bool(g.any()) for g in cleared.gram] == cleared.moment.any(1).tolist() == [True, False, True]


@given(st.integers(0, 99))
def test_waves_approximate_a_gaussian_affinity(seed):
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(2, 16, generator=draw) * 0.3
    wanted = torch.exp(-((z[0] - z[1]) ** 2).sum() / 2)
    both = compute_fourier_features(z)
    assert abs(both[0] @ both[1] - wanted) < 0.2


def test_a_descriptor_sees_its_surroundings():
    keys = torch.zeros(2, 7, 7)
    keys[0, 3, 3] = 25.0
    rows = build_cell_descriptors(keys, torch.zeros(1, 7, 7), torch.zeros(3, 7, 7), 5).view(7, 7, -1)
    around = rows[..., 2]
    assert around[3, 3] == around[1, 1] == 1 and around[0, 0] == 0
    assert (rows[..., 8] == 1).all()  # the constant


@pytest.mark.parametrize("size", [(7, 9), (3, 2)])
def test_descriptors_are_those_that_are_built_channel_by_channel(size):
    """In whatever order channels lie in memory."""
    draw = torch.Generator().manual_seed(0)
    keys, detail, colour = (torch.randn(n, *size, generator=draw) for n in (8, 5, 3))
    around = nnf.avg_pool2d(nnf.pad(keys[None], (2,) * 4, mode="replicate"), 5, 1)[0]
    linear = torch.cat([keys, around, detail, colour, torch.ones(1, *size)]).flatten(1).T
    directions, phases = propagation._draw_fourier_projection(16)
    waves = torch.cos(linear[:, :16] @ directions.T + phases) * (2 / propagation.WAVES) ** 0.5
    found = build_cell_descriptors(keys, detail, colour, 5)
    assert torch.equal(found[:, :-256], linear) and torch.allclose(found[:, -256:], waves, atol=1e-6)


def test_colours_tell_an_object_from_what_is_near_it():
    image = torch.zeros(20, 40, 3, dtype=torch.uint8)
    image[:, 10:20, 0] = 220
    image[:, 35:, 2] = 220  # far away: no part of the object's background
    mask = torch.zeros(1, 20, 40, dtype=torch.bool)
    mask[0, :, 10:20] = True
    bins = quantize_colours(image.numpy())
    odds = tabulate_colour_odds(measure_colour_shares(bins, mask, 10), 1.5)[0][bins]
    assert (odds[:, 10:20] == 1.5).all() and (odds[:, :10] == -1.5).all() and (odds[:, 35:] == 0).all()


def link(before, now):
    return measure_frame_link(before, now, compute_dense_flow(now, before))


def test_a_mask_follows_the_picture():
    draw = torch.Generator().manual_seed(0)
    texture = torch.nn.functional.interpolate(torch.rand(1, 1, 24, 24, generator=draw), size=(96, 96), mode="bicubic")
    before = (texture[0, 0].clamp(0, 1) * 255).byte()
    now = before.roll(6, dims=1)
    soft = np.zeros((96, 96), np.float32)
    soft[30:60, 30:60] = 1
    whole = slice(0, 96), slice(0, 96)
    moved = link(before.numpy(), now.numpy()).origins.carry(soft, whole) > 0.5
    wanted = np.roll(soft, 6, 1) > 0.5
    assert (moved & wanted).sum() / (moved | wanted).sum() > 0.95


def grey(seed: int = 0) -> np.ndarray:
    draw = torch.Generator().manual_seed(seed)
    texture = torch.nn.functional.interpolate(torch.rand(1, 1, 24, 24, generator=draw), size=(96, 96), mode="bicubic")
    return (texture[0, 0].clamp(0, 1) * 120 + 60).byte().numpy()


@pytest.mark.parametrize(
    ("after", "holds", "sound"),
    [
        (lambda grey: np.roll(grey, 3, 1), True, True),
        (lambda grey: grey * 0.4, True, False),
        (lambda grey: grey * 0.2 + 180, True, False),
        (lambda grey: cv2.blur(grey, (9, 9)), True, False),
        (lambda grey: grey * 0, False, False),
        (lambda grey: grey * 0 + 255, False, False),
    ],
)
def test_a_frame_goes_on_from_another_with_or_without_doubt(after, holds, sound):
    before = grey()
    found = link(before, after(before).astype(np.uint8))
    assert (found.holds, found.is_sound) == (holds, sound)


def test_another_scene_is_no_link_and_ranks_below_one():
    before, now = grey(), grey(9)
    assert not link(before, now).holds
    assert link(before, np.roll(before, 3, 1)).rank < link(before, (before * 0.4).astype(np.uint8)).rank
    assert link(before, (before * 0.4).astype(np.uint8)).rank < link(before, now).rank


@given(st.floats(0.3, 3), st.floats(-40, 60))
def test_frames_exposed_alike_have_one_brightness_and_contrast(gain, offset):
    before = grey()
    other = (before.astype(float) * 0.3 * gain + 40 + offset).clip(0, 255).astype(np.uint8)
    alike = match_exposure(before, other).astype(float)
    assert abs(alike.mean() - other.mean()) < 2 and abs(alike.std() - other.std()) < 2
    flat = match_exposure(np.zeros_like(before), other)
    assert flat.std() == 0


def test_log_odds_are_bounded():
    got = compute_log_odds(torch.tensor([0.0, 0.5, 1.0]), 0.1)
    torch.testing.assert_close(got, torch.tensor([-2.1972, 0, 2.1972]), atol=1e-4, rtol=0)
