"""RoCoVIS over a small Mask2Former: against its equations written out, on frames, and its files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import rocovis as slow
from safetensors import safe_open
from safetensors.torch import save_file
from test_mask2former import network

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.memory import load_memory, save_memory
from masklet.core.protocols import SlotModel
from masklet.models.mask2former.segmenter import Mask2Former
from masklet.models.mask2former.small import SmallMask2FormerSettings, create_small_mask2former, save_small
from masklet.models.query_video.rocovis import Rocovis, RocovisMemory, RocovisNet, RocovisNetSettings
from masklet.models.query_video.slot_model import take_last_layer
from masklet.models.query_video.slot_weights import load_image_trained, load_slot_model, save_slot_model
from masklet.systems.rocovis import RocovisSystemSettings, build_rocovis_system

SIZE = (64, 96)
SMALL = SmallMask2FormerSettings(
    hidden=32, encoder_layers=1, decoder_layers=2, queries=8, encoder_width=32, decoder_width=32
)


def near(got, want, atol=1e-5):
    torch.testing.assert_close(got, want, atol=atol, rtol=0)


def net(seed=0, trained=True, **settings):
    """With weights in the output projection, as after training; the random queries of `network` are tame enough."""
    torch.manual_seed(seed)
    made = RocovisNet(network(), RocovisNetSettings(**{"width": 16, "heads": 4, **settings}))
    for part in made.propagation if trained else ():
        torch.nn.init.normal_(part.out_proj.weight, std=5.0)
        torch.nn.init.normal_(part.background)
    return made.eval().requires_grad_(False)


def images(t):
    return torch.randn(t, 3, *SIZE, generator=torch.Generator().manual_seed(3))


def frames(t, size=(64, 96)):
    noise = np.random.default_rng(2)
    return [Frame(n, noise.integers(0, 256, (*size, 3), dtype=np.uint8)) for n in range(t)]


def run(model, pictures, trusts=None):
    """Every frame's slots, with the trust of inference or what is given."""
    memory, found = model.empty(), []
    for t, image in enumerate(pictures):
        features = model.encode(image[None])
        slots = take_last_layer(model.decoded(memory, features))
        memory = model.commit(memory, features, slots, model.trust(slots) if trusts is None else trusts[t][None])
        found.append(slots)
    return found, memory


def trusts(t, n=20):
    return (torch.rand(t, n, generator=torch.Generator().manual_seed(4)) > 0.4).float()


# -- the equations


@pytest.mark.parametrize("kept", [1, 3])
def test_a_video_is_as_written_out(kept):
    model, pictures = net(frames=kept), images(5)
    found, _ = run(model, pictures, trusts(5))
    for slots, (logits, masks) in zip(found, slow.video(model, pictures, list(trusts(5))), strict=True):
        near(slots.class_logits[0], logits)
        near(slots.mask_logits[0], masks, 2e-5)


def test_trust_at_inference_is_who_is_rather_an_object():
    model = net()
    found, _ = run(model, images(2))
    for slots in found:
        likely = slow.foreground(slots.class_logits[0])
        assert torch.equal(model.trust(slots)[0], (likely > 0.5).float())
    assert torch.equal(net(suppress=False).trust(found[0]), torch.ones(1, 20))


def test_a_new_one_s_first_frame_is_mask2former_s():
    model, image = net(trained=False), images(1)
    want = network()(pixel_values=image)
    slots = model.predict(model.empty(), model.encode(image))
    near(slots.class_logits, want.class_queries_logits, 1e-6)
    near(slots.mask_logits, want.masks_queries_logits, 1e-6)


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_a_new_one_is_direct_query_decoding_alone(levels):
    got, _ = run(net(trained=False, levels=levels), images(3))
    want, _ = run(net(trained=False, levels=0), images(3))
    for one, other in zip(got, want, strict=True):
        near(one.mask_logits, other.mask_logits, 1e-6)
    assert (got[0].queries - got[1].queries).abs().max() > 1e-3


@pytest.mark.parametrize("levels", [1, 2])
def test_masks_of_the_last_frame_change_the_next(levels):
    model, pictures = net(levels=levels), images(2)
    one, _ = run(model, pictures, torch.ones(2, 20))
    other, _ = run(model, pictures, torch.zeros(2, 20))
    assert torch.equal(one[0].mask_logits, other[0].mask_logits)
    assert (one[1].mask_logits - other[1].mask_logits).abs().max() > 1e-2


