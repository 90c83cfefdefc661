"""The half-precision screen: it may propose too many, never miss one, and knows when it is no use."""

import numpy as np
import pytest
import torch

import mgmlib as mgm
from mgmlib.graph import products, ranks
from mgmlib.graph import screen as screen_module
from mgmlib.graph.nearest import nearest
from mgmlib.graph.points import check_points
from tests.truth import clustered

BLOCK = 2**29


@pytest.fixture
def screening(monkeypatch):
    """Screen small sets too, on any machine; returns a list of what each screen answered."""
    answers, original = [], screen_module.screen

    def remembered(*arguments):
        answers.append(original(*arguments))
        return answers[-1]

    monkeypatch.setattr(screen_module, "half_gain", lambda threads: 5.0)
    monkeypatch.setattr(screen_module, "LEAST_ROWS", 300)
    monkeypatch.setattr(screen_module, "LEAST_WIDTH", 2)
    monkeypatch.setattr("mgmlib.graph.nearest.screen", remembered)
    return answers


def search(z, wide, dtype=torch.float32, block_bytes=BLOCK, **kernel):
    points, rows = check_points(z, **kernel), torch.arange(len(z))
    return nearest(points, rows, rows, wide, dtype, block_bytes, 1)


def scores(z, kernel):
    """(n, n) float64 scores, −∞ on the diagonal."""
    points = check_points(z.astype(float), **kernel)
    rows = points.rows(torch.arange(len(z)))
    half = rows.square().sum(1) / 2 if kernel["kernel"] == "rbf" else 0
    return (rows @ rows.T - half).fill_diagonal_(-torch.inf).numpy()


KERNELS = [{"kernel": "cosine"}, {"kernel": "rbf", "bandwidth": 5.0}]


