"""The rival metrics against closed forms, plain references, published code, and their invariances."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import fractional_matrix_power, subspace_angles
from scipy.special import gammaln, ive
from torch.overrides import TorchFunctionMode

import mgmlib as mgm
from mgmlib.metrics import nearest, spectrum
from mgmlib.metrics.shapes import cube, sphere
from tests.truth import clustered, rotation

LEVINA_BICKEL = ("harmonic", "mean", "harmonic-unbiased", "mean-unbiased")
SPECTRAL = (mgm.rankme, mgm.nesum, mgm.stable_rank)
DIMENSIONS = (mgm.two_nn, mgm.levina_bickel)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def log_mean_exp_on_sphere(kappa, d):
    """Log E exp(κ u), u one coordinate of a uniform point of the unit sphere in R^d."""
    order = d / 2 - 1
    return gammaln(d / 2) + order * np.log(2 / kappa) + np.log(ive(order, kappa)) + kappa


def naive_uniformity(x, t):
    squared = torch.pdist(x).square()
    return torch.exp(-t * squared).mean().log()


def naive_limit(x, y, tau):
    n = len(x)
    others = [[j for j in range(n) if j != i] for i in range(n)]
    inner = torch.stack([torch.exp(x[i] @ y[others[i]].T / tau).mean().log() for i in range(n)])
    return inner.mean() - (x * y).sum(1).mean() / tau


def naive_spectral_loss(z1, z2, mu):
    clip = lambda z: torch.stack([r if r.norm() < mu**0.5 else r / r.norm() * mu**0.5 for r in z])  # noqa: E731
    a, b = clip(z1), clip(z2)
    n = len(a)
    attract = sum(a[i] @ b[i] for i in range(n)) / n
    repel = sum((a[i] @ b[j]) ** 2 for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return (repel - 2 * attract) / mu


# Alignment, uniformity and their limit


@pytest.mark.parametrize("alpha", [1, 2, 3.5])
def test_alignment_of_turned_pairs(alpha):
    """Points of a circle, each pair turned by its own angle δ: the chord is 2 sin(δ/2)."""
    angle, turn = np.linspace(0, 6, 50), np.linspace(0, 3, 50)
    x, y = (np.column_stack([np.cos(a), np.sin(a)]) for a in (angle, angle + turn))
    assert mgm.alignment(x, y, alpha) == pytest.approx(np.mean((2 * np.sin(turn / 2)) ** alpha), rel=1e-12)
    assert mgm.alignment(x, x, alpha) == 0


@pytest.mark.parametrize("n", [2, 3, 7, 40])
def test_uniformity_of_a_simplex(n):
    """All vertices of a regular simplex lie √(2n/(n − 1)) apart: −2t n/(n − 1), −4t for two poles."""
    x = unit(np.eye(n) - 1 / n)
    assert mgm.uniformity(x, t=1.5) == pytest.approx(-3 * n / (n - 1), rel=1e-12)


@pytest.mark.parametrize("d", [2, 3, 16, 256])
@pytest.mark.parametrize("t", [0.5, 2])
def test_uniform_sphere(d, t):
    """Expected potential e^{−2t} E e^{2t u}, near −2t in high dimension; the sampling error is O(1/N)."""
    x = sphere(2000, d - 1, np.random.default_rng(d))
    expected = log_mean_exp_on_sphere(2 * t, d) - 2 * t
    assert mgm.uniformity(x, t) == pytest.approx(expected, abs=8e-3)
    if d == 256:
        assert expected == pytest.approx(-2 * t + 2 * t * t / d, abs=1e-3)


def test_collapse_has_no_uniformity():
    assert mgm.uniformity(np.tile([[0.6, 0.8]], (50, 1))) == pytest.approx(0, abs=1e-12)


def test_uniformity_is_stable_where_potentials_underflow():
    assert mgm.uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]]), t=1000) == pytest.approx(-4000, rel=1e-12)


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_contrastive_loss_tends_to_its_limit(tau):
    """InfoNCE with M negatives drawn from the others: the gap shrinks as M grows, to nothing."""
    rng = np.random.default_rng(0)
    x, y = unit(rng.standard_normal((8, 3))), unit(rng.standard_normal((8, 3)))
    limit, gap = mgm.contrastive_limit(x, y, tau), []
    for m in (10, 100_000):
        loss = []
        for i in range(8):
            draws = rng.choice([j for j in range(8) if j != i], (1_000_000 // m, m))
            positive = np.exp(x[i] @ y[i] / tau)
            negative = np.exp(y @ x[i] / tau)[draws].sum(1)
            loss.append(np.mean(np.log(positive + negative)) - np.log(positive))
        gap.append(abs(np.mean(loss) - np.log(m) - limit))
    assert gap[1] < 5e-3 < gap[0]


@pytest.mark.parametrize("tau", [0.2, 0.5])
def test_contrastive_limit_of_uniform_and_aligned_features(tau):
    x = sphere(3000, 7, np.random.default_rng(0))
    expected = log_mean_exp_on_sphere(1 / tau, 8) - 1 / tau
    assert mgm.contrastive_limit(x, x, tau) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    "metric", [mgm.uniformity, lambda x, **o: mgm.contrastive_limit(x, x.flip(1), 0.3, **o)]
)
def test_blocks_change_neither_value_nor_gradient_and_bound_memory(metric):
    x = torch.as_tensor(sphere(700, 4, np.random.default_rng(0)))
    results, largest, kept = [], [], []
    for block_bytes in (2**27, 2**16):
        leaf, saved = x.clone().requires_grad_(), {}
        keep = lambda t, saved=saved: saved.update({t.data_ptr(): t.nbytes}) or t  # noqa: E731
        with _Largest() as seen:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
                value = metric(leaf, block_bytes=block_bytes)
            value.backward()
        results.append((value.detach(), leaf.grad))
        largest.append(seen.nbytes)
        kept.append(sum(saved.values()))
    assert largest[0] >= 8 * 699 * 700 and largest[1] <= 2**16
    assert max(kept) < 4 * x.nbytes
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


class _Largest(TorchFunctionMode):
    """Size of the largest tensor that any call returns, those made again for the gradient included."""

    nbytes = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.nbytes = max(self.nbytes, tensor.nbytes)
        return out


# The spectral contrastive loss


def test_spectral_loss_by_hand():
    z1, z2 = np.array([[1, 0], [0, 0.5]]), np.array([[0.5, 0], [0.5, 0.5]])
    assert mgm.spectral_contrastive_loss(z1, z2) == pytest.approx(-2 * 0.375 + 0.25 / 2)
    # μ = ¼: (1, 0) and (½, ½) are drawn back to length ½; products ¼, s in place of ½, ¼, with s = √2/8
    s = np.sqrt(2) / 8
    expected = (-2 * (0.25 + s) / 2 + s**2 / 2) / 0.25
    assert mgm.spectral_contrastive_loss(z1, z2, mu=0.25) == pytest.approx(expected)


def test_spectral_loss_minimiser_spans_the_top_eigenvectors():
    """Every pair of a small augmentation graph as often as its weight says: L-BFGS finds its eigenvectors."""
    rng = np.random.default_rng(1)
    m, k = 7, 3
    counts = rng.integers(0, 12, (m, m)) + np.diag(rng.integers(20, 60, m))
    counts = counts + counts.T
    w = counts / counts.sum()
    degree = w.sum(1)
    values, vectors = np.linalg.eigh(w / np.sqrt(np.outer(degree, degree)))
    left, right = (torch.as_tensor(np.repeat(i.ravel(), counts.ravel())) for i in np.indices((m, m)))
    f = torch.as_tensor(rng.standard_normal((m, k))).requires_grad_()
    optimizer = torch.optim.LBFGS([f], max_iter=400, line_search_fn="strong_wolfe", tolerance_grad=1e-12)
    mu = 1e4  # a ball that holds the minimiser

    def loss():
        optimizer.zero_grad()
        value = mu * mgm.spectral_contrastive_loss(f[left], f[right], mu=mu)
        value.backward()
        return value

    optimizer.step(loss)
    found = np.sqrt(degree)[:, None] * f.detach().numpy()
    n = len(left)  # a batch leaves out the pairs i = j, a share of 1/n
    assert np.rad2deg(subspace_angles(found, vectors[:, -k:]).max()) < 1
    assert loss().item() == pytest.approx(-(values[-k:] ** 2).sum(), rel=20 / n)


# Gradients, types


@pytest.mark.parametrize("shape", [(6, 4), (5, 9)])
def test_gradients_are_those_of_the_plain_formula(shape):
    rng = np.random.default_rng(0)
    a, b = (torch.as_tensor(rng.standard_normal(shape)) for _ in range(2))
    normal = torch.nn.functional.normalize
    pairs = {
        "alignment": (mgm.alignment, lambda x, y: (x - y).square().sum(1).mean(), normal),
        "uniformity": (lambda x, y: mgm.uniformity(x, 3), lambda x, y: naive_uniformity(x, 3), normal),
        "limit": (lambda x, y: mgm.contrastive_limit(x, y, 0.2), lambda x, y: naive_limit(x, y, 0.2), normal),
        "spectral": (
            lambda x, y: mgm.spectral_contrastive_loss(x, y, 4.0),
            lambda x, y: naive_spectral_loss(x, y, 4.0),
            lambda x: x,
        ),
    }
    for name, (ours, plain, prepare) in pairs.items():
        values, gradients = [], []
        for function in (ours, plain):
            leaves = [z.clone().requires_grad_() for z in (a, b)]
            values.append(function(*(prepare(z) for z in leaves)))
            values[-1].backward()
            gradients += [[leaf.grad if leaf.grad is not None else torch.zeros(shape) for leaf in leaves]]
        torch.testing.assert_close(values[0], values[1], msg=lambda m, name=name: f"{name}: {m}")
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other.to(one), msg=lambda m, name=name: f"{name}: {m}")


def test_gradients_are_finite_at_coinciding_and_zero_rows():
    x = torch.eye(3).repeat(2, 1).requires_grad_()
    z = torch.zeros(4, 3, requires_grad=True)
    total = mgm.alignment(x, x.detach()) + mgm.uniformity(x) + mgm.spectral_contrastive_loss(z, z)
    total.backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(z.grad).all()


def test_tensors_give_tensors_and_arrays_floats():
    x, y = (sphere(40, 3, np.random.default_rng(s)) for s in (0, 1))
    differentiable = (
        mgm.alignment,
        lambda x, y: mgm.uniformity(x),
        lambda x, y: mgm.contrastive_limit(x, y, 0.5),
        mgm.spectral_contrastive_loss,
    )
    for metric in differentiable:
        array = metric(x, y)
        assert isinstance(array, float)
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05)):
            tensor = metric(*(torch.as_tensor(v, dtype=dtype) for v in (x, y)))
            assert isinstance(tensor, torch.Tensor) and tensor.ndim == 0
            assert tensor.item() == pytest.approx(array, rel=tolerance, abs=tolerance)
    for metric in (*SPECTRAL, *DIMENSIONS, mgm.alpha_req):
        options = {"first": 1} if metric is mgm.alpha_req else {}
        values = [metric(v, **options) for v in (x, torch.as_tensor(x).requires_grad_(), x.tolist())]
        assert all(isinstance(v, float) for v in values)
        assert values == pytest.approx([values[0]] * 3, rel=1e-5)
    views = np.stack([x, y], 1)
    assert mgm.lidar(views) == pytest.approx(mgm.lidar(torch.as_tensor(views)))


# Ranks and the decay of the spectrum


@pytest.mark.parametrize("d", [1, 5, 64])
def test_identity_covariance_has_full_rank(d):
    """Rows ±e_i: centred, all singular values equal; every rank is d."""
    z = np.concatenate([np.eye(d), -np.eye(d)])
    assert mgm.rankme(z) == pytest.approx(d, rel=1e-4)
    for center in (False, True):
        assert mgm.nesum(z, center=center) == pytest.approx(d, rel=1e-12)
        assert mgm.stable_rank(z, center=center) == pytest.approx(d, rel=1e-12)


def test_orthonormal_rows_lose_one_direction_to_the_mean():
    z = np.eye(9) @ rotation(30, np.random.default_rng(0))[:9]
    assert mgm.stable_rank(z) == pytest.approx(9) and mgm.rankme(z) == pytest.approx(9, rel=1e-4)
    assert mgm.nesum(z) == pytest.approx(8) and mgm.rankme(z, center=True) == pytest.approx(8, rel=1e-4)


def test_nesum_and_stable_rank_coincide_once_centred_only():
    z = clustered(80, 10, np.random.default_rng(0))
    assert mgm.nesum(z) == mgm.stable_rank(z, center=True) == pytest.approx(mgm.stable_rank(z - z.mean(0)))
    assert mgm.nesum(z) > 1.2 * mgm.stable_rank(z)  # the mean is the longest direction


@pytest.mark.parametrize("n, d", [(200, 12), (12, 40), (700, 12)])
def test_ranks_match_the_plain_formulas_in_any_blocks(n, d, monkeypatch):
    monkeypatch.setattr(spectrum, "BLOCK_ROWS", 64)
    z = clustered(n, d, np.random.default_rng(0))
    sigma = np.linalg.svd(z, compute_uv=False)
    p = sigma / sigma.sum() + 1e-7
    assert mgm.rankme(z) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-10)
    assert mgm.stable_rank(z) == pytest.approx((sigma**2).sum() / sigma[0] ** 2, rel=1e-10)
    values = np.linalg.eigvalsh(np.cov(z.T))
    assert mgm.nesum(z) == pytest.approx(values.sum() / values[-1], rel=1e-10)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.5])
@pytest.mark.parametrize("ranks", [{}, {"first": 1}, {"first": 11, "last": 40}])
def test_power_law_gives_its_exponent(alpha, ranks):
    rng = np.random.default_rng(0)
    left = np.linalg.qr(np.column_stack([np.ones(300), rng.standard_normal((300, 60))]))[0][:, 1:]
    z = left * np.arange(1, 61) ** (-alpha / 2) @ rotation(60, rng) + 5.0
    assert mgm.alpha_req(z, **ranks) == pytest.approx(alpha, abs=1e-9)


def test_slope_is_weighted_by_rank():
    z = clustered(400, 50, np.random.default_rng(0))
    rank = np.arange(4, 31)
    values = np.linalg.eigvalsh(np.cov(z.T))[::-1][3:30]
    fit = lambda w: -np.polyfit(np.log(rank), np.log(values), 1, w=w)[0]  # noqa: E731 (polyfit squares w)
    assert mgm.alpha_req(z, 4, 30) == pytest.approx(fit(rank**-0.5), rel=1e-9)
    assert abs(fit(rank**-0.5) - fit(np.ones(27))) > 1e-3


def test_the_range_of_ranks_ends_where_the_spectrum_does():
    z = np.random.default_rng(0).standard_normal((100, 8)) @ np.random.default_rng(1).standard_normal((8, 30))
    assert mgm.alpha_req(z) == mgm.alpha_req(z, 4, 8)
    with pytest.raises(ValueError, match=r"first, last: expected three or more ranks in 1…8, got 4…9"):
        mgm.alpha_req(z, 4, 9)
    with pytest.raises(ValueError, match=r"ranks in 1…8, got 7…8"):
        mgm.alpha_req(z, 7)


# LiDAR


def test_one_dimensional_class_means_have_lidar_one():
    rng = np.random.default_rng(0)
    views = np.linspace(-3, 3, 30)[:, None, None] * rng.standard_normal(6)
    noise = rng.standard_normal((30, 4, 6))
    views = views + noise - noise.mean(1, keepdims=True)
    assert mgm.lidar(views) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("d", [2, 7])
def test_isotropic_classes_have_lidar_d(d):
    """Class means ±e_i, views that leave them by ±h along every axis: both covariances are round."""
    centers = np.concatenate([np.eye(d), -np.eye(d)])
    views = centers[:, None] + 0.3 * np.concatenate([np.eye(d), -np.eye(d)])
    assert mgm.lidar(views) == pytest.approx(d, rel=1e-4)
    stretched = views * np.geomspace(1, 100, d)
    assert mgm.lidar(stretched, delta=1e-12) == pytest.approx(d, rel=1e-4)  # rank in units of the views


@pytest.mark.parametrize("shape", [(30, 5, 8), (6, 3, 20)])
def test_lidar_matches_the_plain_formula(shape):
    rng = np.random.default_rng(0)
    views = rng.standard_normal(shape) + 2 * rng.standard_normal((shape[0], 1, shape[2]))
    means = views.mean(1)
    between = np.cov(means.T, bias=True)
    spread = (views - means[:, None]).reshape(-1, shape[2])
    half = fractional_matrix_power(spread.T @ spread / len(spread) + 1e-2 * np.eye(shape[2]), -0.5)
    values = np.linalg.eigvalsh(half @ between @ half).clip(0)
    p = values / values.sum() + 1e-7
    expected = np.exp(-(p * np.log(p)).sum())
    assert mgm.lidar(views, delta=1e-2) == pytest.approx(expected, rel=1e-6)
    order = rng.permutation(shape[0])
    assert mgm.lidar(views[order, ::-1] + 3.0, delta=1e-2) == pytest.approx(expected, rel=1e-6)


# Intrinsic dimension


def test_dimensions_match_scikit_dimension():
    from skdim.id import MLE, TwoNN

    z = cube(400, 5, np.random.default_rng(0)) @ rotation(12, np.random.default_rng(1))[:5]
    expected = {
        "harmonic": MLE().fit(z, n_neighbors=15).dimension_,
        "mean": MLE().fit(z, n_neighbors=15, comb="mean").dimension_,
        "harmonic-unbiased": MLE(unbiased=True).fit(z, n_neighbors=15).dimension_,
        "mean-unbiased": MLE(unbiased=True).fit(z, n_neighbors=15, comb="mean").dimension_,
    }
    for variant, value in expected.items():
        assert mgm.levina_bickel(z, 15, variant) == pytest.approx(value, rel=1e-9)
    # Its empirical distribution starts at 0 instead of 1/N, else it is the same fit.
    assert mgm.two_nn(z) == pytest.approx(TwoNN().fit(z).dimension_, rel=0.02)


@pytest.mark.parametrize("discard", [0.0, 0.1, 0.4])
def test_two_nn_matches_the_plain_formula(discard):
    z = np.random.default_rng(0).standard_normal((150, 8))
    distance = np.sort(np.linalg.norm(z[:, None] - z, axis=2), axis=1)
    mu = np.sort(distance[:, 2] / distance[:, 1])
    kept = min(int(150 * (1 - discard)), 149)
    x, y = np.log(mu[:kept]), -np.log(1 - np.arange(1, kept + 1) / 150)
    assert mgm.two_nn(z, discard=discard) == pytest.approx(np.linalg.lstsq(x[:, None], y)[0][0], rel=1e-9)
    assert mgm.two_nn(z, "mle") == pytest.approx(149 / np.log(mu).sum(), rel=1e-9)


@pytest.mark.parametrize("shape", [cube, sphere])
@pytest.mark.parametrize("dim, tolerance", [(1, 0.12), (2, 0.12), (4, 0.12), (8, 0.25)])
def test_known_dimensions(shape, dim, tolerance):
    """Within the stated share; borders make estimates low as the dimension grows."""
    rng = np.random.default_rng(dim)
    flat = shape(1500, dim, rng)
    z = flat @ rotation(20, rng)[: flat.shape[1]]
    for estimate in (
        mgm.two_nn(z),
        mgm.two_nn(z, "mle"),
        mgm.levina_bickel(z),
        mgm.levina_bickel(z, 10, "mean-unbiased"),
    ):
        assert estimate == pytest.approx(dim, rel=tolerance)


def test_variants_differ_as_stated():
    z = cube(500, 5, np.random.default_rng(0))
    found = {variant: mgm.levina_bickel(z, 20, variant) for variant in LEVINA_BICKEL}
    for kind in ("harmonic", "mean"):
        assert found[f"{kind}-unbiased"] == pytest.approx(found[kind] * 18 / 19, rel=1e-12)
    assert found["mean"] / found["harmonic"] == pytest.approx(19 / 18, rel=0.03)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), extra=st.integers(1, 60), scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e30])
)
def test_dimensions_see_neither_copies_nor_motion_nor_scale(seed, extra, scale):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((60, 6))
    moved = (z @ rotation(6, rng) + rng.standard_normal(6)) * scale
    moved = rng.permutation(np.concatenate([moved, moved[rng.integers(0, 60, extra)]]))
    for estimate in (*DIMENSIONS, lambda x: mgm.levina_bickel(x, 5, "mean"), lambda x: mgm.two_nn(x, "mle")):
        assert estimate(moved) == pytest.approx(estimate(z), rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]))
def test_ranks_see_neither_rotation_nor_scale_nor_order(seed, scale):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((40, 9)) * np.geomspace(1, 0.1, 9) + rng.standard_normal(9)
    moved = rng.permutation(z) @ rotation(9, rng) * scale
    for metric in (*SPECTRAL, lambda x: mgm.alpha_req(x, 1)):
        assert metric(moved) == pytest.approx(metric(z), rel=1e-8)
    assert mgm.nesum(moved + scale) == pytest.approx(mgm.nesum(z), rel=1e-8)
    assert mgm.rankme(z + 5) != pytest.approx(mgm.rankme(z), rel=1e-3)


def test_distances_do_not_depend_on_blocks_and_stay_exact_far_from_the_origin():
    rng = np.random.default_rng(0)
    tight = np.repeat(rng.standard_normal((5, 4)) * 1e3, 30, 0) + 1e-3 * rng.standard_normal((150, 4))
    expected = np.sort(np.linalg.norm(tight[:, None] - tight, axis=2), axis=1)[:, 1:8]
    for block_bytes in (2**27, 2**12):
        found = nearest.nearest_distances(tight, 7, block_bytes).numpy()
        np.testing.assert_allclose(found / found[0, 0], expected / expected[0, 0], rtol=1e-6)


# Cluster learnability


def blobs(rng, classes=6, each=20, d=8, spread=1e-3):
    return np.repeat(unit(rng.standard_normal((classes, d))), each, 0) + spread * rng.standard_normal(
        (classes * each, d)
    )


def test_separate_clusters_are_learnt_at_once():
    assert mgm.cluster_learnability(blobs(np.random.default_rng(0)), 6) == 1


def test_clusters_within_noise_are_hard_to_learn():
    """Two halves of an isotropic cloud in many dimensions: neighbours say little about the side."""
    z = np.random.default_rng(0).standard_normal((400, 200))
    assert 0.5 < mgm.cluster_learnability(z, 2) < 0.9
    assert mgm.cluster_learnability(z) < 0.6


def test_learnability_matches_scikit_learn():
    """One half is known, the other asked: the plain way, with scikit-learn's classifier."""
    from sklearn.cluster import KMeans
    from sklearn.neighbors import KNeighborsClassifier

    z = unit(np.random.default_rng(1).standard_normal((121, 5)))
    labels = KMeans(11, n_init=3, random_state=3).fit_predict(z)
    rng, scores = np.random.default_rng(3), []
    for _ in range(4):
        order = rng.permutation(121)
        known, held = order[:61], order[61:]
        model = KNeighborsClassifier(1, metric="cosine").fit(z[known], labels[known])
        scores.append(model.score(z[held], labels[held]))
    assert mgm.cluster_learnability(z, draws=4, seed=3) == pytest.approx(np.mean(scores), abs=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30, 1e200])
