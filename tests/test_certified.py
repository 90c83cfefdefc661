"""The float32 path and its certificate, the search that feeds it, and the approximate search."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mgmlib as mgm
from mgmlib.graph import lawson_hanson, products, tableau, tiles
from mgmlib.graph.nearest import _by_topk, nearest
from mgmlib.graph.points import check_points
from tests.truth import clustered, reference_weights

ENGINES = ["numba", "torch"]


@pytest.fixture(autouse=True)
def small_sets_are_large(monkeypatch):
    """What a group of ten thousand goes through, at a size that a test can afford."""
    monkeypatch.setattr(tiles, "LARGEST", 30)
    monkeypatch.setattr(tiles, "SIZES", (60, 120))


def neighbor_sets(graph):
    return [set(graph.neighbors(i)) for i in range(len(graph.queries))]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", [{"kernel": "cosine"}, {"kernel": "rbf", "bandwidth": 6.0}])
def test_certified_neighbors_are_those_of_the_float64_optimum(engine, dtype, kernel):
    z = clustered(500, 64, np.random.default_rng(0)).astype(dtype)
    exact, certified = (mgm.nnk(z, 25, solver=s, engine=engine, **kernel) for s in ("exact", "certified"))
    assert neighbor_sets(certified) == neighbor_sets(exact)
    np.testing.assert_array_equal(np.sort(certified.indices), np.sort(exact.indices))
    assert certified.converged.all() and certified.kkt.max() <= 1e-9
    assert not exact.single.any() and exact.kkt.max() <= 1e-12
    assert certified.single.mean() > (0.9 if kernel["kernel"] == "cosine" else 0)
    assert certified.kkt[~certified.single].max(initial=0) <= 1e-12


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype, scale", [(np.float32, 1e-30), (np.float32, 1e30), (np.float64, 1e90)])
@pytest.mark.parametrize("solver", ["exact", "certified"])
def test_scale_changes_nothing(solver, dtype, scale, engine):
    """RBF in other units: squares that would leave the range of the search's precision."""
    z = np.ldexp(clustered(300, 16, np.random.default_rng(4)).astype(dtype), 3)
    two = 2.0 ** np.round(np.log2(scale))
    options = dict(k=12, kernel="rbf", solver=solver, engine=engine)
    plain = mgm.nnk(z, bandwidth=40.0, **options)
    scaled = mgm.nnk(z * dtype(two), bandwidth=40.0 * two, **options)
    np.testing.assert_array_equal(scaled.indices, plain.indices)
    np.testing.assert_allclose(scaled.weights, plain.weights, atol=1e-12)
    np.testing.assert_allclose(mgm.diameter(scaled, z * dtype(two)), two * mgm.diameter(plain, z), rtol=1e-12)
    np.testing.assert_allclose(mgm.affinity(scaled, z * dtype(two)), mgm.affinity(plain, z), atol=1e-9)


@pytest.mark.parametrize("bandwidth", [1e-200, 1e200])
def test_extreme_bandwidths_have_their_limits(bandwidth):
    """Far below all distances no candidate is similar; far above, all are, and the nearest one suffices."""
    z = clustered(100, 8, np.random.default_rng(5))
    graph = mgm.nnk(z, 10, kernel="rbf", bandwidth=bandwidth)
    assert (graph.n_neighbors == (0 if bandwidth < 1 else 1)).all()
    assert graph.converged.all()


