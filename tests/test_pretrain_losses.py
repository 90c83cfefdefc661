"""The losses, heads and memories of pretraining against lightly's, and against slow, plain references."""

import math

import pytest
import torch
from lightly.loss import (
    BarlowTwinsLoss,
    DINOLoss,
    NegativeCosineSimilarity,
    NTXentLoss,
    SwaVLoss,
    VICRegLoss,
)
from lightly.loss.swav_loss import sinkhorn as lightly_sinkhorn
from lightly.models.modules.memory_bank import MemoryBankModule
from lightly.models.utils import update_momentum
from lightly.utils.scheduler import cosine_schedule
from torch import nn

from mgmlib.pretrain import losses
from mgmlib.pretrain.heads import Jigsaw, Prototypes, by_size, mlp, unit
from mgmlib.pretrain.memory import Bank, Clusters, Momentum, Queue, spherical_kmeans
from mgmlib.pretrain.methods.align_uniform import align_uniform_loss
from mgmlib.pretrain.methods.barlow import barlow_twins_loss
from mgmlib.pretrain.methods.deepcluster import nearest_centroid
from mgmlib.pretrain.methods.pcl import concentrations, proto_nce
from mgmlib.pretrain.methods.sigmoid import sigmoid_loss
from mgmlib.pretrain.methods.vicreg import vicreg_loss


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(*shape, seed=0):
    """Normal numbers, float64."""
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def sphere(*shape, seed=0):
    """Unit rows, float64."""
    return nn.functional.normalize(rows(*shape, seed=seed), dim=-1)


close = torch.testing.assert_close


# Contrastive losses


@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_nt_xent(tau):
    z1, z2 = sphere(12, 5, seed=1), sphere(12, 5, seed=2)
    close(losses.nt_xent(z1, z2, tau), NTXentLoss(tau)(z1, z2))


def test_info_nce_is_lightlys_with_a_memory_bank():
    query, key, negatives = sphere(12, 5, seed=1), sphere(12, 5, seed=2), sphere(40, 5, seed=3)
    theirs = NTXentLoss(0.2, memory_bank_size=(40, 5))
    theirs.memory_bank.bank = negatives.clone()
    close(losses.info_nce(query, key, negatives, 0.2), theirs(query, key))


def test_batch_nce_by_hand():
    """Orthogonal keys: log-sum-exp of one 1/tau and two zeros."""
    eye = torch.eye(3)
    close(losses.batch_nce(eye[:2], eye, 0.5), torch.tensor(math.log(math.exp(2) + 2) - 2))


def test_nce_by_its_definition():
    """Posterior h = P / (P + m / n) of each row's own memory and of each row of the noise (NPID, eq. 4-7)."""
    query, own, noise, tau, n = sphere(6, 4, seed=1), sphere(6, 4, seed=2), sphere(9, 4, seed=3), 0.3, 50
    z, m = 37.0, len(noise)
    posterior = lambda v, f: (p := math.exp(v @ f / tau) / z) / (p + m / n)  # noqa: E731
    loops = [
        -math.log(posterior(v, f)) - sum(math.log(1 - posterior(v, g)) for g in noise)
        for v, f in zip(query, own, strict=True)
    ]
    ours = losses.nce(query, own, noise, tau, torch.tensor(z).double().log(), n)
    assert ours.item() == pytest.approx(sum(loops) / len(loops), rel=1e-9)


def test_normalizer_is_the_whole_sum_when_the_noise_is_the_whole_bank():
    query, bank = sphere(5, 4, seed=1), sphere(30, 4, seed=2)
    whole = sum(math.exp(v @ f / 0.3) for v in query for f in bank) / len(query)
    assert losses.log_normalizer(query, bank, 0.3, 30).exp().item() == pytest.approx(whole, rel=1e-9)
    doubled = losses.log_normalizer(query, torch.cat([bank, bank]), 0.3, 30).exp().item()
    assert doubled == pytest.approx(whole, rel=1e-9), "noise drawn twice as often estimates the same Z"


def test_sigmoid_by_its_definition():
    z1, z2, scale, bias = sphere(7, 4, seed=1), sphere(7, 4, seed=2), 10.0, -9.0
    total = 0
    for i, x in enumerate(z1):
        for j, y in enumerate(z2):
            sign = 1 if i == j else -1
            total += math.log(1 + math.exp(-sign * (scale * float(x @ y) + bias)))
    log_scale, bias = torch.tensor(scale).double().log(), torch.tensor(bias).double()
    assert sigmoid_loss(z1, z2, log_scale, bias).item() == pytest.approx(total / 7, rel=1e-9)


