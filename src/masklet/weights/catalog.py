"""The models that can be fetched: where their authors publish them, and the sha256 on record."""

from __future__ import annotations

from dataclasses import dataclass

CONFIG, TENSORS = "config.json", "model.safetensors"  # the two files of every model, as transformers saves them


@dataclass(frozen=True)
class OriginalFile:
    """The file in which the authors published a model."""

    url: str
    sha256: str

    @property
    def file(self) -> str:
        """The file's name: the last part of its url."""
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Checkpoint:
    """A model that is fetched once. Where no sha256 is known, the hub's own counts, and is recorded at the fetch."""

    name: str
    repo: str
    size: int | None = None  # bytes of model.safetensors
    sha256: str | None = None  # of model.safetensors
    revision: str = "main"
    licence: str = ""
    original: OriginalFile | None = None
    besides: tuple[str, ...] = ()  # files without which it cannot be used: a tokenizer's
    alone: str = ""  # the one file of a model that is published without a config
    page: str = ""  # where a person finds it, of those that no program can fetch
    url: str = ""  # where the file is, of a model that the hub does not have
    gate: str = ""  # where a person accepts its terms, of those that the hub gives to nobody else

    @property
    def weight(self) -> str:
        """The file with the tensors."""
        return self.alone or TENSORS

    @property
    def files(self) -> tuple[str, ...]:
        """All that is fetched, the largest last."""
        return (self.alone,) if self.alone else (CONFIG, *self.besides, TENSORS)


_META = "https://dl.fbaipublicfiles.com/segment_anything_2"

# What finds boxes by text. Where each number was seen: docs/text.md.
DETECTORS = {
    c.name: c
    for c in (
        Checkpoint(
            "grounding-dino-tiny",
            "IDEA-Research/grounding-dino-tiny",
            689_359_096,
            "1a2412ef99bd74bcd3c2a246fa1e48581f8889a1300c9051974741314fc042f3",
            "a2bb814dd30d776dcf7e30523b00659f4f141c71",
            "Apache-2.0",
            besides=("tokenizer.json", "tokenizer_config.json"),
        ),
        Checkpoint(
            "grounding-dino-base",
            "IDEA-Research/grounding-dino-base",
            933_400_872,
            "5548f844c928c4b6f411fa8cbcc2bfa8dbbba437cb1d513975519f93c2a9ed21",
            "12bdfa3120f3e7ec7b434d90674b3396eccf88eb",
            "Apache-2.0",
            besides=("tokenizer.json", "tokenizer_config.json"),
        ),
        Checkpoint(
            "owlv2-base",
            "google/owlv2-base-patch16-ensemble",
            619_918_824,
            "e1e130b9e404cf91a75ad45644c1da9d7fa5284085eecc864266a6923efb99e7",
            "cfd3195ba4ea9592eec887ded089f4c08eff231d",
            "Apache-2.0",
            besides=("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"),
        ),
    )
}

# What carries masks. Where each number was seen: cards/sam2.md.
CARRIERS = {
    c.name: c
    for c in (
        Checkpoint(
            "sam2.1-tiny",
            "facebook/sam2.1-hiera-tiny",
            155_908_064,
            "48c14467e5cf9e51870511feb72c89688e82dd74523142c0538b663e193ac2a7",
            "de431c4043854a71d8101e17995dfe596bf101a5",
            "Apache-2.0",
            OriginalFile(
                f"{_META}/092824/sam2.1_hiera_tiny.pt",
                "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
            ),
        ),
        Checkpoint(
            "sam2.1-small",
            "facebook/sam2.1-hiera-small",
            184_305_280,
            "0a4067b11ce1e23d5229203f11c718a823060d15a4b23fa2372a7d4b77cbbc60",
            "ee5bba1d82bb8749febdf90f45e84b687142ba03",
            "Apache-2.0",
            OriginalFile(
                f"{_META}/092824/sam2.1_hiera_small.pt",
                "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
            ),
        ),
        Checkpoint(
            "sam2.1-base-plus",
            "facebook/sam2.1-hiera-base-plus",
            323_476_296,
            "2012733a0de5d03efd1bba550a2847c4551be9ef2e0d497c83074df66189f780",
            "b7320756a13354e7530a63935656d35b2f91a290",
            "Apache-2.0",
            OriginalFile(
                f"{_META}/092824/sam2.1_hiera_base_plus.pt",
                "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
            ),
        ),
        Checkpoint(
            "sam2.1-large",
            "facebook/sam2.1-hiera-large",
            897_897_416,
            "dc407dce21301fd94abb395c5099b4f2c455fdc8a8f261ac3d0ea6d4cd197230",
            "665f8e2ad61cf5f53d65644ff27c8ee525124610",
            "Apache-2.0",
            OriginalFile(
                f"{_META}/092824/sam2.1_hiera_large.pt",
                "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
            ),
        ),
        Checkpoint(
            "sam2-tiny",
            "facebook/sam2-hiera-tiny",
            155_841_672,
            licence="Apache-2.0",
            original=OriginalFile(
                f"{_META}/072824/sam2_hiera_tiny.pt",
                "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125",
            ),
        ),
        Checkpoint(
            "sam2-small",
            "facebook/sam2-hiera-small",
            184_238_888,
            licence="Apache-2.0",
            original=OriginalFile(
                f"{_META}/072824/sam2_hiera_small.pt",
                "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3",
            ),
        ),
        Checkpoint(
            "sam2-base-plus",
            "facebook/sam2-hiera-base-plus",
            323_409_896,
            licence="Apache-2.0",
            original=OriginalFile(
                f"{_META}/072824/sam2_hiera_base_plus.pt",
                "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071",
            ),
        ),
        Checkpoint(
            "sam2-large",
            "facebook/sam2-hiera-large",
            897_831_024,
            revision="e6a8e8809b8f1bfa2238b6d080f3d05cc76bd251",
            licence="Apache-2.0",
            original=OriginalFile(
                f"{_META}/072824/sam2_hiera_large.pt",
                "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b",
            ),
        ),
        Checkpoint("edgetam", "yonigozlan/EdgeTAM-hf", licence="Apache-2.0"),
    )
}

