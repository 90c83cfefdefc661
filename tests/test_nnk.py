"""NNK against closed forms, an independent reference, and its invariances."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mgmlib as mgm
from mgmlib.graph import authors, fused, grams, lawson_hanson, tableau, tiles
from mgmlib.graph.points import check_points
from tests.truth import clustered, known_neighborhoods, reference_weights, rotation, weight_matrix

ENGINES = ["numba", "torch"]
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", list(known_neighborhoods()), ids=lambda case: case.name)
def test_known_neighborhoods(case, engine):
    graph = mgm.nnk(case.z, k=len(case.z), engine=engine, **case.kernel)
    assert set(graph.neighbors(0)) == case.neighbors
    for row, weight in case.weights.items():
        assert weight_matrix(graph, len(case.z))[0, row] == pytest.approx(weight, abs=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "d", "k"), [(60, 40, 30), (200, 30, 20), (300, 100, 50)])
def test_matches_scipy_on_explicit_features(n, d, k, dtype, engine):
    z = clustered(n, d, np.random.default_rng(n)).astype(dtype)
    graph = mgm.nnk(z, k, engine=engine)
    assert graph.converged.all() and graph.kkt.max() <= 1e-12
    for i in range(0, n, 7):
        expected = reference_weights(z, i, graph.indices[i])
        np.testing.assert_allclose(graph.weights[i], expected, atol=1e-7)
        np.testing.assert_array_equal(graph.support[i], expected > 1e-6)


def test_candidates_are_the_nearest_others():
    z = np.random.default_rng(0).standard_normal((150, 5))
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    expected = np.argsort(-cosine, axis=1, kind="stable")[:, :12]
    np.testing.assert_array_equal(mgm.nnk(z, 12).indices, expected)
    distance = np.linalg.norm(z[:, None] - z[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    rbf = mgm.nnk(z, 12, kernel="rbf", bandwidth=0.7)
    np.testing.assert_array_equal(rbf.indices, np.argsort(distance, axis=1, kind="stable")[:, :12])


def test_kkt_is_the_residual_of_the_stated_conditions():
    z = clustered(120, 20, np.random.default_rng(3))
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    kernel = 0.5 + 0.5 * unit @ unit.T
    for solver in ("exact", "authors"):
        graph = mgm.nnk(z, 15, solver=solver)
        for q in range(0, 120, 5):
            s, theta = graph.indices[q], graph.weights[q]
            gradient = kernel[np.ix_(s, s)] @ theta - kernel[s, q]
            violation = np.where(theta > 0, np.abs(gradient), np.maximum(-gradient, 0)).max()
            assert graph.kkt[q] == pytest.approx(violation, abs=1e-12)
    # The check can fail: the pruning rule is not optimal, and its residual says so.
    assert graph.kkt.max() > 1e-4


@settings(max_examples=40, deadline=None)
@given(seed=seeds, n=st.integers(12, 60), d=st.integers(2, 24), k=st.integers(2, 40))
def test_invariances(seed, n, d, k):
    """Rows may be permuted, space rotated, and each row scaled: the weights follow."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, d)) + rng.standard_normal(d)
    base = weight_matrix(mgm.nnk(z, k), n)
    order = rng.permutation(n)
    permuted = weight_matrix(mgm.nnk(z[order], k), n)
    turned = mgm.nnk(z @ rotation(d, rng), k)
    scaled = mgm.nnk(z * 10.0 ** rng.uniform(-30, 30, (n, 1)), k)
    if k > d:  # then K is singular and the weights need not be unique; the optimal value is
        kernel = _kernel(z)
        value = lambda w: 0.5 * np.einsum("qi,ij,qj->q", w, kernel, w) - (w * kernel).sum(1)  # noqa: E731
        compare = lambda a, b: np.testing.assert_allclose(value(a), value(b), atol=1e-11)  # noqa: E731
    else:
        compare = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8)  # noqa: E731
    compare(permuted[np.argsort(order)][:, np.argsort(order)], base)
    compare(weight_matrix(turned, n), base)
    compare(weight_matrix(scaled, n), base)
    # None of this holds by accident: a map that is no rotation changes the weights.
    sheared = weight_matrix(mgm.nnk(z * np.linspace(1, 4, d), k), n)
    assert np.abs(sheared - base).max() > 1e-3