def test_align_uniform_by_its_definition():
    z1, z2 = sphere(9, 4, seed=1), sphere(9, 4, seed=2)
    uniform = [torch.pdist(z).square().mul(-3).exp().mean().log() for z in (z1, z2)]
    expected = 2 * (z1 - z2).norm(dim=1).pow(1.5).mean() + 5 * sum(uniform) / 2
    close(align_uniform_loss(z1, z2, 1.5, 3, (2, 5)), expected)


# Regression and redundancy


def test_cosine_regression():
    z1, z2 = sphere(12, 5, seed=1), sphere(12, 5, seed=2)
    close(losses.cosine_regression(z1, z2), 2 + 2 * NegativeCosineSimilarity()(z1, z2))


@pytest.mark.parametrize("redundancy", [0.0051, 1.0])
def test_barlow_twins(redundancy):
    z1, z2 = rows(30, 6, seed=1), rows(30, 6, seed=2) * 3 + 1
    close(barlow_twins_loss(z1, z2, redundancy), BarlowTwinsLoss(redundancy)(z1, z2))


@pytest.mark.parametrize("weights", [(25, 25, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_vicreg(weights):
    z1, z2 = rows(30, 6, seed=1) * 0.3, rows(30, 6, seed=2) * 2 + 1  # on both sides of the variance hinge
    close(vicreg_loss(z1, z2, weights), VICRegLoss(*weights)(z1, z2))


# Clusters and codes


@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_sinkhorn(epsilon):
    scores = sphere(40, 8, seed=1) @ sphere(10, 8, seed=2).T
    close(losses.sinkhorn(scores, epsilon), lightly_sinkhorn(scores, iterations=3, epsilon=epsilon))


def test_sinkhorn_shares_rows_equally():
    scores = (sphere(60, 8, seed=1) @ sphere(10, 8, seed=2).T).float()
    before = scores.clone()
    q = losses.sinkhorn(scores, 0.5, iterations=100)
    close(q.sum(1), torch.ones(60))
    close(q.sum(0), torch.full((10,), 6.0))
    assert torch.equal(scores, before), "the argument is left as it was"


def test_sinkhorn_of_scores_far_apart_is_finite():
    scores = torch.full((8, 4), -1.0)
    scores[:, 0] = 1
    assert losses.sinkhorn(scores, 0.005).isfinite().all()


def test_swapped_prediction_is_swavs_loss():
    prototypes = sphere(10, 8, seed=9).T
    scores = [sphere(40, 8, seed=i) @ prototypes for i in range(6)]
    codes = [lightly_sinkhorn(s, iterations=3, epsilon=0.05) for s in scores[:2]]
    theirs = SwaVLoss(temperature=0.1)(scores[:2], scores[2:])
    ours = losses.swapped_prediction(scores, codes, 0.1)
    close(ours, theirs.squeeze())


def test_swapped_prediction_is_dinos_loss():
    taught, scores = [rows(20, 7, seed=i) for i in (1, 2)], [rows(20, 7, seed=i) for i in range(3, 9)]
    theirs = DINOLoss(7, student_temp=0.1)
    theirs.center = rows(1, 1, 7, seed=10)
    codes = [((t - theirs.center[0]) / 0.06).softmax(1) for t in taught]
    ours = losses.swapped_prediction(scores, codes, 0.1)
    close(ours, theirs(taught, scores, teacher_temp=0.06))


def test_swapped_prediction_takes_hard_labels():
    scores, labels = [rows(6, 3, seed=i) for i in range(3)], torch.tensor([0, 1, 2, 2, 1, 0])
    soft = nn.functional.one_hot(labels).double()
    ours = losses.swapped_prediction(scores, [labels, labels], 0.2)
    close(ours, losses.swapped_prediction(scores, [soft, soft], 0.2))


def test_cluster_losses_by_hand():
    """Two orthogonal centroids; a query on the first."""
    query, centroids, labels = torch.eye(2)[:1], torch.eye(2), torch.tensor([0])
    close(nearest_centroid(query, centroids, labels, 0.5), torch.tensor(math.log(math.exp(2) + 1) - 2))
    temperatures = torch.tensor([0.25, 7.0])
    close(proto_nce(query, centroids, temperatures, labels), torch.tensor(math.log(math.exp(4) + 1) - 4))
    close(proto_nce(query, centroids, temperatures, 1 - labels), torch.tensor(math.log(math.exp(4) + 1)))


def test_concentrations_by_hand():
    """Distances to the centroid are 1; sizes 2, 3, 1; the cluster of one takes the greatest."""
    centroids = torch.eye(4, dtype=torch.float64)[:3]
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    away = torch.eye(4, dtype=torch.float64)[3]
    points = centroids[labels] + away
    phi = torch.tensor([1 / math.log(12), 1 / math.log(13), 1 / math.log(12)], dtype=torch.float64)
    low, high = phi.quantile(0.1), phi.quantile(0.9)
    expected = phi.clamp(low, high)
    close(concentrations(points, centroids, labels, 0.2, 10), 0.2 * expected / expected.mean())


def test_looser_cluster_has_higher_temperature():
    centroids = torch.eye(3)
    tight, loose = torch.full((20, 3), 0.01), torch.full((20, 3), 0.2)
    points = torch.cat([centroids[0] + tight, centroids[1] + loose, centroids[2] + 2 * loose])
    labels = torch.arange(3).repeat_interleave(20)
    phi = concentrations(points, centroids, labels, 0.1, 10)
    assert phi[0] < phi[1] < phi[2]
    close(phi.mean(), torch.tensor(0.1))


def test_kmeans_finds_separate_clusters():
    centres = torch.eye(5)
    truth = torch.arange(5).repeat_interleave(30)
    points = unit(centres[truth] + 0.05 * torch.randn(150, 5, generator=rng()))
    found = [spherical_kmeans(points, 5, rng(seed)) for seed in range(8)]
    error = [(1 - (points * c[a]).sum(1)).sum().item() for c, a in found]
    centroids, labels = found[min(range(8), key=error.__getitem__)]
    assert len({(int(t), int(a)) for t, a in zip(truth, labels, strict=True)}) == 5
    means = torch.stack([unit(points[truth == t].mean(0)) for t in range(5)])
    close(centroids[labels[::30]], means)


def test_kmeans_improves_and_labels_the_nearest():
    points = sphere(200, 6).float()
    first = spherical_kmeans(points, 8, rng(1), iterations=0)
    last = spherical_kmeans(points, 8, rng(1), iterations=10)
    cosine = [(points * c[a]).sum() for c, a in (first, last)]
    assert cosine[1] > cosine[0] + 1
    assert torch.equal(last[1], (points @ last[0].T).argmax(1))
    close(last[0].norm(dim=1), torch.ones(8))


def test_kmeans_of_few_distinct_rows_stays_finite():
    points = torch.eye(3)[torch.tensor([0] * 20 + [1] * 2)]
    centroids, labels = spherical_kmeans(points, 6, rng())
    close(centroids.norm(dim=1), torch.ones(6))
    close((points * centroids[labels]).sum(1), torch.ones(22))
    with pytest.raises(ValueError, match="k=23: expected at most the number of rows, 22"):
        spherical_kmeans(points, 23, rng())


def test_clusters_know_whether_they_are_fitted():
    cells, points = Clusters(40, 6, 4, rng()), sphere(40, 6).float()
    assert not cells.fitted
    cells.fit(points, rng(1))
    assert cells.fitted
    assert torch.equal(cells.labels, spherical_kmeans(points, 4, rng(1))[1])


# Precision


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: losses.nt_xent(a, b, 0.1),
        lambda a, b: losses.info_nce(a, b, b, 0.1),
        lambda a, b: losses.batch_nce(a, b, 0.1),
        lambda a, b: losses.nce(a, b, b, 0.1, torch.tensor(3.0), 50),
        lambda a, b: losses.sinkhorn(a, 0.05),
        lambda a, b: barlow_twins_loss(a, b, 0.1),
        lambda a, b: vicreg_loss(a, b),
        lambda a, b: sigmoid_loss(a, b, torch.tensor(2.0), torch.tensor(-10.0)),
        lambda a, b: align_uniform_loss(a, b, 2, 2, (1, 1)),
        lambda a, b: proto_nce(a, b, torch.full((len(b),), 0.1), torch.arange(len(a))),
        lambda a, b: nearest_centroid(a, b, torch.arange(len(a)), 0.1),
    ],
)
def test_losses_are_float32_under_autocast(loss):
    a, b = sphere(16, 8, seed=1).float(), sphere(16, 8, seed=2).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert (a @ b.T).dtype == torch.bfloat16
        inside = loss(a, b)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, loss(a, b))


