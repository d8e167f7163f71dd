"""`masklet eval`: what it prints, what it writes, what it says of bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from masklet.builtins import METRICS
from masklet.cli import app
from masklet.cli.eval import read_name_list
from masklet.core.errors import InputError
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.evaluate.ground_truth import LISTS
from masklet.evaluate.report import Report, compute_digest
from masklet.evaluate.report_tables import build_report_tables, format_number
from masklet.io.formats.burst import write_burst
from masklet.io.formats.davis import build_davis_palette
from masklet.io.formats.ytvis import write_ytvis_truth

SEQUENCES = {"boat": 2, "kite": 1}  # objects
FRAMES = 6


def page(sequence: str, t: int, shift: int = 0) -> np.ndarray:
    labels = np.zeros((40, 60), np.uint8)
    for o in range(SEQUENCES[sequence]):
        labels[5 + 16 * o : 15 + 16 * o, 4 + 3 * t + shift : 20 + 3 * t + shift] = o + 1
    return labels


def written_to(folder: Path, shift: int = 0) -> Path:
    for sequence in SEQUENCES:
        (folder / sequence).mkdir(parents=True)
        for t in range(FRAMES):
            image = Image.fromarray(page(sequence, t, shift if sequence == "kite" else 0), mode="P")
            image.putpalette(build_davis_palette())
            image.save(folder / sequence / f"{t:05d}.png")
    return folder


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    root = tmp_path / "DAVIS"
    written_to(root / "Annotations/480p")
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("\n".join(SEQUENCES))
    return root


def evaluated(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["eval", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_a_perfect_answer_scores_one_and_the_file_says_how(davis: Path, tmp_path: Path) -> None:
    code, text = evaluated("davis", "--gt", davis, "--pred", written_to(tmp_path / "pred"), "-o", tmp_path / "s.json")
    assert code == 0 and "J&F" in text
    saved = json.loads((tmp_path / "s.json").read_text())
    assert saved["scores"]["J&F-Mean"] == pytest.approx(1.0)
    assert saved["metric"] == "davis" and saved["version"] and saved["protocol"]
    assert set(saved["videos"]) == set(SEQUENCES) and len(saved["objects"]) == 3
    assert str(tmp_path / "pred") in saved["inputs"] and all(len(d) == 64 for d in saved["inputs"].values())


def test_the_worst_come_first(davis: Path, tmp_path: Path) -> None:
    pred = written_to(tmp_path / "pred", shift=9)
    _, text = evaluated("davis", "--gt", davis, "--pred", pred, "--per-video")
    table = text[text.index("videos, worst first") :]
    assert table.index("kite") < table.index("boat")
    assert "worst" not in evaluated("davis", "--gt", davis, "--pred", pred)[1]


def test_only_the_named_videos(davis: Path, tmp_path: Path) -> None:
    pred = written_to(tmp_path / "pred", shift=9)
    (tmp_path / "list.txt").write_text("boat\n\n")
    for names in ("boat", tmp_path / "list.txt"):
        out = tmp_path / "s.json"
        assert evaluated("davis", "--gt", davis, "--pred", pred, "--videos", names, "-o", out)[0] == 0
        assert set(json.loads(out.read_text())["videos"]) == {"boat"}


def result_of(sequence: str) -> VideoResult:
    masklets = []
    for o in range(SEQUENCES[sequence]):
        masks = {t: torch.from_numpy(page(sequence, t) == o + 1) for t in range(FRAMES)}
        seen = {t: Sighting(Rle.encode(mask), Source.PROMPTED) for t, mask in masks.items()}
        masklets.append(Masklet(o + 1, seen, label=0, score=0.5))
    return VideoResult(sequence, (40, 60), FRAMES, 24.0, tuple(masklets), ("thing",), Provenance("track"))


def test_what_run_wrote_is_put_into_the_form(davis: Path, tmp_path: Path) -> None:
    for sequence in SEQUENCES:
        (tmp_path / "out" / sequence).mkdir(parents=True)
        result_of(sequence).save(tmp_path / "out" / sequence / "masklets.json")
    code, _ = evaluated("davis", "--gt", davis, "--pred", tmp_path / "out", "-o", tmp_path / "s.json")
    assert code == 0
    assert json.loads((tmp_path / "s.json").read_text())["scores"]["J&F-Mean"] == pytest.approx(1.0)
    write_ytvis_truth([result_of(s) for s in SEQUENCES], tmp_path / "gt.json")
    code, _ = evaluated("ytvis", "--gt", tmp_path / "gt.json", "--pred", tmp_path / "out", "-o", tmp_path / "a.json")
    assert code == 0
    assert json.loads((tmp_path / "a.json").read_text())["scores"]["AP"] == pytest.approx(1.0)


def test_a_result_of_all_frames_is_scored_in_those_that_are_annotated(davis: Path, tmp_path: Path) -> None:
    """The frames of the source say by their names which ones these are."""
    frames, found = tmp_path / "frames", result_of("boat")
    frames.mkdir()
    for t in range(FRAMES):
        Image.new("RGB", (60, 40)).save(frames / f"{t:05d}.jpg")
    replace(found, provenance=Provenance("track", source=str(frames))).save(tmp_path / "masklets.json")
    for page in davis.glob("Annotations/480p/boat/*.png"):
        if int(page.stem) % 2:
            page.unlink()
    out = tmp_path / "s.json"
    code, text = evaluated("vos-benchmark", "--gt", davis / "Annotations/480p", "--pred", tmp_path / "masklets.json",
                           "--videos", "boat", "-o", out)  # fmt: skip
    assert code == 0, text
    assert json.loads(out.read_text())["scores"]["J&F"] == pytest.approx(100)


def test_scores_exports_and_lists_of_weights_need_no_torch(davis: Path, tmp_path: Path) -> None:
    for sequence in SEQUENCES:
        (tmp_path / "out" / sequence).mkdir(parents=True)
        result_of(sequence).save(tmp_path / "out" / sequence / "masklets.json")
    write_ytvis_truth([result_of(s) for s in SEQUENCES], tmp_path / "gt.json")
    (tmp_path / "names.txt").write_text("\n".join(SEQUENCES))
    frames = davis / "Annotations" / "480p"
    split = ("--videos", tmp_path / "names.txt", "--frames", frames)
    commands: list[list[object]] = [
        ["eval", "davis", "--gt", davis, "--pred", tmp_path / "out"],
        ["eval", "davis-unsupervised", "--gt", davis, "--pred", frames],
        ["eval", "ytvis", "--gt", tmp_path / "gt.json", "--pred", tmp_path / "out"],
        ["export", "submission", "mose", tmp_path / "out", "-o", tmp_path / "x.zip", *split],
        ["weights", "list"],
        ["weights", "where", "sam2.1-tiny"],
        ["weights", "verify"],
        ["eval", "--help"],
        ["--version"],
    ]
    code = (  # one process for all: what has torch at its end had none before
        "import sys\nfrom masklet.cli import app\ndef call(words):\n    try:\n        app(words, standalone_mode=False)\n"
        "    except SystemExit:\n        pass\n    print('torch:', 'torch' in sys.modules)\n"
    )
    code += "".join(f"call({[str(w) for w in words]!r})\n" for words in commands)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    answers = [line for line in done.stdout.splitlines() if line.startswith("torch:")]
    assert answers == ["torch: False"] * len(commands), (answers, done.stderr)
    assert "Traceback" not in done.stderr and "masklet:" not in done.stderr, done.stderr


def test_a_result_of_another_size_is_refused(davis: Path, tmp_path: Path) -> None:
    replace(result_of("boat"), size=(20, 30), masklets=()).save(tmp_path / "masklets.json")
    code, text = evaluated("davis", "--gt", davis, "--pred", tmp_path)
    assert code == 2 and "30x20, not the 60x40" in text


def test_tables_fit_eighty_columns_and_files_of_every_kind_are_written(davis: Path, tmp_path: Path) -> None:
    pred = written_to(tmp_path / "pred", shift=9)
    files = [tmp_path / f"s.{suffix}" for suffix in ("json", "csv", "md", "tex")]
    code, text = evaluated("davis", "--gt", davis, "--pred", pred, "--per-video", "--charts", tmp_path / "charts",
                           *(word for file in files for word in ("-o", file)))  # fmt: skip
    assert code == 0 and max(map(len, text.partition("davis2017-evaluation")[0].splitlines())) <= 80
    assert "F-Decay" in text and "…" not in text and "..." not in text
    assert all(file.stat().st_size > 100 for file in files)
    charts = [Image.open(path) for path in (tmp_path / "charts").glob("*.png")]
    assert len(charts) == 1 and all(len(set(np.asarray(c.convert("L")).ravel().tolist())) > 10 for c in charts)
    code, text = evaluated("davis", "--gt", davis, "--pred", pred, "-o", tmp_path / "s.pdf")
    assert code == 2 and "s.pdf: a report is written as .json, .csv, .md, .tex" in text


def test_what_run_wrote_is_scored_as_sav_and_burst(davis: Path, tmp_path: Path) -> None:
    for sequence in SEQUENCES:
        (tmp_path / "out" / sequence).mkdir(parents=True)
        result_of(sequence).save(tmp_path / "out" / sequence / "masklets.json")
        for o in range(SEQUENCES[sequence]):
            folder = tmp_path / "gt" / sequence / f"{o:03d}"
            folder.mkdir(parents=True)
            for t in range(0, FRAMES, 2):  # every other frame is annotated, under its number
                Image.fromarray(page(sequence, t) == o + 1).save(folder / f"{t:05d}.png")
    out = tmp_path / "s.json"
    assert evaluated("sav", "--gt", tmp_path / "gt", "--pred", tmp_path / "out", "-o", out)[0] == 0
    assert json.loads(out.read_text())["scores"]["J&F"] == pytest.approx(100)
    (tmp_path / "burst").mkdir()
    named = [replace(result_of(s), name=f"LaSOT/{s}", categories=("car",)) for s in SEQUENCES]
    write_burst(named, tmp_path / "burst" / "all_classes.json", categories={211: "car"})
    content = json.loads((tmp_path / "burst" / "all_classes.json").read_text())
    for sequence in content["sequences"]:
        sequence |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    for split in ("all", "common", "uncommon"):
        (tmp_path / "burst" / f"{split}_classes.json").write_text(json.dumps(content))
    code, text = evaluated("burst", "--gt", tmp_path / "burst", "--pred", tmp_path / "out", "-o", out)
    assert code == 2 and "thing" in text  # what the results call their objects
    for sequence in SEQUENCES:
        replace(result_of(sequence), categories=("car",)).save(tmp_path / "out" / sequence / "masklets.json")
    code, text = evaluated("burst", "--gt", tmp_path / "burst", "--pred", tmp_path / "out", "-o", out)
    assert code == 0 and json.loads(out.read_text())["scores"]["class-guided HOTA"] == pytest.approx(100), text
    assert max(map(len, text.partition("BURST's program")[0].splitlines())) <= 80 and "car" in text


def test_scores_are_shown_though_their_file_cannot_be_written(davis: Path, tmp_path: Path) -> None:
    """They may have taken hours."""
    (tmp_path / "file").touch()
    code, text = evaluated(
        "davis", "--gt", davis, "--pred", written_to(tmp_path / "pred"), "-o", tmp_path / "file/scores.json"
    )
    assert code == 2 and "J&F-Mean" in text and "cannot be written" in text


def test_quiet_says_nothing(davis: Path, tmp_path: Path) -> None:
    assert evaluated("davis", "--gt", davis, "--pred", written_to(tmp_path / "pred"), "-q") == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gt", "GT", "--pred", "nowhere"), "--pred nowhere: there is no such"),
        (("--gt", "nowhere", "--pred", "PRED"), "--gt nowhere: there is no such"),
        (("--gt", "GT", "--pred", "PRED", "--unseen", "boat"), "no other metric takes it"),
        (("--gt", "GT", "--pred", "PRED", "--videos", " ,"), "holds no name"),
        (("--gt", "GT", "--pred", "PRED", "--videos", "train"), "train"),
    ],
)
def test_bad_input_is_one_sentence(davis: Path, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    places = {"GT": str(davis), "PRED": str(written_to(tmp_path / "pred"))}
    code, text = evaluated("davis", *(places.get(a, a) for a in arguments))
    assert code == 2 and words in text and "Traceback" not in text


@pytest.mark.parametrize(
    ("metric", "gt", "words"),
    [
        ("davis", "out", "--gt OUT: that is what masklet found; is it the other way round"),
        ("davis", "empty", "--gt EMPTY: davis takes DAVIS's folder"),
        ("davis", "gt.json", "davis takes DAVIS's folder"),
        ("ytvis", "DAVIS", "ytvis takes the ground truth's json"),
        ("ytvis", "out/boat/masklets.json", "is it the other way round"),
        ("vipseg", "empty", "vipseg takes a folder with panoptic_gt.json"),
        ("sav", "empty", "sav takes a folder with <video>/<object>"),
        ("burst", "gt.json", "burst takes a folder with all_classes.json"),
        ("mose", "empty", "--gt EMPTY: mose takes"),
        ("vspw", "empty", "--gt EMPTY: vspw takes"),
        ("vspw", "DAVIS/Annotations/480p", "no label_num_dic_final.json"),
        ("tracking", "empty", "--gt EMPTY: tracking takes masklets.json,"),
        ("lvos", "empty", "--gt EMPTY: lvos takes the split's folder, with its *meta.json"),
        ("mosev2", "DAVIS", "mosev2 takes the split's folder, with its *meta.json"),
        ("ytvis", "list.json", "list.json: a list, as predictions are; is it the other way round, --pred?"),
    ],
)
def test_a_wrong_ground_truth_is_not_blamed_on_the_prediction(davis: Path, tmp_path: Path, metric: str, gt: str, words: str) -> None:  # fmt: skip
    for sequence in SEQUENCES:
        (tmp_path / "out" / sequence).mkdir(parents=True)
        result_of(sequence).save(tmp_path / "out" / sequence / "masklets.json")
    write_ytvis_truth([result_of(s) for s in SEQUENCES], tmp_path / "gt.json")
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.json").write_text("\n [{}]")
    unseen = ("--unseen", "kite") if metric == "lvos" else ()
    code, text = evaluated(metric, "--gt", tmp_path / gt, "--pred", tmp_path / "out", *unseen)
    for place in ("out", "empty"):
        words = words.replace(place.upper(), str(tmp_path / place))
    assert code == 2 and words in text and "Traceback" not in text and text.count("masklet: ") == 1


@pytest.mark.parametrize("metric", [m for m in METRICS.names if m not in ("lvos", "mosev2", "vspw", "sav")])
def test_wrong_predictions_are_named_on_their_side(davis: Path, tmp_path: Path, metric: str) -> None:
    """A folder in which nothing lies, for every metric; the ground truth is what it must be."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "panoptic").mkdir()
    for name in ("panoptic_gt.json", "all_classes.json"):
        (tmp_path / "panoptic" / name).write_text("{}")
    truth = davis
    if metric in LISTS:
        truth = tmp_path / "gt.json"
        write_ytvis_truth([result_of(s) for s in SEQUENCES], truth)
        code, text = evaluated(metric, "--gt", truth, "--pred", truth)
        assert code == 2 and f"--pred {truth}: no list, as results are" in text
    elif metric in ("vpq", "stq", "vipseg", "burst", "burst-masks"):
        truth = tmp_path / "panoptic"
    code, text = evaluated(metric, "--gt", truth, "--pred", tmp_path / "empty")
    assert code == 2 and f"--pred {tmp_path / 'empty'}: {metric} takes" in text and "masklet run wrote" in text


