"""Graph and metric kernels against named rivals: one thread, one run, interleaved rounds.

    python tests/benchmarks/bench_graph.py [--n 10000] [--d 2048] [--k 50] [--rounds 5] [--memory 50000]

Clustered unit vectors (`clustered` in tests/truth.py) as a set, isotropic ones, whose neighbourhoods have
little in common, as another, and single clusters of 50 as groups. Rivals: the published NNK code's rule as we
restate it (faiss search, then a numpy loop over points), scipy's NNLS, faiss, scikit-learn, torch, scipy's
subspace angles. Times are the process's own CPU time, so that other work on the machine counts little. Writes
notebooks/results/bench/{rows,scaling,machine}.csv, which the book reads. About 15 minutes on one core.
"""

# ruff: noqa: E402 - the libraries read their number of threads when they are imported
import argparse
import datetime
import os
import platform
import resource
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

import faiss
import numpy as np
import pandas as pd
import torch
from scipy.linalg import subspace_angles
from scipy.optimize import nnls
from sklearn.neighbors import NearestNeighbors

import mgmlib as mgm
from mgmlib.atomic import write_whole
from mgmlib.graph import lawson_hanson, products
from mgmlib.graph.nearest import nearest
from mgmlib.graph.points import check_points

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "notebooks" / "results" / "bench"
sys.path.insert(0, str(ROOT))

from tests.truth import clustered

BLOCK = 2**29
PRODUCTS = "float32 products alone"
SCALING = {"n": (2500, 5000, 10_000, 20_000), "k": (25, 50, 100), "d": (128, 512, 2048)}


def prune(kernel, target, tol=1e-6):
    """The published rule for one point: solve, drop what is not positive, repeat, never re-add."""
    kept = np.arange(len(target))
    while len(kept):
        theta = np.linalg.solve(kernel[np.ix_(kept, kept)], target[kept])
        if (theta > tol).all():
            return kept, theta
        kept = kept[theta > tol]
    return kept, np.zeros(0)


def by_nnls(kernel, target):
    """Scipy's NNLS on a Cholesky factor of one point's kernel."""
    factor = np.linalg.cholesky(kernel)
    return nnls(factor.T, np.linalg.solve(factor, target))[0]


def faiss_search(z, k):
    index = faiss.IndexFlatIP(z.shape[1])
    index.add(z)
    return index.search(z, k + 1)[1]


def faiss_and_prune(z, k, queries=None):
    """The published pipeline: flat search, then a loop over points (in float32, its faster form)."""
    near_of = faiss_search(z, k)
    for q in range(len(z)) if queries is None else range(queries):
        near = near_of[q][near_of[q] != q][:k]
        rows = z[near]
        prune(0.5 + 0.5 * rows @ rows.T, 0.5 + 0.5 * rows @ z[q])


def groups_and_prune(z, size, groups):
    for start in range(0, size * groups, size):
        faiss_and_prune(z[start : start + size], size - 1)


def angle_loop(graph, z, pairs):
    """Affinity of ``pairs`` point–neighbour pairs, from scipy's principal angles in the full space."""
    done = 0
    for i, q in enumerate(graph.queries):
        near = graph.neighbors(i)
        for p in near:
            angles = subspace_angles((z[near] - z[q]).T, (z[graph.neighbors(p)] - z[p]).T)
            np.sqrt(np.mean(np.cos(angles) ** 2))
            done += 1
            if done == pairs:
                return


def search(z, k):
    """Our exact search alone."""
    points, rows = check_points(z), torch.arange(len(z))
    nearest(points, rows, rows, k, torch.float32, BLOCK, 1)


def half_product(z):
    """All products in float32 and nothing else, each pair once: the bound of a search that computes them."""
    rows = torch.from_numpy(z)
    out = torch.empty(256, len(z))
    for start in range(0, len(z), 256):
        part = rows[start : start + 256]
        products.product(part, rows[start:], out[: len(part), start:])


def torch_search(z, k):
    rows = torch.from_numpy(z)
    for part in rows.split(1024):
        (part @ rows.T).topk(k + 1, dim=1)


