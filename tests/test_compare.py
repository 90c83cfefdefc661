"""Models as vectors, their clusters, variance components and rank correlations, against known answers."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score

from mgmlib.compare import (
    agreement,
    clades,
    cut,
    gap_statistic,
    holm,
    partial_spearman,
    resampled_vectors,
    silhouettes,
    standardize,
    support,
    tree,
    variance_components,
    vectors_of_groups,
    vectors_of_summaries,
)
from mgmlib.metrics import METRICS


def table_of_groups(models=4, seeds=2, groups=5, seed=0):
    """Noise around a value for each model."""
    rng = np.random.default_rng(seed)
    rows = [
        {"model": f"m{m}", "seed": s, "manifold": manifold, "group": g}
        | {metric: m + rng.normal(0, 0.1) for metric in METRICS}
        for m in range(models)
        for s in range(seeds)
        for manifold in ("semantic", "crop")
        for g in range(groups)
    ]
    return pd.DataFrame(rows)


def blobs(sizes=(6, 6, 6), distance=20.0, d=5, seed=0):
    """Clusters far apart, and the label of each row."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return distance * np.eye(len(sizes), d)[labels] + rng.normal(size=(len(labels), d)), labels


# --- vectors ---


def test_a_vector_holds_mean_and_spread_over_groups_of_each_metric_and_the_mean_over_seeds():
    groups = table_of_groups()
    vectors = vectors_of_groups(groups)
    assert vectors.shape == (4, 2 * len(METRICS) * 2)
    part = groups[(groups["model"] == "m2") & (groups["manifold"] == "crop")].groupby("seed")["affinity"]
    assert np.isclose(vectors.loc["m2", ("crop", "affinity", "mean")], part.mean().mean())
    assert np.isclose(vectors.loc["m2", ("crop", "affinity", "spread")], part.std().mean())


def test_both_ways_to_a_vector_agree():
    groups = table_of_groups(seeds=1)
    long = groups.melt(["model", "seed", "manifold", "group"], list(METRICS), "metric")
    keys = ["model", "manifold", "metric"]
    summaries = long.groupby(keys, sort=False)["value"].agg(mean="mean", spread="std").reset_index()
    expected = vectors_of_groups(groups)
    found = vectors_of_summaries(summaries)
    assert np.allclose(found[expected.columns], expected)
    assert found.index.tolist() == expected.index.tolist()


def test_resamples_scatter_around_the_vectors_as_the_standard_error_says():
    groups = table_of_groups(seeds=1, groups=12)
    column = ("crop", "diameter", "mean")
    drawn = np.array([v.loc["m1", column] for v in resampled_vectors(groups, 600)])
    exact = vectors_of_groups(groups).loc["m1"]
    assert abs(drawn.mean() - exact[column]) < 0.02
    assert np.isclose(drawn.std(), exact["crop", "diameter", "spread"] / np.sqrt(12), rtol=0.15)


def test_models_share_the_draw_of_groups():
    groups = table_of_groups(models=2, seeds=1)
    twin = groups[groups["model"] == "m0"].assign(model="m1")
    same = pd.concat([groups[groups["model"] == "m0"], twin])
    for vectors in resampled_vectors(same, 5):
        assert np.allclose(vectors.loc["m0"], vectors.loc["m1"])


def test_resampling_needs_the_same_groups_in_every_model():
    groups = table_of_groups(seeds=1)
    with pytest.raises(ValueError, match="crop has another number of groups"):
        next(resampled_vectors(groups.drop(groups.index[-1]), 1))


def test_standardizing_leaves_out_what_does_not_vary():
    vectors = pd.DataFrame({"a": [1.0, 2, 3], "b": [5.0, 5, 5]})
    found = standardize(vectors)
    assert found.columns.tolist() == ["a"]
    assert np.isclose(found["a"].mean(), 0) and np.isclose(found["a"].std(ddof=0), 1)
    with pytest.raises(ValueError, match="all 3 models are the same"):
        standardize(vectors[["b"]])


