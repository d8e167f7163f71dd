"""VPQ and STQ, slowly: pixel by pixel and window by window, as the definitions read.

A frame is (true map, predicted map, true list, predicted list): maps are rows of ids, a true list has (id, category,
area, crowd), a predicted one (id, category). Id 0 is void.
"""

from __future__ import annotations

from collections import defaultdict


def windows(frames, k):
    k = min(k, len(frames))
    return [frames[start : start + k] for start in range(len(frames) - k + 1)]


def vpq(frames, k, categories):
    """Per category: [sum of IoU, TP, FP, FN] over all windows."""
    table = {c: [0.0, 0, 0, 0] for c in range(categories)}
    for window in windows(frames, k):
        _count(window, table)
    return table


def _pixels(window):
    for true, found, _, _ in window:
        for row, other in zip(true, found, strict=True):
            yield from zip(map(int, row), map(int, other), strict=True)


def _count(window, table):
    truth, found = _tubes(window)
    shared = defaultdict(int)
    for pair in _pixels(window):
        shared[pair] += 1
    size = {p: sum(n for (_, other), n in shared.items() if other == p) for p in found}
    matched = set()
    for (g, p), n in shared.items():
        if g in truth and p in found and truth[g][0] == found[p] and not truth[g][2]:
            union = size[p] + truth[g][1] - n - shared.get((0, p), 0)
            if union > 0 and n / union > 0.5:
                matched |= {("true", g), ("found", p)}
                table[found[p]][0] += n / union
                table[found[p]][1] += 1
    _missed_and_wrong(truth, found, shared, size, matched, table)


def _tubes(window):
    """Id: category, area and crowd; id: category. What an id's first frame says holds."""
    truth, found = {}, {}
    for _, _, listed, others in window:
        for id, category, area, crowd in listed:
            truth.setdefault(id, [category, 0, crowd])[1] += area
        for id, category in others:
            found.setdefault(id, category)
    return truth, found


def _missed_and_wrong(truth, found, shared, size, matched, table):
    crowd_of = {}
    for g, (category, _, crowd) in truth.items():
        if crowd:
            crowd_of[category] = g
        elif ("true", g) not in matched:
            table[category][3] += 1
    for p, category in found.items():
        excused = shared.get((0, p), 0)
        if category in crowd_of:
            excused += shared.get((crowd_of[category], p), 0)
        if ("found", p) not in matched and excused / size[p] <= 0.5:
            table[category][2] += 1


def pq(table):
    rows = [(iou, tp + fp / 2 + fn / 2) for iou, tp, fp, fn in table.values() if tp + fp + fn]
    return sum(iou / weight for iou, weight in rows) / len(rows) if rows else None


def stq(frames, things, first_is_crowd):
    """STQ, AQ, SQ. Categories are 0 to len(things) - 1; none is None."""
    crowd = next((id for _, _, listed, _ in frames for id, *_ in listed), None) if first_is_crowd else None
    pairs, confusion = defaultdict(int), defaultdict(int)
    for frame in frames:
        true_of, found_of = ({row[0]: row[1] for row in listed} for listed in frame[2:])
        for g, p in _pixels([frame]):
            a, b = true_of.get(g), found_of.get(p)
            if a is not None:
                confusion[a, b] += 1
            if a is not None and things[a] and g == crowd:
                continue
            tube = (g, a) if a is not None and things[a] else None
            pairs[tube, (p, b) if b is not None and things[b] else None] += 1
    sizes, others = defaultdict(int), defaultdict(int)
    for (g, p), n in pairs.items():
        sizes[g] += n
        others[p] += n
    tubes = [g for g in sizes if g is not None]
    aq = 0.0
    for (g, p), n in pairs.items():
        if g is not None and p is not None:
            aq += n * n / (sizes[g] + others[p] - n) / sizes[g]
    aq = aq / len(tubes) if tubes else 0.0
    ious = []
    for c in [*range(len(things)), None]:
        union = sum(n for (a, b), n in confusion.items() if c in (a, b))
        if union:
            ious.append(confusion.get((c, c), 0) / union)
    sq = sum(ious) / len(ious) if ious else 0.0
    return (aq * sq) ** 0.5, aq, sq