def test_several_videos_side_by_side_know_nothing_of_each_other():
    model, pictures = net(), images(6)
    memory = model.empty()
    for t in range(3):
        features = model.encode(pictures[[t, t + 3]])
        slots = model.predict(memory, features)
        memory = model.commit(memory, features, slots, torch.ones(2, 20))
    for b in range(2):
        alone, _ = run(model, pictures[3 * b : 3 * b + 3], torch.ones(3, 20))
        near(slots.mask_logits[b], alone[-1].mask_logits[0], 1e-4)


def test_decode_gives_the_masks_again():
    model = net()
    [slots], _ = run(model, images(1))
    near(model.decode(slots.queries, slots.pixel_features), slots.mask_logits, 1e-5)


def test_all_layers_are_there_and_the_last_one_is_the_answer():
    model, image = net(), images(1)
    layers = model.decoded(model.empty(), model.encode(image))
    assert len(layers.class_logits) == len(layers.mask_logits) == 3
    assert torch.equal(take_last_layer(layers).mask_logits, layers.mask_logits[-1])


# -- memory and gradients


def test_memory_is_of_one_size():
    _, short = run(net(frames=2), images(3))
    _, long = run(net(frames=2), images(9))
    assert len(long.frames) == 2
    assert sum(k.nbytes for f in long.frames for k in (*f.keys, *f.values)) == sum(
        k.nbytes for f in short.frames for k in (*f.keys, *f.values)
    )


def test_gradients_reach_all_that_is_new_and_go_back_in_time():
    model = net(levels=2).requires_grad_(True)
    found, _ = run(model, images(3), trusts(3))
    found[-1].mask_logits.square().mean().backward()
    for name, weight in model.propagation.named_parameters():
        assert weight.grad is not None and weight.grad.abs().max() > 0, name


def test_nothing_goes_back_beyond_a_detached_memory():
    model, pictures = net().requires_grad_(True), images(2)
    features = model.encode(pictures[:1])
    slots = model.predict(model.empty(), features)
    memory = model.commit(model.empty(), features, slots, torch.ones(1, 20))
    assert memory.queries.requires_grad and memory.frames[0].values[0].requires_grad
    cut = memory.detached()
    assert not any(x.requires_grad for x in (cut.queries, *cut.frames[0].keys, *cut.frames[0].values))
    assert torch.equal(cut.frames[0].values[0], memory.frames[0].values[0])
    assert RocovisMemory().detached() == RocovisMemory()


def test_in_bfloat16_as_on_a_gpu():
    model, pictures = net(levels=2), images(3)
    with torch.autocast("cpu", torch.bfloat16):
        found, memory = run(model, pictures)
    want, _ = run(model, pictures)
    assert memory.frames[0].keys[0].dtype is torch.bfloat16 and found[-1].mask_logits.dtype is torch.float32
    near(found[0].mask_logits, want[0].mask_logits, 0.1)
    assert found[-1].mask_logits.isfinite().all()


def test_batch_norms_do_not_learn():
    model = net().train()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert model.training and model.propagation.training and norms and not any(m.training for m in norms)


# -- on frames


def test_it_is_a_slot_model():
    model = Rocovis(net(), shortest=64)
    assert isinstance(model, SlotModel) and model.categories == ("kind 0", "kind 1", "kind 2")


def test_frames_look_as_for_its_mask2former():
    model, [frame] = Rocovis(net(trained=False), shortest=48), frames(1, (60, 84))
    slots = model.predict(model.empty(), model.encode([frame])[0])
    want = Mask2Former(network(), shortest=48).slots([frame])
    near(slots.mask_logits, want.mask_logits, 1e-5)
    near(slots.class_logits, want.class_logits, 1e-5)
    assert slots.inside == want.inside == (48, 67)


def test_frames_that_are_encoded_together():
    model, clip = Rocovis(net(), shortest=64), frames(3)
    for one, alone in zip(model.encode(clip), (model.encode([f])[0] for f in clip), strict=True):
        for got, want in zip(one.maps, alone.maps, strict=True):
            near(got, want, 1e-4)


