"""The published trainings: as the released configurations have them; and the whole way in small, from official weights
and a data set as it unpacks to a score and a submission.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from safetensors.torch import load_file
from standins import make_clip, number, put_frames
from typer.testing import CliRunner
from weights import has_fixtures, put_query_weights

from masklet.builtins import TRAININGS
from masklet.cli import app
from masklet.core.errors import InputError
from masklet.io.formats.ytvis import write_ytvis_truth
from masklet.models.mask2former.weights import build_mask2former
from masklet.models.query_video.heads import load_tracker, read_heads_origin
from masklet.reproduce.recipes import read_recipes
from masklet.reproduce.trainings import explain_use, find_training, read_open_rows, read_trainings
from masklet.starts import is_trained_over, load_starting_heads, load_starting_segmenter, load_starting_slots
from masklet.train.data.data_sources import read_footage
from masklet.train.settings import read_training_settings
from masklet.training import OF_SEGMENTER, RECIPES
from masklet.weights.categories import OVIS, YTVIS19
from masklet.weights.store import compute_hash

CONFIGS = Path(__file__).parents[2] / "../shared/golden/dvis/training_configs.json"
NEEDS = pytest.mark.skipif(not has_fixtures(), reason="no shapes of official tensors: set MASKLET_GOLDEN")
TRAINED = {"tracker": 5, "refiner": 21, "rocovis": 5, "segmenter": 1}


def call(*words: object) -> str:
    told = CliRunner().invoke(app, [str(word) for word in words])
    assert told.exit_code == 0, told.output
    return " ".join(told.output.split())


def refuse(*words: object) -> str:
    told = CliRunner().invoke(app, [str(word) for word in words])
    assert told.exit_code == 2, (told.exception, told.output)
    return " ".join(told.output.split())


# -- what is written down


def test_trainings_are_as_the_released_configurations_have_them() -> None:
    if not CONFIGS.is_file():
        pytest.skip("no training_configs.json: set MASKLET_GOLDEN")
    released = json.loads(CONFIGS.read_text())
    seen = set()
    for training in read_trainings().values():
        if training.config not in released:  # as GenVIS's on YouTube-VIS 2019, of which the steps alone are known
            assert training.config == "genvis_r50_ytvis19"
            assert (training.steps, training.settings["milestones"], training.lr) == (15000, [10000], 5e-5)
            continue
        config, settings = released[training.config], training.settings
        seen.add(training.config)
        assert settings["milestones"] == config["SOLVER.STEPS"] and training.steps == config["SOLVER.MAX_ITER"]
        assert training.lr == config["SOLVER.BASE_LR"] and training.batch == config["SOLVER.IMS_PER_BATCH"]
        assert (
            settings["short"] == config["INPUT.MIN_SIZE_TRAIN"]
            and settings["longest"] == config["INPUT.MAX_SIZE_TRAIN"]
        )
        assert settings["crop"] == (0.5 if config["INPUT.CROP"]["ENABLED"] else 0.0)
        assert list(settings.get("ratio", [1.0])) == config["DATASETS.DATASET_RATIO"]
        assert len(training.data) == len(config["DATASETS.TRAIN"])
        genvis = "genvis" in training.config and "swin-l" in training.segmenter  # whose Swin-L are all tested at 448
        size = 448 if genvis else config["INPUT.MIN_SIZE_TEST"]
        assert (training.segmenter or training.start).endswith(f"@{size}")
        assert training.what != "segmenter" or config["MODEL.WEIGHTS"] in training.start
        if not training.row.startswith("dvis-i/"):
            assert training.frames == config["INPUT.SAMPLING_FRAME_NUM"]
        reach = settings.get("reach")
        assert reach in (None, config["INPUT.SAMPLING_FRAME_RANGE"])
        consecutive = 2 * config["INPUT.SAMPLING_FRAME_RANGE"] + 1 == config["INPUT.SAMPLING_FRAME_NUM"]
        assert config["INPUT.SAMPLING_FRAME_NUM"] == 1 or (reach is None) == consecutive
    assert len(seen) >= 12


def test_settings_are_those_of_the_trainings() -> None:
    for training in read_trainings().values():
        assert training.what in TRAININGS.names and training.row in read_recipes()
        read_training_settings(RECIPES[training.what].settings, training.settings, training.what, but=OF_SEGMENTER)
        assert RECIPES[training.what].frames == TRAINED[training.what]
    varied = {row: t.settings.get("removed", t.settings.get("initial")) for row, t in read_trainings().items()}
    assert varied["dvis-8/no-short-term"] == "short" and varied["dvis-6/zero"] == "zero"
    assert find_training("dvis-i/tracker-11").frames == 11


def test_rows_whose_weights_are_to_be_trained_say_how() -> None:
    """Each that says so by this command has a training, which writes the file that it looks for."""
    for recipe in read_recipes().values():
        for one in recipe.weights:
            if "masklet reproduce train" in one.how:
                assert one.how.endswith(f": `masklet reproduce train {recipe.name}`")
                assert find_training(recipe.name).file == one.name
    for name in read_recipes():  # of all rows of what is trained nothing is left unsaid
        if name.startswith("dvis-main/"):
            assert (name in read_trainings()) != (name in read_open_rows())
    with pytest.raises(
        InputError, match=r"dvis-5/refiner: of the configurations .*, and run the row over it by segmenter="
    ):
        find_training("dvis-5/refiner")
    rows = [name for name in read_recipes() if name.startswith("rocovis-")]
    untrained = [name for name in rows if name not in read_trainings() and "vipseg" not in name]
    assert all(name.startswith("rocovis-1/minvis") for name in untrained)  # whose weights are published
    for name in ("rocovis-3/minvis-vipseg-things", "rocovis-3/rocovis-vipseg-things"):
        with pytest.raises(InputError, match=f"{name}: the paper does not say how .*; train it by `masklet train`"):
            find_training(name)
    with pytest.raises(InputError, match="sam2long-5/paths-3: nothing is trained for it here"):
        find_training("sam2long-5/paths-3")
    with pytest.raises(InputError, match="give a number"):
        find_training("dvis-6/zero").override({"batch": "many"})


@pytest.mark.parametrize("frames", ["train/JPEGImages", "train", "JPEGImages"])
def test_hq_ytvis_is_read_as_it_unpacks(frames: str, tmp_path: Path) -> None:
    """Its annotations beside the frames of YouTube-VIS 2019."""
    clip, names = make_clip("0043f083b5", 2, [YTVIS19[0], YTVIS19[5]], 0), number(0, 5, 2, "{:05d}")
    put_frames(tmp_path / "HQ-YTVIS" / frames / clip.name, clip, names)
    write_ytvis_truth([clip.result(YTVIS19)], tmp_path / "HQ-YTVIS/ytvis_hq-train.json", {clip.name: names})
    [folder] = replace(find_training("rocovis-2/masks"), data=("hq-ytvis",)).resolve_data(tmp_path)
    footage, categories = read_footage(Path(folder))
    assert len(footage) == 1 and tuple(categories) == YTVIS19
    with pytest.raises(InputError, match=f"rocovis-2/masks: no coco or COCO or coco2017 in {tmp_path}"):
        find_training("rocovis-2/masks").resolve_data(tmp_path)


# -- the whole way


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OVIS as it unpacks, with two tiny videos to train on and to answer, and a weights folder with a MinVIS."""
    at = tmp_path_factory.mktemp("published")
    clips = [make_clip(name, 6, [OVIS[2], OVIS[7]], n) for n, name in enumerate(("001ca3cb", "2c6cbc5f"))]
    names = number(1, 1, 6, "img_{:07d}")
    for split in ("train", "valid"):
        for clip in clips:
            put_frames(at / "OVIS" / split / clip.name, clip, names)
    truth = at / "OVIS/annotations_train.json"
    write_ytvis_truth([clip.result(OVIS) for clip in clips], truth, {clip.name: names for clip in clips})
    told = json.loads(truth.read_text())
    for name in ("OVIS/annotations_valid.json", "annotations.json"):
        (at / name).write_text(json.dumps({**told, "annotations": None}))
    for annotation in told["annotations"]:
        annotation["occlusion"] = ["no_occlusion"] * 6
    (at / "truth.json").write_text(json.dumps(told))
    put_query_weights(at / "weights/minvis-r50-ovis.pth", "minvis", 25)
    put_query_weights(at / "online.pth", "online", 25)
    return at


