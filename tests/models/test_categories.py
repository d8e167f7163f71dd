"""Categories of official weights: found by the file's name or the number of classes, or told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from golden.mask2former_fixtures import found, official, table
from torch import Tensor

from masklet.core.errors import InputError
from masklet.models.mask2former.segmenter import Mask2FormerSettings, load_mask2former
from masklet.queries import load_query_system
from masklet.systems.minvis import MinvisSettings
from masklet.weights.categories import (
    CATEGORIES,
    OVIS,
    VIPSEG,
    VIPSEG_STUFF,
    VIPSEG_THINGS,
    YTVIS19,
    YTVIS21,
    find_categories,
    find_stuff,
    read_category_names,
)

SLIM = next(iter(found("mask2former_slim")), None)
CPU = torch.device("cpu")


def test_there_are_as_many_as_the_data_sets_have() -> None:
    assert [len(CATEGORIES[n]) for n in ("ytvis19", "ytvis21", "ovis", "vipseg", "vipseg-things")] == [
        40,
        40,
        25,
        124,
        58,
    ]
    assert all(len(set(names)) == len(names) for names in CATEGORIES.values())
    assert (len(VIPSEG_STUFF), set(VIPSEG_STUFF) | set(VIPSEG_THINGS)) == (66, set(VIPSEG))
    assert (YTVIS19[0], YTVIS19[39], YTVIS21[25], OVIS[24], VIPSEG[60]) == (
        "person",
        "tennis_racket",
        "person",
        "Vehical",
        "person",
    )
    assert find_stuff(VIPSEG)[0] == "wall" and find_stuff(OVIS) == ()


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("minvis-r50-ytvis19", 40, YTVIS19),
        ("minvis_ytvis21_R50.pth", 40, YTVIS21),
        ("dvis_offline_ytvis_2019.pth", 40, YTVIS19),
        ("YouTube-VIS-2022/x.pth", 40, YTVIS21),
        ("rocovis-r50-hq-ytvis.safetensors", 40, YTVIS19),
        ("model_final.pth", 40, None),
        ("model_final.pth", 25, OVIS),
        ("ovis.pth", 40, None),
        ("x.pth", 124, VIPSEG),
        ("dvis-offline-r50-vipseg.pth", 124, VIPSEG),
        ("vipseg_things.pth", 58, VIPSEG_THINGS),
        ("coco.pth", 80, None),
    ],
)
def test_a_file_s_name_or_the_number_of_classes_tells(name: str, classes: int, expected: object) -> None:
    assert find_categories(name, classes) == expected


def test_categories_that_are_told(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\n\n dog\n")
    (tmp_path / "split.json").write_text(
        json.dumps({"categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}]})
    )
    assert read_category_names("ovis") == OVIS
    assert (
        read_category_names(str(tmp_path / "names.txt"))
        == read_category_names(str(tmp_path / "split.json"))
        == ("cat", "dog")
    )
    for wrong, words in (
        ("ovid", "no such data set or file; there are: ytvis19"),
        (str(tmp_path / "bad.json"), "no 'categories'"),
    ):
        (tmp_path / "bad.json").write_text("[]")
        with pytest.raises(InputError, match=words):
            read_category_names(wrong)


def with_classes(count: int) -> dict[str, Tensor]:
    """The slim network in official form, with so many classes."""
    if SLIM is None:
        pytest.skip("no fixtures: set MASKLET_GOLDEN")
    state = official(table(SLIM)["state_dict"])
    for key in [k for k in state if "class_embed" in k]:
        state[key] = torch.cat([state[key]] * (count // 5 + 1))[: count + 1]
    for key in [k for k in state if k == "criterion.empty_weight"]:
        state[key] = torch.ones(count + 1)
    return state


def test_official_files_name_what_they_find(tmp_path: Path) -> None:
    for file, count, expected in (("a_ytvis21.pth", 40, YTVIS21), ("b.pth", 25, OVIS), ("c.pth", 7, tuple("1234567"))):
        torch.save({"model": with_classes(count)}, tmp_path / file)
        assert load_mask2former(tmp_path / file, CPU).categories == expected
    (tmp_path / "names.txt").write_text("\n".join("abcdefg"))
    told = Mask2FormerSettings(categories=str(tmp_path / "names.txt"))
    assert load_mask2former(tmp_path / "c.pth", CPU, settings=told).categories == tuple("abcdefg")
    with pytest.raises(InputError, match=r"25 names, but .* has 7 classes"):
        load_mask2former(tmp_path / "c.pth", CPU, settings=Mask2FormerSettings(categories="ovis"))


def test_the_stuff_of_a_known_data_set_is_known_to_panoptic_systems(tmp_path: Path) -> None:
    torch.save({"model": with_classes(124)}, tmp_path / "x.pth")
    made = load_query_system("minvis", f"{tmp_path}/x.pth@64", "cpu", MinvisSettings(task="panoptic"))
    assert made.settings.stuff == VIPSEG_STUFF and made.segmenter.categories == VIPSEG
    assert load_query_system("minvis", f"{tmp_path}/x.pth@64", "cpu", MinvisSettings()).settings.stuff == ()
    own = MinvisSettings(task="panoptic", stuff=("wall",))
    assert load_query_system("minvis", f"{tmp_path}/x.pth@64", "cpu", own).settings.stuff == ("wall",)
    panoptic = load_mask2former(tmp_path / "x.pth", CPU, settings=Mask2FormerSettings(task="panoptic"))
    assert panoptic.advice == {"stuff": VIPSEG_STUFF} and "panoptic" in panoptic.description  # type: ignore[attr-defined]
