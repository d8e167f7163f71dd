import gc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from masklet.core.frames import Frame
from masklet.models.affinity import Affinity
from masklet.models.encoder import STRIDE, Encoder, EnlargingEncoder, FlowFinder, compute_working_size
from masklet.models.segmenters.motion import Motion
from masklet.nn.flow import compute_dense_flow, shrink_for_flow
from masklet.parts import load_segmenter
from masklet.systems.sam2bmp import Sam2Bmp, Sam2BmpSettings


@pytest.fixture(scope="module")
def encoder():
    return Encoder()


def frame(h: int, w: int, seed: int = 0) -> Frame:
    return Frame(0, np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8))


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([160, 320, 480]))
def test_working_size_is_bounded_and_of_whole_cells(h, w, short):
    y, x = compute_working_size((h, w), short)
    assert y % STRIDE == x % STRIDE == 0 and min(y, x) >= 16
    assert min(y, x) <= short
    assert y * x <= 3 * short * short * 1.1 or min(y, x) == 16


def test_working_size_keeps_the_shape():
    assert compute_working_size((854, 480), 320) == compute_working_size((480, 854), 320)[::-1]


def test_small_frames_stay_as_they_are_unless_they_are_very_small():
    at = [compute_working_size((h, 2 * h), 320)[0] for h in (64, 96, 120, 192, 240, 320, 480)]
    assert at == [128, 192, 192, 192, 240, 320, 320]
    assert compute_working_size((240, 432), 320, least=320) == (320, 576)
    asked = load_segmenter("nano-objects@480", Encoder()).encoder
    assert asked(frame(240, 320)).guide.shape[0] == 480, "who names a size means it"


@pytest.mark.parametrize("size", [(1, 1), (48, 48), (30, 200), (240, 135)])
def test_any_size_is_encoded(encoder, size):
    features = encoder(frame(*size))
    h, w = features.guide.shape[:2]
    assert features.size == size and features.keys.shape == (128, h // STRIDE, w // STRIDE)
    for part in features.keys[:32], features.keys[32:]:
        torch.testing.assert_close(part.float().norm(dim=0), torch.ones(part.shape[1:]), atol=1e-2, rtol=0)


def test_a_frame_is_encoded_once_and_its_features_die_with_it(encoder):
    here = frame(48, 48)
    assert encoder(here) is encoder(here)
    before = len(encoder._seen)
    del here
    gc.collect()
    assert len(encoder._seen) == before - 1


def test_the_same_picture_gives_the_same_features(encoder):
    a, b = encoder(frame(48, 64)), encoder(frame(48, 64))
    assert a is not b and a.keys.equal(b.keys) and a.detail.equal(b.detail)


def test_provenance_names_the_weights(encoder):
    assert [len(sha) for sha in encoder.weights.values()] == [64]


def test_flow_between_two_frames_is_computed_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segmenter, propagator and the look ahead: one flow a frame and direction."""
    asked: list[tuple[float, float]] = []

    def count(start: np.ndarray, end: np.ndarray) -> np.ndarray:
        asked.append((start.mean(), end.mean()))
        return compute_dense_flow(start, end)

    monkeypatch.setattr("masklet.models.encoder.compute_dense_flow", count)
    encoder = Encoder(64)
    system = Sam2Bmp(Motion(encoder), Affinity(encoder), Sam2BmpSettings(conf=0.0, low_conf=0.0))
    draw = np.random.default_rng(3)
    texture = draw.integers(0, 80, (64, 160, 3), np.uint8)
    frames = [np.ascontiguousarray(texture[:, 4 * t : 4 * t + 96]) + np.uint8(2 * t) for t in range(5)]
    for frame in frames:
        frame[20:44, 30:60] = 250 - frame[20:44, 30:60]
    assert list(system.stream(Frame(t, image) for t, image in enumerate(frames)))
    assert len(asked) > 5 and len(asked) == len(set(asked)) <= 2 * 4


def test_the_flow_that_is_kept_is_that_of_these_very_frames() -> None:
    first, second = (torch.from_numpy(np.random.default_rng(n).integers(0, 255, (64, 96), np.uint8)) for n in (0, 1))
    flows = FlowFinder()
    kept = flows.find(first, second)
    assert flows.find(first, second) is kept and kept.shape == (48, 72, 2)
    assert not np.array_equal(flows.find(second, first), kept)
    copied = flows.find(first.clone(), second)
    assert copied is not kept and np.array_equal(copied, kept)
    assert flows.shrink(first) is flows.shrink(first) and flows.shrink(first).shape == (48, 72)
    assert np.array_equal(flows.shrink(second), shrink_for_flow(second.numpy()))


def test_an_enlarging_encoder_shares_what_is_large_and_enlarges_what_is_small() -> None:
    shared = Encoder(64, least=32)
    enlarging = EnlargingEncoder(shared)
    large, small = (Frame(0, np.random.default_rng(0).integers(0, 256, (h, 2 * h, 3), np.uint8), 0.0) for h in (96, 40))
    assert enlarging(large) is shared(large)
    assert shared(small).guide.shape[:2] == (40, 80) and enlarging(small).guide.shape[:2] == (64, 128)
    assert torch.equal(enlarging(small).keys, Encoder(64, least=64)(small).keys)