@pytest.mark.parametrize("kernel", KERNELS, ids=["cosine", "rbf"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block_bytes", [BLOCK, 2**21])
@pytest.mark.parametrize("shift", [0.0, 20.0])
def test_a_screened_search_is_the_full_search(screening, shift, block_bytes, dtype, kernel):
    """A mean far off (embeddings after a ReLU have one) would drown in bfloat16; it is taken out first."""
    z = (clustered(1500, 64, np.random.default_rng(5), clusters=12) + shift).astype(dtype)
    z *= np.random.default_rng(6).uniform(0.5, 2, (len(z), 1)) if kernel["kernel"] == "cosine" else 1
    near, score, _ = search(z, 12, getattr(torch, dtype.__name__), block_bytes, **kernel)
    assert screening[-1] is not None
    true = scores(z, kernel)
    expected = np.sort(true, axis=1)[:, : -12 - 1 : -1]
    atol = 1e-5 * abs(expected).max() if dtype is np.float32 else 1e-9
    np.testing.assert_allclose(score, expected, atol=atol)
    np.testing.assert_allclose(np.take_along_axis(true, near.numpy(), 1), expected, atol=atol)


@pytest.mark.parametrize("kernel", KERNELS, ids=["cosine", "rbf"])
@pytest.mark.parametrize("lengths", [1.0, 30.0])
def test_the_bound_holds_for_every_pair(kernel, lengths):
    rng = np.random.default_rng(7)
    z = clustered(500, 300, rng).astype(np.float32) * rng.uniform(1, lengths, (500, 1)).astype(np.float32)
    points = check_points(z, **kernel)
    keys = points.keys(torch.arange(500), torch.float32)
    half = (keys * keys).sum(1) / 2 if kernel["kernel"] == "rbf" else torch.zeros(500)
    coarse = screen_module._Coarse.of(keys, half, points.rounding[0], 10, 1)
    told = (coarse.rows @ coarse.rows.T).float().numpy() - coarse.offset
    true = scores(z, kernel)
    np.fill_diagonal(true, np.diag((keys @ keys.T - half).numpy()))
    off = true - told  # but for a constant of the row
    assert (off.max(1) - off.min(1) <= 2 * coarse.error).all()
    assert coarse.error.mean() < 100 * abs(off - np.median(off, 1, keepdims=True)).mean()


def test_ties_go_to_the_earlier_row(screening):
    """Integer coordinates that bfloat16 holds: nothing is lost, and ties abound."""
    z = np.random.default_rng(8).integers(-2, 3, (400, 4)).astype(np.float32)
    z = np.concatenate([z, -z])
    near, _, _ = search(z, 9, kernel="rbf", bandwidth=1.0)
    expected = np.argsort(-scores(z, {"kernel": "rbf", "bandwidth": 1.0}), axis=1, kind="stable")[:, :9]
    np.testing.assert_array_equal(near, expected)


def test_rows_with_too_many_candidates_are_searched_in_full(screening):
    """A clump far narrower than the rounding: hundreds could be nearest, and the right ones are found."""
    rng = np.random.default_rng(9)
    z = clustered(3000, 48, rng, clusters=24)
    z[800:920] = z[800] + 1e-3 * rng.standard_normal((120, 48))
    z = z.astype(np.float32)
    near, _, _ = search(z, 10, kernel="rbf", bandwidth=5.0)
    tiles, doubt = screening[-1]
    assert tiles and np.isin(np.arange(800, 920), doubt).all() and len(doubt) < 150
    true = scores(z, {"kernel": "rbf", "bandwidth": 5.0})
    expected = np.sort(true, axis=1)[:, :-11:-1]
    np.testing.assert_allclose(np.take_along_axis(true, near.numpy(), 1), expected, atol=1e-4)


def test_no_structure_no_screen(screening):
    """Isotropic points share no neighbourhoods: the full products are the shorter way."""
    z = np.random.default_rng(10).standard_normal((1500, 64)).astype(np.float32)
    near, _, kept = search(z, 12)
    assert screening[-1] is None and kept is not None
    true = scores(z, {"kernel": "cosine"})
    np.testing.assert_array_equal(near, np.argsort(-true, axis=1)[:, :12])


@pytest.mark.parametrize("attribute, value", [("LEAST_ROWS", 10**6), ("LEAST_WIDTH", 10**4)])
def test_small_sets_are_not_screened(screening, monkeypatch, attribute, value):
    monkeypatch.setattr(screen_module, attribute, value)
    search(clustered(400, 32, np.random.default_rng(0)).astype(np.float32), 5)
    assert screening == [None]


def test_lists_that_do_not_fit_are_not_made(screening):
    z = clustered(400, 32, np.random.default_rng(0)).astype(np.float32)
    search(z, 5, block_bytes=2**15)
    assert screening == [None]


def test_slow_half_precision_is_not_used(screening, monkeypatch):
    monkeypatch.setattr(screen_module, "half_gain", lambda threads: 1.0)
    search(clustered(400, 32, np.random.default_rng(0)).astype(np.float32), 5)
    assert screening == [None]


@pytest.mark.parametrize("solver", ["exact", "certified"])
def test_graphs_are_the_same_with_and_without(screening, monkeypatch, solver):
    rng = np.random.default_rng(11)
    z = clustered(1500, 96, rng, clusters=12).astype(np.float32)
    z[rng.permutation(1500)[:100]] = z[0]
    some = np.sort(rng.permutation(1500)[:1100])
    screened = mgm.nnk(z, 15, solver=solver, queries=some)
    assert screening[-1] is not None
    monkeypatch.setattr(screen_module, "half_gain", lambda threads: 1.0)
    direct = mgm.nnk(z, 15, solver=solver, queries=some)
    assert screening[-1] is None
    np.testing.assert_array_equal(screened.indices, direct.indices)
    np.testing.assert_array_equal(screened.support, direct.support)


def test_gain_is_measured():
    assert 0.01 < products.half_gain(1) < 100


@pytest.mark.parametrize("n, count", [(40, 39), (40, 60), (300, 13), (5000, 59)])
def test_bounds_are_reached_by_as_many_as_asked(n, count):
    rng = np.random.default_rng(n)
    for row in (rng.standard_normal(n), rng.integers(0, 4, n).astype(float), np.zeros(n)):
        bound = ranks.reached(ranks.peaks_of(row, np.zeros(n), count), count)
        assert (row >= bound).sum() >= min(count, n)
        if n >= 5000 and len(np.unique(row)) == n:  # and no lower than it need be
            assert (row >= bound).sum() < 2 * count
