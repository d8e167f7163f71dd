"""Two runs side by side: differences of their reports' numbers, with intervals over the videos that both scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from masklet.core.errors import InputError
from masklet.evaluate.report import Report
from masklet.evaluate.report_tables import ReportTable

RESAMPLES = 10_000  # sets of videos that are drawn
INTERVAL = (2.5, 97.5)  # percentiles
LEAST_VIDEOS = 3  # fewer say nothing about a spread
CHUNK = 1000  # resamples drawn at once


@dataclass(frozen=True)
class PairedDifference:
    """By how much one number of one run lies above that of another, in the mean over the videos that both have."""

    mean: float
    low: float  # ends of the 95 % interval
    high: float
    better: float  # share of resampled sets of videos in which it lies above
    videos: int


def bootstrap_difference(
    before: Float[np.ndarray, " n"], after: Float[np.ndarray, " n"], seed: int = 0, resamples: int = RESAMPLES
) -> PairedDifference:
    """The paired bootstrap of a mean difference: videos are drawn with replacement, each with both of its numbers.

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, percentile intervals.

    Args:
        before, after: one number a video of either run, in the same order.
        seed: of the draws.
        resamples: how many sets of videos are drawn.

    >>> found = bootstrap_difference(np.array([0.5, 0.6, 0.7]), np.array([0.6, 0.7, 0.8]))
    >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3), found.better
    (0.1, 0.1, 0.1, 1.0)
    """
    difference, draw = after - before, np.random.default_rng(seed)
    means = np.concatenate(
        [
            difference[draw.integers(len(difference), size=(min(CHUNK, resamples - at), len(difference)))].mean(1)
            for at in range(0, resamples, CHUNK)
        ]
    )
    low, high = np.percentile(means, INTERVAL)
    return PairedDifference(
        float(difference.mean()), float(low), float(high), float((means > 0).mean()), len(difference)
    )


def compare_reports(names: Sequence[str], reports: Sequence[Report]) -> list[ReportTable]:
    """The headline numbers of several runs, and of each after the first its differences from that one over videos.

    Args:
        names: what the runs are called.
        reports: theirs, of one metric, in the same order.

    Returns:
        A table of the headlines, a row a number; and for each later run one of `PairedDifference`s, for the numbers
        that both have of at least three videos.

    Raises:
        InputError: the reports are of several metrics, or no two videos of theirs have the same name.
    """
    metrics = sorted({report.metric for report in reports})
    if len(metrics) > 1:
        raise InputError(f"reports of {' and '.join(metrics)}; compare those of one metric")
    numbers = list(dict.fromkeys(number for report in reports for number in report.scores))
    headline = {
        number: {name: report.scores.get(number) for name, report in zip(names, reports, strict=True)}
        for number in numbers
    }
    tables = [ReportTable(f"{metrics[0]}: headline", headline)]
    for name, report in zip(names[1:], reports[1:], strict=True):
        if not report.videos.keys() & reports[0].videos.keys():
            raise InputError(f"{name} and {names[0]}: no video of the same name in both; compare runs over one set")
        rows = compare_videos(reports[0], report)
        tables.append(
            ReportTable(
                f"{name} - {names[0]}, mean over videos",
                {
                    number: {
                        "difference": row.mean,
                        "low": row.low,
                        "high": row.high,
                        "better": row.better,
                        "videos": row.videos,
                    }
                    for number, row in rows.items()
                },
            )
        )
    return tables


def compare_videos(before: Report, after: Report) -> dict[str, PairedDifference]:
    """The paired differences of two reports, by number, over the videos for which both have it."""
    shared = [name for name in before.videos if name in after.videos]
    found = {}
    for number in dict.fromkeys(n for name in shared for n in before.videos[name]):
        pairs = [(before.videos[name].get(number), after.videos[name].get(number)) for name in shared]
        values = np.array([pair for pair in pairs if None not in pair], float).reshape(-1, 2)
        if len(values) >= LEAST_VIDEOS:
            found[number] = bootstrap_difference(values[:, 0], values[:, 1])
    return found
