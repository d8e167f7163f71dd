"""Recipes end to end, on stand-ins of their data sets, to the score or the server's zip; the same as by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image
from standins import STANDINS
from typer.testing import CliRunner, Result
from weights import has_fixtures, put_query_weights, put_sam2, put_trained

from masklet.cli import app
from masklet.cli import run as cli_run
from masklet.evaluate.report import Report
from masklet.reproduce.datasets import SETS, list_missing, locate_set
from masklet.reproduce.recipes import Recipe, read_recipes
from masklet.reproduce.run import compare_figures
from masklet.run.workers import Crew

WEIGHTS = {  # file: kind and classes
    "sam2bmp-mask2former-r50-ovis.pth": ("minvis", 25),
    "sam2bmp-mask2former-r50-ytvis21.pth": ("minvis", 40),
    "dvis-offline-r50-vipseg.pth": ("offline", 124),
    "dvis-offline-r50-ovis/dvis-offline-r50-ovis.pth": ("offline", 25),
    "dvis-online-swin-l-ovis-720p.pth": ("online", 25),
    "genvis-r50-ovis/genvis-r50-ovis.pth": ("genvis", 25),
    "minvis-r50-hq-ytvis.pth": ("minvis", 40),
    "minvis-r50-vipseg-things.pth": ("minvis", 58),
    "mask2former-r50-vipseg.pth": ("minvis", 124),
}
NEEDS = pytest.mark.skipif(not has_fixtures(), reason="no shapes of official tensors: set MASKLET_GOLDEN")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stand-ins."""
    root = tmp_path_factory.mktemp("data")
    for name in STANDINS:
        if name not in ("vipseg-things", "davis17-unsupervised"):  # which are others', too
            STANDINS[name](root)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slim networks of random weights in official form, under the recipes' names."""
    folder = tmp_path_factory.mktemp("weights")
    put_sam2(folder, "sam2-large")
    put_trained(folder)
    for file, (kind, classes) in WEIGHTS.items():
        put_query_weights(folder / file, kind, classes)
    return folder


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def reproduce(row: str, data: Path, out: Path, *more: str) -> tuple[str, dict[str, float | None]]:
    """What is said, and our figures."""
    told = call("reproduce", "run", row, "--data", data, "-o", out, "-q", *(w for one in more for w in ("--set", one)))
    assert told.exit_code == 0, told.output
    compared = json.loads((out / "comparison.json").read_text())
    assert compared["recipe"]["name"] == row
    return told.stdout, {one["figure"]: one["ours"] for one in compared["figures"]}


# -- data sets


@pytest.mark.parametrize("name", SETS)
def test_a_stand_in_lacks_nothing(name: str, data: Path) -> None:
    splits = {r.split for r in read_recipes().values() if r.data == name and not r.reason} or {
        "val" if name in ("vspw", "davis17") else "valid"
    }
    for split in splits:
        assert list_missing(name, data, split) == []
        located = locate_set(name, data, split)
        assert located.videos and all(Path(v.source).is_dir() for v in located.videos)
        assert not located.about.given or all(v.given for v in located.videos)


