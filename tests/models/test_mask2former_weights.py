"""Mask2Former's weights: converted by rule, told apart by their keys, read safely, loaded whole or refused by name."""

from __future__ import annotations

import json
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden.mask2former_fixtures import FOLDER, found, network, official, table
from safetensors.torch import load_file, save_file
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.models.mask2former.segmenter import Mask2FormerSettings, load_mask2former
from masklet.models.mask2former.tensor_names import (
    convert_mask2former_state,
    infer_checkpoint_kind,
    rename_mask2former_key,
    require_kind,
    split_checkpoint,
)
from masklet.models.mask2former.weights import (
    build_mask2former,
    fill_mask2former,
    infer_mask2former_config,
    is_mask2former,
    read_detectron2,
)

if not found("mask2former_*"):
    pytest.skip(f"no mask2former_*.npz under {FOLDER}: set MASKLET_GOLDEN", allow_module_level=True)

NETWORKS = [name for name in found("mask2former_*") if len(table(name)["state_dict"]) < 500]  # the small ones
SMALL = NETWORKS[-1]
HERE = Path("here.pth")


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without weights."""
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def state(name: str = SMALL) -> dict[str, Tensor]:
    return official(table(name)["state_dict"])


def saved(folder: Path, name: str = SMALL) -> Path:
    """The network of a fixture as transformers saves it."""
    network(name).save_pretrained(folder)
    return folder


def same(a: Any, b: Any) -> bool:
    """Whether two networks give the same answers."""
    seen = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    one, other = (net(seen, output_hidden_states=True) for net in (a, b))
    return torch.equal(one.masks_queries_logits, other.masks_queries_logits) and torch.equal(
        one.class_queries_logits, other.class_queries_logits
    )


# -- folders


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_that_transformers_saved_loads(name: str, tmp_path: Path) -> None:
    built = build_mask2former(saved(tmp_path / "mine", name))
    assert same(built.net, network(name)) and built.kind == "mask2former" and not built.tracker and not built.refiner
    assert list(built.weights) == ["mine/model.safetensors"] and re.fullmatch("[0-9a-f]{64}", *built.weights.values())
    assert built.shortest == 800 and not any(p.requires_grad for p in built.net.parameters())


OLD_NAMES = (
    (".swin.", "."),
    ("attention.q_proj", "attention.self.query"),
    ("attention.k_proj", "attention.self.key"),
    ("attention.v_proj", "attention.self.value"),
    ("attention.o_proj", "attention.output.dense"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
    ("attention.relative_position_bias.relative", "attention.self.relative"),
)


def test_a_folder_of_transformers_4_loads(tmp_path: Path) -> None:
    """Other names in the backbone, its index tables kept, and no last norm: what the hub's checkpoints have."""
    name = next((n for n in NETWORKS if "backbone.patch_embed.proj.weight" in table(n)["state_dict"]), None)
    if name is None:
        pytest.skip("no fixture with Swin")
    file = saved(tmp_path, name) / "model.safetensors"
    old: dict[str, Tensor] = {}
    for key, value in load_file(file).items():
        for new, then in OLD_NAMES:
            key = key.replace(new, then) if key.startswith("model.pixel_level_module.encoder.") else key
        old[key] = value
    old = {key: value for key, value in old.items() if ".encoder.layernorm." not in key}
    table_key = next(key for key in old if key.endswith("relative_position_bias_table"))
    old[table_key.replace("bias_table", "index")] = torch.zeros(16, 16, dtype=torch.int64)
    assert any("attention.self.query" in key for key in old)
    save_file(old, file, metadata={"format": "pt"})
    assert same(build_mask2former(tmp_path).net, network(name))


def changed(folder: Path, **told: Any) -> Path:
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | told))
    return folder


def retensored(folder: Path, change: Any) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


