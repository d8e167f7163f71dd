"""HOTA, CLEAR and IDF1 of results in any form, with the frames in which identities are switched."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from masklet.core.errors import InputError
from masklet.core.progress import Watch, discard_progress
from masklet.core.result import VideoResult
from masklet.evaluate.report import Curve, Report, Scores
from masklet.evaluate.tracking.clear_measures import ClearCounts, IdentitySwitch, count_clear
from masklet.evaluate.tracking.measures import ALPHAS, HotaCounts, compare_tracks, count_hota
from masklet.io.formats.any_result import read_results

DRAWN = ("HOTA", "DetA", "AssA")
HOTA_NUMBERS = ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "LocA")
PROTOCOL = (
    "HOTA (mean over alpha 0.05 to 0.95), CLEAR (IoU 0.5) and IDF1 (IoU 0.5) as TrackEval has them, by mask IoU, "
    "whatever things are called; 0 to 1; videos' counts are added up"
)


def evaluate_tracking(
    gt: Path, pred: Path, *, videos: Collection[str] | None = None, watch: Watch = discard_progress
) -> Report:
    """HOTA, CLEAR and IDF1 of tracks by mask IoU, whatever things are called, and every identity switch.

    Luiten et al., IJCV 2021; Bernardin and Stiefelhagen, 2008; Ristani et al., 2016.

    Args:
        gt, pred: in any form that `masklet.io.formats.any_result.read_results` reads.
        videos: those to score; all of the ground truth without it.
        watch: is told ("tracking", videos done, videos in all, true objects).

    Returns:
        A report whose events are the identity switches, and whose curves are HOTA and its parts against alpha.

    Raises:
        InputError: a file cannot be used, or a video is of another size or length on the other side.
    """
    truths, found = read_results(gt), read_results(pred, gt)
    names = list(truths) if videos is None else sorted(videos)
    unknown = [name for name in names if name not in truths]
    if unknown:
        raise InputError(f"{gt}: no video {unknown[0]!r}; there are {', '.join(truths):.80}")
    hota, clear = HotaCounts.none(), ClearCounts.none()
    rows, events = dict[str, Scores](), dict[str, Scores]()
    for done, name in enumerate(names, start=1):
        frames = compare_tracks(truths[name], found.get(name, _find_nothing(truths[name])))
        here, (counts, switches) = count_hota(frames), count_clear(frames)
        hota, clear = hota + here, clear + counts
        rows[name] = _build_row(here, counts)
        events |= _list_switches(name, switches, truths[name], found.get(name))
        watch("tracking", done, len(names), len(truths[name].masklets))
    curves = {name: Curve("alpha", tuple(ALPHAS), tuple(map(float, hota.rates[name]))) for name in DRAWN}
    return Report(
        "tracking",
        PROTOCOL,
        _build_row(hota, clear),
        videos=rows,
        events=events,
        curves=curves,
        warnings=tuple(_list_oddities(names, truths, found, pred)),
        inputs=(gt, pred),
    )


def _find_nothing(truth: VideoResult) -> VideoResult:
    return VideoResult(truth.name, truth.size, truth.length, truth.rate, (), (), truth.provenance)


def _build_row(hota: HotaCounts, clear: ClearCounts) -> Scores:
    means = hota.means
    return {name: means[name] for name in HOTA_NUMBERS} | clear.scores


def _list_switches(
    name: str, switches: list[IdentitySwitch], truth: VideoResult, found: VideoResult | None
) -> dict[str, Scores]:
    """The switches by the ids that the files have, "video, frame t" each."""
    return {
        f"{name}, frame {s.frame}, object {truth.masklets[s.truth].id}": {
            "frame": s.frame,
            "object": truth.masklets[s.truth].id,
            "before": found.masklets[s.before].id,
            "after": found.masklets[s.after].id,
        }
        for s in switches
        if found is not None
    }


def _list_oddities(
    names: Collection[str], truths: Mapping[str, VideoResult], found: Mapping[str, VideoResult], pred: Path
) -> list[str]:
    missed = (n for n in names if n not in found or (truths[n].masklets and not found[n].masklets))
    silent, more = [*missed], [n for n in found if n not in truths]
    sentences = [f"{pred}: no prediction for {', '.join(silent):.200}; nothing is found there"] if silent else []
    return sentences + ([f"{pred}: predictions of {', '.join(more):.200}, which the truth lacks"] if more else [])