def _kernel(z):
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    return 0.5 + 0.5 * unit @ unit.T


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    m=st.integers(1, 30),
    rank=st.integers(1, 30),
    copies=st.integers(0, 5),
    power=st.integers(0, 5),
)
def test_solvers_are_each_others_oracle(seed, m, rank, copies, power):
    """On semi-definite problems, singular or ill-conditioned, both engines reach the same optimum."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((m, rank)) * 10.0 ** -rng.uniform(0, power, rank)
    features[: min(copies, m)] = features[-1]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    query = features.T @ rng.random(m) + 0.3 * rng.standard_normal(rank)
    query /= np.linalg.norm(query)
    kernel, target = (0.5 + 0.5 * features @ features.T)[None], (0.5 + 0.5 * features @ query)[None]
    cpu = lawson_hanson.solve(kernel, target, threads=1)
    device = tableau.solve(torch.tensor(kernel), torch.tensor(target)).numpy()
    for theta, limit in ((cpu, 1e-12), (device, 1e-5)):
        gradient = (kernel @ theta[:, :, None])[:, :, 0] - target
        assert (theta >= 0).all() and (gradient >= -limit).all()
        assert (np.abs(gradient) <= limit)[theta > 0].all()
    value = lambda t: 0.5 * t @ kernel[0] @ t - target[0] @ t  # noqa: E731
    assert value(device[0]) == pytest.approx(value(cpu[0]), abs=1e-9)


def test_torch_engine_redoes_what_its_pivots_leave():
    """Nearly coincident points are too close for the sweeps, and come back exact all the same."""
    rng = np.random.default_rng(0)
    z = np.repeat(rng.standard_normal((20, 6)), 4, axis=0) + 1e-6 * rng.standard_normal((80, 6))
    graph = mgm.nnk(z, 30, engine="torch")
    assert graph.converged.all()
    assert graph.kkt.max() <= 1e-9


@pytest.mark.parametrize("engine", ENGINES)
def test_groups_are_sets_of_their_own(engine):
    rng = np.random.default_rng(1)
    z, groups = rng.standard_normal((90, 8)), rng.integers(0, 4, 90) * 10 - 5
    graph = mgm.nnk(z, 50, groups=groups, engine=engine)
    for name in np.unique(groups):
        rows = np.flatnonzero(groups == name)
        alone = weight_matrix(mgm.nnk(z[rows], 50), len(rows))
        np.testing.assert_allclose(weight_matrix(graph, 90)[np.ix_(rows, rows)], alone, atol=1e-9)
        assert (graph.indices[rows, len(rows) - 1 :] == -1).all()
        assert np.isin(graph.indices[rows, : len(rows) - 1], rows).all()


def test_queries_are_rows_of_the_whole():
    z = np.random.default_rng(2).standard_normal((80, 6))
    every, some = mgm.nnk(z, 20), mgm.nnk(z, 20, queries=[7, 3, 7, 79])
    np.testing.assert_array_equal(some.queries, [7, 3, 7, 79])
    np.testing.assert_array_equal(some.indices, every.indices[some.queries])
    np.testing.assert_allclose(some.weights, every.weights[some.queries], atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_groups_of_any_size_have_the_weights_of_scipy(dtype, scale):
    """Groups of unequal sizes with copies, rows out of order, all others candidates: scipy's weights."""
    rng = np.random.default_rng(8)
    groups = rng.permutation(np.repeat([0, 1, 2, 3], [3, 17, 50, 70]))
    z = clustered(140, 600, rng, clusters=1, rank=9)
    members = np.flatnonzero(groups == 2)
    z[members[:5]] = z[members[-5:]]
    z = (z * scale).astype(dtype)
    graph = mgm.nnk(z, 80, groups=groups)
    assert graph.n_duplicates == 5 and graph.converged.all() and graph.kkt.max() <= 1e-12
    for q in range(0, 140, 3):
        candidates = graph.indices[q][graph.indices[q] >= 0]
        assert len(candidates) == {0: 2, 1: 16, 2: 44, 3: 69}[groups[q]]
        expected = reference_weights(z / dtype(scale), q, candidates)
        np.testing.assert_allclose(graph.weights[q, : len(candidates)], expected, atol=1e-6)
        assert set(graph.neighbors(q)) == set(candidates[expected > 1e-6])