def test_half_precision_is_raised():
    a, b = sphere(16, 8, seed=1).bfloat16(), sphere(16, 8, seed=2).bfloat16()
    close(losses.nt_xent(a, b, 0.1), losses.nt_xent(a.float(), b.float(), 0.1))


# Heads


def test_mlp_layers():
    kinds = lambda net: [type(part).__name__ for part in net]  # noqa: E731
    assert kinds(mlp(8, 4, 2, layers=1)) == ["Linear"]
    assert kinds(mlp(8, 4, 2)) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert kinds(mlp(8, 4, 2, norm=False, activation=nn.GELU)) == ["Linear", "GELU", "Linear"]
    last = mlp(8, 4, 2, layers=3, last_norm=True)
    assert kinds(last)[-2:] == ["Linear", "BatchNorm1d"]
    assert last[-2].bias is None and not last[-1].affine
    assert last(torch.randn(16, 8, generator=rng())).shape == (16, 2)


def test_by_size_joins_neighbours_of_one_size():
    seen = []
    net = lambda x: seen.append(tuple(x.shape)) or x.mean((2, 3))  # noqa: E731
    views = [rows(4, 3, s, s, seed=i) for i, s in enumerate((8, 8, 6, 6, 6))]
    outputs = by_size(net, views)
    assert seen == [(8, 3, 8, 8), (12, 3, 6, 6)]
    for view, output in zip(views, outputs, strict=True):
        close(output, view.mean((2, 3)))


