"""GenVIS's object encoder and decoder with memory against the official program's."""

from __future__ import annotations

import pytest
import torch
from dvis_fixtures import arrays, filled, needed, sets, told

from masklet.nn.genvis import ObjectDecoder, ObjectDecoderSettings


def near(got, want):
    torch.testing.assert_close(got, want, atol=2e-5, rtol=0)


def widths(shapes):
    """Channels of the pixels' features, before and after the module's own convolution."""
    mask, feature, *_ = shapes["vita_mask_features.weight"]
    return {"feature_width": feature, "mask_width": mask}


def settings(at):
    """A set's sizes, in our words."""
    return ObjectDecoderSettings(
        classes=at["classes"],
        width=at["hidden"],
        heads=at["heads"],
        hidden=at["ffn"],
        encoder_layers=at["enc_layers"],
        decoder_layers=at["dec_layers"],
        queries=at["video_queries"],
        frame_queries=at["frame_queries"],
        **widths(at["state_dict"]),
    )


@pytest.fixture(scope="module", params=sets("genvis_module"))
def case(request):
    name = needed(request.param)
    about = told("genvis_module")[name]
    net, held, memory, frames = (
        filled(ObjectDecoder(settings(about)), about["state_dict"]),
        arrays(f"genvis_module_{name}"),
        None,
        [],
    )
    with torch.inference_mode():
        for queries in held["frame_queries"]:
            output = net(memory, queries[None])[-1]
            memory = net.remembered(memory, output)
            frames.append((net.decoder_norm(output), memory))
    return net, held, frames


@torch.inference_mode()
def test_outputs(case):
    net, held, frames = case
    for t, (normed, memory) in enumerate(frames):
        near(net.classify(normed), held["pred_logits"][t])
        near(net.mask_embed(normed), held["mask_embed"][t])
        near(memory.queries, held["output_query"][t])


def test_memory(case):
    _, held, frames = case
    near(frames[-1][1].keys, held["memory_k"])
    near(frames[-1][1].values, held["memory_v"])


@torch.inference_mode()
def test_a_video_goes_on_from_its_memory(case):
    net, held, frames = case
    output = net(frames[0][1], held["frame_queries"][1:2])[-1]
    assert torch.equal(net.decoder_norm(output), frames[1][0])
    assert torch.equal(net.remembered(frames[0][1], output).keys, frames[1][1].keys)


def whole_modules():
    """Sets that only tell names and shapes, of the real sizes."""
    return [name for name, at in told("genvis_module").items() if "n_params" in at] or [None]


@pytest.mark.parametrize("name", whole_modules())
def test_names_and_shapes_of_the_real_modules(name):
    at = told("genvis_module")[needed(name)]
    shapes = at["state_dict"]
    with torch.device("meta"):
        net = ObjectDecoder(ObjectDecoderSettings(shapes["class_embed.bias"][0] - 1, **widths(shapes)))
    assert {k: list(v.shape) for k, v in net.state_dict().items()} == shapes
    assert sum(p.numel() for p in net.parameters()) == at["n_params"]
