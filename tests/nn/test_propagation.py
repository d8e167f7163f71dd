import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from masklet.nn.flow import compute_dense_flow
from masklet.nn.outline import BINS, quantize_colours
from masklet.nn.propagation import (
    Moments,
    build_cell_descriptors,
    compute_colour_odds,
    compute_fourier_features,
    compute_log_odds,
    compute_moments,
    exclude_rivals,
    match_exposure,
    measure_colour_shares,
    measure_frame_link,
    move_masks_by_flow,
    score_likeness,
)


def some(n: int, m: int, d: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(m, d, generator=draw)
    return x, torch.rand(n, m, generator=draw), torch.rand(n, 2, BINS**3, generator=draw)


def learnt(n: int, m: int, d: int, seed: int) -> Moments:
    x, labels, colours = some(n, m, d, seed)
    return compute_moments(x, x.T @ x, labels, 1 - labels, colours)


@given(st.integers(0, 99))
def test_moments_are_the_weighted_sums_written_out(seed):
    x, labels, colours = some(2, 30, 4, seed)
    beside = (1 - labels) * (torch.rand(2, 30, generator=torch.Generator().manual_seed(seed)) > 0.5)
    got = compute_moments(x, x.T @ x, labels, beside, colours, heed=0.75)
    for n, (y, near) in enumerate(zip(labels, beside, strict=True)):
        outside = 0.25 * (1 - y) / (1 - y).sum() + 0.75 * near / near.sum().clamp(min=1)
        weights = 0.5 * y / y.sum() + 0.5 * outside
        gram = sum(w * torch.outer(v, v) for w, v in zip(weights, x, strict=True))
        moment = sum(w * t * v for w, t, v in zip(weights, 2 * y - 1, x, strict=True))
        torch.testing.assert_close(got.gram[n], gram, atol=1e-5, rtol=1e-4)
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
    answer = score_likeness(asking, compute_moments(x, x.T @ x, labels, labels * 0, colours, heed=0.0), 0.1)[0]
    torch.testing.assert_close(answer, votes, atol=1e-4, rtol=1e-3)


def test_an_object_without_a_cell_attracts_nothing():
    x, _, colours = some(1, 30, 4, 0)
    x[:, 0] = 1  # the constant
    looks = score_likeness(
        x, compute_moments(x, x.T @ x, torch.zeros(1, 30), torch.zeros(1, 30), colours, heed=0.0), 1e-4
    )
    assert (looks < -0.9).all()


def test_mixing_is_a_weighted_mean_for_each_object():
    a, b = (learnt(2, 30, 4, seed) for seed in (0, 1))
    mixed = a.mix(b, torch.tensor([0.0, 0.25]))
    torch.testing.assert_close(mixed.gram[0], a.gram[0])
    torch.testing.assert_close(mixed.moment[1], 0.75 * a.moment[1] + 0.25 * b.moment[1])


def test_rows_are_taken_put_and_joined():
    a, none = learnt(3, 30, 4, 0), Moments.none(1, 4)
    again = a[torch.tensor([0, 1])].join(a[torch.tensor([2])])
    torch.testing.assert_close(again.gram, a.gram)
    cleared = a.put(torch.tensor([1]), none)
    assert not cleared.moment[1].any() and cleared.moment[0].any() and cleared.moment[2].any()


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


def test_colours_tell_an_object_from_what_is_near_it():
    image = torch.zeros(20, 40, 3, dtype=torch.uint8)
    image[:, 10:20, 0] = 220
    image[:, 35:, 2] = 220  # far away: no part of the object's background
    mask = torch.zeros(1, 20, 40, dtype=torch.bool)
    mask[0, :, 10:20] = True
    bins = quantize_colours(image.numpy())
    known = Moments.none(1, 4).put(
        torch.tensor([0]), Moments(torch.zeros(1, 4, 4), torch.zeros(1, 4), measure_colour_shares(bins, mask, 10))
    )
    odds = compute_colour_odds(bins, known, 1.5)[0]
    assert (odds[:, 10:20] == 1.5).all() and (odds[:, :10] == -1.5).all() and (odds[:, 35:] == 0).all()


def link(before, now):
    return measure_frame_link(before, now, compute_dense_flow(now, before))


def test_a_mask_follows_the_picture():
    draw = torch.Generator().manual_seed(0)
    texture = torch.nn.functional.interpolate(torch.rand(1, 1, 24, 24, generator=draw), size=(96, 96), mode="bicubic")
    before = (texture[0, 0].clamp(0, 1) * 255).byte()
    now = before.roll(6, dims=1)
    soft = torch.zeros(1, 96, 96)
    soft[0, 30:60, 30:60] = 1
    moved = move_masks_by_flow(soft, link(before.numpy(), now.numpy()).flow)[0] > 0.5
    wanted = soft[0].roll(6, dims=1) > 0.5
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


@given(st.integers(0, 99))
def test_of_two_rivals_one_at_most_wins_a_pixel(seed):
    draw = torch.Generator().manual_seed(seed)
    logits, claims = torch.randn(2, 3, 4, 4, generator=draw) * 3
    rivals = 1 - torch.eye(3)
    assert ((exclude_rivals(logits, claims, rivals) > 0).sum(0) <= 1).all()
    nobody = torch.zeros(3, 3)
    assert exclude_rivals(logits, claims, nobody).equal(logits)


@given(st.integers(0, 99))
def test_a_common_part_is_not_contended_and_all_else_is_as_before(seed):
    draw = torch.Generator().manual_seed(seed)
    logits, claims = torch.randn(2, 2, 4, 4, generator=draw) * 3
    rivals, where = 1 - torch.eye(2), torch.rand(4, 4, generator=draw) > 0.5
    got = exclude_rivals(logits, claims, rivals, {(0, 1): where, (1, 0): where})
    torch.testing.assert_close(got[:, where], logits[:, where], atol=1e-3, rtol=0)
    assert got[:, ~where].equal(exclude_rivals(logits, claims, rivals)[:, ~where])


def test_a_claim_decides_between_rivals():
    logits, rivals = torch.full((2, 1, 1), 3.0), 1 - torch.eye(2)
    claims = torch.tensor([0.0, -2.0])[:, None, None]
    won = exclude_rivals(logits, claims, rivals).flatten()
    assert won[0] > 0 > won[1]


def test_log_odds_are_bounded():
    got = compute_log_odds(torch.tensor([0.0, 0.5, 1.0]), 0.1)
    torch.testing.assert_close(got, torch.tensor([-2.1972, 0, 2.1972]), atol=1e-4, rtol=0)