def test_prototypes_give_cosines():
    torch.manual_seed(0)
    prototypes, z = Prototypes(5, 7), rows(4, 5).float()
    expected = nn.functional.cosine_similarity(z[:, None], prototypes.weight[None], dim=2)
    close(prototypes(z), expected)
    with torch.no_grad():
        prototypes.weight.mul_(3)
    close(prototypes(z), expected)
    prototypes.normalize()
    close(prototypes.weight.norm(dim=1), torch.ones(7))


def test_frozen_prototypes_pass_the_gradient_on():
    torch.manual_seed(0)
    prototypes, z = Prototypes(5, 7), rows(4, 5).float().requires_grad_()
    close(prototypes(z, frozen=True), prototypes(z))
    prototypes(z, frozen=True).square().sum().backward()
    assert not prototypes.weight.grad.any()
    assert z.grad.any()


def test_jigsaw_reads_the_patches_in_order():
    torch.manual_seed(0)
    head = Jigsaw(nn.Linear(3, 4), 4)
    patches = rows(5, 9, 3, 8, 8).float()
    means = lambda x: x.mean((2, 3))  # noqa: E731
    each = [head.head(means(patches[:, i])) for i in range(9)]
    close(head(means, patches), head.join(torch.cat(each, 1)))
    assert not torch.allclose(head(means, patches), head(means, patches.flip(1)))


# Memories


def test_queue_keeps_the_last_keys():
    queue, keys = Queue(10, 3, rng()), sphere(28, 3).float()
    for batch in keys.split(4):
        before = queue.rows()
        queue.push(batch)
        assert not torch.equal(before, queue.rows()), "rows() is a copy"
    assert {tuple(r.tolist()) for r in queue.rows()} == {tuple(r.tolist()) for r in keys[-10:]}


def test_queue_is_lightlys_memory_bank():
    queue, theirs = Queue(12, 3, rng()), MemoryBankModule((12, 3), feature_dim_first=False)
    theirs.bank = queue.rows()
    for batch in sphere(20, 3).float().split(4):
        queue.push(batch)
        theirs(batch, update=True)
    assert torch.equal(queue.rows(), theirs.bank)


def test_bank_moves_rows_by_momentum():
    bank = Bank(6, 3, rng(), momentum=0.75)
    before, new = bank.rows.clone(), sphere(2, 3).float()
    bank.update(torch.tensor([4, 1]), new)
    for row, feature in ((4, new[0]), (1, new[1])):
        mixed = 0.75 * before[row] + 0.25 * feature
        close(bank.rows[row], mixed / mixed.norm())
    untouched = [0, 2, 3, 5]
    assert torch.equal(bank.rows[untouched], before[untouched])


def test_momentum_twin_is_lightlys():
    torch.manual_seed(0)
    net, moved = nn.Linear(4, 3), nn.Linear(4, 3)
    ours, theirs = Momentum(net, 0.9), nn.Linear(4, 3)
    theirs.load_state_dict(net.state_dict())
    for _ in range(3):
        ours.follow(moved, 0.5)
        update_momentum(moved, theirs, 0.9)
    close(ours.twin.weight, theirs.weight)
    x = rows(2, 4).float()
    assert not ours(x).requires_grad
    close(ours(x), theirs(x))


@pytest.mark.parametrize("step", [0, 3, 10])
def test_momentum_rises_to_one_on_a_cosine(step):
    zero, one = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.zeros_(zero.weight)
    nn.init.ones_(one.weight)
    twin = Momentum(zero, 0.9, to_one=True)
    twin.follow(one, step / 10)
    assert twin.twin.weight.item() == pytest.approx(1 - cosine_schedule(step, 11, 0.9, 1), abs=1e-7)
