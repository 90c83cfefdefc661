"""Duplicates, degenerate sets and bad input: the exact answer or a clear error, never NaN."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mgmlib as mgm
from mgmlib.graph.duplicates import FEW, _directions, _first_line, representatives
from mgmlib.graph.points import check_points

CASES = int(os.environ.get("CASES", 150))  # of adversarial sets; `make cases` draws 10,000


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(6, 40), extra=st.integers(1, 40), scaled=st.booleans())
def test_copies_change_nothing(seed, n, extra, scaled):
    """Any multiset of copies, in any order and at any length: each copy sees what the original saw."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, 7))
    source = np.concatenate([np.arange(n), rng.integers(0, n, extra)])
    length = 10.0 ** rng.uniform(-3, 3, (n + extra, 1)) if scaled else 1.0
    order = rng.permutation(n + extra)
    source, many = source[order], (z[source] * length)[order]
    few, all_of_them = mgm.nnk(z, 5), mgm.nnk(many, 5)
    assert all_of_them.n_duplicates == extra
    np.testing.assert_array_equal(all_of_them.n_neighbors, few.n_neighbors[source])
    np.testing.assert_array_equal(source[all_of_them.indices], few.indices[source])
    np.testing.assert_allclose(all_of_them.weights, few.weights[source], atol=1e-9)
    np.testing.assert_allclose(mgm.affinity(all_of_them, many), mgm.affinity(few, z)[source], atol=1e-6)
    np.testing.assert_allclose(mgm.diameter(all_of_them, many), mgm.diameter(few, z)[source], atol=1e-9)


def test_keep_treats_rows_as_they_are():
    """A copy of the query is its perfect neighbour, which is why merging is the default."""
    z = np.random.default_rng(0).standard_normal((30, 6))
    twice = np.concatenate([z, z[:1]])
    graph = mgm.nnk(twice, 10, duplicates="keep")
    assert list(graph.neighbors(0)) == [30] and graph.weights[0, 0] == pytest.approx(1)
    assert graph.n_duplicates == 1 and graph.converged.all()
    assert mgm.nnk(twice, 10).n_neighbors[0] == mgm.nnk(z, 10).n_neighbors[0] > 1


def test_error_policy_names_the_pair():
    z = np.random.default_rng(0).standard_normal((10, 3))
    with pytest.raises(ValueError, match=r"row 10 repeats row 4 \(1 duplicates\)"):
        mgm.nnk(np.concatenate([z, 2 * z[4:5]]), 5, duplicates="error")


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1.0, 1e30, 1e38])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_copies_are_found_at_any_scale(scale, dtype):
    z = np.random.default_rng(0).uniform(1, 3, (500, 64)).round(1)
    z = (np.concatenate([z, z[:100]]) * scale).astype(dtype)
    assert mgm.nnk(z, 5).n_duplicates == 100


def test_copies_in_other_groups_are_other_points():
    z = np.tile(np.random.default_rng(0).standard_normal((10, 4)), (3, 1))
    graph = mgm.nnk(z, 5, groups=np.repeat([0, 1, 2], 10))
    assert graph.n_duplicates == 0
    np.testing.assert_allclose(graph.weights[:10], graph.weights[20:], atol=1e-9)


def test_resolution_separates_rounding_from_distance():
    """Float32 rounding is one point; ten times the resolution is two."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((5, 64))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    step = rng.standard_normal(64)
    step -= step @ z[0] * z[0]
    step *= 1 / np.linalg.norm(step)
    groups = np.zeros(6, dtype=np.int64)
    for distance, merged in ((1e-7, True), (1e-5, False)):
        points = check_points(np.vstack([z, z[0] + distance * step]).astype(np.float32))
        assert (representatives(points, groups)[5] == 0) == merged


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_that_meet_on_the_first_line_are_told_apart_by_the_others(dtype):
    """Every row lies at the same place on the first line; true copies of some are found all the same."""
    rng = np.random.default_rng(1)
    z = rng.standard_normal((60, 32))
    line = _directions(check_points(z.astype(dtype)), columns=32, count=1)[:, 0].numpy()
    z -= np.outer(z @ line, line)
    z = (z / np.linalg.norm(z, axis=1, keepdims=True) + line)[np.r_[:60, :10]]
    groups = np.zeros(70, dtype=np.int64)
    np.testing.assert_array_equal(representatives(check_points(z.astype(dtype)), groups), np.r_[:60, :10])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_that_agree_in_the_first_columns_are_told_apart_by_the_rest(dtype):
    """Images with an empty border: a line through few columns says nothing, and all columns are looked at."""
    rng = np.random.default_rng(1)
    z = rng.standard_normal((300, FEW + 100)).astype(dtype)
    z[:, :FEW] = 0
    z = z[np.r_[:300, :10]]
    points, groups = check_points(z), np.zeros(310, dtype=np.int64)
    line, order = _first_line(points, groups, reach=8 * points.resolution)
    assert (np.diff(np.sort(line[:300])) > 0).all() and (np.diff(line[order]) >= 0).all()
    np.testing.assert_array_equal(representatives(points, groups), np.r_[:300, :10])


@pytest.mark.parametrize("columns", [3, FEW, FEW + 1, 4 * FEW])
def test_copies_are_found_at_any_width(columns):
    """Fewer, as many and more columns than the first line weighs; rows may differ in the last one alone."""
    z = np.random.default_rng(0).standard_normal((50, columns)).astype(np.float32)
    z[1], z[3] = z[0], z[2]
    z[3, -1] += 0.1
    first = representatives(check_points(z), np.zeros(50, dtype=np.int64))
    np.testing.assert_array_equal(np.flatnonzero(first != np.arange(50)), [1])


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_resolution_follows_the_units_of_rbf(scale):
    """What is one point does not depend on the units in which an RBF kernel's coordinates are given."""
    x = np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32)
    x[1] = x[0]
    x[2] = x[3] + np.float32(1e-4)
    graph = mgm.nnk(np.float32(scale) * x, 8, kernel="rbf", bandwidth=scale)
    assert graph.n_duplicates == 1


