"""A recipe over its data: what `masklet run` is asked for, and what becomes of the results: scores, or a zip for the
server that alone has the ground truth. Ours stand beside the paper's.

An output folder holds results/<video>/masklets.json, as every run leaves them; predictions/ of given objects, as the
data set has them; submission.zip, or reports/<metric>.json; and comparison.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from masklet.builtins import METRICS, QUERY_SYSTEMS
from masklet.core.errors import InputError
from masklet.core.files import read_json, read_text, write_atomically
from masklet.core.progress import Watch, discard_progress
from masklet.core.result import VideoResult
from masklet.evaluate.prediction_form import convert_predictions
from masklet.evaluate.report import Report
from masklet.io.formats.davis import write_davis, write_davis16
from masklet.io.formats.panoptic import read_panoptic
from masklet.io.formats.postprocess import limit_objects
from masklet.io.formats.submission import Submission, SubmissionTarget, list_image_files, read_dataset_split
from masklet.io.formats.vos_folder import find_missing_pages, write_vos_video, zip_vos_folder
from masklet.io.formats.ytvis import write_ytvis_truth
from masklet.io.video.datasets import DatasetVideo
from masklet.reproduce.datasets import UNSEEN, LocatedSet
from masklet.reproduce.places import fill_part_name
from masklet.reproduce.recipes import Recipe
from masklet.run.batch import MASKLETS
from masklet.run.plan import RunOptions
from masklet.run.video_list import VideoEntry, list_dataset_entries
from masklet.version import __version__

RESULTS, PREDICTIONS, ZIP, REPORTS = "results", "predictions", "submission.zip", "reports"
COMPARISON = "comparison.json"
TRACK = "track"  # the system of recipes whose objects are given
PERCENT = 100.0
IN_PERCENT = ("sav", "vos-benchmark", "burst", "burst-masks")  # metrics whose numbers are from 0 to 100 already
PAGES: Mapping[str, Callable[[VideoResult, Path, Sequence[str]], None]] = {  # how a protocol's images are written
    "unsupervised": lambda result, folder, names: write_davis(limit_objects(result), folder, names),
    "salient": write_davis16,
    "referring": write_davis16,
}


SOFT = ("referring", "salient")  # protocols that begin with soft masks, a folder for each video
ANNOTATORS = 4  # of Ref-DAVIS: each has described all objects


def list_runs(recipe: Recipe, located: LocatedSet, data: Path) -> LocatedSet:
    """The set with what is run in place of its videos: of referring expressions each alone (Ref-YouTube-VOS,
    "VIDEO/EXPRESSION"), or all objects by one annotator's words (Ref-DAVIS, "ANNOTATOR/VIDEO").
    """
    if recipe.protocol != "referring":
        return located
    assert located.listing is not None
    if recipe.metric:
        named = [(video, f"{n}/{video.name}") for n in range(ANNOTATORS) for video in located.videos]
    else:
        told = read_json(located.listing, "expressions by video")["videos"]
        named = [(video, f"{video.name}/{key}") for video in located.videos for key in told[video.name]["expressions"]]
    return replace(located, videos=[replace(video, name=name) for video, name in named])


@dataclass(frozen=True)
class FigureComparison:
    """One figure, ours and the paper's."""

    figure: str
    ours: float | None  # None: a server has the ground truth, or it is undefined
    paper: float


def make_run_options(recipe: Recipe, located: LocatedSet, data: Path, out: Path, device: str = "auto") -> RunOptions:
    """What is run on a `device`: the `recipe` over the videos of `located`, which lies in `data`, into
    `out`/results.
    """
    segmenter = fill_part_name(recipe.segmenter, recipe.size, data)
    entries = list_dataset_entries(located.videos, is_given=recipe.protocol == "vos")
    if recipe.protocol in SOFT:
        named = zip(entries, located.videos, strict=True)
        entries = [
            replace(e, name=v.name.replace("/", "-"), title=v.name, detections=f"soft:{segmenter}/{v.name}")
            for e, v in named
        ]
        segmenter = ""
    return RunOptions(
        out / RESULTS,
        entries,
        system="sam2bmp" if recipe.system == TRACK else recipe.system,
        segmenter=segmenter or None,
        propagator=fill_part_name(recipe.propagator, recipe.size, data) or None,
        device=device,
        settings={**rank_all_pairs(recipe.system), **recipe.settings},
        overlay=False,
        reading={},
    )


def rank_all_pairs(system: str) -> Mapping[str, float]:
    """Settings with which a `system` of queries answers as the released programs do: all of its best pairs, whatever
    they score.
    """
    return {"min_score": 0.0} if system in QUERY_SYSTEMS else {}