def test_what_run_wrote_is_scored_as_vspw(davis: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "kite").mkdir(parents=True)
    result_of("kite").save(tmp_path / "out" / "kite" / "masklets.json")
    (tmp_path / "vspw/data/kite/mask").mkdir(parents=True)
    for t in range(FRAMES):
        Image.fromarray(np.where(page("kite", t), 7, 9).astype(np.uint8)).save(
            tmp_path / f"vspw/data/kite/mask/{t}.png"
        )
    (tmp_path / "vspw/label_num_dic_final.json").write_text('{"thing": 7, "rest": 9}')
    out = tmp_path / "s.json"
    code, text = evaluated("vspw", "--gt", tmp_path / "vspw", "--pred", tmp_path / "out", "-o", out)
    parts = json.loads(out.read_text())["parts"] if code == 0 else {}
    assert code == 0 and parts["thing"]["IoU"] == 100 and parts["rest"]["IoU"] == 0, text


def test_lvos_needs_the_list_of_unseen_videos(davis: Path) -> None:
    assert "needs --unseen" in evaluated("lvos", "--gt", davis, "--pred", davis)[1]


def test_an_unknown_metric_names_the_others() -> None:
    code, text = evaluated("mota", "--gt", ".", "--pred", ".")
    assert code == 2 and "tube-boundary" in text.replace("\n", "") and len(METRICS.names) == 22


