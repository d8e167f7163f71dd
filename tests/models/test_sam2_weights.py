"""SAM 2's weights: converted by rule, loaded whole or refused by name."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from golden.sam2_fixtures import needs, network, parameter, table
from safetensors.torch import save_file
from torch import Tensor

from masklet.core.errors import InputError
from masklet.models.sam2.edgetam import EdgeTam, build_edgetam
from masklet.models.sam2.propagator import Sam2
from masklet.models.sam2.weights import (
    EDGETAM_RULES,
    RULES,
    TRUNK,
    TRUNKS,
    build_empty_sam2,
    build_sam2,
    convert_sam2_state,
    fill_sam2,
    infer_sam2_config,
    infer_stages,
    read_tensors,
    rename_sam2_key,
)
from masklet.weights.catalog import CHECKPOINTS

needs("key_map.json", "model.json", "recipe.py")

HERE = Path("here.pt")
SIZES = {"tiny": (96, (1, 2, 7, 2)), "small": (96, (1, 2, 11, 2)), "base-plus": (112, (2, 3, 16, 3)), "large": (144, (2, 6, 36, 4))}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without weights."""
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    """The slim network's weights under official names, made by the recipe."""
    shapes = table("model.json")["parameters"]
    return {name: torch.from_numpy(parameter("w1", name, tuple(shape))) for name, shape in shapes.items()}


