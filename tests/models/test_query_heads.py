"""Files of query heads: what is not one is refused by name, in one sentence."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from masklet.core.errors import InputError
from masklet.models.query_video.heads import is_heads, load_refiner, load_tracker, save_heads
from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner

SMALL = {"width": 8, "heads": 2, "hidden": 8, "layers": 1, "mask_width": 4}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "heads.safetensors"


def test_what_is_saved_is_loaded(path):
    settings = TrackerSettings(3, **SMALL, matching="released", attention="standard")
    tracker, refiner = ReferringTracker(settings), TemporalRefiner(RefinerSettings(3, **SMALL))
    save_heads(path, ("a", "b", "c"), tracker=tracker, refiner=refiner)
    assert is_heads(path)
    for load, made in ((load_tracker, tracker), (load_refiner, refiner)):
        loaded, categories = load(path)
        assert categories == ("a", "b", "c") and loaded.settings == made.settings and not loaded.training
        assert all(torch.equal(held, made.state_dict()[name]) for name, held in loaded.state_dict().items())


def test_the_other_part(path):
    save_heads(path, ("a",), tracker=ReferringTracker(TrackerSettings(1, **SMALL)))
    with pytest.raises(InputError, match="holds no refiner of DVIS; train one"):
        load_refiner(path)


BEFORE = "masklet-query-heads/1"  # under which files of before told all


def test_files_of_before_are_read(path):
    tracker = ReferringTracker(TrackerSettings(1, **SMALL))
    about = {"categories": ["a"], "tracker": {"classes": 1, **SMALL}}
    save_file({f"tracker.{k}": v for k, v in tracker.state_dict().items()}, path, {BEFORE: json.dumps(about)})
    loaded, categories = load_tracker(path)
    assert is_heads(path) and categories == ("a",)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in tracker.state_dict().items())


def refused(path, words):
    with pytest.raises(InputError, match=words) as error:
        load_tracker(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_no_file(path):
    refused(path, "no such file")
    refused(path.parent, "no such file")


def test_other_weights(path):
    save_file({"tracker.class_embed.weight": torch.zeros(2)}, path)
    assert not is_heads(path)
    refused(path, "not weights of query heads")


def test_no_safetensors(path):
    path.write_bytes(b"PK what torch saves")
    assert not is_heads(path)
    refused(path, "damaged or cut off")


def test_cut_off(path):
    save_heads(path, ("a",), tracker=ReferringTracker(TrackerSettings(1, **SMALL)))
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, "damaged or cut off")


@pytest.mark.parametrize("text", ["[]", "{", "{}", '{"tracker": {}}'])
def test_metadata_of_something_else(path, text):
    save_file({"tracker.x": torch.zeros(2)}, path, {BEFORE: text})
    with pytest.raises(InputError, match="damaged"):
        load_tracker(path)


@pytest.mark.parametrize("told", [{"speed": 3}, {}, None, "paper"])
def test_settings_of_another_version(path, told):
    save_file({"tracker.x": torch.zeros(2)}, path, {BEFORE: json.dumps({"categories": ["a"], "tracker": told})})
    with pytest.raises(InputError, match="of another version of masklet"):
        load_tracker(path)


def test_weights_of_another_shape(path):
    tracker = ReferringTracker(TrackerSettings(1, **SMALL))
    save_heads(path, ("a",), tracker=tracker)
    about = {"categories": ["a"], "tracker": {"classes": 2, **SMALL}}
    save_file({f"tracker.{k}": v for k, v in tracker.state_dict().items()}, path, {BEFORE: json.dumps(about)})
    with pytest.raises(InputError, match=r"not those of a tracker of DVIS: class_embed\.bias"):
        load_tracker(path)


def test_a_folder_that_is_not_there(path):
    with pytest.raises(InputError, match="cannot be written"):
        save_heads(path / "in" / "it", ("a",), tracker=ReferringTracker(TrackerSettings(1, **SMALL)))