@pytest.mark.parametrize("cut", [1, 2, 4])
@pytest.mark.parametrize("levels", [0, 2])
def test_a_stream_cut_anywhere_goes_on_from_its_saved_state(cut, levels, tmp_path):
    system, clip = (
        build_rocovis_system(Rocovis(net(levels=levels), shortest=32), RocovisSystemSettings(top=3)),
        frames(5, (32, 48)),
    )
    whole = told(system.stream(clip))
    first = system.stream(clip)
    begun = told(next(first) for _ in range(cut))
    save_memory(first.state, tmp_path / "state")
    assert begun + told(system.stream(clip[cut:], load_memory(tmp_path / "state"))) == whole


def told(found):
    return [(f.ids, f.masks.tolist(), f.scores.tolist(), f.labels.tolist()) for f in found]


# -- files


@pytest.fixture
def small():
    return create_small_mask2former(SMALL, ("cat", "dog"))


@pytest.mark.parametrize("kind", ["transformers", "small"])
def test_a_file_holds_all(kind, small, tmp_path):
    model = (
        net(levels=2, frames=4, suppress=False) if kind == "transformers" else RocovisNet(small, RocovisNetSettings())
    )
    path = tmp_path / "weights.safetensors"
    save_slot_model(path, "rocovis", model, 64)
    back = load_slot_model(path, "rocovis", torch.device("cpu"))
    assert back.net.settings == model.settings and back.shortest == 64 and list(back.weights) == [path.name]
    assert back.categories == (("kind 0", "kind 1", "kind 2") if kind == "transformers" else ("cat", "dog"))
    assert not back.net.training and not any(p.requires_grad for p in back.net.parameters())
    want, _ = run(model.eval().requires_grad_(False), images(2))
    got, _ = run(back.net, images(2))
    assert torch.equal(got[1].mask_logits, want[1].mask_logits)


def test_it_begins_as_a_small_mask2former(small, tmp_path):
    save_small(tmp_path / "small.safetensors", small, SMALL, (64, 96))
    start = load_image_trained(tmp_path / "small.safetensors")
    assert start.shortest == 64
    model, image = RocovisNet(start.net).eval(), images(1)
    want = small.eval()(pixel_values=image)
    near(model.predict(model.empty(), model.encode(image)).mask_logits, want.masks_queries_logits, 1e-5)


def changed(path, tensors=lambda held: held, **metadata):
    """The file with other contents."""
    with safe_open(path, "pt") as file:
        told, held = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    save_file(tensors(held), path, {k: v for k, v in {**told, **metadata}.items() if v is not None})


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"kind": "small-mask2former"}, "not weights of a rocovis.*, but of small-mask2former"),
        ({"kind": None}, "not weights of a rocovis"),
        ({"settings": "{"}, "damaged"),
        ({"settings": None}, "damaged .*settings"),
        ({"settings": json.dumps({"levels": 1})}, "damaged .*frames"),
        ({"settings": json.dumps({"levels": 1, "frames": 0, "width": 8, "heads": 2, "suppress": True})}, "frames = 0"),
        ({"mask2former": json.dumps({"small": {"hidden": "many"}, "categories": []})}, "damaged"),
        ({"tensors": lambda held: {k: v for k, v in held.items() if "background" not in k}}, "lacks .*background"),
        ({"tensors": lambda held: {**held, "extra": torch.zeros(1)}}, "has besides extra"),
        (
            {"tensors": lambda held: {**held, "propagation.0.background": torch.zeros(3)}},
            "another shape propagation.0.background",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(how, says, small, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_slot_model(path, "rocovis", RocovisNet(small, RocovisNetSettings()), 64)
    changed(path, **how)
    with pytest.raises(InputError, match=says) as error:
        load_slot_model(path, "rocovis", torch.device("cpu"))
    assert "\n" not in str(error.value)


def test_no_file_or_half_a_file(small, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_slot_model(tmp_path / "none.safetensors", "rocovis", torch.device("cpu"))
    path = tmp_path / "weights.safetensors"
    save_slot_model(path, "rocovis", RocovisNet(small, RocovisNetSettings()), 64)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        load_slot_model(path, "rocovis", torch.device("cpu"))


def test_settings_that_cannot_be():
    for how in ({"levels": 5}, {"levels": -1}, {"frames": 0}, {"width": 9}):
        with pytest.raises(InputError):
            replace(RocovisNetSettings(), **how)