@pytest.mark.parametrize("kernel", [{"kernel": "cosine"}, {"kernel": "rbf", "bandwidth": 20.0}])
def test_order_and_company_of_groups_change_nothing(kernel):
    """A group's neighbourhoods do not depend on its place among others, of its size or of other sizes."""
    rng = np.random.default_rng(9)
    z = clustered(200, 40, rng, clusters=2).astype(np.float32)
    groups = np.repeat(np.arange(6), [50, 20, 50, 20, 10, 50])
    order = rng.permutation(200)
    plain, mixed = (
        mgm.nnk(z, 60, groups=groups, **kernel),
        mgm.nnk(z[order], 60, groups=groups[order], **kernel),
    )
    found = weight_matrix(mixed, 200)
    np.testing.assert_allclose(found, weight_matrix(plain, 200)[np.ix_(order, order)], atol=1e-9)
    np.testing.assert_array_equal(mixed.n_neighbors, plain.n_neighbors[order])


def test_steepest_is_the_first_of_the_largest_open_gradients():
    """Integers tie often, and what is not open may be larger still."""
    rng = np.random.default_rng(10)
    for m in range(1, 40):
        gradient, state = rng.integers(-2, 4, m) / 4, rng.integers(0, 3, m).astype(np.int8)
        gradient[rng.integers(m)] = -np.inf
        among = np.where(state == lawson_hanson.OPEN, gradient, -np.inf)
        expected = among.argmax() if among.max() > 0 else -1
        assert lawson_hanson._steepest(gradient, state) == expected


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 11])
def test_norms_are_those_of_each_row(n):
    z = np.random.default_rng(n).standard_normal((n, 70)).astype(np.float32)
    expected = np.linalg.norm(z.astype(float), axis=1)
    np.testing.assert_allclose(check_points(z).norm[:, 0], expected, rtol=1e-15)


@pytest.mark.parametrize("kernel", [{"kernel": "cosine"}, {"kernel": "rbf", "bandwidth": 5.0}])
def test_large_groups_give_the_same_answer(monkeypatch, kernel):
    """The path for sets beyond one tile, and any block size, against the path for small ones."""
    z = clustered(400, 16, np.random.default_rng(5)).astype(np.float32)
    small = mgm.nnk(z, 20, **kernel)
    monkeypatch.setattr(tiles, "LARGEST", 100)
    for block_bytes in (2**28, 2**14):
        large = mgm.nnk(z, 20, block_bytes=block_bytes, **kernel)
        np.testing.assert_array_equal(large.indices, small.indices)
        np.testing.assert_allclose(large.weights, small.weights, atol=1e-9)


@pytest.mark.parametrize("kernel", [{"kernel": "cosine"}, {"kernel": "rbf", "bandwidth": 1.0}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 50, 128, 129, 300])
def test_grams_of_any_size_are_the_plain_products(n, dtype, kernel):
    """In registers and by strips, rows out of order, the mean subtracted or not."""
    rng = np.random.default_rng(n)
    z = (rng.standard_normal((2 * n + 3, 37)) + 2).astype(dtype)
    points, ids = check_points(z, **kernel), rng.permutation(2 * n + 3)[: 2 * n].reshape(2, n)
    rows = z.astype(float)
    mean, norm = rows.mean(0), np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / norm if kernel["kernel"] == "cosine" else (rows - mean) / points.unit
    for center in (False, True):
        of_set = rows[ids] - center * rows[ids].mean(1, keepdims=True)
        found = points.gram(torch.tensor(ids), center=center)
        np.testing.assert_allclose(found, of_set @ of_set.transpose(0, 2, 1), atol=1e-12)
        np.testing.assert_array_equal(found, found.mT)