def test_certified_weights_satisfy_the_float64_conditions_to_single_precision():
    z = clustered(400, 2048, np.random.default_rng(1)).astype(np.float32)
    graph = mgm.nnk(z, 30, solver="certified")
    unit = z.astype(float) / np.linalg.norm(z.astype(float), axis=1, keepdims=True)
    kernel = 0.5 + 0.5 * unit @ unit.T
    worst = []
    for q in np.flatnonzero(graph.single):
        s, theta = graph.indices[q], graph.weights[q]
        gradient = kernel[np.ix_(s, s)] @ theta - kernel[s, q]
        worst.append(np.where(theta > 0, np.abs(gradient), np.maximum(-gradient, 0)).max())
    assert len(worst) > 300 and 1e-12 < max(worst) <= 1e-6


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), copies=st.integers(0, 60), power=st.integers(0, 6))
def test_no_certificate_is_wrong(engine, seed, copies, power):
    """Close pairs, near copies and collinear points: whatever float32 cannot tell is done in float64."""
    rng = np.random.default_rng(seed)
    z = clustered(120, 24, rng)
    near = rng.integers(0, 120, copies)
    z = np.concatenate([z, z[near] + 10.0**-power * rng.standard_normal((copies, 24))])
    z[:10] = z[10] + np.linspace(0, 1, 10)[:, None] * (z[11] - z[10])
    z = z.astype(np.float32)
    exact = mgm.nnk(z, 12, duplicates="keep")
    certified = mgm.nnk(z, 12, duplicates="keep", solver="certified", engine=engine)
    sure = np.flatnonzero(certified.single)
    ours, theirs = neighbor_sets(certified), neighbor_sets(exact)
    assert [ours[i] for i in sure] == [theirs[i] for i in sure]
    np.testing.assert_array_equal(certified.kkt <= 1e-9, certified.converged)  # what is left open says so
    assert certified.converged.mean() > 0.98


