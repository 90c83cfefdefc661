"""PCL v1 and v2 (Li et al., arXiv 2005.04966)."""

import torch
from torch import nn
from torch.nn import functional as F

from mgmlib.pretrain.heads import unit
from mgmlib.pretrain.losses import in_float32, info_nce
from mgmlib.pretrain.memory import Bank, Clusters
from mgmlib.pretrain.methods.moco import V1, V2, MoCo
from mgmlib.pretrain.parallel import gather


@in_float32
def proto_nce(query, centroids, concentration, labels):
    """Cross-entropy of each query's cluster among all (k, d), each with its own temperature (eq. 11)."""
    return F.cross_entropy(query @ centroids.T / concentration, labels)


def concentrations(rows, centroids, labels, tau, alpha):
    """Mean distance to the centroid over log(size + alpha) (eq. 12), then scaled to the mean ``tau``.

    As in the published code: a cluster of one gets the greatest value, and values are cut at the 10th
    and 90th percentile.
    """
    k = len(centroids)
    distance = (rows - centroids[labels]).norm(dim=1)
    size = torch.bincount(labels, minlength=k)
    mean = torch.zeros_like(centroids[:, 0]).index_add_(0, labels, distance) / size.clamp_min(1)
    phi = mean / (size + alpha).log()
    phi = torch.where(size > 1, phi, phi[size > 1].max())
    low, high = phi.quantile(0.1), phi.quantile(0.9)
    phi = phi.clamp(low, high)
    return tau * phi / phi.mean()


class PCL(MoCo):
    """MoCo, and each query finds its k-means cluster of momentum features, in several clusterings at once.

    What is clustered are the keys of the pass before, remembered by image: the paper makes another pass over
    the images to get them. The k-means is spherical, and all clusters are compared with, not a sample.
    """

    views = (V1, V1)
    layers = 1

    def __init__(
        self,
        start,
        *,
        tau=0.2,
        hidden=256,
        out=128,
        queue=4096,
        momentum=0.99,
        clusters=(100, 250, 500),
        alpha=10,
        warmup=0.1,
    ):
        moco = dict(tau=tau, hidden=hidden, out=out, queue=queue, momentum=momentum)
        super().__init__(start, **moco)
        self.alpha, self.warmup, self.sizes = alpha, warmup, list(clusters)
        self.bank = Bank(self.n_images, out, start.generator, momentum=0)
        self.clusters = nn.ModuleList(Clusters(self.n_images, out, k, start.generator) for k in clusters)
        self.register_buffer("concentration", torch.full((sum(clusters),), tau))

    def start_epoch(self, progress, rng):
        """Cluster the remembered keys, once the warm-up is over."""
        if progress == 0 or progress < self.warmup:  # at 0 there is nothing to remember
            return
        for cells, phi in zip(self.clusters, self.concentration.split(self.sizes), strict=True):
            cells.fit(self.bank.rows, rng)
            phi.copy_(concentrations(self.bank.rows, cells.centroids, cells.labels, self.tau, self.alpha))

    def forward(self, views, batch):
        """InfoNCE against the queue, and the mean over clusterings of ProtoNCE (eq. 11)."""
        query, key = gather(unit(self.online(views[0]))), gather(unit(self.twin(views[1])))
        index = gather(batch.index)
        loss = info_nce(query, key, self.queue.rows(), self.tau)
        self.queue.push(key)
        self.bank.update(index, key)
        if not self.clusters[0].fitted:
            return loss
        terms = [
            proto_nce(query, cells.centroids, phi, cells.labels[index])
            for cells, phi in zip(self.clusters, self.concentration.split(self.sizes), strict=True)
        ]
        return loss + sum(terms) / len(terms)


class PCLv2(PCL):
    """PCL with a two-layer head, and blur."""

    views = (V2, V2)
    layers = 2