# --- clusters ---


def test_clades_of_a_tree_of_four():
    rows = np.array([[0.0], [1], [10], [12]])
    assert clades(tree(rows)) == [{0, 1}, {2, 3}, {0, 1, 2, 3}]


def test_support_counts_the_trees_that_hold_a_clade():
    rows = np.array([[0.0], [1], [10], [12]])
    other = tree(np.array([[0.0], [10], [1], [12]]))  # {0, 2} and {1, 3}
    assert support(tree(rows), [tree(rows), other]).tolist() == [0.5, 0.5, 1.0]
    with pytest.raises(ValueError, match="at least one tree"):
        support(tree(rows), [])


@pytest.mark.parametrize("sizes", [(7, 7), (6, 6, 6), (5, 5, 5, 5)])
def test_distinct_clusters_are_counted_and_found(sizes):
    rows, labels = blobs(sizes)
    assert gap_statistic(rows, 7, n_reference=50)[1] == len(sizes)
    assert silhouettes(rows, range(2, 8)).idxmax() == len(sizes)
    assert adjusted_rand_score(labels, cut(tree(rows), len(sizes))) == 1


def test_one_cloud_is_one_cluster():
    found = [gap_statistic(np.random.default_rng(i).normal(size=(20, 6)), 6, 50)[1] for i in range(10)]
    assert np.mean(np.array(found) == 1) >= 0.8


def test_the_gap_wants_a_number_of_clusters_that_there_can_be():
    with pytest.raises(ValueError, match="k_max=9: expected 2…8"):
        gap_statistic(np.eye(8), 9)


def test_agreement_is_one_for_the_same_partition_and_chance_for_shuffled_labels():
    labels = np.repeat([0, 1, 2], 6)
    index, p = agreement(labels, np.array(["a", "b", "c"])[labels], 999)
    assert index == 1 and p < 0.01
    rng = np.random.default_rng(0)
    p = [agreement(rng.permutation(labels), labels, 199, seed)[1] for seed in range(60)]
    assert 0.35 < np.mean(p) < 0.75  # about uniform where there is nothing; ties push it up
    assert np.mean(np.array(p) < 0.05) < 0.15


# --- variance components ---


def simulate(m, s, i, deviation, seed=0):
    rng = np.random.default_rng(seed)
    draw = {
        "method": rng.normal(size=(m, 1, 1)),
        "seed": rng.normal(size=(m, s, 1)),
        "image": rng.normal(size=(1, 1, i)),
        "method × image": rng.normal(size=(m, 1, i)),
        "rest": rng.normal(size=(m, s, i)),
    }
    return sum(deviation[name] * part for name, part in draw.items())


def test_components_of_a_simulated_design_are_found():
    deviation = {"method": 2.0, "seed": 1.0, "image": 1.5, "method × image": 0.5, "rest": 0.8}
    total = sum(v**2 for v in deviation.values())
    found = [variance_components(simulate(30, 4, 40, deviation, seed)) for seed in range(20)]
    mean = pd.concat(found, axis=1).mean(axis=1)
    for name, value in deviation.items():
        assert abs(mean[name] - value**2 / total) < 0.04, name


def test_methods_with_fewer_seeds_leave_the_components_as_they_are():
    deviation = {"method": 2.0, "seed": 1.0, "image": 1.5, "method × image": 0.5, "rest": 0.8}
    total = sum(v**2 for v in deviation.values())
    found = []
    for seed in range(20):
        values = simulate(30, 3, 40, deviation, seed)
        values[:10, 1:] = values[10:18, 2:] = np.nan
        found.append(variance_components(values))
    mean = pd.concat(found, axis=1).mean(axis=1)
    for name, value in deviation.items():
        assert abs(mean[name] - value**2 / total) < 0.04, name


