"""Every part that ships, by name: the one place where names are typed. Nothing is imported before it is used."""

from __future__ import annotations

from collections.abc import Mapping

from masklet.registry import PartEntry, Registry

DEVICES = ("auto", "cpu", "cuda", "mps")  # and cuda:N
FORMS = "masklet.io.exports"
ALL_BOXES = "masklet.models.nano.nanodet:NanoDetSettings"


def declare_export(name: str, help: str, place: str) -> PartEntry:
    """An export, whose settings are the keyword arguments of its writer at this `place`."""
    return PartEntry(name, help, place, place)


SEGMENTERS = Registry(
    "segmenter",
    "masklet.segmenters",
    [
        PartEntry("auto", "named things, and what moves and has no name", "masklet.parts:load_auto", ALL_BOXES),
        PartEntry("motion", "what moves, whatever it is", "masklet.parts:load_motion"),
        PartEntry(
            "nano", "80 kinds of things by name", "masklet.parts:load_nano", ALL_BOXES, form="nano[:FILE][@SIZE]"
        ),
        PartEntry(
            "nano-objects", "things of any kind", "masklet.parts:load_nano_objects", form="nano-objects[:FILE][@SIZE]"
        ),
        PartEntry(
            "everything",
            "all that points on a grid stand for, by SAM 2 or nano's image predictor",
            "masklet.parts:load_everything",
            "masklet.models.segmenters.prompted:EverythingSegmenter",
            form="everything[:SAM2]",
        ),
        *(
            PartEntry(
                name,
                help,
                "masklet.parts:load_concepts",
                "masklet.models.sam3.segmenter:Sam3SegmenterSettings",
                form=f"{name}[:FOLDER][@SIZE]",
                takes=("text", "exemplars"),
            )
            for name, help in {
                "sam3": "all that a text names or an exemplar shows, by SAM 3",
                "sam3-lite-text": "the same with a small text encoder",
            }.items()
        ),
        PartEntry(
            "soft", "soft masks made elsewhere, for deva-offline", "masklet.parts:load_soft_masks", form="soft:FOLDER"
        ),
    ],
)
MASK2FORMER = PartEntry(  # by hub id, folder or file
    "mask2former",
    "a Mask2Former or an EoMT by hub id, folder or file",
    "masklet.models.mask2former.segmenter:load_mask2former",
    "masklet.models.mask2former.segmenter:Mask2FormerSettings",
    form="a Mask2Former",
)
PROPAGATORS = Registry(
    "propagator",
    "masklet.propagators",
    [
        PartEntry(
            "affinity",
            "feature affinity and optical flow; nothing is trained",
            "masklet.parts:load_affinity",
            "masklet.models.affinity:Affinity",
        ),
        PartEntry("nano", "a small memory network that ships", "masklet.parts:load_nano_tracker", form="nano[:FILE]"),
        *(
            PartEntry(
                name,
                f"{kind} by weights of `masklet weights list`",
                "masklet.parts:load_sam2_tracker",
                "masklet.models.sam2.memory:Sam2Settings",
                form=f"{name}[@SIZE]",
            )
            for name, kind in {
                "sam2.1-tiny": "SAM 2.1",
                "sam2.1-small": "SAM 2.1",
                "sam2.1-base-plus": "SAM 2.1",
                "sam2.1-large": "SAM 2.1",
                "sam2-tiny": "SAM 2",
                "sam2-small": "SAM 2",
                "sam2-base-plus": "SAM 2",
                "sam2-large": "SAM 2",
                "edgetam": "EdgeTAM",
            }.items()
        ),
        PartEntry(
            "sam3",
            "SAM 3's tracker",
            "masklet.parts:load_sam3_tracker",
            "masklet.models.sam3.propagator:Sam3Settings",
            form="sam3[:FOLDER][@SIZE]",
        ),
        PartEntry(
            "deva",
            "DEVA's propagation network",
            "masklet.parts:load_deva",
            "masklet.models.xmem.propagator:XmemSettings",
            form="deva[:FILE]",
        ),
        PartEntry(
            "cutie",
            "Cutie's network (rf-cutie)",
            "masklet.parts:load_cutie",
            "masklet.models.cutie:CutieSettings",
            form="cutie:FILE",
        ),
        PartEntry("still", "masks stay where they were", "masklet.parts:load_still"),
        PartEntry("flow", "masks follow the optical flow", "masklet.parts:load_flow"),
        PartEntry(
            "short",
            "another one that remembers the last frame alone",
            "masklet.parts:load_short",
            form="short:NAME[@SIZE]",
        ),
        PartEntry(
            "dam",
            "SAM 2, SAM 3, EdgeTAM or nano with DAM4SAM's memory of what looks alike",
            "masklet.models.sam2.distractor_memory:load_distractor_aware",
            "masklet.models.sam2.distractor_memory:DistractorAwareFrames",
            form="dam:NAME[@SIZE]",
        ),
        PartEntry(
            "samurai",
            "SAM 2, SAM 3 or EdgeTAM with SAMURAI's memory of what fits the motion",
            "masklet.models.sam2.motion_memory:load_motion_aware",
            "masklet.models.sam2.motion_memory:MotionAwareFrames",
            form="samurai:NAME[@SIZE]",
        ),
        *(
            PartEntry(
                name,
                help,
                "masklet.parts:load_tree",
                "masklet.systems.sam2long:MemoryTreeSettings",
                form=f"{name}:NAME[@SIZE]",
            )
            for name, help in {
                "sam2long": "SAM2Long over another one, as its repository's command",
                "sam2long-paper": "the same with the paper's thresholds",
                "sam2long-cli": "the same with the thresholds of its command line",
            }.items()
        ),
    ],
)
SYSTEMS = Registry(
    "system",
    "masklet.systems",
    [
        PartEntry(
            "sam2bmp",
            "SAM2BMP: a segmenter's objects, propagated both ways",
            "masklet.systems.sam2bmp:Sam2Bmp",
            "masklet.systems.sam2bmp:Sam2BmpSettings",
            live={"max_lost": 300, "max_objects": 32},  # what is lost for ten seconds stays lost
        ),
        PartEntry(
            "deva",
            "DEVA, semi-online: consensus over short clips, and propagation",
            "masklet.systems.deva.online:Deva",
            "masklet.systems.deva.online:DevaSettings",
            live={"max_objects": 32},
        ),
        PartEntry(
            "deva-online",
            "DEVA's online mode: each frame's detections are merged as they are",
            "masklet.systems.deva.online:Deva",
            "masklet.systems.deva.online:DevaSettings",
            live={"max_objects": 32},
            usual={"clip": 1, "every": 1},
        ),
        PartEntry(
            "deva-automatic",
            "DEVA's automatic mode: a grid of points where nothing is tracked",
            "masklet.systems.deva.online:Deva",
            "masklet.systems.deva.online:DevaSettings",
            live={"max_objects": 32},
            usual={
                "look": "outside",
                "count": "invisible",
                "max_objects": 200,
                "overflow": "all",
                "segmenter": "everything",
                "segmenter.points_per_side": 64,
            },
        ),
        PartEntry(
            "deva-text",
            "DEVA's text mode, with a text: what is named may be missed ten times",
            "masklet.systems.deva.online:Deva",
            "masklet.systems.deva.online:DevaSettings",
            live={"max_objects": 32},
            usual={"max_missed": 10, "segmenter": "grounding-dino-tiny"},
        ),
        PartEntry(
            "by-detection",
            "detections matched from frame to frame: what DEVA is compared to",
            "masklet.systems.deva.by_detection:ByDetection",
            "masklet.systems.deva.by_detection:ByDetectionSettings",
        ),
        PartEntry(
            "deva-offline",
            "DEVA's offline protocol: one object of each category",
            "masklet.systems.deva.offline:build_deva_offline",
            "masklet.systems.deva.offline:DevaOfflineSettings",
        ),
    ],
)
QUERY_SYSTEMS: Mapping[str, PartEntry] = {  # which need no propagator
    entry.name: entry
    for entry in (
        PartEntry(
            "minvis",
            "MinVIS: a Mask2Former's queries, matched",
            "masklet.queries:load_minvis",
            "masklet.systems.minvis:MinvisSettings",
        ),
        PartEntry(
            "ctvis",
            "CTVIS's memory bank over a Mask2Former's queries",
            "masklet.queries:load_ctvis",
            "masklet.systems.ctvis:CtvisSettings",
        ),
        PartEntry(
            "dvis",
            "DVIS online: segmenter and referring tracker",
            "masklet.queries:load_dvis",
            "masklet.systems.dvis:DvisSettings",
        ),
        PartEntry(
            "dvis-offline",
            "DVIS offline or semi-online: with the temporal refiner",
            "masklet.queries:load_dvis_offline",
            "masklet.systems.dvis:DvisSettings",
        ),
        PartEntry(
            "rocovis",
            "RoCoVIS: queries propagated, pixel features calibrated",
            "masklet.queries:load_rocovis",
            "masklet.systems.rocovis:RocovisSystemSettings",
        ),
        PartEntry(
            "genvis",
            "GenVIS: the baseline of RoCoVIS",
            "masklet.queries:load_genvis",
            "masklet.systems.rocovis:GenvisSystemSettings",
            live={"frames": 100},
        ),
        PartEntry(
            "videomt",
            "VidEoMT: a plain ViT whose queries go on from frame to frame",
            "masklet.queries:load_videomt_system",
            "masklet.systems.rocovis:VideomtSystemSettings",
        ),
    )
}