def test_a_thousand_copies_are_found_at_once():
    z = np.concatenate([np.ones((1000, 16)), np.random.default_rng(0).standard_normal((4, 16))])
    graph = mgm.nnk(z, 10)
    assert graph.n_duplicates == 999
    assert (graph.n_neighbors <= 4).all() and graph.converged.all()


@pytest.mark.parametrize("engine", ["numba", "torch"])
@settings(max_examples=CASES, deadline=None)
@given(data=st.data())
def test_adversarial_sets_are_exact_or_refused(engine, data):
    """Any dtype, scale, dimension, collinearity and multiplicity: a certified optimum or a ValueError."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n, d = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 6))
    dtype = data.draw(st.sampled_from([np.float16, np.float32, np.float64]))
    z = rng.integers(-2, 3, (n, d)) if data.draw(st.booleans()) else rng.standard_normal((n, d))
    if data.draw(st.booleans()):
        z[: n // 2] = z[:1]
    if data.draw(st.booleans()):
        z = z[:, :1] * rng.standard_normal((1, d)) + z[:1]
    with np.errstate(over="ignore", invalid="ignore"):
        z = (z * 10.0 ** data.draw(st.integers(-30, 30))).astype(dtype)
    rbf, extent = data.draw(st.booleans()), float(np.nan_to_num(np.abs(z).max(), posinf=1.0)) or 1.0
    width = extent * 10.0 ** data.draw(st.integers(-2, 2))
    kernel = dict(kernel="rbf", bandwidth=width) if rbf else {}
    try:
        graph = mgm.nnk(z, data.draw(st.integers(1, 30)), engine=engine, **kernel)
    except ValueError as error:
        with np.errstate(invalid="ignore"):
            norm = extent if rbf else np.linalg.norm(z.astype(float), axis=1, keepdims=True)
            unit = z / np.maximum(norm, 1e-300)
        distinct = len(np.unique(unit.round(5), axis=0))
        reasons = {
            "NaN or Inf": not np.isfinite(z).all(),
            "zero vector": not rbf and (z == 0).all(1).any(),
            "distinct points": distinct < 3,
        }
        assert any(reason in str(error) and true for reason, true in reasons.items()), error
        return
    assert graph.converged.all() and (graph.kkt <= 1e-9).all()
    assert (graph.n_neighbors >= 0).all() and np.isfinite(graph.weights).all()
    assert np.isfinite(mgm.diameter(graph, z)).all()
    affinity = mgm.affinity(graph, z)
    assert ((affinity >= 0) & (affinity <= 1) | np.isnan(affinity)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(z=np.ones(5)), r"z: expected shape \(N, d\)"),
        (dict(z=np.ones((4, 0))), r"z: expected shape \(N, d\)"),
        (dict(z=np.ones((0, 4))), r"z: expected shape \(N, d\)"),
        (dict(z=np.full((4, 2), np.nan)), "z: row 0, 1, 2, 3 holds NaN or Inf"),
        (dict(z=np.array([[1, 0], [0, 0], [0, 1], [1, 1.0]])), "z: row 1 is the zero vector"),
        (dict(z=np.ones((9, 3))), r"the set has 1 distinct points \(9 rows\), NNK needs at least 3"),
        (dict(z=np.ones((4, 2)) * 1j), "z: expected real numbers"),
        (dict(z=np.eye(4) * 1e200, kernel="rbf", bandwidth=1), "beyond 1e"),
        (dict(k=0), "k: expected a positive integer, got 0"),
        (dict(k=2.5), "k: expected a positive integer, got 2.5"),
        (dict(groups=[0, 0, 0]), r"groups: expected shape \(4,\)"),
        (dict(groups=[0, 0, 0, 7]), "group 7 has 1 distinct points"),
        (dict(queries=[4]), r"queries: rows lie in 0…3, got 4…4"),
        (dict(queries=[]), "queries: expected a non-empty list"),
        (dict(queries=[True, False]), "queries: expected a non-empty list of row numbers"),
        (dict(solver="fast"), "solver: got 'fast', expected one of exact, certified, authors"),
        (dict(kernel="linear"), "kernel: got 'linear', expected one of cosine, rbf"),
        (dict(kernel="rbf"), "bandwidth: the RBF kernel needs a positive number, got None"),
        (dict(duplicates="drop"), "duplicates: got 'drop'"),
        (dict(engine="cuda"), "engine: got 'cuda'"),
        (dict(tol=1), r"tol: expected a number in \[0, 1\)"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        mgm.nnk(**({"z": np.eye(4)} | change))
