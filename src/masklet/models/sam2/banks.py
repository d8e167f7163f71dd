"""What becomes of the memory banks of SAM 2 and nano when a frame is over, and when someone says what is in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from masklet.core.instances import Prediction, Prompt
from masklet.core.masks import resize_bilinear
from masklet.models.sam2.core import SURE, Sam2Core, Sam2Features
from masklet.models.sam2.memory import MarkingPolicy, MemoryBank, MemoryPolicy, WeighingPolicy

PROMPTS = 8  # conditioning frames that are held for each object: the first and the latest


def weigh_hypotheses(policy: MemoryPolicy, banks: Mapping[int, MemoryBank], belief: Prediction) -> Prediction:
    """A `belief` about the objects of `banks`, {id: bank}, whose hypotheses the `policy` has weighed, if it does."""
    if not isinstance(policy, WeighingPolicy) or not belief.ids:
        return belief
    rows = zip(belief.ids, belief.logits.cpu(), belief.quality, strict=True)
    return replace(belief, quality=torch.stack([policy.weigh(banks[id], logits, q) for id, logits, q in rows]))


def commit_best(
    core: Sam2Core,
    policy: MemoryPolicy,
    banks: Mapping[int, MemoryBank],
    features: Sam2Features,
    belief: Prediction,
    encoded: Collection[int],
) -> dict[int, MemoryBank]:
    """Ends a frame: the banks with each object's best hypothesis; time goes on for all objects.

    Args:
        core: encodes what is remembered.
        policy: marks what is remembered, where it is one that does, and says what is kept.
        banks: of all objects, {id: bank}.
        features: of the frame.
        belief: about the frame, maybe not about all objects.
        encoded: ids of the objects whose spatial memory is encoded (`Sam2Core.memorise`).
    """
    best = belief.best
    later = {id: replace(bank, now=bank.now + 1, logits=None) for id, bank in banks.items()}
    entries = core.memorise(features, best, {id: banks[id].now for id in best.ids}, False, encoded)
    for row, (id, entry) in enumerate(zip(best.ids, entries, strict=True)):
        if isinstance(policy, MarkingPolicy):
            order = belief.quality[row].argsort(descending=True, stable=True)
            entry = policy.mark(banks[id], entry, belief.logits[row, order])
        recent = (*later[id].recent, entry)
        later[id] = policy.keep(replace(later[id], recent=recent, logits=best.logits[row, 0]))
    return later


def prompt_banks(
    core: Sam2Core,
    policy: MemoryPolicy,
    banks: Mapping[int, MemoryBank],
    features: Sam2Features,
    prompts: Mapping[int, Prompt],
    most: int = PROMPTS,
) -> tuple[dict[int, MemoryBank], Prediction]:
    """Makes a frame that was committed a conditioning frame in the bank of each object that is prompted.

    Args:
        core: answers the prompts, and encodes what is remembered.
        policy: says what the answers to clicks and boxes read of the banks.
        banks: of all objects, {id: bank}.
        features: of the frame.
        prompts: mask, box or clicks, {id: prompt}; objects may be new.
        most: conditioning frames that are held.

    Returns:
        The banks of all objects, and the answers in the order of the prompts, at the frame's own size.
    """
    told = {id: banks.get(id, MemoryBank(now=1)) for id in prompts}
    masks = {id: prompt for id, prompt in prompts.items() if isinstance(prompt, Tensor)}
    answers = [core.answer_masks(features, masks)] if masks else []
    for id, prompt in prompts.items():
        if not isinstance(prompt, Tensor):
            reading = policy.read(told[id].before(told[id].now - 1))
            answers.append(core.answer_clicks(features, id, prompt, reading, told[id].logits))
    for answer in answers:
        times = {id: told[id].now - 1 for id in answer.ids}
        entries = core.memorise(features, answer, times, core.postprocess, answer.ids)
        for row, (id, entry) in enumerate(zip(answer.ids, entries, strict=True)):
            told[id] = told[id].with_prompt(entry, answer.logits[row, 0], most)
    return {**banks, **told}, resize_answers(answers, masks, tuple(prompts), features.size)


def resize_answers(
    answers: Sequence[Prediction], given: Mapping[int, Tensor], ids: tuple[int, ...], size: tuple[int, int]
) -> Prediction:
    """Joins `answers` to prompts, in the order of `ids`, with logits at the frame's `size` (h, w).

    The objects in `given`, {id: mask}, are answered with exactly that mask.
    """
    rows = {id: answer.only([row]) for answer in answers for row, id in enumerate(answer.ids)}
    logits = torch.empty(len(rows), 1, *size)
    if not rows:
        return Prediction((), logits, torch.zeros(0, 1), torch.zeros(0, 1))
    for n, id in enumerate(ids):  # not over views of `logits`: in training they may not be written
        logits[n, 0] = (
            given[id].float() * 2 * SURE - SURE if id in given else resize_bilinear(rows[id].logits[:, 0], size)[0]
        )
    quality, presence = (torch.cat([getattr(rows[id], name) for id in ids]) for name in ("quality", "presence"))
    return Prediction(ids, logits, quality, presence)