@pytest.fixture
def config() -> Any:
    return network("w1").config


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slim network as transformers saves it."""
    folder = tmp_path_factory.mktemp("saved") / "slim"
    network("w1").save_pretrained(folder)
    return folder


def same(a: Any, b: Any) -> bool:
    """Equal weights, and equal constants that are no weights."""
    left, right = ({**n.state_dict(), **dict(n.named_buffers())} for n in (a, b))
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


# -- keys


@pytest.mark.parametrize("model", ["slim", "hiera_tiny"])
def test_every_official_key_becomes_transformers_key(model: str) -> None:
    table_ = table("key_map.json")[model]
    assert {key: rename_sam2_key(key) for key in table_} == table_


def test_rows_are_put_together_and_the_shared_matrix_goes_to_both_places() -> None:
    points = {f"sam_prompt_encoder.point_embeddings.{i}.weight": torch.full((1, 2), float(i)) for i in (2, 0, 3, 1)}
    matrix = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    out = convert_sam2_state({**points, matrix: torch.ones(2, 3)})
    assert out["prompt_encoder.point_embed.weight"].tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert sorted(out) == [
        "prompt_encoder.point_embed.weight",
        "prompt_encoder.shared_embedding.positional_embedding",
        "shared_image_embedding.positional_embedding",
    ]


def test_full_tiny_is_told_from_its_shapes_and_loads_strictly() -> None:
    from transformers import Sam2VideoConfig, Sam2VideoModel

    whole = Sam2VideoModel(Sam2VideoConfig())  # transformers' defaults are those of 2.1 tiny
    own = whole.state_dict()
    own["shared_image_embedding.positional_embedding"] = own["prompt_encoder.shared_embedding.positional_embedding"]
    state = {}
    for key, name in table("key_map.json")["hiera_tiny"].items():
        base, _, row = name.removesuffix("]").partition("[")
        state[key] = own[base][int(row)][None] if row else own[base]
    net = fill_sam2(infer_sam2_config(state, HERE), convert_sam2_state(state), HERE)
    whole.load_state_dict(own)
    assert same(net, whole)
    assert {k: v for k, v in net.config.to_dict().items() if k != "vision_config"} == {
        k: v for k, v in whole.config.to_dict().items() if k != "vision_config"
    }


# -- configs of official checkpoints


def outline(size: str, version: str) -> dict[str, Tensor]:
    """What of an official checkpoint its config is told from, without content."""
    width, blocks = SIZES[size]
    side = 14 if size == "base-plus" else 7
    state = {f"{TRUNK}pos_embed": torch.empty(1, width, side, side, device="meta"), "maskmem_tpos_enc": torch.empty(0)}
    starts = [sum(blocks[:s]) for s in range(len(blocks))]
    for block in range(sum(blocks)):
        state[f"{TRUNK}blocks.{block}.norm1.weight"] = torch.empty(1)
        if block in starts[1:]:
            state[f"{TRUNK}blocks.{block}.proj.weight"] = torch.empty(
                width * 2 ** starts.index(block), 1, device="meta"
            )
    if version == "2.1":
        state |= {"no_obj_embed_spatial": torch.empty(0), "obj_ptr_tpos_proj.weight": torch.empty(0)}
    return state


def bytes_of_file(shapes: dict[str, tuple[int, ...]]) -> int:
    """Length of a safetensors file of float32 tensors, as transformers writes it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(shapes):
        start, end = end, end + 4 * torch.Size(shapes[name]).numel()
        header[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [start, end]}
    return 8 + -(-len(json.dumps(header, separators=(",", ":"))) // 8) * 8 + end


@pytest.mark.parametrize("version", ["2.1", "2"])
@pytest.mark.parametrize("size", SIZES)
def test_networks_of_inferred_configs_fill_the_hubs_files_to_the_byte(size: str, version: str) -> None:
    config = infer_sam2_config(outline(size, version), HERE)
    with torch.device("meta"):
        net = build_empty_sam2(config)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert bytes_of_file(shapes) == CHECKPOINTS[f"sam{version}-{size}"].size


@pytest.mark.parametrize("size", SIZES)
def test_stages_begin_where_a_block_projects(size: str) -> None:
    width, blocks = SIZES[size]
    assert infer_stages(outline(size, "2.1")) == (tuple(width * 2**s for s in range(4)), blocks)
    trunk = TRUNKS[SIZES[size]]
    hiera = infer_sam2_config(outline(size, "2.1"), HERE).vision_config.backbone_config
    assert hiera.num_attention_heads_per_stage == [trunk.heads * 2**s for s in range(4)]
    assert (hiera.global_attention_blocks, hiera.window_size_per_stage) == (list(trunk.global_blocks), list(trunk.windows))  # fmt: skip


def test_another_trunk_and_another_network_are_named() -> None:
    state = outline("tiny", "2.1")
    del state[f"{TRUNK}blocks.10.norm1.weight"], state[f"{TRUNK}blocks.11.norm1.weight"]
    with pytest.raises(InputError, match=r"here\.pt: a SAM 2 trunk of 96 channels with \(1, 2, 7\) blocks"):
        infer_sam2_config({k: v for k, v in state.items() if "blocks.10" not in k}, HERE)
    with pytest.raises(InputError, match=r"here\.pt: not an official SAM 2 checkpoint \(its keys begin with a, b, c and 1 more"):  # fmt: skip
        infer_sam2_config({k: torch.empty(0) for k in "abcd"}, HERE)


# -- files


def test_the_recipe_gives_the_recorded_weights(official: dict[str, Tensor]) -> None:
    recorded = table("model.json")["weights"]["w1"]["crc32_of_float32_bytes"]
    assert {name: zlib.crc32(value.numpy().tobytes()) for name, value in official.items()} == recorded


@pytest.mark.parametrize("form", ["model.pt", "bare.pt", "official.safetensors"])
def test_official_files_load_as_the_fixtures_network(
    form: str, official: dict[str, Tensor], config: Any, tmp_path: Path
) -> None:
    path = tmp_path / form
    if form.endswith(".pt"):
        torch.save({"model": official} if form == "model.pt" else official, path)
    else:
        save_file(official, path)
    net, files = build_sam2(path, config)
    assert same(net, network("w1"))
    assert list(files) == [form] and len(files[form]) == 64
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_a_saved_folder_loads_the_same(saved: Path) -> None:
    net, files = build_sam2(str(saved))
    assert same(net, network("w1")) and list(files) == ["slim/model.safetensors"]


def test_half_precision_becomes_single(saved: Path, tmp_path: Path) -> None:
    state = {k: v.half() for k, v in read_tensors(saved / "model.safetensors").items()}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((saved / "config.json").read_bytes())
    net, _ = build_sam2(tmp_path)
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_configs_as_the_hub_has_them_are_read_without_a_warning(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads((saved / "config.json").read_text())
    theta = content.pop("rope_parameters")["rope_theta"]
    (tmp_path / "config.json").write_text(json.dumps({**content, "memory_attention_rope_theta": theta}))
    (tmp_path / "model.safetensors").symlink_to(saved / "model.safetensors")
    said: list[str] = []
    logger = "transformers.models.sam2_video.configuration_sam2_video.logger"
    monkeypatch.setattr(f"{logger}.warning_once", said.append)
    net, _ = build_sam2(tmp_path)
    assert same(net, network("w1")) and not said
    assert net.config.rope_parameters == network("w1").config.rope_parameters


# -- damage and what is not meant


@pytest.mark.parametrize("kept", [0, 1000, 0.5, -1])
@pytest.mark.parametrize("form", ["cut.pt", "cut.safetensors"])
def test_files_that_are_cut_off_are_named(
    form: str, kept: float, official: dict[str, Tensor], config: Any, tmp_path: Path
) -> None:
    path = tmp_path / form
    torch.save(official, path) if form == "cut.pt" else save_file(official, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept == 0.5 else int(kept)])
    with pytest.raises(InputError, match=rf"{form}: damaged"):
        build_sam2(path, config)


def test_other_content_is_named(tmp_path: Path, config: Any) -> None:
    page = tmp_path / "page.pt"
    page.write_text("<html>not found</html>")
    with pytest.raises(InputError, match=r"page\.pt: damaged"):
        build_sam2(page, config)
    code = tmp_path / "code.pt"
    torch.save({"model": {"a": torch.ones(1)}, "trainer": Path("x")}, code)
    with pytest.raises(InputError, match=r"code\.pt: damaged, or holds more than tensors"):
        build_sam2(code, config)
    numbers = tmp_path / "numbers.pt"
    torch.save({"model": {"a": 1}}, numbers)
    with pytest.raises(InputError, match=r"numbers\.pt: holds no table of tensors"):
        build_sam2(numbers, config)


def test_missing_strange_and_misshapen_tensors_are_named(official: dict[str, Tensor], config: Any) -> None:
    state = convert_sam2_state(official)
    gone = {k: v for k, v in state.items() if not k.startswith("mask_downsample")}
    with pytest.raises(InputError, match=r"here\.pt: not the weights of this Sam2VideoModel: it lacks mask_downsample\.bias, mask_downsample\.weight$"):  # fmt: skip
        fill_sam2(config, gone, HERE)
    more = {**state, **{f"extra.{i}": torch.ones(1) for i in range(5)}}
    with pytest.raises(InputError, match=r"it has besides extra\.0, extra\.1, extra\.2 and 2 more$"):
        fill_sam2(config, more, HERE)
    with pytest.raises(InputError, match=r"it has in another shape mask_downsample\.bias$"):
        fill_sam2(config, {**state, "mask_downsample.bias": torch.ones(7)}, HERE)


def test_a_folder_of_another_network_or_without_its_config_is_named(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(saved / "model.safetensors")
    with pytest.raises(InputError, match=r"no config\.json; a folder of weights holds"):
        build_sam2(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "sam"}')
    with pytest.raises(InputError, match=r"config\.json: of a network 'sam'; this needs sam2_video or edgetam_video"):
        build_sam2(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type"')
    with pytest.raises(InputError, match=r"config\.json: not JSON, or cut off"):
        build_sam2(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sam2.1-tin", r"no weights 'sam2\.1-tin'; did you mean sam2\.1-tiny\? `masklet weights list` has all"),
        ("gone.pt", r"gone\.pt: no such file"),
        ("/gone/away", r"/gone/away: no such file"),
        (Path("sam2.1-tiny"), r"sam2\.1-tiny: no such file"),
        (
            "sam2.1-tiny",
            r"weights sam2\.1-tiny are not on this machine: run `masklet weights fetch sam2\.1-tiny` \(156 MB\), or set MASKLET_WEIGHTS",
        ),
        ("someone/else", r"run `masklet weights fetch someone/else` \(size unknown\)"),
    ],
)
def test_names_that_stand_for_nothing_here(name: str | Path, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_sam2(name)


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "weights.onnx").touch()
    with pytest.raises(InputError, match=r"weights\.onnx: weights are read from \.pt, \.pth, \.safetensors"):
        build_sam2(tmp_path / "weights.onnx")


def test_a_name_is_loaded_from_the_weights_folder(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "weights" / "someone"
    folder.mkdir(parents=True)
    (folder / "else").symlink_to(saved)
    monkeypatch.setattr("masklet.weights.store.record_hash", lambda *_: None)  # the folder is another test's, too
    net, files = build_sam2("someone/else")
    assert same(net, network("w1")) and list(files) == ["someone/else/model.safetensors"]


def test_a_folder_of_edgetam(tmp_path: Path) -> None:
    from transformers import EdgeTamVideoConfig, EdgeTamVisionConfig

    config = EdgeTamVideoConfig(
        vision_config=EdgeTamVisionConfig(),
        enable_temporal_pos_encoding_for_object_pointers=False,
        enable_occlusion_spatial_embedding=False,
    )
    config.save_pretrained(tmp_path)
    torch.manual_seed(0)
    own = build_edgetam(config).state_dict()
    save_file({k: v.contiguous() for k, v in own.items()}, tmp_path / "model.safetensors")
    net, _ = build_sam2(tmp_path)
    assert isinstance(EdgeTam(net), Sam2)  # it folds its convolutions
    got = build_sam2(tmp_path)[0].state_dict()
    assert got.keys() == own.keys() and all(torch.equal(got[k], own[k].to(got[k].dtype)) for k in own)


@pytest.mark.parametrize(
    ("official", "name"),
    [
        ("image_encoder.trunk.body.stem.conv1.c.weight", "vision_encoder.backbone.timm_model.stem.conv1.c.weight"),
        ("image_encoder.neck.convs.2.conv.bias", "vision_encoder.neck.convs.2.bias"),
        ("memory_attention.layers.1.linear2.weight", "memory_attention.layers.1.mlp.down_proj.weight"),
        ("memory_attention.layers.0.norm3.bias", "memory_attention.layers.0.layer_norm3.bias"),
        ("spatial_perceiver.latents", "spatial_perceiver.latents_1d"),
        ("spatial_perceiver.latents_2d", "spatial_perceiver.latents_2d"),
        ("spatial_perceiver.layers.0.attn.norm_x.weight", "spatial_perceiver.layers.0.layer_norm_input.weight"),
        ("spatial_perceiver.layers.0.attn.to_q.weight", "spatial_perceiver.layers.0.cross_attention.q_proj.weight"),
        ("spatial_perceiver.layers.0.attn.to_kv.weight", "spatial_perceiver.layers.0.cross_attention.to_kv.weight"),
        ("spatial_perceiver.layers.0.self_attn.norm.bias", "spatial_perceiver.layers.0.layer_norm_self.bias"),
        (
            "spatial_perceiver.layers.0.self_attn.to_out.weight",
            "spatial_perceiver.layers.0.self_attention.o_proj.weight",
        ),
        ("spatial_perceiver.layers.0.ff.0.weight", "spatial_perceiver.layers.0.mlp.layer_norm.weight"),
        ("spatial_perceiver.layers.0.self_ff.3.weight", "spatial_perceiver.layers.0.self_mlp.down_proj.weight"),
        ("spatial_perceiver.norm.weight", "spatial_perceiver.layer_norm.weight"),
        ("maskmem_tpos_enc", "memory_temporal_positional_encoding"),
    ],
)
def test_official_keys_of_edgetam(official: str, name: str) -> None:
    assert rename_sam2_key(official, EDGETAM_RULES + RULES) == name


def test_edgetams_keys_and_values_are_parted() -> None:
    both = torch.arange(8.0).view(4, 2)
    state = {"spatial_perceiver.latents": torch.ones(1), "spatial_perceiver.layers.0.self_attn.to_kv.weight": both}
    got = convert_sam2_state(state)
    assert torch.equal(got["spatial_perceiver.layers.0.self_attention.k_proj.weight"], both[:2])
    assert torch.equal(got["spatial_perceiver.layers.0.self_attention.v_proj.weight"], both[2:])
    assert len(got) == 3
