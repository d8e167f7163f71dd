from dataclasses import replace
from pathlib import Path

import pytest

from masklet.core.errors import InputError
from masklet.weights.store import ZOO, read_packaged

CARDS = Path(__file__).parents[2] / "cards"


@pytest.mark.parametrize("name", list(ZOO))
def test_packaged_weights_are_those_on_record(name):
    assert read_packaged(ZOO[name])


def test_weights_of_others_come_with_their_licence():
    path = ZOO["mobilenetv2"].path
    assert "Permission is hereby granted" in path.with_suffix(".LICENSE").read_text()


@pytest.mark.parametrize("name", list(ZOO))
def test_packaged_weights_have_a_card(name):
    card = (CARDS / f"{name.removesuffix('-deep')}.md").read_text()  # both files of the encoder have one
    assert ZOO[name].sha256 in card
    assert "licence" in card.lower()


def test_packaged_weights_are_small():
    assert sum(weights.path.stat().st_size for weights in ZOO.values()) < 25e6


def test_other_content_is_refused_by_name(tmp_path):
    other = tmp_path / "other.safetensors"
    other.write_bytes(ZOO["mobilenetv2"].path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"weights mobilenetv2: .*other\.safetensors has sha256"):
        read_packaged(replace(ZOO["mobilenetv2"], path=other))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"weights mobilenetv2: cannot read .*gone \(No such file"):
        read_packaged(replace(ZOO["mobilenetv2"], path=tmp_path / "gone"))