@dataclass(frozen=True)
class FinishedRun:
    """The results of a recipe over its data, all of them there.

    Attributes:
        recipe: what was run.
        located: over what.
        out: the folder of the run.
        entries: the videos, by the names of their folders of results.
    """

    recipe: Recipe
    located: LocatedSet
    out: Path
    entries: Sequence[VideoEntry]

    def iterate_results(self) -> Iterator[tuple[VideoResult, DatasetVideo]]:
        """Each video's result, one at a time, and the video."""
        for entry, video in zip(self.entries, self.located.videos, strict=True):
            yield VideoResult.load(self.out / RESULTS / entry.name / MASKLETS), video

    def conclude(self, watch: Watch = discard_progress) -> list[FigureComparison]:
        """Scores the results, or writes and checks the zip for the server; ours beside the paper's. Raises InputError
        where the results do not fit.
        """
        truth = self.find_truth()
        if truth is None:
            self.write_submission()
            found: dict[str, Report] = {}
        else:
            found = self.score(truth, watch)
        compared = compare_figures(self.recipe, found)
        told = {
            "version": __version__,
            "recipe": asdict(self.recipe),
            "figures": [asdict(one) for one in compared],
        }
        with write_atomically(self.out / COMPARISON) as file:
            file.write(json.dumps(told, indent=1).encode())
        return compared

    def find_truth(self) -> Path | None:
        """The ground truth; None where only a server has it."""
        located = self.located
        if (
            located.truth is None
            and located.listing
            and located.listing.suffix == ".json"
            and has_truth(located.listing)
        ):
            return located.listing
        return located.truth

    # -- scores

    def score(self, truth: Path, watch: Watch) -> dict[str, Report]:
        """The report of each metric, which is saved, too."""
        if self.recipe.data == "vipseg-things":
            truth = self.write_things()
        reports = {}
        for metric in self.recipe.metrics:
            with self.convert(metric, truth) as (gt, pred):
                measure = partial(METRICS.find(metric).load(), gt, watch=watch, **self.list_metric_options(metric, gt))
                is_shared = self.recipe.protocol == "referring"
                report = average_reports([measure(p) for p in sorted(pred.iterdir())]) if is_shared else measure(pred)
            reports[metric] = replace(report, metric=metric, inputs=())
            (self.out / REPORTS).mkdir(parents=True, exist_ok=True)
            reports[metric].save(self.out / REPORTS / f"{metric}.json", __version__)
        return reports

    @contextmanager
    def convert(self, metric: str, truth: Path) -> Iterator[tuple[Path, Path]]:
        """The ground truth and the predictions as a `metric` reads them, as long as the context is open."""
        results = self.out / RESULTS
        if self.recipe.protocol == "vos":
            yield truth, self.write_pages(lambda result, video, folder: write_vos_video(result, video, folder))
        elif self.recipe.protocol in PAGES:
            yield truth, self.write_pages(self.write_page_folder)
        elif self.recipe.protocol == "panoptic":
            with TemporaryDirectory(prefix="masklet-reproduce-") as folder:
                gt = link_panoptic_truth(truth, Path(folder))
                with convert_predictions(metric, gt, results) as pred:
                    yield gt, pred
        elif self.recipe.protocol == "burst":
            with TemporaryDirectory(prefix="masklet-reproduce-") as folder:
                named = self.name_all_alike(truth, Path(folder))
                with convert_predictions(metric, truth, named) as pred:
                    yield truth, pred
        else:
            with convert_predictions(metric, truth, results) as pred:
                yield truth, pred

    def list_metric_options(self, metric: str, gt: Path) -> dict[str, Any]:
        """What a metric is told besides."""
        options: dict[str, Any] = {}
        if metric == "lvos":
            path = self.located.find(UNSEEN)
            if path is None:
                raise InputError(f"{self.located.root}: no unseen_videos.txt, the videos of kinds that no training has")
            options["unseen"] = read_text(path, "one name a line").split()
        if self.recipe.protocol in ("vos", *PAGES):
            names = (video.name for video in self.located.videos)
            options["videos"] = list(dict.fromkeys(n.rpartition("/")[2] for n in names))
        return options

    def write_pages(self, write: Callable[[VideoResult, DatasetVideo, Path], None]) -> Path:
        """The results as images of a data set, written into a new folder of predictions, which is returned."""
        folder = self.out / PREDICTIONS
        for result, video in self.iterate_results():
            if not (folder / video.name).is_dir():
                write(result, video, folder)
        return folder

    def write_page_folder(self, result: VideoResult, video: DatasetVideo, folder: Path) -> None:
        """Writes the images of the `result` of one video, by the recipe's protocol, into `folder`/<video>."""
        folder.mkdir(parents=True, exist_ok=True)
        names = [path.stem for path in list_image_files(video.source)]
        (folder / video.name).parent.mkdir(parents=True, exist_ok=True)
        write = write_davis if self.recipe.metric == "davis" else PAGES[self.recipe.protocol]
        write(result, folder / video.name, names)

    def write_things(self) -> Path:
        """The ground truth of VIPSeg's things in YouTube-VIS's form."""
        listing, root = self.located.listing, self.located.root
        assert listing is not None
        split = read_dataset_split(listing)
        path = self.out / "things.json"
        things = [keep_things(result) for result in read_panoptic(listing, root / "panomasksRGB", split)]
        self.out.mkdir(parents=True, exist_ok=True)
        write_ytvis_truth(things, path, {name: video.frames or () for name, video in split.videos.items()})
        return path

    def name_all_alike(self, truth: Path, folder: Path) -> Path:
        """The results in `folder` with all objects of the first category of the ground truth: OWTA asks for none, and
        detectors of the open world know none.
        """
        content = read_json(truth / "all_classes.json", "BURST's ground truth")
        name = str(content["categories"][0]["name"])
        for n, (result, _) in enumerate(self.iterate_results()):
            alike = tuple(replace(m, label=0) for m in result.masklets)
            (folder / str(n)).mkdir()
            replace(result, masklets=alike, categories=(name,)).save(folder / str(n) / MASKLETS)
        return folder

    # -- what servers take

    def write_submission(self) -> Path:
        """The zip for the server, checked before it is written. Raises InputError with all that it would reject."""
        about, path = self.located.about, self.out / ZIP
        if about.form in ("ytvis", "ovis", "vipseg"):
            assert self.located.listing is not None
            target = SubmissionTarget(about.form, read_dataset_split(self.located.listing))
            submission = Submission.check(target, [self.out / RESULTS / e.name / MASKLETS for e in self.entries])
            problems: Sequence[str] = submission.problems
            if not problems:
                submission.write(path)
        else:
            write = write_vos_video if self.recipe.protocol == "vos" else self.write_page_folder
            folder = self.write_pages(write)
            problems = find_missing_pages(self.located.videos, folder)
            if not problems:
                zip_vos_folder(folder, path, about.prefix)
        if problems:
            raise InputError("; ".join(problems))
        return path


