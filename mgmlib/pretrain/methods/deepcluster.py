"""DeepCluster-v2 (Caron et al., SwAV, arXiv 2006.09882, appendix)."""

from torch import nn
from torch.nn import functional as F

from mgmlib.pretrain.heads import by_size, mlp, unit
from mgmlib.pretrain.losses import in_float32, sinkhorn
from mgmlib.pretrain.memory import Bank, Clusters
from mgmlib.pretrain.methods.base import Method
from mgmlib.pretrain.methods.swav import MULTICROP
from mgmlib.pretrain.parallel import gather


@in_float32
def nearest_centroid(features, centroids, labels, tau):
    """Cross-entropy of the labels (B,) given the cosines of features (B, d) and centroids (k, d)."""
    return F.cross_entropy(features @ centroids.T / tau, labels)


class DeepClusterv2(Method):
    """All views of an image find its k-means cluster of the pass before; one clustering for each head.

    The heads cluster the two full views' projections in turn. The published code fills its bank with the
    features of the untrained network; here the first pass fills it, and meanwhile the labels are Sinkhorn
    assignments of the batch to random centroids.
    """

    views = MULTICROP

    def __init__(self, start, *, tau=0.1, hidden=512, out=128, clusters=(300, 300, 300)):
        super().__init__(start)
        self.tau = tau
        self.online = nn.Sequential(self.backbone, mlp(self.dim, hidden, out))
        self.banks = nn.ModuleList(Bank(self.n_images, out, start.generator, momentum=0) for _ in range(2))
        self.clusters = nn.ModuleList(Clusters(self.n_images, out, k, start.generator) for k in clusters)

    def start_epoch(self, progress, rng):
        """Cluster the remembered projections."""
        if progress > 0:
            for head, cells in enumerate(self.clusters):
                cells.fit(self.banks[head % 2].rows, rng)

    def forward(self, views, batch):
        """Cross-entropy to the image's centroid, mean over views and heads; then the banks learn."""
        features = [gather(unit(z)) for z in by_size(self.online, views)]
        index = gather(batch.index)
        losses = []
        for head, cells in enumerate(self.clusters):
            if cells.fitted:
                labels = cells.labels[index]
            else:
                labels = sinkhorn(features[head % 2] @ cells.centroids.T, 0.05).argmax(1)
            losses += [nearest_centroid(z, cells.centroids, labels, self.tau) for z in features]
        for bank, z in zip(self.banks, features[:2], strict=True):
            bank.update(index, z)
        return sum(losses) / len(losses)
