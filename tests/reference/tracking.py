"""HOTA and the AP of tracks, slowly: all ways to pair are tried, all sums are loops, as the definitions read.

A frame is (true tracks, predicted tracks, similarity as rows).
"""

from __future__ import annotations

from itertools import permutations

ALPHAS = [0.05 + 0.05 * n for n in range(19)]
TINY = 2.220446049250313e-16


def hota(frames):
    """HOTA, DetA, AssA, DetRe, DetPr, AssRe, AssPr, LocA and OWTA, one list over the alphas each."""
    alignment = _alignment(frames)
    pairs = [pair for t, frame in enumerate(frames) for pair in _paired(t, frame, alignment)]
    true, found = ([(t, id) for t, frame in enumerate(frames) for id in frame[side]] for side in (0, 1))
    rows = [_at(alpha, pairs, true, found) for alpha in ALPHAS]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _alignment(frames):
    shared, seen, others = {}, {}, {}
    for true, found, similarity in frames:
        for i, g in enumerate(true):
            seen[g] = seen.get(g, 0) + 1
            for j, p in enumerate(found):
                everything = sum(similarity[i]) + sum(row[j] for row in similarity) - similarity[i][j]
                if everything > TINY:
                    shared[g, p] = shared.get((g, p), 0) + similarity[i][j] / everything
        for p in found:
            others[p] = others.get(p, 0) + 1
    return {(g, p): value / (seen[g] + others[p] - value) for (g, p), value in shared.items()}


def _paired(t, frame, alignment):
    true, found, similarity = frame

    def gain(pairing):
        return sum(alignment.get((true[i], found[j]), 0) * similarity[i][j] for i, j in pairing)

    n = min(len(true), len(found))
    if len(true) <= len(found):
        ways = [list(zip(range(n), chosen, strict=True)) for chosen in permutations(range(len(found)), n)]
    else:
        ways = [list(zip(chosen, range(n), strict=True)) for chosen in permutations(range(len(true)), n)]
    return [((t, true[i]), (t, found[j]), similarity[i][j]) for i, j in max(ways, key=gain)]


def _at(alpha, pairs, true, found):
    hits = [(g, p, s) for g, p, s in pairs if s >= alpha - TINY]
    tp, fn, fp = len(hits), len(true) - len(hits), len(found) - len(hits)
    ass = {"AssA": 0.0, "AssRe": 0.0, "AssPr": 0.0}
    for (_, g), (_, p), _ in hits:
        together = sum(a[1] == g and b[1] == p for a, b, _ in hits)
        of_true, of_found = sum(id == g for _, id in true), sum(id == p for _, id in found)
        ass["AssA"] += together / (of_true + of_found - together)
        ass["AssRe"] += together / of_true
        ass["AssPr"] += together / of_found
    ass = {name: value / max(1, tp) for name, value in ass.items()}
    row = {
        "DetA": tp / max(1, tp + fn + fp),
        "DetRe": tp / max(1, tp + fn),
        "DetPr": tp / max(1, tp + fp),
        "LocA": sum(s for *_, s in hits) / tp if tp else 1.0,
    } | ass
    return row | {"HOTA": (row["DetA"] * row["AssA"]) ** 0.5, "OWTA": (row["DetRe"] * row["AssA"]) ** 0.5}


def track_ap(videos, least):
    """AP at one IoU; a video is (IoU as rows of predicted tracks, their scores, how many are true)."""
    marks, positives = [], 0
    for iou, scores, true in videos:
        positives += true
        free = set(range(true))
        for d in sorted(range(len(scores)), key=lambda d: -scores[d]):
            best = max(sorted(free), key=lambda g: (iou[d][g], g), default=None)
            hit = best is not None and iou[d][best] >= least - TINY
            if hit:
                free.remove(best)
            marks.append((scores[d], hit))
    marks.sort(key=lambda mark: -mark[0])
    curve, tp = [], 0
    for n, (_, hit) in enumerate(marks, start=1):
        tp += hit
        curve.append((tp / positives, tp / n))
    return sum(max((p for r, p in curve if r >= wanted / 100), default=0.0) for wanted in range(101)) / 101