@pytest.mark.parametrize(
    ("name", "split", "gone", "words"),
    [
        ("sav", "val", "sav_val/sav_val.txt", "no sav_val.txt in"),
        ("sav", "val", "sav_val/Annotations_6fps/sav_000000", "no annotation of a first frame of sav_000000, of 1 videos"),
        ("ovis", "valid", "ovis/annotations/valid.json", "no annotations/valid.json or annotations_valid.json or"),
        ("vipseg", "val", "VIPSeg_720P/panomasksRGB", "no panomasksRGB in"),
        ("vipseg", "val", "VIPSeg_720P/images/12_1WfnI9KLUrI", "no frames of 12_1WfnI9KLUrI"),
        ("burst", "val", "BURST/annotations/val/common_classes.json", "no annotations/val/common_classes.json in"),
        ("hq-ytvis", "val", "hq-ytvis/train/JPEGImages", r"no folder hq-ytvis, HQ-YTVIS, ytvis_hq in .* with train/JPEGImages"),
        ("ovis", "valid", "ovis/valid/2c6cbc5f", "no frames of 2c6cbc5f, of 1 videos"),
        ("lvosv1", "valid", "LVOS/valid/valid_*", r"no valid/\*meta.json in .*LVOS"),
        ("lvosv2", "valid", "LVOS_V2/val/val_*", r"no val/\*meta.json in .*LVOS_V2"),
        ("lvosv2", "valid", "LVOS_V2/val", r"no folder LVOS_V2, LVOSv2, lvos_v2 in .* with valid/ or val/JPEGImages"),
        ("ytvis22", "valid", "ytvis_2022/valid/instances.json", "no valid/instances.json or valid.json or instances.json"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(name: str, split: str, gone: str, words: str, tmp_path: Path) -> None:
    STANDINS[name](tmp_path)
    for path in tmp_path.glob(gone):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    [told] = list_missing(name, tmp_path, split)
    assert told.startswith(f"data {name}") and (words in told or __import__("re").search(words, told)), told


def test_frames_and_objects_are_as_the_data_sets_have_them(data: Path) -> None:
    sav = locate_set("sav", data, "val").videos[0]
    assert sav.objects == ("000", "001") and sav.overlaps and sav.name == "sav_000000"
    ytvos = locate_set("ytvos", data, "valid").videos[0]
    assert ytvos.shown == ("00000", "00005", "00010") and len(list(Path(ytvos.source).iterdir())) == 11
    assert [v.name for v in locate_set("burst", data, "val").videos] == ["YFCC100M/val0", "YFCC100M/val1"]
    assert locate_set("vspw", data, "val").videos[0].source.endswith("1001_5z_ijQjUf_0/origin")
    assert [locate_set("davis17", data, s).truth is None for s in ("val", "test-dev")] == [False, True]


# -- one row of every table


ROWS = [  # one of every table that is run over data
    ("sam2bmp-main/r50-ovis", ("size=64", "propagator=still"), "results.json"),
    ("sam2bmp-3/r50-large", ("size=64",), "results.json"),
    ("sam2bmp-4/0.95", ("size=64", "conf=0.02", "low_conf=0.01", "propagator=still"), "results.json"),
    ("sam2bmp-5/all", ("size=64", "conf=0.02", "low_conf=0.01", "propagator=still"), "results.json"),
    ("sam2long-1/sam2-large-lvosv2-valid", ("size=128",), ""),
    ("sam2long-3/lvosv1-long", ("propagator=sam2long-paper:sam2-large@128",), ""),
    ("sam2long-4/mosev1-long", ("propagator=sam2long-paper:sam2-large@128",), "Annotations/v00ff1/00004.png"),
    ("sam2long-4/vost-sam2.1", ("propagator=sam2-large@128",), ""),
    ("sam2long-6/iou-0.9", ("size=128",), ""),
    ("sam2long-7/uncertainty-5", ("size=128",), ""),
    ("sam2long-8/modulation-0", ("size=128",), ""),
    ("dvis-main/vipseg-offline-r50", ("size=64",), ""),
    ("dvis-5/tracker", ("size=64",), "results.json"),
    ("dvis-6/zero", ("segmenter=small-ovis.safetensors@64+dvis-tracker-zero.safetensors",), "results.json"),
    ("dvis-7/standard", ("segmenter=small-ovis.safetensors@64+dvis-tracker-standard.safetensors",), "results.json"),
    ("dvis-8/full", ("segmenter=small-ovis.safetensors@64+dvis-refiner-full.safetensors",), "results.json"),
    ("rocovis-1/rocovis-r50-ovis", ("size=64",), "results.json"),
    ("rocovis-1/genvis-r50-ovis", ("size=64",), "results.json"),
    ("dvis-ii/window-10", ("size=64", "clip=2"), "results.json"),
    ("rocovis-2/minvis", ("size=64",), ""),
    ("rocovis-3/minvis-vipseg-things", ("size=64",), ""),
    ("deva-1/r50-semi-online", ("propagator=still",), ""),
    ("deva-2/entityseg-semi-online-test", ("propagator=still",), ""),
    ("deva-3/ref-ytvos", ("propagator=affinity",), "Annotations/0390fabe58/1/00004.png"),
    ("deva-3/ref-davis", ("propagator=affinity",), ""),
    ("deva-4/davis16", ("propagator=affinity",), ""),
    ("deva-4/davis17", ("propagator=still",), ""),
    ("deva-4/davis17-test-dev", ("propagator=still",), "aerobatics/00004.png"),
    ("deva-5/unaligned", ("propagator=still",), ""),
    ("deva-6/mask-iou-flow", (), ""),
    ("deva-6/query-association", ("size=64",), ""),
]


def test_a_row_of_every_table_runs() -> None:
    """Tables of costs and those by hand, below, are run elsewhere; DVIS's Table I varies the training alone."""
    run = {row.split("/")[0] for row, *_ in ROWS} | {"sam2long-5", "dvis-9"}
    assert {name.split("/")[0] for name in read_recipes()} - run == {"dvis-i"}


@NEEDS
@pytest.mark.parametrize(("row", "more", "kind"), ROWS)
def test_a_row_runs_to_its_score_or_zip(
    row: str,
    more: tuple[str, ...],
    kind: str,
    data: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MASKLET_WEIGHTS", str(weights))
    monkeypatch.chdir(weights)
    told, ours = reproduce(row, data, tmp_path, *more)
    assert set(ours) == set(read_recipes()[row].figures)
    if not kind:
        assert all(value is not None and 0 <= value <= 100 for value in ours.values()), ours
        return
    assert set(ours.values()) == {None} and "only the benchmark's server has the ground truth" in told
    with ZipFile(tmp_path / "submission.zip") as archive:
        assert kind in archive.namelist()
    assert all(one.split("=")[0] in told for one in more)


def test_costs_need_no_data(tmp_path: Path) -> None:
    """DVIS's Table 9: 9.68 and 14.41 million parameters."""
    for row, paper in (("dvis-9/tracker", 9.68), ("dvis-9/refiner", 14.41)):
        told = call("reproduce", "run", row, "--data", tmp_path, "-o", tmp_path / "out")
        assert told.exit_code == 0, told.output
        [line] = [line for line in told.output.splitlines() if line.startswith("million")]
        assert abs(float(line.split()[-2]) - paper) < 0.011 and float(line.split()[-1]) == paper


# -- as by hand


@NEEDS
def test_given_objects_as_by_hand(data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`masklet track` with --dataset, and `masklet eval`; a second run has nothing to do and says the same."""
    monkeypatch.setenv("MASKLET_WEIGHTS", str(weights))
    first, ours = reproduce("sam2long-5/paths-2", data, tmp_path / "a", "size=128")
    [made] = (tmp_path / "a/results").glob("*/masklets.json")
    before = made.stat().st_mtime_ns
    again, same = reproduce("sam2long-5/paths-2", data, tmp_path / "a", "size=128")
    assert first == again and ours == same
    assert made.stat().st_mtime_ns == before
    tree = [f"propagator.{s}" for s in ("paths=2", "quality=0.3", "uncertainty=2.0", "modulation=0.05")]
    words = [w for one in tree for w in ("--set", one)]
    done = call(
        "track",
        data / "sav_val",
        "--dataset",
        "sav",
        "-o",
        tmp_path / "b",
        "--predictions",
        tmp_path / "p",
        "--propagator",
        "sam2long-paper:sam2-large@128",
        "--no-overlay",
        *words,
    )
    assert done.exit_code == 0, done.output
    for made in (tmp_path / "p").rglob("*.png"):
        assert made.read_bytes() == (tmp_path / "a/predictions" / made.relative_to(tmp_path / "p")).read_bytes()
    scored = call(
        "eval", "sav", "--gt", data / "sav_val/Annotations_6fps", "--pred", tmp_path / "p", "-o", tmp_path / "sav.json"
    )
    assert scored.exit_code == 0, scored.output
    assert json.loads((tmp_path / "sav.json").read_text())["scores"]["J&F"] == ours["J&F"]
    report = json.loads((tmp_path / "a/reports/sav.json").read_text())
    assert report["scores"]["J&F"] == ours["J&F"] and len(report["objects"]) == 2


@NEEDS
def test_found_objects_as_by_hand(data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`masklet run` with --dataset, and `masklet export submission`: the same bytes."""
    monkeypatch.setenv("MASKLET_WEIGHTS", str(weights))
    reproduce("dvis-ii/window-whole", data, tmp_path / "a", "size=64")
    done = call(
        "run",
        data / "ovis",
        "--dataset",
        "ovis:valid",
        "-o",
        tmp_path / "b",
        "--system",
        "dvis-offline",
        "--segmenter",
        "dvis-offline-r50-ovis@64",
        "--window",
        "3",
        "--set",
        "min_score=0",
        "--no-overlay",
        "-q",
    )
    assert done.exit_code == 0, done.output
    zipped = call(
        "export",
        "submission",
        "ovis",
        tmp_path / "b",
        "-o",
        tmp_path / "b.zip",
        "--videos",
        data / "ovis/annotations/valid.json",
    )
    assert zipped.exit_code == 0, zipped.output
    assert (tmp_path / "b.zip").read_bytes() == (tmp_path / "a/submission.zip").read_bytes()
    found = json.loads(ZipFile(tmp_path / "b.zip").read("results.json"))
    assert len(found) == 40 and {one["category_id"] for one in found} <= set(range(1, 26))


def test_panoptic_segments_as_by_hand(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crews = []
    choose = cli_run.choose_pool
    monkeypatch.setattr(
        cli_run, "choose_pool", lambda options, crew, *more: crews.append(crew.count) or choose(options, Crew(1), *more)
    )
    told = call("reproduce", "run", "deva-6/mask-iou", "--data", data, "-o", tmp_path / "a", "-q", "--jobs", "2")
    assert told.exit_code == 0 and crews == [2], told.output
    assert "VPQ^1                         100.00    39.9" in told.output  # the detections are the truth
    done = call(
        "run",
        data / "VIPSeg_720P",
        "--dataset",
        "vipseg",
        "-o",
        tmp_path / "b",
        "--system",
        "by-detection",
        "--propagator",
        "still",
        "--segmenter",
        data / "detections/vipseg/mask2former-r50",
        "--no-overlay",
        "-q",
    )
    assert done.exit_code == 0, done.output
    for path in sorted((tmp_path / "b").glob("*/masklets.json")):
        own = json.loads((tmp_path / "a/results" / path.parent.name / "masklets.json").read_text())
        assert own["masklets"] == json.loads(path.read_text())["masklets"]


# -- what is written


@NEEDS
def test_only_the_frames_that_are_asked_for_are_written(
    data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """YouTube-VOS: every fifth, tracked over all; a later object has nothing before it. No two objects share a pixel."""
    monkeypatch.setenv("MASKLET_WEIGHTS", str(weights))
    done = call(
        "track",
        data / "YouTube-VOS/valid",
        "--dataset",
        "ytvos",
        "-o",
        tmp_path / "o",
        "--predictions",
        tmp_path / "p",
        "--propagator",
        "sam2-large@128",
        "--no-overlay",
    )
    assert done.exit_code == 0, done.output
    names = {p.relative_to(tmp_path / "p").as_posix() for p in (tmp_path / "p").rglob("*.png")}
    assert names == {f"{v}/{n}.png" for v in ("0062f687f1", "00f88c4f0a") for n in ("00000", "00005", "00010")}
    pages = [Image.open(tmp_path / "p/0062f687f1" / f"{n}.png") for n in ("00000", "00005")]
    assert all(page.mode == "P" for page in pages)
    truth = np.array(Image.open(data / "YouTube-VOS/valid/Annotations/0062f687f1/00000.png"))
    assert np.array_equal(np.array(pages[0]), truth) and 3 in np.array(pages[1])
    result = json.loads((tmp_path / "o/0062f687f1/masklets.json").read_text())
    assert result["length"] == 11 and result["provenance"]["system"] == "vos"


def test_predictions_are_of_a_data_set_and_in_a_new_folder(data: Path, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p/x.png").touch()
    told = call(
        "track",
        data / "MOSE/valid",
        "--dataset",
        "mose",
        "-o",
        tmp_path / "o",
        "--predictions",
        tmp_path / "p",
        "--propagator",
        "still",
    )
    assert told.exit_code == 2 and "is not empty" in told.output
    told = call(
        "track", data / "x.mp4", "--prompt", "0:1:point=3,3", "-o", tmp_path / "o", "--predictions", tmp_path / "q"
    )
    assert told.exit_code == 2 and "say which one by --dataset" in told.output
    words = ["track", data / "MOSE/valid", "--dataset", "mose", "-o", tmp_path / "o", "--predictions", tmp_path / "q"]
    for choice in (("--stride", "2"), ("--start", "1"), ("--max-frames", "3"), ("--max-side", "20")):
        told = call(*words, *choice, "--propagator", "still")
        assert told.exit_code == 2 and "own frames; leave out" in told.output and not (tmp_path / "o").exists()


def test_a_run_is_refused_with_all_that_is_missing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path / "none"))
    told = call("reproduce", "run", "dvis-6/zero", "--data", data, "-o", tmp_path / "o")
    assert told.exit_code == 2 and told.output.count("weights ") >= 2 and not (tmp_path / "o").exists()
    told = call("reproduce", "run", "dvis-9/swin-l", "--data", data, "-o", tmp_path / "o")
    assert told.exit_code == 2 and "cannot be repeated by inference" in told.output


def test_figures_are_found_by_metric_part_and_unit() -> None:
    recipe = Recipe(
        "t/x",
        "P",
        "1",
        "x",
        metric="ytvis+vipseg",
        figures={"ytvis: AP": 50.0, "vipseg: VPQ^1": 40.0, "vipseg: STQ": 30.0},
    )
    reports = {"ytvis": Report("ytvis", "", {"AP": 0.5}), "vipseg": Report("vipseg", "", {"VPQ^1": 41.0, "STQ": 0.25})}
    assert [one.ours for one in compare_figures(recipe, reports)] == [50.0, 41.0, 25.0]
    part = Recipe("t/y", "P", "1", "y", metric="burst", figures={"common: OWTA": 9.0, "OWTA": 8.0})
    report = Report("burst", "", {"OWTA": None}, {"common": {"OWTA": 7.0}})
    assert [one.ours for one in compare_figures(part, {"burst": report})] == [7.0, None]
    assert [one.ours for one in compare_figures(part, {})] == [None, None]
