"""The three metrics against closed forms, a plain reference, and their invariances."""

from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mgmlib as mgm
from mgmlib.graph import tiles
from mgmlib.metrics.polytopes import polytopes
from mgmlib.metrics.shapes import SHAPES, ball, lift, sphere
from tests.truth import clustered, reference_metrics, rotation

diameter_module, affinity_module = (
    import_module(f"mgmlib.metrics.{name}") for name in ("diameter", "affinity")
)


@pytest.mark.parametrize("kernel", [{"kernel": "cosine"}, {"kernel": "rbf", "bandwidth": 6.0}])
@pytest.mark.parametrize("grouped", [False, True])
def test_match_the_plain_reference(kernel, grouped):
    rng = np.random.default_rng(0)
    z, groups = clustered(160, 12, rng).astype(np.float32), np.repeat(np.arange(4), 40)
    rng.shuffle(groups)
    graph = mgm.nnk(z, 15, groups=groups if grouped else None, **kernel)
    diameter, affinity = reference_metrics(graph, z)
    np.testing.assert_allclose(mgm.diameter(graph, z), diameter, atol=1e-9)
    np.testing.assert_allclose(mgm.affinity(graph, z), affinity, atol=1e-6)


@pytest.mark.parametrize("grouped", [False, True])
def test_subset_of_queries_gives_the_same_numbers(grouped):
    z = clustered(150, 10, np.random.default_rng(1))
    groups = np.arange(150) % 3 if grouped else None
    every, some = mgm.nnk(z, 12, groups=groups), mgm.nnk(z, 12, groups=groups, queries=[140, 2, 2, 77])
    for metric in (mgm.diameter, mgm.affinity):
        np.testing.assert_allclose(metric(some, z), metric(every, z)[some.queries], atol=1e-9)


def test_large_groups_are_tiled_without_a_trace(monkeypatch):
    z = clustered(300, 10, np.random.default_rng(2))
    graph = mgm.nnk(z, 8)
    expected = mgm.diameter(graph, z), mgm.affinity(graph, z)
    monkeypatch.setattr(tiles, "LARGEST", 120)
    np.testing.assert_allclose(mgm.diameter(graph, z), expected[0], atol=1e-9)
    np.testing.assert_allclose(mgm.affinity(graph, z), expected[1], atol=1e-9)


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_great_spheres_count_their_dimension(dim):
    """Points of S^d in a larger space: d + 1 neighbours as the sample grows, never more."""
    rng = np.random.default_rng(dim)
    z = sphere(1500, dim, rng) @ rotation(20, rng)[: dim + 1]
    graph = mgm.nnk(z, 40)
    assert dim < graph.n_neighbors.mean() <= dim + 1 + 1e-9


def test_flat_patch_has_affinity_one_and_the_diameter_of_its_spacing():
    """A line: each inner point has its two neighbours, twice the spacing apart, and all tangents agree."""
    x = np.arange(40.0)[:, None] * 1e-3
    z = np.column_stack([x, np.ones(40)])
    graph = mgm.nnk(z, 10)
    inner = slice(2, -2)
    np.testing.assert_array_equal(graph.n_neighbors[inner], 2)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    np.testing.assert_allclose(
        mgm.diameter(graph, z)[inner], np.linalg.norm(unit[3:-1] - unit[1:-3], axis=1), atol=1e-9
    )
    assert mgm.affinity(graph, z)[inner].min() > 0.999


@pytest.mark.parametrize("radius", [0.5, 2.0, 10.0])
def test_diameter_follows_scale_and_affinity_does_not(radius):
    """With the RBF kernel and a bandwidth in proportion, geometry scales: diameters by the radius alone."""
    x = sphere(200, 2, np.random.default_rng(0))
    unit, scaled = (mgm.nnk(r * x, 20, kernel="rbf", bandwidth=0.4 * r) for r in (1.0, radius))
    np.testing.assert_array_equal(scaled.support, unit.support)
    np.testing.assert_allclose(mgm.diameter(scaled, radius * x), radius * mgm.diameter(unit, x), rtol=1e-9)
    np.testing.assert_allclose(mgm.affinity(scaled, radius * x), mgm.affinity(unit, x), atol=1e-8)


@pytest.mark.parametrize("pitch", [0.05, 0.5, 3.0])
def test_helix_has_the_affinity_of_its_osculating_planes(pitch):
    """Each polytope is an osculating plane; two planes in space share a line and open by one angle ψ:

    affinity = √((1 + cos² ψ) / 2), with cos ψ from the binormals.
    """
    t = np.linspace(0, 6, 25)
    z = np.column_stack([np.cos(t), np.sin(t), pitch * t])
    step = z[1:] - z[:-1]
    graph = mgm.nnk(z, 10, kernel="rbf", bandwidth=np.linalg.norm(step[0]))
    assert all(set(graph.neighbors(i)) == {i - 1, i + 1} for i in range(3, 22))
    binormal = np.cross(step[:-1], step[1:])
    binormal /= np.linalg.norm(binormal, axis=1, keepdims=True)
    cosine = (binormal[:-1] * binormal[1:]).sum(1)
    expected = np.sqrt((1 + cosine**2) / 2)  # the turn is the same on both sides, all along a helix
    np.testing.assert_allclose(mgm.affinity(graph, z)[4:21], expected[4:21], atol=1e-7)
    assert expected.max() < 1 - 1e-5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(20, 60), d=st.integers(6, 20))
