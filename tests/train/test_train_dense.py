"""Training the dense head: whose cells are whose, what counts, the losses, and that it learns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from torch import Tensor
from typer.testing import CliRunner

from masklet.cli import app
from masklet.core.errors import InputError
from masklet.models.encoder import Encoder
from masklet.models.nano.dense import save_dense
from masklet.nn.dense_head import DenseHead, DenseHeadSettings, locate_cells
from masklet.parts import load_segmenter
from masklet.train.data.clips import TrainingClip, seed_item_generator
from masklet.train.loop.loop import TrainingPlan, train
from masklet.train.tasks.dense import (
    UNNAMED,
    DenseTask,
    WeightedSource,
    find_cell_owners,
    measure_pair_iou,
    quality_focal_loss,
    replace_head_categories,
    weigh_cells,
)

SIZE = (64, 96)
SETTINGS = DenseHeadSettings(width=32, wide=32, hidden=16)
LEVELS = [(8, 12), (4, 6), (2, 3), (1, 2)]


def box(y0: int, y1: int, x0: int, x1: int, size: tuple[int, int] = SIZE) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


def whose(*masks: Tensor) -> dict[tuple[float, float, float], int]:
    at, stride = locate_cells(LEVELS)
    owner = find_cell_owners(torch.stack(masks), at, stride)
    return {
        (x, y, s): n for (x, y), s, n in zip(at.tolist(), stride.tolist(), owner.tolist(), strict=True) if n != UNNAMED
    }


def test_cells_near_the_middle_at_the_level_of_the_size_are_the_objects_own() -> None:
    found = whose(box(16, 40, 24, 48))  # 24 pixels across: stride 8 alone; its middle is (36, 28)
    assert set(found) == {(x, y, 8.0) for x in (28.0, 36.0, 44.0) for y in (20.0, 28.0, 36.0)}


def test_an_object_between_two_sizes_has_cells_of_both_levels() -> None:
    assert {s for _, _, s in whose(box(0, 48, 0, 48))} == {8.0, 16.0}
    assert {s for _, _, s in whose(box(0, 60, 0, 60))} == {16.0}
    assert {s for _, _, s in whose(box(0, 64, 0, 96))} == {16.0}  # 78 across
    assert {s for _, _, s in whose(box(0, 64, 0, 96), box(0, 64, 0, 40))} == {8.0, 16.0}


def test_of_two_objects_the_smaller_has_the_cell() -> None:
    found = whose(box(0, 48, 0, 48), box(16, 32, 16, 32))
    assert found[(20.0, 20.0, 8.0)] == 1
    assert 0 in found.values()


def test_an_object_without_a_cell_under_its_middle_gets_the_nearest_one() -> None:
    assert whose(box(9, 11, 9, 11)) == {(12.0, 12.0, 8.0): 0}  # of 2 x 2 pixels, between middles
    ring = box(0, 64, 0, 64) & ~box(8, 56, 8, 56)
    ((x, y, _),) = whose(ring)
    assert ring[int(y), int(x)]


def test_nobody_owns_an_empty_mask() -> None:
    assert whose(box(0, 0, 0, 0)) == {}


def test_outside_masks_cells_count_as_much_as_the_set_is_complete() -> None:
    at, stride = locate_cells(LEVELS)
    truth = box(0, 32, 0, 48)[None]
    counts = weigh_cells(truth, at, find_cell_owners(truth, at, stride), 0.25)
    inside = (at[:, 1] < 32) & (at[:, 0] < 48)
    assert (counts[inside] == 1).all()
    assert (counts[~inside] == 0.25).all()


def test_quality_focal_loss_is_gfls_equation_4() -> None:
    score, quality = 0.3, 0.8
    loss = quality_focal_loss(torch.logit(torch.tensor([score])), torch.tensor([quality]))
    by_hand = -((quality - score) ** 2) * ((1 - quality) * math.log(1 - score) + quality * math.log(score))
    assert float(loss) == pytest.approx(by_hand, rel=1e-5)


def test_overlap_of_pairs() -> None:
    a = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    b = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    assert measure_pair_iou(a, b).tolist() == pytest.approx([1 / 3, 0.0])


# -- the task


@dataclass
class Boxes:
    """Pictures of one bright box each."""

    categories: tuple[str, ...] = ("box",)

    def clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        y, x = (int(v) for v in random.integers(0, [24, 48]))
        mask = box(y, y + 36, x, x + 40)
        image = torch.from_numpy(random.integers(0, 60, (3, *SIZE))).to(torch.uint8)
        image[:, mask] = 220
        return TrainingClip(
            image[None], mask[None, None], torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, dtype=torch.int64)
        )


def task(tmp_path: Path, source: Boxes, categories: tuple[str, ...] = ("ball", "box"), held: int = 0) -> DenseTask:
    torch.manual_seed(3)
    head = DenseHead(len(categories), SETTINGS)
    clips = [source.clip(seed_item_generator(9, n), 1) for n in range(held)]

    def save(path: Path) -> None:
        save_dense(path, head, SETTINGS, categories)

    return DenseTask(head, categories, [WeightedSource(source, 1.0)], clips, save, batch=2, short=64)


def test_it_learns_to_find_and_name_boxes(tmp_path: Path) -> None:
    made = task(tmp_path, Boxes(), ("box", "ball"), held=4)
    before = made.validate()
    train(made, tmp_path / "run", TrainingPlan(40, lr=2e-3, warm_up=5), {"task": "test"})
    after = made.validate()
    assert before["AP50"] < 20 and after["AP50"] > 80
    assert after["found"] == after["AP50"]  # all boxes, and called so


def test_the_same_seed_is_the_same_run(tmp_path: Path) -> None:
    lines = []
    for name in ("one", "other"):
        train(task(tmp_path, Boxes()), tmp_path / name, TrainingPlan(3), {"task": "test"})
        log = (tmp_path / name / "log.jsonl").read_text().splitlines()
        lines.append([line.split('"seconds"')[0] for line in log])
    assert lines[0] == lines[1]


def test_an_object_of_another_category_has_no_name_but_is_an_object(tmp_path: Path) -> None:
    made = task(tmp_path, Boxes(("crate",)), ("crate", "ball"))
    unnamed = DenseTask(
        made.module,
        ("crate",),
        [WeightedSource(Boxes(("crate",)), 1.0), WeightedSource(Boxes(("thing",)), 1e6)],
        [],
        made.writes,
    )
    losses = {name: value.item() for name, value in unnamed.loss(0, seed_item_generator(0, 0)).items()}
    assert losses["name"] == 0 and losses["mask"] > 0 and losses["score"] > 0


def test_data_without_any_of_the_categories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no category of the data is one of ball"):
        task(tmp_path, Boxes(("crate",)), ("ball", "cube"))


# -- the command


def test_a_head_for_other_categories_keeps_what_it_knows_of_the_old_ones() -> None:
    torch.manual_seed(0)
    head = DenseHead(2, SETTINGS)
    before = head.name[-1].weight.detach().clone()
    made = replace_head_categories(head, ("cat", "dog"), ("dog", "bird", "cat"))
    assert torch.equal(made.name[-1].weight[[2, 0]], before)
    assert made.name[-1].weight.shape == (3, 16) and made.name[-1].weight.requires_grad


def test_the_nano_segmenter_is_fine_tuned_from_its_file(tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    save_dense(start, DenseHead(2, SETTINGS), SETTINGS, ("ball", "star"))
    said = command(
        "--from", start, "--data", "synthetic", "--size", "64x96", "--steps", 2, "--batch", 1, "--out", tmp_path / "o"
    )
    assert said.exit_code == 0, said.output
    found = load_segmenter(f"nano:{tmp_path}/o/weights.safetensors", Encoder())
    assert "star" in found.categories and "ball" not in found.categories


@pytest.mark.parametrize(
    "words, wrong",
    [
        (("--size", "100x160"), "--size 100x160: for the nano segmenter both must be multiples of 8"),
        (("--set", "row=masks"), "segmenter has no setting 'row'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(tmp_path: Path, words: tuple[str, ...], wrong: str) -> None:
    start = tmp_path / "start.safetensors"
    save_dense(start, DenseHead(2, SETTINGS), SETTINGS, ("ball", "star"))
    said = command("--from", start, "--data", "synthetic", "--out", tmp_path / "o", *words)
    assert said.exit_code == 2 and wrong in said.output


def command(*words: object) -> Result:
    return CliRunner().invoke(app, ["train", "segmenter", *map(str, words)])