def change_class_head(path: Path, to: Path) -> Path:
    """A copy of a file whose class head is another one."""
    state = torch.load(path, weights_only=True)["model"]
    torch.save({"model": {k: v * 1.01 if "class_embed" in k else v for k, v in state.items()}}, to)
    return to


def test_weights_that_are_missing_are_named_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The segmenter, and the published tracker that a training begins with."""
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path))
    told = refuse("reproduce", "train", "dvis-main/ytvis19-offline-swin-l", "--data", tmp_path, "-o", tmp_path / "a")
    assert "weights minvis-swin-l-ytvis19: run `masklet weights fetch minvis-swin-l-ytvis19`" in told
    assert "weights dvis-online-swin-l-ytvis19 are not on this machine, and fetched by hand only: see http" in told
    told = refuse("reproduce", "train", "dvis-8/full", "--data", tmp_path, "-o", tmp_path / "a")
    assert "weights minvis-r50-ovis" in told


def test_rows_of_published_weights_say_how_they_are_run_over_ones_own() -> None:
    path = Path("/w/one.safetensors")
    own = find_training("dvis-main/ovis-online-swin-l")
    assert explain_use(own, path).endswith(f"{own.row} --set segmenter=minvis-swin-l-ovis@480+{path}`")
    assert explain_use(find_training("dvis-6/zero"), path) == f"the weights are in {path}"


SMALL = ("--set", "short=48", "--set", "longest=64", "--set", "val_clips=1", "--device", "cpu", "-q")


@NEEDS
def test_the_published_path(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracker, refiner, run, submission and evaluation, by the commands of the docs."""
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path / "weights"))
    minvis = root / "weights/minvis-r50-ovis.pth"
    over = (f"segmenter={minvis}@64", "steps=2", "batch=1", "milestones=1")
    small = [*SMALL, *(word for s in over for word in ("--set", s))]
    tiny = ("--set", "frames=3", "--set", "layers=1", "--set", "hidden=32")
    call("reproduce", "train", "dvis-6/matched", "--data", root, "-o", tmp_path / "tracker", *small, *tiny)
    run = json.loads((tmp_path / "tracker/run.json").read_text())
    sha = compute_hash(minvis).sha256
    assert run["weights"] == {minvis.name: sha} and run["clip_norm"] == 0.01 and run["milestones"] == [1]
    file = tmp_path / "weights/dvis-tracker-matched.safetensors"
    origin = read_heads_origin(file)
    assert origin.weights == {minvis.name: sha} and origin.side == 64
    assert load_tracker(file)[1] == OVIS
    call("reproduce", "train", "dvis-8/full", "--data", root, "-o", tmp_path / "refiner", *small, *tiny)
    heads = tmp_path / "weights/dvis-refiner-full.safetensors"
    dataset = (root / "OVIS", "--dataset", "ovis:valid", "-o", tmp_path / "out", "--no-overlay", "-q")
    call("run", *dataset, "--system", "dvis-offline", "--segmenter", f"{minvis}+{heads}", "--set", "min_score=0")
    call(
        "export",
        "submission",
        "ovis",
        tmp_path / "out",
        "-o",
        tmp_path / "s.zip",
        "--videos",
        root / "annotations.json",
    )
    with ZipFile(tmp_path / "s.zip") as archive:
        archive.extract("results.json", tmp_path)
    assert len(json.loads((tmp_path / "results.json").read_text())) == 40  # twenty pairs a video
    scored = call("eval", "ovis", "--gt", root / "truth.json", "--pred", tmp_path / "results.json")
    assert "AP" in scored
    call("run", *dataset[:3], "-o", tmp_path / "b", "--system", "dvis", "--segmenter", f"{minvis}+{file}", "-q")
    again = next((tmp_path / "b").glob("*/masklets.json"))
    assert json.loads(again.read_text())["provenance"]["settings"]["min_score"] == 0.3  # where nobody says another

    other = change_class_head(minvis, tmp_path / "other.pth")
    run_over = ("run", *dataset[:3], "-o", tmp_path / "c", "--system", "dvis", "--segmenter", f"{other}+{file}", "-q")
    told = refuse(*run_over)
    assert f"trained over {minvis.name} (sha256 {sha[:12]}...), but {other} has sha256" in told
    call(*run_over, "--set", "over=any")
    told = refuse(
        "train", "tracker", "--data", root / "OVIS", "--segmenter", other, "--from", file, "-o", tmp_path / "d"
    )
    assert f"--from {file}: trained over another segmenter than {other}" in told