def average_reports(reports: Sequence[Report]) -> Report:
    """A report whose numbers are the means of several, as of Ref-DAVIS's annotators."""
    mean = {name: sum(r.scores[name] or 0.0 for r in reports) / len(reports) for name in reports[0].scores}
    parts = {str(n): dict(report.scores) for n, report in enumerate(reports)}
    return replace(reports[0], scores=mean, parts=parts, videos={}, objects={})


def has_truth(path: Path) -> bool:
    """Whether a split's json says where the objects are."""
    content = read_json(path, "a split's json")
    return isinstance(content, dict) and bool(content.get("annotations"))


def link_panoptic_truth(listing: Path, folder: Path) -> Path:
    """A folder in which VIPSeg's ground truth has the names that its evaluation reads."""
    (folder / "panoptic_gt.json").symlink_to(listing.resolve())
    (folder / "panomasksRGB").symlink_to((listing.parent / "panomasksRGB").resolve())
    return folder


def keep_things(result: VideoResult) -> VideoResult:
    """The result without stuff, and without the names of stuff."""
    from masklet.weights.categories import VIPSEG_THINGS

    names = [name for name in result.categories if name in VIPSEG_THINGS] or list(result.categories)
    kept = [m for m in result.masklets if m.is_thing and result.name_of(m) in names]
    return replace(
        result,
        masklets=tuple(replace(m, label=names.index(result.name_of(m))) for m in kept),
        categories=tuple(names),
    )


def compare_figures(recipe: Recipe, reports: Mapping[str, Report]) -> list[FigureComparison]:
    """Each published figure of a `recipe` with ours, in percent, from the `reports` by metric."""
    return [FigureComparison(name, find_figure(recipe, reports, name), paper) for name, paper in recipe.figures.items()]


def find_figure(recipe: Recipe, reports: Mapping[str, Report], name: str) -> float | None:
    """Our number of a figure of a `recipe`, called `name`, in the `reports`: NAME of the only metric, "METRIC: NAME",
    or "PART: NAME" of a part of its report.
    """
    first, colon, rest = name.rpartition(": ")
    if not reports:
        return None
    metric = first if first in reports else recipe.metrics[0]
    report = reports[metric]
    row = report.parts[first] if colon and first not in reports else report.scores
    value = row.get(rest)
    in_percent = metric in IN_PERCENT or rest.startswith("VPQ")
    return None if value is None else value if in_percent else PERCENT * value
