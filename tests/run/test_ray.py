"""A batch over a local Ray cluster of two nodes, of which an actor and a node are killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import odd
import pytest
from kills import find_leftovers, hash_results
from typer.testing import CliRunner

from masklet.cli import app
from masklet.run.claims import FOLDER
from masklet.run.outcome import read_manifest

WORDS = ["--segmenter", "odd", "--propagator", "still", "--no-overlay", "-q"]


@pytest.fixture
def cluster(place: Path) -> Iterator[Any]:
    """Two nodes of two CPUs; the first holds none of the actors."""
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'masklet[ray]')")
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1)
    yield made
    ray.shutdown()
    made.shutdown()


def find_workers(out: Path) -> list[int]:
    """The processes that are at a video."""
    told = [json.loads(path.read_text()) for path in (out / FOLDER / "claims").glob("*.json")]
    return [one["process"] for one in told]


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_an_actor_and_a_node_are_killed_in_the_middle(cluster: Any, place: Path) -> None:
    names = [f"clip{n}" for n in range(6)]
    for name in names:
        odd.write_clip(Path(name), odd.SLOW, length=4)
    assert CliRunner().invoke(app, ["run", *names, *WORDS, "-o", "here"]).exit_code == 0
    lost = []

    def disturb() -> None:
        out = Path("out")
        for kill in (lambda: os.kill(find_workers(out)[0], signal.SIGKILL), lambda: lose_node(cluster)):
            seen = len(lost)
            while len(find_workers(out)) < 2 - seen:
                time.sleep(0.05)
            kill()
            lost.append(kill)

    def lose_node(cluster: Any) -> None:
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    thread = threading.Thread(target=disturb, daemon=True)
    thread.start()
    words = ["--ray", cluster.address, "--jobs", "2", "--retries", "3"]
    done = CliRunner().invoke(app, ["run", *names, *WORDS, *words, "-o", "out"])
    assert done.exit_code == 0, done.output
    assert len(lost) == 2
    here, there = hash_results(Path("here")), hash_results(Path("out"))
    assert here == there and find_leftovers(Path("out")) == []
    assert sorted(line["video"] for line in read_manifest(Path("out")) if line["state"] == "done") == names


def test_without_ray_it_says_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd.write_clip(Path("a"))
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    done = CliRunner().invoke(app, ["run", "a", *WORDS, "-o", "out", "--ray", "local"])
    assert done.exit_code == 2 and "pip install 'masklet[ray]'" in done.output and not Path("out").exists()
