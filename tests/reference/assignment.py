"""Matching and losses of queries, slowly: pixel by pixel, pair by pair, all ways to assign, as the definitions read.

Maps are lists of rows, points are (x, y) in [0, 1], class logits are lists that end with no object.
"""

from __future__ import annotations

from itertools import permutations
from math import exp, floor, inf, log


def bilinear(rows, x, y):
    """A map between its pixel centres; what is outside is 0."""
    h, w = len(rows), len(rows[0])
    u, v = x * w - 0.5, y * h - 0.5
    total = 0.0
    for j in (floor(v), floor(v) + 1):
        for i in (floor(u), floor(u) + 1):
            if 0 <= i < w and 0 <= j < h:
                total += rows[j][i] * (1 - abs(u - i)) * (1 - abs(v - j))
    return total


def sigmoid(x):
    return 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))


def softmax(logits):
    top = max(logits)
    powers = [exp(x - top) for x in logits]
    return [p / sum(powers) for p in powers]


def bce(found, wanted):
    """Binary cross-entropy of logits, the mean over points."""
    total = 0.0
    for x, z in zip(found, wanted, strict=True):
        total += max(x, 0) - x * z + log(1 + exp(-abs(x)))
    return total / len(found)


def dice(found, wanted):
    both = sum(sigmoid(x) * z for x, z in zip(found, wanted, strict=True))
    return 1 - (2 * both + 1) / (sum(map(sigmoid, found)) + sum(wanted) + 1)


def cross_entropy(logits, targets, no_object):
    """Of queries; the last class counts `no_object`, in the mean as well."""
    total = weight = 0.0
    for row, target in zip(logits, targets, strict=True):
        w = no_object if target == len(row) - 1 else 1.0
        total -= w * log(softmax(row)[target])
        weight += w
    return total / weight


def cost(logits, found, label, wanted, weights):
    """Of one query and one object, their masks given at points."""
    by_class, by_mask, by_dice = weights
    return -by_class * softmax(logits)[label] + by_mask * bce(found, wanted) + by_dice * dice(found, wanted)


def best(costs, free):
    """{object: query} of least total among free queries, by trying all; where queries are short, all choices too."""
    objects = range(len(costs[0]) if costs else 0)
    if len(free) >= len(objects):
        ways = [dict(zip(objects, chosen, strict=True)) for chosen in permutations(free, len(objects))]
    else:
        ways = [dict(zip(some, free, strict=True)) for some in permutations(objects, len(free))]
    least, answer = inf, {}
    for way in ways:
        total = sum(costs[q][g] for g, q in way.items())
        if total < least:
            least, answer = total, way
    return answer


def first_appearance(frames, visible, queries):
    """{object: query}; frames[t][q][g] is a cost, visible[g][t]. Each query is given once."""
    given = {}
    for t, table in enumerate(frames):
        new = [g for g in range(len(visible)) if visible[g][t] and not any(visible[g][:t])]
        free = [q for q in range(queries) if q not in given.values()]
        found = best([[table[q][g] for g in new] for q in range(queries)], free)
        given |= {new[n]: q for n, q in found.items()}
    return given


def unified(clips, visible, queries):
    """UVLA++ clip after clip: {object: query} after each; clips[c][q][g] is a cost, visible[g][c]."""
    given, after = {}, []
    for c, table in enumerate(clips):
        new = [g for g in range(len(visible)) if visible[g][c] and g not in given]
        free = [q for q in range(queries) if q not in given.values()]
        found = best([[table[q][g] for g in new] for q in range(queries)], free)
        given = given | {new[n]: q for n, q in found.items()}
        after.append(given)
    return after