BIAS = "class_predictor.bias"
CLASSES = table(SMALL)["state_dict"]["sem_seg_head.predictor.class_embed.bias"][0] - 1  # and "no object"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: changed(f, model_type="sam2_video"), r"of a network 'sam2_video'; this needs 'mask2former'"),
        (lambda f: changed(f, use_timm_backbone=True), "a backbone that transformers does not have itself"),
        (lambda f: changed(f, backbone_config={"model_type": "dinov2"}), "a backbone that transformers does not have"),
        (lambda f: changed(f, hidden_dim="wide"), "damaged"),
        (lambda f: (f / "config.json").write_text("{"), "not JSON, or cut off"),
        (lambda f: changed(f, id2label={0: "a"}), f"weights for {CLASSES} classes, but its .* names 1"),
        (lambda f: changed(f, num_queries=1), r"it has in another shape model\.transformer_module\.queries"),
        (lambda f: retensored(f, lambda t: t.pop(BIAS)), f"it lacks {BIAS}"),
        (lambda f: retensored(f, lambda t: t.update(more=torch.zeros(1))), "it has besides more"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x10" * 99), "damaged or cut off"),
        (lambda f: (f / "config.json").unlink(), r"no config\.json"),
    ],
)
def test_a_wrong_folder_is_told_in_one_sentence(change: Any, message: str, tmp_path: Path) -> None:
    change(saved(tmp_path))
    with pytest.raises(InputError, match=message) as refusal:
        build_mask2former(tmp_path)
    assert "\n" not in str(refusal.value) and str(tmp_path) in str(refusal.value)


def test_what_is_not_here_says_what_to_fetch() -> None:
    with pytest.raises(InputError, match="run `masklet weights fetch facebook/mask2former-swin-tiny-coco-instance`"):
        build_mask2former("facebook/mask2former-swin-tiny-coco-instance")
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        build_mask2former("nowhere/model_final.pkl")


# -- official files


@pytest.mark.parametrize("name", NETWORKS)
def test_an_official_file_loads_as_its_network(name: str, tmp_path: Path) -> None:
    file = tmp_path / "model_final.pth"
    torch.save({"model": state(name), "iteration": 5999, "optimizer": {"state": {}}}, file)
    assert same(build_mask2former(file).net, network(name))
    assert load_mask2former(file, torch.device("cpu")).categories[:2] == ("1", "2")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_of_arrays_loads(protocol: int, tmp_path: Path) -> None:
    file = tmp_path / "model_final.pkl"
    content = OrderedDict((key, value.numpy()) for key, value in state().items())
    file.write_bytes(pickle.dumps({"model": content, "__author__": "me", "matching_heuristics": True}, protocol))
    read = read_detectron2(file)
    assert read.keys() == state().keys() and all(torch.equal(read[key], value) for key, value in state().items())


def test_a_pickle_becomes_a_network(tmp_path: Path) -> None:
    file = tmp_path / "model_final.pkl"
    file.write_bytes(pickle.dumps({"model": {key: value.numpy() for key, value in state().items()}}))
    built = build_mask2former(file)
    assert same(built.net, network(SMALL)) and list(built.weights) == ["model_final.pkl"]