@NEEDS
def test_minvis_from_a_mask2former(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of transformers is a folder; what its class head knows by name of COCO's it keeps."""
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path))
    told = refuse("reproduce", "train", "rocovis-1/minvis-r50-ovis", "--data", root, "-o", tmp_path / "a")
    assert f"{tmp_path / 'model_final_3c8ec9.pkl'}" in told
    put_query_weights(tmp_path / "coco.pth", "minvis", 80)
    own = (f"start={tmp_path / 'coco.pth'}@64", "steps=1", "batch=2", "milestones=1", "accumulate=2")
    small = [*SMALL[:-1], *(word for setting in own for word in ("--set", setting))]
    told = call("reproduce", "train", "rocovis-1/minvis-r50-ovis", "--data", root, "-o", tmp_path / "a", *small)
    assert f"--set segmenter={tmp_path / 'a/weights'}" in told
    assert "class head: 0 of 25 categories are known by name and kept; new ones begin at random: Person, Bird" in told
    net = build_mask2former(tmp_path / "a/weights").net
    assert tuple(net.config.id2label.values()) == OVIS


@NEEDS
def test_official_files_are_a_start(root: Path, tmp_path: Path) -> None:
    """A tracker goes on with its own segmenter; a refiner begins over it; classes that nothing names are the data's."""
    data, online = root / "OVIS", root / "online.pth"
    short = ("--steps", 1, "--frames", 2, *SMALL)
    call("train", "tracker", "--data", data, "--from", f"{online}@64", "-o", tmp_path / "a", *short)
    tracker, _ = load_tracker(tmp_path / "a/weights.safetensors")
    assert tracker.settings.matching == "released"
    assert read_heads_origin(tmp_path / "a/weights.safetensors").weights == {"online.pth": compute_hash(online).sha256}
    call("train", "refiner", "--data", data, "--from", online, "-o", tmp_path / "b", *short)
    told = refuse(
        "train", "tracker", "--data", data, "--from", root / "weights/minvis-r50-ovis.pth", "-o", tmp_path / "c"
    )
    assert "weights of minvis, which hold no tracker of DVIS" in told
    over = change_class_head(root / "weights/minvis-r50-ovis.pth", tmp_path / "other.pth")
    told = refuse("train", "tracker", "--data", data, "--from", online, "--segmenter", over, "-o", tmp_path / "c")
    assert f"--from {online}: trained over another segmenter than {over}, by their weights" in told
    assert is_trained_over(
        load_starting_heads(str(online)), load_starting_segmenter(str(root / "weights/minvis-r50-ovis.pth"))
    )
    minvis = tmp_path / "five.pth"
    put_query_weights(minvis, "minvis", 5)
    told = refuse("train", "tracker", "--data", data, "--segmenter", minvis, "-o", tmp_path / "c", *short)
    assert "the clips have 25 categories (Person, ...), the segmenter 5 (1, ...); train with a segmenter" in told


