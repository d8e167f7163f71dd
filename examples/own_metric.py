"""A metric of your own is a function of two paths that gives a report; named as an entry point "masklet.metrics" of a
package is `masklet eval covered --gt gt.json --pred out`: `python examples/own_metric.py gt.json masklets.json`.
"""

import sys
from pathlib import Path

from masklet import VideoResult
from masklet.evaluate.report import Report


def covered(gt: Path, pred: Path, *, videos=None, watch=None) -> Report:
    """The share of the frames with an object, by the truth, in which something was found."""
    truth, found = (
        {t for m in VideoResult.load(path).masklets for t, seen in m.sightings.items() if seen.mask.area}
        for path in (gt, pred)
    )
    score = len(truth & found) / len(truth) if truth else None
    return Report("covered", "frames with an object that have a masklet", {"covered": score}, inputs=(gt, pred))


def main(gt: str, pred: str) -> Report:
    report = covered(Path(gt), Path(pred))
    report.save(Path("report.json"), "1")
    return report


if __name__ == "__main__":
    print(main(*sys.argv[1:]).scores)
