"""GenVIS over a small Mask2Former: its seams, and what it remembers."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from test_mask2former import network
from test_rocovis_model import frames, images, near, run, told

from masklet.core.errors import InputError
from masklet.core.memory import load_memory, save_memory
from masklet.core.protocols import SlotModel
from masklet.models.query_video.genvis import Genvis, GenvisMemory, GenvisNet, GenvisNetSettings
from masklet.models.query_video.slot_model import take_last_layer
from masklet.models.query_video.slot_weights import load_slot_model, save_slot_model
from masklet.systems.rocovis import build_genvis_system


def net(**settings):
    torch.manual_seed(0)
    at = {"encoder_layers": 1, "decoder_layers": 2, "hidden": 32, "heads": 4, "queries": 7, **settings}
    return GenvisNet(deepcopy(network()), GenvisNetSettings(**at)).eval()


def test_a_video_is_the_object_decoder_over_frame_queries():
    model, pictures = net(), images(3)
    found, _ = run(model, pictures)
    memory = None
    for image, slots in zip(pictures, found, strict=True):
        answer = network().model(image[None], output_hidden_states=True)
        alone = answer.transformer_decoder_intermediate_states[-1].transpose(0, 1)
        output = model.objects(memory, alone)[-1]
        memory = model.objects.remembered(memory, output)
        normed = model.objects.decoder_norm(output)
        near(slots.class_logits[0], model.objects.classify(normed))
        pixels = model.objects.pixels(answer.pixel_decoder_last_hidden_state)
        near(slots.mask_logits[0], model.objects.masks(normed, pixels[0]))
        near(model.decode(slots.queries, slots.pixel_features), slots.mask_logits)


def test_several_videos_side_by_side():
    model, pictures, memory = net(), images(4), net().empty()
    for t in range(2):
        features = model.encode(pictures[[t, t + 2]])
        slots = take_last_layer(model.decoded(memory, features))
        memory = model.commit(memory, features, slots, torch.ones(2, 7))
    alone, _ = run(model, pictures[2:])
    near(slots.mask_logits[1], alone[-1].mask_logits[0])


@pytest.mark.parametrize("kept", [2, None])
def test_memory_is_all_or_of_the_last_frames(kept):
    _, memory = run(net(frames=kept), images(4))
    assert len(memory.videos[0].keys) == len(memory.videos[0].values) == (kept or 4)


def test_the_frames_that_are_kept_are_the_last_ones():
    """Up to two frames nothing is forgotten, so that both memories begin alike; then the older one goes."""
    model, pictures, memories = net(frames=2), images(3), []
    memory = model.empty()
    for image in pictures:
        features = model.encode(image[None])
        slots = take_last_layer(model.decoded(memory, features))
        memory = model.commit(memory, features, slots, model.trust(slots))
        memories.append(memory.videos[0])
    two, three = memories[1:]
    for kept, before in ((three.keys, two.keys), (three.values, two.values)):
        assert torch.equal(kept[0], before[1]) and not torch.equal(kept[1], before[0])


def test_the_mask2former_is_not_trained():
    model = net().train()
    assert model.objects.training and not model.segmenter.training
    found, _ = run(model, images(3))
    found[-1].mask_logits.square().mean().backward()
    assert all(p.grad is None for p in model.segmenter.parameters())
    unread = ("sim_embed", "class_embed")
    for name, weight in model.objects.named_parameters():
        assert (weight.grad is not None and weight.grad.any()) or name.startswith(unread), name


def test_nothing_goes_back_beyond_a_detached_memory():
    _, memory = run(net(), images(1))
    assert memory.videos[0].keys.requires_grad and not memory.detached().videos[0].keys.requires_grad
    assert GenvisMemory().detached() == GenvisMemory()


def test_on_frames_and_as_a_file(tmp_path):
    model = Genvis(net(frames=3), shortest=64)
    assert isinstance(model, SlotModel)
    save_slot_model(tmp_path / "g.safetensors", "genvis", model.net, 64)
    back = load_slot_model(tmp_path / "g.safetensors", "genvis", torch.device("cpu"))
    [frame] = frames(1)
    got, want = (m.predict(m.empty(), m.encode([frame])[0]) for m in (back, model))
    assert torch.equal(got.mask_logits, want.mask_logits) and back.net.settings == model.net.settings
    with pytest.raises(InputError, match=r"not weights of a rocovis.*, but of genvis"):
        load_slot_model(tmp_path / "g.safetensors", "rocovis", torch.device("cpu"))


def test_a_stream_goes_on_from_its_saved_state(tmp_path):
    system, clip = build_genvis_system(Genvis(net(), shortest=32)), frames(4, (32, 48))
    whole, first = told(system.stream(clip)), system.stream(clip)
    begun = told(next(first) for _ in range(2))
    save_memory(first.state, tmp_path / "state")
    assert begun + told(system.stream(clip[2:], load_memory(tmp_path / "state"))) == whole
    assert system.name == "genvis" and not system.settings.foreground


def test_frames_count_from_one():
    with pytest.raises(InputError, match="frames = 0"):
        GenvisNetSettings(frames=0)