# What finds what is named or shown, and what carries it. Where each name was seen: docs/sam3.md.
CONCEPTS = {
    c.name: c
    for c in (
        Checkpoint(
            "sam3",
            "facebook/sam3",
            licence="SAM License",
            besides=("tokenizer.json", "tokenizer_config.json"),
            gate="https://huggingface.co/facebook/sam3",
        ),
        Checkpoint(
            "sam3-lite-text",
            "vil-uob/sam3-litetext-s0",
            licence="Apache-2.0",
            besides=("tokenizer.json", "tokenizer_config.json"),
        ),
    )
}

_MINVIS = "deahuang/MinVIS-Model-Zoo"  # of the paper's first author


def _make_minvis_checkpoint(name: str, file: str, size: int, sha256: str | None) -> Checkpoint:
    revision = "b6561851d98613ea63e9e1d2f9435a0cdcc02fb6"
    return Checkpoint(f"minvis-{name}", _MINVIS, size, sha256, revision, "CC-BY-NC-SA", alone=f"minvis_{file}.pth")


def _make_dvis_checkpoint(name: str) -> Checkpoint:
    page = "https://github.com/zhang-tao-whu/DVIS/blob/main/MODEL_ZOO.md"
    return Checkpoint(f"dvis-{name}", "", licence="MIT", alone=f"dvis-{name}.pth", page=page)


def _make_genvis_checkpoint(name: str) -> Checkpoint:
    page = "https://github.com/miranheo/GenVIS#ModelZoo (the online model)"
    return Checkpoint(f"genvis-{name}", "", licence="Apache-2.0", alone=f"genvis-{name}.pth", page=page)


_R50, _SWIN_L = 528_358_521, 2_590_776_813  # bytes, with the optimiser's state

# What finds objects with learnt queries. Where each number was seen: docs/dvis.md, of EoMT's names docs/successors.md.
QUERIES = {
    c.name: c
    for c in (
        Checkpoint(
            "mask2former-swin-tiny",
            "facebook/mask2former-swin-tiny-coco-instance",
            revision="22c4a2f15dc88149b8b8d9f4d42c54431fbd66f6",
            licence="CC-BY-NC",
        ),
        _make_minvis_checkpoint(
            "r50-ovis", "ovis_R50", _R50, "5bde648e5f315f95b0048b15e56fab94ab7f89d831cab3a6da2b534eab89f13f"
        ),
        _make_minvis_checkpoint(
            "r50-ytvis19", "ytvis19_R50", _R50, "601f32311d14a5695033cbbf0e5a67f98f73fd5c4ab44749a10431e7c06f8866"
        ),
        _make_minvis_checkpoint(
            "r50-ytvis21", "ytvis21_R50", _R50, "a679383305d1096e69ea8ea83fe013537966a8fb4acd675a514c2c4347da95d7"
        ),
        _make_minvis_checkpoint(
            "swin-l-ovis",
            "ovis_swin_large",
            _SWIN_L,
            "45882d63e56e2eeec2c04034099c38a5201f76295fe480f3c4245d45872872bb",
        ),
        _make_minvis_checkpoint(
            "swin-l-ytvis19",
            "ytvis19_swin_large",
            _SWIN_L,
            "5750072b22b0885ffdcecd1d4e983d2b808f7a6d3392f77a68c6bec8f147951c",
        ),
        _make_minvis_checkpoint("swin-l-ytvis21", "ytvis21_swin_large", _SWIN_L, None),
        *(
            _make_dvis_checkpoint(f"{mode}-{backbone}-{data}")
            for mode in ("online", "offline")
            for backbone in ("r50", "swin-l")
            for data in ("ovis", "ytvis19", "ytvis21")
        ),
        _make_dvis_checkpoint("online-swin-l-vipseg"),
        _make_dvis_checkpoint("offline-swin-l-vipseg"),
        *(
            _make_genvis_checkpoint(f"{backbone}-{data}")
            for data in ("ovis", "ytvis19")
            for backbone in ("r50", "swin-l")
        ),
        Checkpoint("eomt-l", "tue-mps/coco_instance_eomt_large_640"),
        Checkpoint("eomt-l-panoptic", "tue-mps/coco_panoptic_eomt_large_640"),
        Checkpoint("eomt-l-dinov3-panoptic", "tue-mps/coco_panoptic_eomt_large_640_dinov3"),
        Checkpoint("videomt-s-ytvis19", "tue-mps/videomt-dinov2-small-ytvis2019"),
    )
}

# What its authors released elsewhere than on the hub. Where each number was seen: docs/deva.md.
_DEVA = "https://github.com/hkchengrex/Tracking-Anything-with-DEVA/releases/download/v1.0/DEVA-propagation.pth"
RELEASED = {
    c.name: c
    for c in (
        Checkpoint(
            "deva",
            "",
            sha256="5273748214babcbf5bc7aaa23ed4ce5a52f278c974b6c0dafcfbd89fbde25e48",
            licence="CC-BY-NC-SA",
            alone=_DEVA.rsplit("/", 1)[1],
            url=_DEVA,
        ),
    )
}

CHECKPOINTS = CARRIERS | DETECTORS | CONCEPTS | QUERIES | RELEASED