@NEEDS
def test_genvis_goes_on_from_its_official_file(root: Path, tmp_path: Path) -> None:
    """Its Mask2Former stays as it is; a file of another kind is refused."""
    genvis = tmp_path / "genvis.pth"
    put_query_weights(genvis, "genvis", 25)
    at = ("train", "rocovis", "--data", root / "OVIS", "--from", f"{genvis}@64", "--steps", 1, "--frames", 2, *SMALL)
    assert "of official files GenVIS's are read: say --set row=queries" in refuse(*at, "-o", tmp_path / "a")
    call(*at, "--set", "row=queries", "-o", tmp_path / "a")
    made, before = load_file(tmp_path / "a/weights.safetensors"), load_starting_slots(str(genvis), "genvis")[0].net
    moved = {k for k, v in before.state_dict().items() if not torch.equal(v, made[k])}
    assert moved and all(name.startswith("objects.") for name in moved)
    assert "weights of genvis, and rocovis is to be trained" in refuse(
        *(
            "train",
            "rocovis",
            "--data",
            root / "OVIS",
            "--from",
            tmp_path / "a/weights.safetensors",
            "-o",
            tmp_path / "b",
        )
    )


@NEEDS
def test_a_class_head_is_kept_where_the_classes_are_the_same(root: Path, tmp_path: Path) -> None:
    """Said where it is not: of a file for other categories; where nothing names them they are the data's."""
    at = ("train", "segmenter", "--data", root / "OVIS", "--steps", 1, "--batch", 1, *SMALL[:-1])
    minvis = root / "weights/minvis-r50-ovis.pth"
    assert "class head" not in call(*at, "--from", minvis, "-o", tmp_path / "a", "--lr", 1e-9)
    made, held = (build_mask2former(path).net for path in (tmp_path / "a/weights", minvis))
    assert torch.allclose(made.class_predictor.weight, held.class_predictor.weight, atol=1e-6)
    told = call(*at, "--from", minvis, "-o", tmp_path / "b", "--categories", shuffled(tmp_path))
    assert "class head: 25 of 25 categories are known by name and kept; their order is another one" in told


def shuffled(folder: Path) -> Path:
    """A file with OVIS's categories in another order."""
    (folder / "names.txt").write_text("\n".join(OVIS[::-1]))
    return folder / "names.txt"
