"""Graph and metric kernels against named rivals: one thread, one run, medians of interleaved rounds.

    python tests/benchmarks/bench_graph.py [--n 10000] [--d 2048] [--k 50] [--rounds 3]

Clustered unit vectors, as `clustered` in tests/truth.py makes them. Prints a table and writes it to
_build/benchmarks/graph.csv. Rivals: the published NNK code's rule as we restate it per point (faiss search,
numpy pruning loop), scipy's NNLS, faiss, scikit-learn, scipy's subspace angles.
"""

# ruff: noqa: E402 - the libraries read their number of threads when they are imported
import argparse
import os
import resource
import sys
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

import faiss
import numpy as np
import pandas as pd
from scipy.linalg import subspace_angles
from scipy.optimize import nnls
from sklearn.neighbors import NearestNeighbors

import mgmlib as mgm
from mgmlib.graph import lawson_hanson

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.truth import clustered


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


def faiss_and_prune(z, k):
    """The published pipeline: flat search, then a loop over points."""
    for q, near in enumerate(faiss_search(z, k)):
        near = near[near != q][:k]
        rows = z[near].astype(float)
        prune(0.5 + 0.5 * rows @ rows.T, 0.5 + 0.5 * rows @ z[q])


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


def seconds(tasks, rounds):
    """Median seconds of each task over interleaved rounds, after one warm-up."""
    times = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name, (task, _) in tasks.items():
            start = time.perf_counter()
            task()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(found)) for name, found in times.items()}


def main():
    """Run every row and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option, default in (("--n", 10_000), ("--d", 2048), ("--k", 50), ("--rounds", 3)):
        parser.add_argument(option, type=int, default=default)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    z = clustered(args.n, args.d, rng, clusters=max(8, args.n // 250), rank=12)
    z = (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)
    graph = mgm.nnk(z, args.k)
    some = min(args.n, 500)
    near = graph.indices[:some]
    rows = z[near].astype(float)
    kernel = 0.5 + 0.5 * rows @ rows.transpose(0, 2, 1)
    target = 0.5 + 0.5 * np.einsum("qkd,qd->qk", rows, z[:some].astype(float))
    groups, pairs = np.repeat(np.arange(args.n // 50), 50), 200
    grouped = z[: len(groups)]
    group_graph = mgm.nnk(grouped, 49, groups=groups)
    tasks = {  # (step, implementation) -> (what to run, how many items it treats)
        ("solve", "mgmlib"): (lambda: lawson_hanson.solve(kernel, target, 1), some),
        ("solve", "published rule"): (lambda: [prune(*p) for p in zip(kernel, target, strict=True)], some),
        ("solve", "scipy nnls"): (lambda: [by_nnls(*p) for p in zip(kernel, target, strict=True)], some),
        ("kNN + NNK", "mgmlib"): (lambda: mgm.nnk(z, args.k), args.n),
        ("kNN + NNK", "faiss + published rule"): (lambda: faiss_and_prune(z, args.k), args.n),
        ("kNN alone", "faiss flat"): (lambda: faiss_search(z, args.k), args.n),
        ("kNN alone", "scikit-learn"): (
            lambda: NearestNeighbors(n_neighbors=args.k + 1, algorithm="brute").fit(z).kneighbors(z),
            args.n,
        ),
        ("affinity", "mgmlib"): (lambda: mgm.affinity(graph, z), int(graph.n_neighbors.sum())),
        ("affinity", "scipy loop"): (lambda: angle_loop(graph, z.astype(float), pairs), pairs),
        ("groups of 50", "mgmlib"): (lambda: mgm.nnk(grouped, 49, groups=groups), len(groups)),
        ("affinity in groups", "mgmlib"): (
            lambda: mgm.affinity(group_graph, grouped),
            int(group_graph.n_neighbors.sum()),
        ),
    }
    found = seconds(tasks, args.rounds)
    table = pd.DataFrame(
        [(*name, tasks[name][1] / took) for name, took in found.items()],
        columns=["step", "implementation", "per second"],
    )
    ours = table[table["implementation"] == "mgmlib"].set_index("step")["per second"]
    table["mgmlib is"] = [
        "" if name == "mgmlib" or step not in ours else f"{ours[step] / rate:.1f}×"
        for step, name, rate in table.itertuples(index=False)
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"n = {args.n}, d = {args.d}, k = {args.k}, support {graph.n_neighbors.mean():.1f}, one thread")
    print(table.to_string(index=False, float_format="{:,.0f}".format))
    print(f"peak memory of the process: {peak:.1f} GiB")
    folder = ROOT / "_build" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "graph.csv", index=False)


if __name__ == "__main__":
    main()
