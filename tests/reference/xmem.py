"""XMem's memory as its paper says it, one cell and one token at a time, in double precision."""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray


def similarity(query: Array, selection: Array, key: Array, shrinkage: float) -> float:
    """Eq. 3, over the root of the number of channels."""
    distance = sum(float(e) * (float(k) - float(q)) ** 2 for q, e, k in zip(query, selection, key, strict=True))
    return -distance * float(shrinkage) / math.sqrt(len(query))


def softmax(x: list[float]) -> list[float]:
    highest = max(x)
    odds = [math.exp(v - highest) for v in x]
    return [o / sum(odds) for o in odds]


def shares(query: Array, selection: Array, keys: Array, shrinkage: Array, most: int | None) -> list[float]:
    """How much a cell takes of each token; of all but the most similar ones nothing."""
    found = [similarity(query, selection, k, s) for k, s in zip(keys, shrinkage, strict=True)]
    chosen = sorted(range(len(found)), key=lambda n: -found[n])[:most]
    out = [0.0] * len(found)
    for n, share in zip(chosen, softmax([found[n] for n in chosen]), strict=True):
        out[n] = share
    return out


def prototypes(
    keys: Array, selection: Array, shrinkage: Array, usage: Array, values: Array, most: int
) -> list[tuple[Array, float, Array]]:
    """Key, shrinkage and value of each prototype, by descending usage (eq. 6 and 7)."""
    out = []
    for n in sorted(range(len(usage)), key=lambda n: -usage[n])[:most]:
        near = shares(keys[n], selection[n], keys, shrinkage, None)
        out.append((keys[n], float(np.dot(near, shrinkage)), np.asarray(near) @ values))
    return out


def most_used(usage: list[float], most: int) -> list[int]:
    """Tokens that stay: those used more than the last of those that go."""
    if len(usage) <= most:
        return list(range(len(usage)))
    last = sorted(usage)[len(usage) - most - 1]
    return [n for n, u in enumerate(usage) if u > last]