def test_a_missing_seed_that_no_method_has_changes_nothing():
    values = np.random.default_rng(0).normal(size=(5, 2, 8))
    padded = np.concatenate([values, np.full((5, 1, 8), np.nan)], axis=1)
    pd.testing.assert_series_equal(variance_components(padded), variance_components(values))


@pytest.mark.parametrize("hole", [(1, 0), (1, 1, 3)])
def test_a_hole_that_is_not_a_whole_last_seed_is_refused(hole):
    values = np.ones((4, 2, 6))
    values[hole] = np.nan
    with pytest.raises(ValueError, match="NaN in the last seeds"):
        variance_components(values)


@pytest.mark.parametrize("name", ["method", "seed", "image", "method × image", "rest"])
def test_a_single_source_takes_all(name):
    deviation = dict.fromkeys(("method", "seed", "image", "method × image", "rest"), 0.0) | {name: 1.0}
    shares = variance_components(simulate(25, 5, 25, deviation))
    assert shares[name] > 0.9 and np.isclose(shares.sum(), 1)


def test_one_seed_cannot_tell_seed_from_method():
    shares = variance_components(np.random.default_rng(0).normal(size=(5, 1, 8)))
    assert shares[["seed", "method × image"]].isna().all()
    assert np.isclose(shares.sum(), 1)


@pytest.mark.parametrize("shape", [(1, 2, 3), (4, 2, 1), (4, 3)])
def test_a_design_that_is_too_small_is_refused(shape):
    with pytest.raises(ValueError, match="values: expected finite numbers"):
        variance_components(np.zeros(shape))


def test_no_variation_is_refused():
    with pytest.raises(ValueError, match="all are equal"):
        variance_components(np.ones((3, 2, 4)))


# --- rank correlation ---


def test_without_controls_it_is_spearman():
    rng = np.random.default_rng(0)
    x = rng.normal(size=25)
    y = x + rng.normal(size=25)
    rho, p = partial_spearman(x, y)
    expected = spearmanr(x, y)
    assert np.isclose(rho, expected.statistic)
    assert abs(p - expected.pvalue) < 0.02


def test_a_common_cause_explains_the_correlation_away():
    rng = np.random.default_rng(1)
    cause = rng.normal(size=200)
    x, y = (cause + 0.5 * rng.normal(size=200) for _ in range(2))
    assert partial_spearman(x, y)[0] > 0.6
    rho, p = partial_spearman(x, y, cause)
    assert abs(rho) < 0.2 and p > 0.01


def test_the_closed_form_of_one_control():
    rng = np.random.default_rng(2)
    x, y, c = rng.normal(size=(3, 30))
    (xy, xc, yc) = (spearmanr(a, b).statistic for a, b in ((x, y), (x, c), (y, c)))
    expected = (xy - xc * yc) / np.sqrt((1 - xc**2) * (1 - yc**2))
    assert np.isclose(partial_spearman(x, y, c)[0], expected)


def test_the_p_of_nothing_is_uniform():
    rng = np.random.default_rng(3)
    p = [partial_spearman(*rng.normal(size=(3, 12)), n_permutations=199, seed=i)[1] for i in range(200)]
    assert np.mean(np.array(p) < 0.05) < 0.1
    assert 0.4 < np.mean(p) < 0.6


def test_what_the_control_determines_has_no_correlation_left():
    x = np.arange(10.0)
    assert partial_spearman(x, np.random.default_rng(0).normal(size=10), x**3) == (
        pytest.approx(np.nan, nan_ok=True),
        1,
    )


@pytest.mark.parametrize("y", [np.arange(4.0), [1, 2, np.nan, 4, 5, 6]])
def test_values_that_cannot_be_ranked_are_refused(y):
    with pytest.raises(ValueError, match="expected"):
        partial_spearman(np.arange(len(y)), y, np.arange(len(y)))


def test_holm_by_hand():
    assert np.allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert np.allclose(holm([0.5, 0.6]), [1, 1])
    with pytest.raises(ValueError, match="p: expected"):
        holm([1.2])
