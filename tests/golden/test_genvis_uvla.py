"""GenVIS's unified video label assignment and its losses against the official program's, clip by clip."""

from __future__ import annotations

import pytest
import torch
from training_fixtures import Replay, files, opened, targets, unweighted

from masklet.train.assignment import list_visible_queries, match_by_uvla
from masklet.train.losses import LossSettings, compute_uvla_losses

SETS = {"": "", "aux_": "_0"}  # of predictions: how their arrays begin, and their losses end


@pytest.mark.parametrize("file", files("genvis_uvla"))
def test_clip_by_clip(file):
    held, about = opened(file)
    at = LossSettings(*about["weights"], about["eos_coef"], about["num_points"])
    none = torch.full((about["L"], len(held["gt_labels"])), -1)
    known, start = dict.fromkeys(SETS, none), 0
    for number, clip in enumerate(about["clips"]):
        frames = held[f"clip{number}__masks"].shape[3]
        objects, rand = targets(held, start, start + frames), Replay(held, f"clip{number}__rand")
        start += frames
        for begin, end in SETS.items():
            logits, masks = (held[f"clip{number}__{begin}{kind}"][:, 0] for kind in ("logits", "masks"))
            before, visible = known[begin], objects.visible.any(1)
            layers = zip(logits, masks, before, strict=True)
            after = torch.stack([match_by_uvla(*one, objects, k, rand, at, list_visible_queries) for *one, k in layers])
            told = dict(visible=visible, supervised=visible)
            losses = compute_uvla_losses(logits, masks, objects.masks, objects.labels, after, rand, at, **told)
            assert torch.equal(visible, held[f"clip{number}__valid_inst"])
            assert torch.equal((after != before).all(0), held[f"clip{number}__new_inst"])
            seen = after >= 0
            assert torch.equal(after[seen], held[f"clip{number}__{begin}pred_idx"][seen])
            for kind, loss in unweighted(losses, at).items():
                wanted = clip["losses"].pop(f"loss_genvis_{kind}{end}")
                assert loss.item() == pytest.approx(wanted, abs=1e-5)
            known[begin] = after
        assert not rand.draws and not clip["losses"]
