"""Measure what one core of this machine does a second, for the cost model of the appendix on scale.

    python -m tests.benchmarks.measure_rates    writes notebooks/results/rates.json, in about two minutes

Each rate is the best of a few rounds, in seconds of processor time on one thread: other programs take
from the clock, and less from these. The metrics of one set are timed as a whole too: a check of the model.
"""

import json
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

import mgmlib as mgm
from mgmlib.atomic import write_whole
from mgmlib.cluster import stars
from tests.truth import clustered

RESULTS = Path(__file__).resolve().parents[2] / "notebooks" / "results" / "rates.json"
D, K = 2048, 50  # of a ResNet-50's embedding; candidates
SIZE = (500, 375)  # pixels of the photographs that are decoded, as ImageNet's are on average
ROUNDS = 3


def best(function, rounds=ROUNDS):
    """Processor seconds of the fastest of a few calls, after one that warms up."""
    function()
    seconds = []
    for _ in range(rounds):
        started = time.process_time()
        function()
        seconds.append(time.process_time() - started)
    return min(seconds)


def sheets(n, rng):
    """Clustered points (n, D) float32."""
    return clustered(n, D, rng).astype(np.float32)


def gemm(rng):
    """Floating-point operations a second of the product behind exact neighbours, float32."""
    queries, keys = (torch.as_tensor(sheets(n, rng)) for n in (1024, 8192))
    return 2 * len(queries) * len(keys) * D / best(lambda: queries @ keys.T)


def kernels(rng, n=100 * (K + 1)):
    """Points a second to NNK weights, from those to the metrics, and as stars; in groups of K + 1 rows."""
    z, groups = sheets(n, rng), np.repeat(np.arange(n // (K + 1)), K + 1)
    graph = mgm.nnk(z, K, groups=groups)

    def measure():
        mgm.diameter(graph, z)
        mgm.affinity(graph, z)

    rows, shape = np.arange(n), replace(graph, queries=graph.queries[:0])
    block, found = (z, None, rows), stars.polytopes([graph])
    return {
        "nnk_points": n / best(lambda: mgm.nnk(z, K, groups=groups)),
        "metric_points": n / best(measure),
        "star_points": stars.SIZE / best(lambda: stars.task(block, rows[: stars.SIZE], False, found, shape)),
        "support": float(graph.n_neighbors.mean()),
    }


def whole(rng, n=6000):
    """Processor seconds of `point_metrics` on one set."""
    z = sheets(n, rng)
    return {"n": n, "d": D, "k": K, "seconds": best(lambda: mgm.point_metrics(z, k=K), rounds=1)}


def encoder(name):
    """Images a second through an encoder, decoded before."""
    made = mgm.load_model(name, weights="random")
    images = torch.rand(32, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    options = {"device": "cpu", "cache": False, "progress": False}
    return len(images) / best(lambda: mgm.embed(made, images, **options))


def views():
    """Views of 224 pixels a second: unaugmented ones, each from its JPEG file, and those of setting all."""
    with tempfile.TemporaryDirectory() as folder:
        for i in range(16):
            photograph = Image.fromarray(load_sample_images().images[i % 2]).resize(SIZE)
            Path(folder, str(i % 2)).mkdir(exist_ok=True)
            photograph.save(Path(folder, str(i % 2), f"{i}.jpg"), quality=90)
        images = mgm.load_images(folder)
        plain = len(images) / best(lambda: mgm.views(images, "none", 1, 224, resize=256))
        augmented = 4 * 16 / best(lambda: mgm.views(images.subset(range(4)), "all", 16, 224, resize=256))
    return {"plain": plain, "augmented": augmented}


def processor():
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main():
    """Measure, and write the file in one step."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    rates = {
        "processor": processor(),
        "threads": 1,
        "versions": {
            "mgmlib": mgm.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "gemm_flops": gemm(rng),
        **kernels(rng),
        "views_per_second": views(),
        "images_per_second": {name: encoder(f"timm:{name}") for name in ("resnet50",)},
        "whole": whole(rng),
    }
    write_whole(RESULTS, json.dumps(rates, indent=1) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