def has_own_segmenter(system: str) -> bool:
    """Whether a system says itself what segments where the user does not, so that a preset has no say in it."""
    entry = SYSTEMS.entries.get(system)
    return system in QUERY_SYSTEMS or (entry is not None and "segmenter" in entry.usual)


METRICS = Registry(  # a loader is the metric itself: (gt, pred, *, videos, watch) -> evaluate.report.Report
    "metric",
    "masklet.metrics",
    [
        PartEntry("ytvis", "YouTube-VIS AP", "masklet.evaluate.vis.metrics:evaluate_youtube_vis"),
        PartEntry(
            "ytvis-agnostic", "the same, whatever the name", "masklet.evaluate.vis.metrics:evaluate_class_agnostic"
        ),
        PartEntry("ovis", "OVIS AP", "masklet.evaluate.vis.metrics:evaluate_ovis"),
        PartEntry("tube-boundary", "Tube-Boundary AP", "masklet.evaluate.vis.metrics:evaluate_tube_boundary"),
        PartEntry("ap-pool", "AP pooled over all categories", "masklet.evaluate.vis.metrics:evaluate_ap_pool_video"),
        PartEntry(
            "ap-pool-lvis",
            "the same with LVIS's federated annotation",
            "masklet.evaluate.vis.metrics:evaluate_ap_pool_lvis",
        ),
        PartEntry(
            "ytvis-errors",
            "what costs AP: errors by kind",
            "masklet.evaluate.vis.errors:evaluate_vis_errors",
        ),
        PartEntry("davis", "J&F of DAVIS 2017, semi-supervised", "masklet.evaluate.vos.davis:evaluate_davis_semi"),
        PartEntry(
            "davis-unsupervised",
            "J&F of DAVIS 2017, unsupervised",
            "masklet.evaluate.vos.davis:evaluate_davis_unsupervised",
        ),
        PartEntry("davis16", "J and F of DAVIS 2016", "masklet.evaluate.vos.davis:evaluate_davis16"),
        PartEntry("sav", "J&F of SA-V", "masklet.evaluate.vos.sav:evaluate_sav"),
        PartEntry("vos-benchmark", "J&F of vos-benchmark", "masklet.evaluate.vos.sav:evaluate_vos_benchmark"),
        PartEntry("lvos", "J&F of LVOS", "masklet.evaluate.vos.lvos:evaluate_lvos"),
        PartEntry("mose", "J&F of MOSE", "masklet.evaluate.vos.mose:evaluate_mose_v1"),
        PartEntry("mosev2", "J&F of MOSEv2", "masklet.evaluate.vos.mose:evaluate_mose_v2"),
        PartEntry("vpq", "video panoptic quality", "masklet.evaluate.panoptic.metrics:evaluate_vpq"),
        PartEntry("stq", "segmentation and tracking quality", "masklet.evaluate.panoptic.metrics:evaluate_stq"),
        PartEntry("vipseg", "VPQ and STQ of VIPSeg", "masklet.evaluate.panoptic.metrics:evaluate_vipseg"),
        PartEntry("vspw", "mIoU and consistency of VSPW", "masklet.evaluate.panoptic.vspw:evaluate_vspw"),
        PartEntry(
            "tracking",
            "HOTA, CLEAR (MOTA, identity switches) and IDF1 of masks",
            "masklet.evaluate.tracking.metrics:evaluate_tracking",
        ),
        PartEntry("burst", "HOTA and OWTA of BURST", "masklet.evaluate.tracking.burst:evaluate_burst"),
        PartEntry("burst-masks", "the same on masks alone", "masklet.evaluate.tracking.burst:evaluate_burst_masks"),
    ],
)
FORMATS = Registry(  # a loader is the writer itself: (result, frame names or None, folder) -> None
    "format",
    "masklet.formats",
    [
        PartEntry("davis", "palette PNGs", "masklet.output_formats:put_davis"),
        PartEntry("davis16", "black and white PNGs", "masklet.output_formats:put_davis16"),
        PartEntry("davis-unsupervised", "palette PNGs of the 20 best", "masklet.output_formats:put_davis_unsupervised"),
        PartEntry("ref", "a folder of PNGs for each object", "masklet.output_formats:put_ref"),
        PartEntry("ytvis", "YouTube-VIS", "masklet.output_formats:put_ytvis"),
        PartEntry("burst", "BURST", "masklet.output_formats:put_burst"),
        PartEntry("vipseg", "panoptic PNGs", "masklet.output_formats:put_vipseg"),
        PartEntry("mots", "MOTS", "masklet.output_formats:put_mots"),
        PartEntry("cocovid", "COCO-VID", "masklet.output_formats:put_cocovid"),
    ],
)
EXPORTS = Registry(  # a loader writes `ExportedResults` into a new folder: (results, folder, **settings) -> None
    "export",
    "masklet.exports",
    [  # `masklet export` knows every format besides
        declare_export("coco", "COCO, with tracks", f"{FORMS}.coco:write_coco"),
        declare_export("cocovid-set", "COCO-VID, all videos in one file", f"{FORMS}.coco:write_cocovid_set"),
        declare_export(
            "ytvis-set", "YouTube-VIS's ground truth, all videos in one file", f"{FORMS}.sets:write_ytvis_set"
        ),
        declare_export("burst-set", "BURST, all videos in one file", f"{FORMS}.sets:write_burst_set"),
        declare_export("vipseg-set", "panoptic PNGs, all videos with one list", f"{FORMS}.sets:write_vipseg_set"),
        declare_export("sav", "SA-V, a folder of masks for each object", f"{FORMS}.label_pngs:write_sav"),
        declare_export("cvat-images", "CVAT for images 1.1", f"{FORMS}.cvat:write_cvat_images"),
        declare_export("cvat-video", "CVAT for video 1.1", f"{FORMS}.cvat:write_cvat_video"),
        declare_export("label-studio", "Label Studio's brush masks", f"{FORMS}.label_studio:write_label_studio"),
        declare_export(
            "label-studio-video",
            "Label Studio's video boxes with key frames",
            f"{FORMS}.label_studio:write_label_studio_video",
        ),
        declare_export("labelme", "LabelMe's jsons of polygons", f"{FORMS}.labelme:write_labelme"),
        declare_export("ultralytics", "Ultralytics' segmentation txts", f"{FORMS}.ultralytics:write_ultralytics"),
        declare_export("voc", "Pascal VOC's masks", f"{FORMS}.label_pngs:write_voc"),
        declare_export("mot", "MOTChallenge's text of boxes", f"{FORMS}.mot:write_mot"),
        declare_export("hf", "Parquet for Hugging Face datasets (pyarrow)", f"{FORMS}.hugging_face:write_hugging_face"),
        declare_export("webdataset", "webdataset's tars", f"{FORMS}.webdataset:write_webdataset"),
        declare_export("fiftyone", "a FiftyOne dataset (fiftyone)", f"{FORMS}.voxel51:write_fiftyone"),
        declare_export("rgba", "objects cut out, PNGs with alpha", f"{FORMS}.cutouts:write_cutouts"),
        declare_export("rgba-video", "objects cut out, videos with alpha", f"{FORMS}.cutouts:write_cutout_videos"),
        PartEntry(
            "overlay",
            "videos with masklets drawn in",
            "masklet.overlays:write_overlays",
            "masklet.overlays:OverlaySettings",
        ),
        declare_export("table", "csv tables and statistics", f"{FORMS}.table:write_tables"),
    ],
)

TRAININGS = Registry(  # a loader gives the recipe for what `--from` names: (start) -> training.TrainingRecipe
    "training",
    "masklet.trainings",
    [
        PartEntry("segmenter", "a small Mask2Former, or the nano segmenter", "masklet.training:choose_segmenter"),
        PartEntry("propagator", "the nano propagator, or SAM 2", "masklet.training:choose_propagator"),
        PartEntry("tracker", "DVIS's referring tracker", "masklet.training:choose_tracker"),
        PartEntry("refiner", "DVIS's temporal refiner", "masklet.training:choose_refiner"),
        PartEntry("rocovis", "RoCoVIS, or GenVIS", "masklet.training:choose_rocovis"),
        PartEntry("image-predictor", "nano's image predictor", "masklet.training:choose_image_predictor"),
    ],
)