def test_learnability_sees_neither_rotation_nor_scale(scale):
    rng = np.random.default_rng(0)
    z = blobs(rng, spread=0.3)
    moved = z @ rotation(8, rng) * scale
    assert mgm.cluster_learnability(moved) == pytest.approx(mgm.cluster_learnability(z), abs=0.02)


def test_clid_adds_standardised_parts():
    learnable, dimension = np.array([0.2, 0.4, 0.9]), np.array([3.0, 30.0, 12.0])
    found = mgm.clid(learnable, dimension)
    standard = [(v - v.mean()) / v.std() for v in (learnable, dimension)]
    assert found == pytest.approx(sum(standard)) and found.sum() == pytest.approx(0)
    assert mgm.clid(10 * learnable + 1, dimension / 7) == pytest.approx(found), "no part has a scale"


# Errors

UNIT = np.eye(4)
NAN = np.array([[1.0, 0.0], [np.nan, 1.0], [0.0, 1.0]])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: mgm.alignment(UNIT, 2 * UNIT), r"y: expected rows of norm 1 .* row 0 has norm 2"),
        (lambda: mgm.alignment(UNIT, UNIT[:3]), r"y: expected the shape of x, \(4, 4\), got \(3, 4\)"),
        (lambda: mgm.alignment(UNIT, UNIT, 0), "alpha: expected a positive number, got 0"),
        (lambda: mgm.uniformity(0 * UNIT), "x: expected rows of norm 1"),
        (lambda: mgm.uniformity(NAN), r"x: row 1 holds NaN or Inf"),
        (lambda: mgm.uniformity(UNIT[:1]), "x: expected 2 rows or more, got 1"),
        (lambda: mgm.uniformity(UNIT, -1), "t: expected a positive number"),
        (lambda: mgm.contrastive_limit(UNIT, UNIT, float("nan")), "tau: expected a positive number"),
        (lambda: mgm.spectral_contrastive_loss(UNIT, NAN), "z2: row 1 holds NaN"),
        (lambda: mgm.spectral_contrastive_loss(UNIT, UNIT[:, :2]), "z2: expected the shape of z1"),
        (lambda: mgm.rankme(np.zeros((5, 3))), "z: no spectrum, every row is zero"),
        (lambda: mgm.nesum(np.full((50, 3), 0.1)), "z: no spectrum, every row is the same point"),
        (lambda: mgm.alpha_req(np.ones(5)), r"z: expected shape \(N, d\)"),
        (lambda: mgm.lidar(UNIT), r"views: expected shape \(G, V, d\), G and V ≥ 2, got \(4, 4\)"),
        (lambda: mgm.lidar(np.ones((3, 2, 4))), "views: the mean over views is the same"),
        (lambda: mgm.lidar(np.ones((3, 2, 4)), delta=0), "delta: expected a positive number"),
        (lambda: mgm.two_nn(NAN), "z: row 1 holds NaN"),
        (lambda: mgm.two_nn(np.ones((9, 2))), "z: 2 neighbours need 3 distinct rows, got 1 of 9"),
        (lambda: mgm.two_nn(UNIT), "z: first and second neighbours lie equally far"),
        (lambda: mgm.two_nn(UNIT, "best"), "variant: got 'best', expected one of fit, mle"),
        (lambda: mgm.two_nn(UNIT, discard=1), "discard: expected a share"),
        (lambda: mgm.levina_bickel(UNIT, 3), "z: the 3 nearest neighbours lie equally far"),
        (lambda: mgm.levina_bickel(UNIT, 4), "z: 4 neighbours need 5 distinct rows, got 4 of 4"),
        (lambda: mgm.levina_bickel(UNIT, 2), "k: expected 3 neighbours or more, got 2"),
        (lambda: mgm.levina_bickel(UNIT, 3, "median"), "variant: got 'median'"),
        (lambda: mgm.cluster_learnability(NAN), r"z: row 1 holds NaN"),
        (lambda: mgm.cluster_learnability(UNIT[:3]), "n_clusters: expected 2…N/2 for N = 3 rows, got 2"),
        (lambda: mgm.cluster_learnability(0 * UNIT), "z: row 0, 1, 2, 3 is the zero vector"),
        (lambda: mgm.cluster_learnability(UNIT, 3), "n_clusters: expected 2…N/2 for N = 4 rows, got 3"),
        (lambda: mgm.cluster_learnability(UNIT, draws=0), "draws: expected at least 1"),
        (lambda: mgm.clid([0.1, 0.2], [1.0]), "dimension: expected 2 finite numbers"),
        (lambda: mgm.clid([0.1, 0.1], [1.0, 2.0]), "learnability: expected 2 finite numbers"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