def seconds(tasks, rounds):
    """Seconds (rounds,) of each task in interleaved rounds, after one warm-up of the compiled ones."""
    times = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name, (task, _) in tasks.items():
            if turn or name[1].startswith("mgmlib"):
                start = time.process_time()
                task()
                if turn:
                    times[name].append(time.process_time() - start)
    return {name: np.array(found) for name, found in times.items()}


def unit(z):
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)


def a_set(n, d):
    return unit(clustered(n, d, np.random.default_rng(0), clusters=max(8, n // 250), rank=12))


def isotropic(n, d):
    return unit(np.random.default_rng(0).standard_normal((n, d)))


def groups_of(size, n, d, rank=30):
    """Single clusters of ``size`` points, as the views of one image are; support about 11 at rank 30."""
    rng = np.random.default_rng(1)
    return unit(np.concatenate([clustered(size, d, rng, clusters=1, rank=rank) for _ in range(n // size)]))


def solver_tasks(z, k, some=500):
    graph = mgm.nnk(z, k, queries=np.arange(some))
    rows = z[graph.indices].astype(float)
    kernel = 0.5 + 0.5 * rows @ rows.transpose(0, 2, 1)
    target = 0.5 + 0.5 * np.einsum("qkd,qd->qk", rows, z[:some].astype(float))
    step = f"NNK solve, k = {k}"
    return {
        (step, "mgmlib"): (lambda: lawson_hanson.solve(kernel, target, 1), some),
        (step, "published rule"): (lambda: [prune(*p) for p in zip(kernel, target, strict=True)], some),
        (step, "scipy nnls"): (lambda: [by_nnls(*p) for p in zip(kernel, target, strict=True)], some),
    }


def search_tasks(z, k, all_rivals):
    n, d = z.shape
    step, index = f"kNN, d = {d}", NearestNeighbors(n_neighbors=k + 1, algorithm="brute")
    tasks = {
        (step, "mgmlib"): (lambda: search(z, k), n),
        (step, PRODUCTS): (lambda: half_product(z), n),
        (step, "faiss flat"): (lambda: faiss_search(z, k), n),
    }
    if all_rivals:
        tasks[(step, "scikit-learn")] = (lambda: index.fit(z).kneighbors(z), n)
        tasks[(step, "torch matmul + topk")] = (lambda: torch_search(z, k), n)
    return tasks


def pipeline_tasks(z, k, step="kNN + NNK"):
    n = len(z)
    return {
        (step, "mgmlib certified"): (lambda: mgm.nnk(z, k, solver="certified"), n),
        (step, "mgmlib exact"): (lambda: mgm.nnk(z, k), n),
        (step, PRODUCTS): (lambda: half_product(z), n),
        (step, "faiss + published rule"): (lambda: faiss_and_prune(z, k), n),
    }


def metric_tasks(z, k, pairs=200):
    n, d = z.shape
    graph, wide = mgm.nnk(z, k, solver="certified"), z[: 1 + n].astype(float)
    grouped, groups = groups_of(50, n, d), np.repeat(np.arange(n // 50), 50)
    of_groups = mgm.nnk(grouped, 49, groups=groups)
    wide_groups, some = grouped.astype(float), 20
    return {
        ("affinity (pairs)", "mgmlib"): (lambda: mgm.affinity(graph, z), int(graph.n_neighbors.sum())),
        ("affinity (pairs)", "scipy loop"): (lambda: angle_loop(graph, wide, pairs), pairs),
        ("diameter", "mgmlib"): (lambda: mgm.diameter(graph, z), n),
        ("groups of 50", "mgmlib"): (lambda: mgm.nnk(grouped, 49, groups=groups), n),
        ("groups of 50", "faiss + published rule"): (lambda: groups_and_prune(grouped, 50, some), 50 * some),
        ("affinity in groups (pairs)", "mgmlib"): (
            lambda: mgm.affinity(of_groups, grouped),
            int(of_groups.n_neighbors.sum()),
        ),
        ("affinity in groups (pairs)", "scipy loop"): (
            lambda: angle_loop(of_groups, wide_groups, pairs),
            pairs,
        ),
    }


def measured(tasks, rounds):
    """Table of the tasks: step, implementation, seconds, items, per_second, and mgmlib_is, least, most.

    The last three are how many times faster the first of ours is than the row in the same round: the median
    over rounds, whose speeds drift together, and the range.
    """
    rows, each = [], {name: took / tasks[name][1] for name, took in seconds(tasks, rounds).items()}
    for name, per_item in each.items():
        ours = next(other for key, other in each.items() if key[0] == name[0] and "mgmlib" in key[1])
        ratio, items, middle = per_item / ours, tasks[name][1], float(np.median(per_item))
        times = float(np.median(ratio)), ratio.min(), ratio.max()
        rows.append((*name, middle * items, items, 1 / middle, *times))
    columns = ["step", "implementation", "seconds", "items", "per_second", "mgmlib_is", "least", "most"]
    return pd.DataFrame(rows, columns=columns)


def scaling(n, k, d):
    """Seconds of the certified graph and of the affinity, one axis varied at a time."""
    rows = []
    for axis, values in SCALING.items():
        for value in values:
            at = {"n": n, "k": k, "d": d} | {axis: value}
            z = a_set(at["n"], at["d"])
            start = time.process_time()
            graph = mgm.nnk(z, at["k"], solver="certified")
            middle = time.process_time()
            mgm.affinity(graph, z)
            end = time.process_time()
            rows.append(at | dict(axis=axis, graph=middle - start, affinity=end - middle))
    return pd.DataFrame(rows)


def peak_memory(n, d):
    """GiB that a certified graph of n points takes beyond its input: measured in a process of its own."""
    code = (
        "import re, numpy as np, mgmlib as mgm;"
        "status = lambda: open('/proc/self/status').read();"  # ru_maxrss starts from that of the parent
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', status())[1]) / 2**20;"
        "draw = lambda n, d: np.random.default_rng(0).standard_normal((n, d), dtype=np.float32);"
        "mgm.nnk(draw(2000, 64), 50, solver='certified');"
        f"z = draw({n}, {d}); z += 1; before = peak();"
        "mgm.nnk(z, 50, solver='certified'); print(peak() - before)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return float(ran.stdout)


def machine():
    """What the numbers belong to."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    said = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in lines if ":" in line}
    name, flags = said.get("model name", platform.processor()), said.get("flags", "").split()
    known = {"cpu": name, "avx512": "avx512f" in flags, "threads": 1, "float32 product": products.fastest(1)}
    known |= {"bfloat16 gain": round(products.half_gain(1), 1)}
    versions = {lib: metadata.version(lib) for lib in ("torch", "numpy", "numba", "faiss-cpu", "scipy")}
    return known | versions | {"date": datetime.date.today().isoformat()}


def main():
    """Run every row and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option, default in (
        ("--n", 10_000),
        ("--d", 2048),
        ("--k", 50),
        ("--rounds", 5),
        ("--memory", 50_000),
    ):
        parser.add_argument(option, type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    z, narrow = a_set(args.n, args.d), a_set(args.n, 512)
    batches = [
        *(solver_tasks(z, k) for k in (25, args.k, 100)),
        search_tasks(z, args.k, all_rivals=True),
        search_tasks(narrow, args.k, all_rivals=False),
        pipeline_tasks(z, args.k),
        pipeline_tasks(isotropic(args.n, args.d), args.k, "kNN + NNK, isotropic"),
        metric_tasks(z, args.k),
    ]
    table = pd.concat([measured(tasks, args.rounds) for tasks in batches], ignore_index=True)
    print(table.round(3).to_string(index=False), flush=True)
    steps = scaling(args.n, args.k, args.d)
    print(steps.round(2).to_string(index=False), flush=True)
    about = machine() | {"n": args.n, "d": args.d, "k": args.k, "support": graph_support(z, args.k)}
    about |= {"memory_n": args.memory, "memory_gib": round(peak_memory(args.memory, args.d), 2)}
    about |= {"peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)}
    print(about)
    digits = {"seconds": 5, "per_second": 1, "mgmlib_is": 2, "least": 2, "most": 2}
    write(table.round(digits), "rows.csv")
    write(steps.round(3), "scaling.csv")
    write(pd.Series(about, name="value").rename_axis("about").reset_index(), "machine.csv")


def graph_support(z, k):
    return round(float(mgm.nnk(z, k, solver="certified").n_neighbors.mean()), 1)


def write(table, name):
    """Write a table whole or not at all."""
    write_whole(OUT / name, table.to_csv(index=False))


if __name__ == "__main__":
    main()