def test_certificates_agree():
    """The loop's and the tensor's, on problems at the edge of what rounding could change."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((300, 12, 9))
    features /= np.linalg.norm(features, axis=2, keepdims=True)
    query = features[:, :3].mean(1) + 0.1 * rng.standard_normal((300, 9))
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    kernel = 0.5 + 0.5 * features @ features.transpose(0, 2, 1)
    target = 0.5 + 0.5 * np.einsum("qmd,qd->qm", features, query)
    near, known, both = np.arange(12), np.ones(12, bool), []
    for k, c in zip(kernel, target, strict=True):
        theta = np.zeros(12)
        both.append((lawson_hanson.solve_one(k, known, k, near, 0.0, c, 2e-4, 1e-6, theta)[1], theta))
    theta = torch.tensor(np.stack([theta for _, theta in both]))
    found = tableau.certain(torch.tensor(kernel), torch.tensor(target), theta, 2e-4, 1e-6).numpy()
    loop = np.array([certain for certain, _ in both])
    assert (found == loop).mean() > 0.99 and 0.05 < loop.mean() < 0.95


@pytest.mark.parametrize("kernel", [{"kernel": "cosine"}, {"kernel": "rbf", "bandwidth": 3.0}])
@pytest.mark.parametrize("solver", ["exact", "certified"])
def test_block_size_and_threads_change_nothing(solver, kernel):
    z = clustered(700, 32, np.random.default_rng(2)).astype(np.float32)
    base = mgm.nnk(z, 20, solver=solver, threads=1, **kernel)
    for other in (
        mgm.nnk(z, 20, solver=solver, threads=2, **kernel),
        mgm.nnk(z, 20, solver=solver, block_bytes=2**16, **kernel),
        mgm.nnk(z, 20, solver=solver, block_bytes=2**21, **kernel),
    ):
        np.testing.assert_array_equal(other.support, base.support)
        np.testing.assert_array_equal(other.indices, base.indices)
        np.testing.assert_allclose(other.weights, base.weights, atol=1e-9 if solver == "exact" else 1e-4)


def test_copies_do_not_bias_the_count():
    """Half of the rows twice: every point keeps the neighbours that it has without the copies."""
    rng = np.random.default_rng(3)
    z = clustered(600, 48, rng).astype(np.float32)
    order = rng.permutation(900)
    source = np.concatenate([np.arange(600), rng.permutation(600)[:300]])[order]
    few = mgm.nnk(z, 20, solver="certified")
    many = mgm.nnk(z[source], 20, solver="certified")
    assert many.n_duplicates == 300
    np.testing.assert_array_equal(many.n_neighbors, few.n_neighbors[source])
    expected = [(reference_weights(z, i, few.indices[i]) > 1e-6).sum() for i in range(0, 600, 20)]
    np.testing.assert_array_equal(few.n_neighbors[::20], expected)


# --- the search ---


@pytest.mark.parametrize("kernel", [{"kernel": "cosine"}, {"kernel": "rbf", "bandwidth": 1.0}])
@pytest.mark.parametrize("block_bytes", [2**29, 2**16])
@pytest.mark.parametrize("n", [40, 300, 2000])
def test_nearest_is_a_full_sort(n, block_bytes, kernel):
    """Integer coordinates: products are exact and ties abound, and go to the earlier row."""
    z = np.random.default_rng(n).integers(-3, 4, (n // 2, 4)).astype(np.float32)
    z[(z == 0).all(1)] = 1
    z = np.concatenate([z, -z])  # of mean 0: centring keeps the integers
    points, rows = check_points(z, **kernel), torch.arange(n)
    keys = points.keys(rows, torch.float32)
    half = (keys * keys).sum(1) / 2 if kernel["kernel"] == "rbf" else torch.zeros(n)
    score = (keys @ keys.T - half).fill_diagonal_(-torch.inf).numpy()
    expected = np.argsort(-score, axis=1, kind="stable")[:, :9]
    for queries in (rows, rows[::7]):
        near, found, _ = nearest(points, rows, queries, 9, torch.float32, block_bytes, 1)
        np.testing.assert_allclose(found, np.take_along_axis(score, expected, 1)[queries], atol=1e-6)
        if kernel["kernel"] == "rbf":  # sums of small integers: not one bit is lost
            np.testing.assert_array_equal(near, expected[queries])
    by_topk = _by_topk(keys, half, rows, 9, block_bytes)
    np.testing.assert_allclose(by_topk[1], np.take_along_axis(score, expected, 1), atol=1e-6)


def test_the_fastest_product_is_a_product():
    a, b = (torch.randn(n, 96, generator=torch.Generator().manual_seed(n)) for n in (70, 50))
    expected = a.double() @ b.double().T
    out = torch.empty(70, 50)
    assert products.fastest(torch.get_num_threads()) in ("default", "onednn")
    torch.testing.assert_close(products.product(a, b, out), expected.float(), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(products._onednn(a, b), expected.float(), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("kernel", [{"kernel": "cosine"}, {"kernel": "rbf", "bandwidth": 6.0}])
def test_approximate_search_reports_its_recall(kernel):
    z = clustered(3000, 24, np.random.default_rng(4), clusters=20).astype(np.float32)
    exact, rough = mgm.nnk(z, 15, **kernel), mgm.nnk(z, 15, search="approximate", **kernel)
    found = np.mean(
        [len(np.intersect1d(a, b)) / 15 for a, b in zip(exact.indices, rough.indices, strict=True)]
    )
    assert exact.recall == 1
    assert 0.8 < rough.recall <= 1 and abs(rough.recall - found) < 0.05
    assert rough.converged.all() and rough.kkt.max() <= 1e-12
    assert (rough.indices != np.arange(3000)[:, None]).all()


def test_approximate_search_finds_enough_where_cells_are_small():
    z = np.random.default_rng(5).standard_normal((400, 6)).astype(np.float32)
    graph = mgm.nnk(z, 200, search="approximate")
    assert (graph.indices >= 0).all() and graph.converged.all()
    assert all(len(set(row)) == 200 for row in graph.indices)


# --- memory ---


def test_memory_stays_bounded():
    """All products of nine thousand points are 320 MB; with 8 MB blocks the search takes far less."""
    code = (
        "import re, sys, numpy as np, mgmlib as mgm\n"
        "status = lambda: open('/proc/self/status').read()\n"  # ru_maxrss would start from the parent's
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', status())[1]) / 2**10\n"
        "draw = lambda n: np.random.default_rng(0).standard_normal((n, 16), dtype=np.float32)\n"
        "mgm.nnk(draw(2000), 10, solver='certified')\n"
        "z = draw(9000); before = peak()\n"
        "mgm.nnk(z, 10, solver='certified', block_bytes=int(sys.argv[1])); print(peak() - before)"
    )
    root = Path(__file__).resolve().parents[1]
    run = lambda size: subprocess.run(  # noqa: E731
        [sys.executable, "-c", code, str(size)], cwd=root, capture_output=True, text=True, check=True
    )
    whole, blocked = (float(run(size).stdout) for size in (2**29, 2**23))
    assert whole > 250 and blocked < 120
