"""EdgeTAM: parity with transformers' own video session, memory, names of parameters."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.instances import Clicks, Point
from masklet.core.protocols import Propagator
from masklet.models.sam2.edgetam import EdgeTam, EdgeTamCore, build_edgetam, split_windows
from masklet.models.sam2.image_encoder import MEAN, STD
from masklet.models.sam2.memory import MemoryPolicy, RecentFrames
from masklet.models.sam2.propagator import set_image_size
from masklet.nn.memory_attention import rotate_tokens
from masklet.nn.repvit import merge_batch_norms

SIDE, WHOLE, WINDOWS = 192, 24, 4  # a small EdgeTAM: 24 latents that look at all, 4 x 4 that look at a window


def configuration(side: int = SIDE, **more: Any) -> Any:
    """EdgeTAM's, as the conversion script of transformers has it, at another size."""
    from transformers import EdgeTamVideoConfig, EdgeTamVisionConfig
    from transformers.models.edgetam_video.configuration_edgetam_video import EdgeTamVideoPromptEncoderConfig

    return EdgeTamVideoConfig(
        vision_config=EdgeTamVisionConfig(backbone_feature_sizes=[[side // n] * 2 for n in (4, 8, 16)]),
        prompt_encoder_config=EdgeTamVideoPromptEncoderConfig(image_size=side),
        image_size=side,
        memory_attention_rope_feat_sizes=[side // 16] * 2,
        enable_temporal_pos_encoding_for_object_pointers=False,
        enable_occlusion_spatial_embedding=False,
        **more,
    )


def small() -> Any:
    return configuration(
        perceiver_resampler_num_latents=WHOLE,
        perceiver_resampler_num_latents_2d=WINDOWS**2,
        memory_attention_rope_k_sizes=[WINDOWS] * 2,
    )


@cache
def network() -> Any:
    """The small network with drawn weights, all of them at work."""
    draw = torch.Generator().manual_seed(3)
    net = build_edgetam(small()).eval().requires_grad_(False)
    for name, value in net.state_dict().items():
        if "positional_embedding" in name or ".bn." in name:
            continue
        noise = torch.randn(value.shape, generator=draw)
        if value.ndim > 1:
            value.copy_(noise * (0.5 if "embedding" in name or "latents" in name else 1.3 / value[0].numel() ** 0.5))
        else:
            value.copy_(0.1 * noise + ("norm" in name and name.endswith("weight")) + name.endswith("scale"))
    net.mask_decoder.pred_obj_score_head.proj_out.bias += 2
    settle(net.vision_encoder.backbone)
    for conv, gain in zip(net.vision_encoder.neck.convs, (0.01, 0.01, 0.1, 0.1), strict=True):
        conv.weight.mul_(gain)  # else the picture outshouts the memory
    for head in net.mask_decoder.output_hypernetworks_mlps:
        head.proj_out.weight.mul_(0.3)  # logits of about 1
    return net


def settle(backbone: nn.Module) -> None:
    """Batch norms learn one picture: without them twenty blocks of drawn weights would explode."""
    norms = [part for part in backbone.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.weight.fill_(0.7)
        norm.bias.fill_(0.1)
    backbone.train()(torch.from_numpy(clip(1)[0].image).permute(2, 0, 1)[None] / 128 - 1)
    backbone.eval()


def clip(length: int) -> list[Frame]:
    """Two blobs that cross on a textured ground."""
    draw = np.random.default_rng(5)
    ground = draw.integers(0, 120, (SIDE // 8, SIDE // 8, 3)).repeat(8, 0).repeat(8, 1)
    frames, (ys, xs) = [], np.mgrid[:SIDE, :SIDE]
    for t in range(length):
        image = ground.copy()
        image[(ys - 60) ** 2 + (xs - 45 - 10 * t) ** 2 < 30**2] = 230, 60, 60
        image[(ys - 128) ** 2 + (xs - 142 + 9 * t) ** 2 < 22**2] = 40, 90, 240
        frames.append(Frame(t, image.astype(np.uint8)))
    return frames


PLACES = {1: (47.0, 63.0), 2: (141.0, 126.0)}


class Session:
    """transformers' own way through a clip, its memories kept in bfloat16 as the official code keeps them."""

    def __init__(self, frames: list[Frame]) -> None:
        from transformers import EdgeTamVideoInferenceSession

        pixels = torch.stack([torch.from_numpy(f.image) for f in frames]).permute(0, 3, 1, 2).float()
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        pixels = pixels * (1 / (255 * std)) - mean / std
        self.net = deepcopy(network())
        merge_batch_norms(self.net.vision_encoder.backbone)  # to the last bit as ours: a mask's edge may hang on it
        self.net.spatial_perceiver.register_forward_hook(lambda *call: (call[2][0].bfloat16().float(), call[2][1]))
        self.session = EdgeTamVideoInferenceSession(pixels, SIDE, SIDE, dtype=torch.float32)

    def click(self, frame: int, ids: list[int]) -> None:
        for id in ids:
            point = {
                "point_coords": torch.tensor(PLACES[id]).view(1, 1, 1, 2),
                "point_labels": torch.ones(1, 1, 1).int(),
            }
            self.session.add_point_inputs(self.session.obj_id_to_idx(id), frame, point)
        self.session.obj_with_new_inputs = list(ids)

    def step(self, frame: int) -> dict[int, dict[str, Tensor]]:
        out = self.net(self.session, frame_idx=frame)
        answers = {}
        for row, id in enumerate(out.object_ids):
            kept = self.session.output_dict_per_obj[self.session.obj_id_to_idx(id)]
            now = kept["cond_frame_outputs"].get(frame) or kept["non_cond_frame_outputs"][frame]
            answers[id] = {
                "logits": out.pred_masks[row, 0],
                "presence": out.object_score_logits[row].view(()),
                "pointer": now["object_pointer"].view(-1),
                "spatial": now["maskmem_features"][0],
            }
        return answers


def propagator(policy: MemoryPolicy | None = None) -> EdgeTam:
    return EdgeTam(deepcopy(network()), policy)


def ours(frames: list[Frame], clicks: dict[int, list[int]]) -> list[dict[int, dict[str, Tensor]]]:
    tam = propagator(RecentFrames(pointers=len(frames)))
    memory, answers = tam.empty(), []
    for t, features in enumerate(tam.encode(frames)):
        belief = tam.predict(memory, features)
        memory = tam.commit(memory, features, belief)
        prompts = {id: Point(*PLACES[id]) for id in clicks.get(t, [])}
        memory, _ = tam.prompt(memory, features, prompts)
        found = {}
        for id, bank in memory.banks.items():
            entry = bank.prompted[-1] if id in prompts else bank.recent[-1]
            assert bank.logits is not None and entry.spatial is not None
            found[id] = {
                "logits": bank.logits,
                "presence": torch.tensor(entry.presence),
                "pointer": entry.pointer,
                "spatial": entry.spatial.float(),
            }
        answers.append(found)
    return answers


@pytest.mark.parametrize("clicks", [{0: [1]}, {0: [1, 2]}, {0: [1], 3: [2]}], ids=["one", "two", "one later"])
def test_parity_with_transformers(clicks: dict[int, list[int]]) -> None:
    frames = clip(7)
    session = Session(frames)
    for t, found in enumerate(ours(frames, clicks)):
        if t in clicks:
            session.click(t, clicks[t])
        expected = session.step(t)
        assert found.keys() == expected.keys()
        for id, answer in found.items():
            for name, value in expected[id].items():
                within = 0.02 if name == "spatial" else 5e-4  # a few bfloat16 round the other way
                np.testing.assert_allclose(answer[name], value, rtol=0, atol=within, err_msg=f"{name} of {id} in {t}")


def test_the_parity_is_of_masks_that_depend_on_the_memory() -> None:
    answers = ours(clip(4), {0: [1, 2]})
    for found in answers:
        assert all(0.02 < (answer["logits"] > 0).float().mean() < 0.98 for answer in found.values())
        assert (found[1]["logits"] - found[2]["logits"]).abs().max() > 0.02
    alone = ours(clip(4), {3: [1]})[3][1]["logits"]
    assert (answers[3][1]["logits"] - alone).abs().max() > 0.1


def test_objects_together_are_objects_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU takes several at a time; transformers' perceiver cannot."""
    alone = ours(clip(5), {0: [1, 2]})
    monkeypatch.setattr(EdgeTamCore, "split_rows", lambda self, rows: [list(rows)] if rows else [])
    for apart, together in zip(alone, ours(clip(5), {0: [1, 2]}), strict=True):
        for id in (1, 2):
            for name, value in apart[id].items():
                np.testing.assert_allclose(together[id][name], value, rtol=0, atol=0.02 if name == "spatial" else 5e-4)


def test_it_is_a_propagator() -> None:
    tam = propagator()
    assert isinstance(tam, Propagator)
    assert tam.description.startswith("edgetam, 192 px")


def test_a_given_mask_is_believed() -> None:
    tam = propagator()
    frames = clip(2)
    mask = torch.from_numpy((frames[0].image == (230, 60, 60)).all(2))
    first, second = tam.encode(frames)
    memory, answer = tam.prompt(tam.empty(), first, {7: mask})
    assert torch.equal(answer.masks((SIDE, SIDE))[0], mask)
    assert tam.predict(memory, second).logits.shape == (1, 3, SIDE // 4, SIDE // 4)


def held(memory: Any) -> int:
    """Bytes of all tensors in a memory."""
    entries = [e for bank in memory.banks.values() for e in (*bank.prompted, *bank.recent)]
    return sum(t.numel() * t.element_size() for e in entries for t in (e.pointer, e.spatial) if t is not None)


def test_memory_is_bounded() -> None:
    tam = propagator()
    [features] = tam.encode(clip(1))
    memory, _ = tam.prompt(tam.empty(), features, {1: Point(*PLACES[1])})
    sizes = []
    for _ in range(20):
        memory = tam.commit(memory, features, tam.predict(memory, features))
        sizes.append(held(memory))
    assert sizes[-1] == sizes[17] == max(sizes)
    latents = (WHOLE + WINDOWS**2) * 64 * 2  # bfloat16
    pointers = 17 * 256 * 4
    assert sizes[-1] == latents * 8 + pointers  # the prompt, and one frame more than the six that are read


def test_the_published_sizes_need_an_eighth_of_the_memory() -> None:
    tam = EdgeTam(build_edgetam(configuration(256)).eval().requires_grad_(False))
    [features] = tam.encode(clip(1))
    memory, _ = tam.prompt(tam.empty(), features, {1: Point(*PLACES[1])})
    spatial = memory.banks[1].prompted[0].spatial
    assert spatial is not None and spatial.dtype == torch.bfloat16
    assert tuple(spatial.shape) == (512, 64)  # SAM 2, at the 1024 pixels that both are trained at: 4096 x 64
    belief = tam.predict(memory, features)
    assert tuple(belief.logits.shape) == (1, 3, 64, 64)


def test_two_clicks_answer_with_one_mask() -> None:
    tam = propagator()
    [features] = tam.encode(clip(1))
    clicks = Clicks((Point(47, 63), Point(150, 22, inside=False)))
    _, answer = tam.prompt(tam.empty(), features, {1: clicks})
    assert answer.logits.shape == (1, 1, SIDE, SIDE)


def test_another_size() -> None:
    tam = EdgeTam(set_image_size(deepcopy(network()), 320))
    first, second = tam.encode(clip(2))
    memory, _ = tam.prompt(tam.empty(), first, {1: Point(*PLACES[1])})
    assert tam.predict(memory, second).logits.shape == (1, 3, 80, 80)


def test_a_size_that_windows_do_not_divide() -> None:
    with pytest.raises(InputError, match=r"squares of 288 pixels: .* 4 x 4 windows; use a multiple of 64"):
        EdgeTam(set_image_size(deepcopy(network()), 288))


def test_windows() -> None:
    tokens = torch.arange(16.0).view(1, 16, 1)  # a 4 x 4 square, row by row
    assert split_windows(tokens, 2)[:, :, 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert torch.equal(split_windows(tokens, 4)[:, 0, 0], torch.arange(16.0))
    two = torch.cat([tokens, tokens + 16])
    assert torch.equal(split_windows(two, 2)[4:], split_windows(tokens + 16, 2))


def test_only_latents_of_windows_are_rotated() -> None:
    turn = propagator().core.attention.memory_rotations
    assert turn.shape == (WHOLE + WINDOWS**2, 128)
    x = torch.randn(1, 2 * len(turn), 256, generator=torch.Generator().manual_seed(0))  # of two frames
    before, after = x.view(2, len(turn), -1), rotate_tokens(x, turn).view(2, len(turn), -1)
    assert torch.equal(before[:, :WHOLE], after[:, :WHOLE])
    # The window in row 2, column 1: the first of 64 frequencies is 1 along each axis, columns first.
    window = WHOLE + 2 * WINDOWS + 1
    for pair, angle in ((0, 1.0), (64, 2.0)):
        u, v = before[1, window, 2 * pair : 2 * pair + 2]
        cos, sin = np.cos(angle), np.sin(angle)
        expected = torch.stack([u * cos - v * sin, u * sin + v * cos])
        torch.testing.assert_close(after[1, window, 2 * pair : 2 * pair + 2], expected.float())


# -- the network


def test_names_of_the_published_weights() -> None:
    net = build_edgetam(configuration(1024))
    names = net.state_dict().keys()
    assert len(names) == 984
    assert sum(p.numel() for p in net.parameters()) == 13_895_794  # the paper: 13.9 million
    assert {
        "vision_encoder.backbone.timm_model.stem.conv1.c.weight",
        "vision_encoder.backbone.timm_model.stages_2.blocks.13.token_mixer.conv1.bn.num_batches_tracked",
        "vision_encoder.neck.convs.3.bias",
        "memory_attention.layers.1.mlp.up_proj.weight",
        "spatial_perceiver.latents_2d",
        "spatial_perceiver.layers.0.cross_attention.k_proj.weight",
    } <= names


def test_strict_loading() -> None:
    state = network().state_dict()
    net = build_edgetam(small())
    net.load_state_dict(state)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    name = "vision_encoder.backbone.timm_model.stages_3.blocks.0.se.fc2.bias"
    with pytest.raises(RuntimeError, match=name):
        net.load_state_dict({n: v for n, v in state.items() if n != name})


def test_the_config_stays_as_it_was() -> None:
    config = small()
    before = config.to_dict()
    net = build_edgetam(config)
    assert net.config.to_dict()["vision_config"]["backbone_config"] == before["vision_config"]["backbone_config"]
    set_image_size(net, 320)
    assert config.to_dict() == before


def test_folded_it_sees_the_same() -> None:
    [frame] = clip(1)
    tam = propagator()
    [features] = tam.encode([frame])
    assert not any(isinstance(part, nn.BatchNorm2d) for part in tam.net.modules())
    with torch.no_grad():
        slow = network().get_image_features(tam.pixels(frame)).fpn_hidden_states
    for before, after in zip(slow, (features.fine, features.medium, features.coarse), strict=True):
        assert (before[:, 0].T - after.flatten(1)).abs().max() <= 1e-4 * before.abs().max()


def test_a_network_serves_more_than_once() -> None:
    net, frames = deepcopy(network()), clip(1)
    [first], [second] = EdgeTam(net).encode(frames), EdgeTam(net).encode(frames)
    assert torch.equal(first.coarse, second.coarse)