class Trap:
    """What a pickle must not be able to do."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_a_file_that_wants_to_run_something_is_refused(suffix: str, tmp_path: Path) -> None:
    file, mark = tmp_path / f"model{suffix}", tmp_path / "ran"
    content = {"model": {"a": np.zeros(3)}, "more": Trap(mark)}
    file.write_bytes(pickle.dumps(content)) if suffix == ".pkl" else torch.save(content, file)
    with pytest.raises(InputError, match="holds more than"):
        build_mask2former(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"model": {"a": np.zeros(3)}})[:-9],
        b"",
        b"no pickle",
        pickle.dumps([np.zeros(3)]),
        pickle.dumps({"model": {"a": "text"}}),
        pickle.dumps({"model": {"a": np.array([None, {}], dtype=object)}}),
        pickle.dumps(eval),
        b"c_codecs\nencode\n(VQQ==\nVbase64\ntR.",
    ],
    ids=["cut off", "empty", "text", "list", "words", "objects", "function", "codec"],
)
def test_a_damaged_or_strange_pickle_is_told_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.pkl"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged, or holds more than numpy arrays|no table of arrays") as refusal:
        build_mask2former(file)
    assert "\n" not in str(refusal.value) and str(file) in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("sem_seg_head.predictor.query_feat.weight"), "it lacks sem_seg_head.predictor.query_feat"),
        (lambda s: s.pop("sem_seg_head.predictor.decoder_norm.bias"), "it lacks .*decoder.layernorm.bias"),
        (lambda s: s.update({"backbone.more": torch.zeros(2)}), r"it has besides backbone\.more"),
        (
            lambda s: [s.pop(k) for k in list(s) if k.startswith("backbone.")],
            "not weights of Mask2Former, MinVIS, DVIS or GenVIS",
        ),
    ],
)
def test_an_official_file_of_something_else_is_told(change: Any, message: str, tmp_path: Path) -> None:
    tensors = state()
    change(tensors)
    torch.save({"model": tensors}, tmp_path / "model.pth")
    with pytest.raises(InputError, match=message):
        build_mask2former(tmp_path / "model.pth")


# -- names


def test_our_rules_are_those_of_the_fixtures() -> None:
    """On every key of every list; theirs name three tensors where ours say qkv."""

    def theirs(key: str) -> str | None:
        for rule in table("detectron2_to_transformers")["rules"]:
            if hit := re.match(rule["pattern"], key):
                fill = re.sub(r"\{\\(\d)([+-]\d+)\}", lambda m: str(int(hit[int(m[1])]) + int(m[2])), rule["target"])
                return hit.expand(fill).replace("[q_proj,k_proj,v_proj]", "qkv") or None
        return None

    lists = [table(f"keys/{p.stem}") for p in FOLDER.glob("keys/*.json") if "genvis" not in p.stem]
    keys = {key for told in lists for key in told.get("state_dict", ())}
    keys |= {key for name in NETWORKS for key in table(name)["state_dict"]}
    for key in keys:
        name = theirs(key)
        assert name is None or rename_mask2former_key(key) == name, key
        if name is None:
            assert key.startswith(("tracker.", "refiner.")) or key.endswith("relative_position_index"), key


def test_queries_keys_and_values_are_taken_apart_in_this_order() -> None:
    key = "sem_seg_head.predictor.transformer_self_attention_layers.3.self_attn.in_proj_bias"
    prefix = "model.transformer_module.decoder.layers.3.self_attn."
    made = convert_mask2former_state({key: torch.arange(6)})
    assert {name.removeprefix(prefix): value.tolist() for name, value in made.items()} == {
        "q_proj.bias": [0, 1],
        "k_proj.bias": [2, 3],
        "v_proj.bias": [4, 5],
    }


def test_the_config_of_swin_large_is_told_by_its_shapes() -> None:
    lists = [p.stem for p in sorted(FOLDER.glob("keys/minvis_*swinl_*.json"))]
    if not lists:
        pytest.skip("no list of keys with Swin-L")
    shapes = table(f"keys/{lists[0]}")["state_dict"]
    config = infer_mask2former_config(
        {key: torch.empty(tuple(shape), device="meta") for key, shape in shapes.items()}, HERE
    )
    trunk = config.backbone_config
    assert (trunk.embed_dim, trunk.depths, trunk.num_heads, trunk.window_size) == (
        192,
        [2, 2, 18, 2],
        [6, 12, 24, 48],
        12,
    )
    assert (config.num_queries, config.hidden_dim, config.num_attention_heads) == (200, 256, 8)
    assert (config.encoder_layers, config.decoder_layers, config.dim_feedforward) == (6, 10, 2048)
    assert config.encoder_feedforward_dim == 1024 and not config.enforce_input_projection


def early(key: str) -> str:
    """The key as the first official checkpoints have it."""
    key = key.replace(".query_feat.", ".static_query.").replace("sem_seg_head.pixel_decoder.", "sem_seg_head.")
    return re.sub("^refiner", "offline_tracker", key)


def test_the_first_official_names_are_known() -> None:
    given = state() | {"tracker.a.b": torch.zeros(1), "refiner.c": torch.zeros(2)}
    old = {early(key): value for key, value in given.items()}
    assert old.keys() != given.keys()
    parts = split_checkpoint(old)
    assert parts.segmenter.keys() == split_checkpoint(given).segmenter.keys()
    assert parts.tracker.keys() == {"a.b"} and parts.refiner.keys() == {"c"}
    assert infer_checkpoint_kind(old) == "dvis-offline"
    own = parts.segmenter
    assert same(
        fill_mask2former(infer_mask2former_config(own, HERE), convert_mask2former_state(own), HERE), network(SMALL)
    )


def test_what_only_genvis_s_losses_need_is_left_out() -> None:
    losses = {f"{name}_criterion.empty_weight": torch.zeros(1) for name in ("vita", "genvis")}
    parts = split_checkpoint(state() | losses | {"vita_module.a.b": torch.zeros(1)})
    assert parts.objects.keys() == {"a.b"} and parts.segmenter.keys() == split_checkpoint(state()).segmenter.keys()


def test_a_backbone_that_there_is_not_is_named() -> None:
    """ViT-L, of whose released files no list of tensors was to be had."""
    others = {k: v for k, v in state().items() if not k.startswith("backbone.")}
    vit = others | {"backbone.vit_module.cls_token": torch.zeros(1), "backbone.spm.stem.0.weight": torch.zeros(1)}
    with pytest.raises(
        InputError, match=r"backbone that masklet does not have \(.*backbone\.spm.*ResNet and Swin are read\. Of ViT-L"
    ):
        infer_mask2former_config(vit, HERE)


# -- kinds


def labelled(*more: str, classes: int = 80) -> dict[str, Tensor]:
    bias = {"sem_seg_head.predictor.class_embed.bias": torch.zeros(classes + 1)}
    return bias | {key: torch.zeros(1) for key in ("backbone.a", *more)}


def test_kinds_are_told_by_keys() -> None:
    assert infer_checkpoint_kind(labelled()) == "mask2former" == infer_checkpoint_kind(network(SMALL).state_dict())
    assert [infer_checkpoint_kind(labelled(classes=n)) for n in (25, 40, 124)] == ["minvis"] * 3
    assert infer_checkpoint_kind(labelled("tracker.x")) == "dvis-online"
    assert infer_checkpoint_kind(labelled("tracker.x", "refiner.y")) == "dvis-offline"
    assert infer_checkpoint_kind(labelled("tracker.x", "offline_tracker.y")) == "dvis-offline"
    objects = "vita_module.pre_memory_embed_k.weight"
    assert infer_checkpoint_kind(labelled("sem_seg_head.x", objects)) == "genvis"


def test_what_is_of_no_kind_is_told() -> None:
    with pytest.raises(InputError, match=r"^old\.pth: a refiner of DVIS without its tracker"):
        infer_checkpoint_kind(labelled("refiner.y"), "old.pth")
    with pytest.raises(InputError, match=r"^v\.pth: weights of VITA, or of GenVIS without"):
        infer_checkpoint_kind(labelled("sem_seg_head.x", "vita_module.y"), "v.pth")
    with pytest.raises(InputError, match="of GenVIS without its Mask2Former"):
        infer_checkpoint_kind({"vita_module.pre_memory_embed_k.weight": torch.zeros(1)})
    with pytest.raises(InputError, match=r"not weights of Mask2Former, .*begin with fc\.weight"):
        infer_checkpoint_kind({"fc.weight": torch.zeros(1)})


def test_the_wrong_kind_is_told() -> None:
    require_kind("dvis-online", "dvis-online", "a.pth")
    with pytest.raises(InputError, match=r"^a\.pth: weights of dvis-online, this needs those of dvis-offline$"):
        require_kind("dvis-online", "dvis-offline", "a.pth")


@pytest.mark.parametrize(
    ("classes", "resnet", "shortest"), [(80, True, 800), (25, True, 360), (40, False, 480), (124, True, 720)]
)
def test_official_test_sizes(classes: int, resnet: bool, shortest: int, tmp_path: Path) -> None:
    name = next((n for n in NETWORKS if ("backbone.stem.conv1.weight" in table(n)["state_dict"]) == resnet), None)
    if name is None:
        pytest.skip("no fixture with this backbone")
    tensors = state(name)
    for key in ("predictor.class_embed.weight", "predictor.class_embed.bias"):
        tensors[f"sem_seg_head.{key}"] = torch.zeros(classes + 1, *tensors[f"sem_seg_head.{key}"].shape[1:])
    tensors["criterion.empty_weight"] = torch.ones(classes + 1)
    torch.save({"model": tensors}, tmp_path / "model.pth")
    assert build_mask2former(tmp_path / "model.pth").shortest == shortest


def test_parts_of_dvis_come_along(tmp_path: Path) -> None:
    tensors = state() | {"tracker.a.weight": torch.ones(2), "refiner.b.weight": torch.ones(3)}
    torch.save({"model": tensors}, tmp_path / "offline.pth")
    built = build_mask2former(tmp_path / "offline.pth")
    assert (
        built.kind == "dvis-offline" and built.tracker.keys() == {"a.weight"} and built.refiner.keys() == {"b.weight"}
    )


# -- by name


def test_names_that_mean_a_mask2former(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    for name in ("facebook/mask2former-swin-tiny-coco-instance", str(tmp_path / "mine"), "a/model_final.pkl", "b.pth"):
        assert is_mask2former(name), name
    for name in ("motion", "detections.json", str(tmp_path), "facebook/sam2.1-hiera-tiny"):
        assert not is_mask2former(name), name


def test_a_loaded_segmenter_looks_at_a_frame(tmp_path: Path) -> None:
    model = load_mask2former(
        saved(tmp_path), torch.device("cpu"), shortest=64, settings=Mask2FormerSettings(threshold=0.0)
    )
    [found_], _ = model.segment(None, [Frame(0, np.zeros((70, 90, 3), dtype=np.uint8))], [])
    assert found_.masks.shape[1:] == (70, 90) and model.shortest == 64 and model.weights
