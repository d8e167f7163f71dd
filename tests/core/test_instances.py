from __future__ import annotations

import torch

from masklet.core.instances import Detections, Prediction


def belief() -> Prediction:
    logits = torch.tensor([[[[1.0, -1.0]], [[-1.0, 1.0]]], [[[1.0, 1.0]], [[-1.0, -1.0]]]])
    return Prediction((7, 3), logits, torch.tensor([[0.2, 0.9], [0.8, 0.1]]), torch.tensor([[1.0, 1.0], [-1.0, 1.0]]))


def test_the_mask_is_the_best_hypothesis_and_empty_where_absent() -> None:
    masks = belief().masks((1, 2))
    assert masks.tolist() == [[[False, True]], [[False, False]]]  # 3's best hypothesis says: not there


def test_rows_and_ids_travel_together() -> None:
    only = belief().only([1])
    assert only.ids == (3,) and torch.equal(only.logits, belief().logits[1:])
    assert belief().only([]).masks((4, 4)).shape == (0, 4, 4)


def test_detections_by_rows_and_by_truth() -> None:
    found = Detections(torch.ones(3, 2, 2, dtype=torch.bool), torch.tensor([0.1, 0.9, 0.5]), torch.arange(3))
    assert found[found.scores > 0.3].labels.tolist() == [1, 2]
    assert found[[2, 0]].labels.tolist() == [2, 0]
    assert len(found[[]]) == len(Detections.none((2, 2))) == 0