def test_invariances(seed, n, d):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, d)) + 2 * rng.standard_normal(d)
    measure = lambda x: np.array([f(mgm.nnk(x, 5), x) for f in (mgm.diameter, mgm.affinity)])  # noqa: E731
    base, order = measure(z), rng.permutation(n)
    np.testing.assert_allclose(measure(z[order]), base[:, order], atol=1e-7)
    np.testing.assert_allclose(measure(z @ rotation(d, rng)), base, atol=1e-7)
    np.testing.assert_allclose(measure(z * rng.uniform(0.1, 9, (n, 1))), base, atol=1e-7)
    assert np.abs(measure(z - z.mean(0)) - base).max() > 1e-3  # moving the origin is no symmetry


def test_rank_zero_is_undefined_and_counted():
    """A point whose only neighbour is its own copy has no subspace: NaN there, never in a mean."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((40, 8))
    z = np.concatenate([z, z[:1]])
    affinity = mgm.affinity(mgm.nnk(z, 10, duplicates="keep"), z)
    assert np.isnan(affinity[[0, 40]]).all() and np.isfinite(affinity[1:40]).all()
    table = mgm.manifold_metrics(z, k=10, duplicates="keep").set_index("metric")
    assert table.loc["affinity", "n_undefined"] == 2 and np.isfinite(table.loc["affinity", "mean"])
    np.testing.assert_allclose(table.loc["affinity", "mean"], np.nanmean(affinity))


def test_summary_is_what_it_says():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), [10, 12, 14, 16, 18, 20, 22, 24])
    z = clustered(len(groups), 12, rng)
    points, table = mgm.point_metrics(z, groups, 10), mgm.manifold_metrics(z, groups, 10).set_index("metric")
    for metric in ("diameter", "affinity", "n_neighbors"):
        row = table.loc[metric]
        by_group = points.groupby("group")[metric].mean()
        assert row["mean"] == pytest.approx(points[metric].mean())
        assert row["spread"] == pytest.approx(by_group.std(ddof=1))
        assert row["low"] < row["mean"] < row["high"] and row["n_groups"] == 8
        assert row["standard_error"] == pytest.approx(row["spread"] / np.sqrt(8), rel=0.35)
    again = mgm.manifold_metrics(z, groups, 10).set_index("metric")
    assert table.equals(again)


def test_interval_covers_the_truth():
    """Groups drawn from one population: the 90 % interval of a mean holds the population's in about 90 %."""
    rng = np.random.default_rng(0)
    draw = lambda g: np.concatenate([lift(ball(12, 2, rng), 1 + 2 * rng.random()) for _ in range(g)])  # noqa: E731
    truth = mgm.manifold_metrics(draw(1500), np.repeat(np.arange(1500), 12), 8).set_index("metric")["mean"]
    hits = []
    for seed in range(60):
        table = mgm.manifold_metrics(draw(25), np.repeat(np.arange(25), 12), 8, confidence=0.9, seed=seed)
        table = table.set_index("metric")
        hits.append((table["low"] <= truth) & (truth <= table["high"]))
    rate = np.mean(hits)
    assert 0.78 < rate < 0.98


def test_random_queries_estimate_the_mean():
    z = clustered(600, 12, np.random.default_rng(3))
    full = mgm.manifold_metrics(z, k=15).set_index("metric")
    part = mgm.manifold_metrics(z, k=15, queries=150, seed=1).set_index("metric")
    assert (part["n_points"] == 150).all()
    error = (part["mean"] - full["mean"]).abs() / part["standard_error"]
    assert (error < 4).all() and (error > 0).any()


@pytest.mark.parametrize("dim", [1, 2, 4, 8])
@pytest.mark.parametrize("n", [40, 400])
def test_calibrated_dimension_recovers_the_truth(n, dim):
    """On a shape that the curve was not drawn from: a rotated cylinder-like product of ball and cube."""
    rng = np.random.default_rng([n, dim])
    flat = np.column_stack([ball(n, 1, rng) ** 3, rng.beta(2, 2, (n, dim - 1)) * 2 - 1])
    z = lift(flat, 2.0) @ rotation(30, rng)[: dim + 1]
    curve = mgm.calibrate(n, 30)
    found = curve(mgm.nnk(z, 30).n_neighbors.mean()).iloc[0]
    assert found["low"] - 0.6 <= dim <= found["high"] + 0.6
    assert found["low"] <= found["dimension"] <= found["high"]


def test_calibration_beyond_the_curve_says_so():
    curve = mgm.calibrate(100, 20)
    found = curve([0.5, 4.0, 99.0])
    np.testing.assert_array_equal(found["inside"], [False, True, False])
    assert curve.curve["count"].is_monotonic_increasing and set(curve.table["shape"]) == set(SHAPES)
    with pytest.raises(ValueError, match="shapes"):
        mgm.calibrate(100, 20, shapes=("klein bottle",))


def test_metrics_refuse_other_points():
    z = np.random.default_rng(0).standard_normal((30, 4))
    graph = mgm.nnk(z, 5)
    with pytest.raises(ValueError, match="z: the graph was made from 30"):
        mgm.diameter(graph, z[:20])


@pytest.mark.parametrize("kernel", [{"kernel": "cosine"}, {"kernel": "rbf", "bandwidth": 6.0}])
@pytest.mark.parametrize("grouped", [False, True])
def test_loops_and_torch_are_each_others_oracle(kernel, grouped):
    """The CPU loops against the code for any device, close pairs of points among the data."""
    rng = np.random.default_rng(4)
    z = clustered(240, 12, rng)
    z[:40] = z[40:80] * (1 + 1e-3 * rng.standard_normal((40, 12)))
    graph = mgm.nnk(z, 15, groups=np.arange(240) % 4 if grouped else None, **kernel)
    for tile in polytopes(graph, z, hops=2):
        loops = diameter_module._diameters(tile), affinity_module._affinities(tile)
        np.testing.assert_allclose(loops[0], diameter_module.in_torch(tile), atol=1e-9)
        np.testing.assert_allclose(loops[1], affinity_module.in_torch(tile), atol=1e-6)