def test_names_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="x: not a text in UTF-8"):
        read_name_list("--videos", str(tmp_path / "x"))
    assert read_name_list("--videos", "") is None and read_name_list("--videos", "a, b") == ["a", "b"]


def test_numbers_as_a_reader_wants_them() -> None:
    assert [format_number(v) for v in (None, 0.5, 1.0, 12.0, 55.123456, 0.0)] == ["-", "0.5", "1", "12", "55.123", "0"]


def test_worst_rows_first_and_undefined_ones_last() -> None:
    rows = {"a": {"AP": 0.5}, "b": {"AP": None}, "c": {"AP": 0.1}, "d": {}}
    [table] = build_report_tables(Report("m", "p", {}, videos=rows), worst=3)
    assert list(table.rows) == ["c", "a", "b"] and table.columns == ["AP"]


def test_the_digest_of_a_folder_knows_names_and_contents(tmp_path: Path) -> None:
    for name, files in {"a": {"x": "1", "y/z": "2"}, "b": {"x": "1", "y/z": "2"}, "c": {"x": "2", "y/z": "1"}}.items():
        for file, text in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(text)
    a, b, c = (compute_digest(tmp_path / name) for name in "abc")
    assert a == b != c


def test_videos_without_a_result_are_the_metric_s_to_judge(davis: Path, tmp_path: Path) -> None:
    """Of two listed videos one has a result: it is scored, and the other one counts as not found."""
    first = next(iter(SEQUENCES))
    (tmp_path / "out" / first).mkdir(parents=True)
    result_of(first).save(tmp_path / "out" / first / "masklets.json")
    write_ytvis_truth([result_of(s) for s in SEQUENCES], tmp_path / "gt.json")
    code, text = evaluated("ytvis", "--gt", tmp_path / "gt.json", "--pred", tmp_path / "out", "-o", tmp_path / "a.json")
    assert code == 0, text
    assert 0 < json.loads((tmp_path / "a.json").read_text())["scores"]["AP"] < 1