@pytest.mark.parametrize("d", [grams.COLUMNS - 1, grams.COLUMNS, 2 * grams.COLUMNS + 5])
def test_grams_of_any_width_are_the_plain_products(d):
    """Whole blocks of columns and what remains of them."""
    z = np.random.default_rng(d).standard_normal((20, d)).astype(np.float32) + 1
    rows = z / np.linalg.norm(z.astype(float), axis=1, keepdims=True)
    for center in (False, True):
        of_set = rows - center * rows.mean(0)
        found = check_points(z).gram(torch.arange(20)[None], center=center)[0]
        np.testing.assert_allclose(found, of_set @ of_set.T, atol=1e-13)


def test_thread_count_and_kinds_of_input_change_nothing():
    z = clustered(200, 16, np.random.default_rng(6))
    base = mgm.nnk(z, 20, threads=1)
    for other in (
        mgm.nnk(z, 20, threads=2),
        mgm.nnk(torch.tensor(z), 20),
        mgm.nnk(torch.tensor(z, requires_grad=True), 20),
    ):
        np.testing.assert_array_equal(other.weights, base.weights)
    half = z.astype(np.float16)
    np.testing.assert_array_equal(mgm.nnk(half).weights, mgm.nnk(half.astype(np.float32)).weights)


def test_thread_settings_are_left_alone():
    """Numba and torch share OpenMP: a solve must not change how many threads torch uses afterwards."""
    code = (
        "import numpy as np, torch, mgmlib as mgm;"
        "mgm.nnk(np.random.default_rng(0).standard_normal((30, 4)), 5);"
        "print(torch.get_num_threads())"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "1"


def test_authors_rule_is_what_pruning_gives():
    """Two rounds by hand: solve on all candidates, drop what is not positive, solve again, and stop there."""
    z = clustered(100, 30, np.random.default_rng(7))
    graph = mgm.nnk(z, 12, solver="authors")
    kernel = _kernel(z)
    for q in range(0, 100, 9):
        kept = graph.indices[q]
        while True:
            theta = np.linalg.solve(kernel[np.ix_(kept, kept)], kernel[kept, q])
            if (theta > 1e-6).all():
                break
            kept = kept[theta > 1e-6]
        assert set(graph.neighbors(q)) == set(kept)
        np.testing.assert_allclose(weight_matrix(graph, 100)[q, kept], theta, atol=1e-9)


def test_authors_rule_says_where_a_factor_failed():
    singular = torch.ones(1, 3, 3, dtype=torch.float64) - 1e-3 * torch.tensor(
        [[0.0, 1, 1], [1, 0, 1], [1, 1, 2]]
    )
    _, sound = authors.solve(singular.double(), torch.full((1, 3), 0.9, dtype=torch.float64), 1e-6)
    assert not sound.item()
    _, sound = authors.solve(torch.eye(3, dtype=torch.float64)[None], torch.full((1, 3), 0.5).double(), 1e-6)
    assert sound.item()


@pytest.mark.parametrize("n", [3, 8, 9, 50, 51])
@pytest.mark.parametrize("values", [2, 5, 10**9])
def test_members_of_a_group_are_ranked_best_first_ties_by_row(n, values):
    rng = np.random.default_rng(n)
    for query in (0, n // 2, n - 1):
        score, near = rng.integers(values, size=n).astype(float), np.full(n - 1, -1)
        expected = np.argsort(-score, kind="stable")
        fused._rank(score, query, near)
        np.testing.assert_array_equal(near, expected[expected != query])
