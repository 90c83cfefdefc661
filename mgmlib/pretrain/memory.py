"""What methods remember between batches: queues, banks by image index, momentum twins, clusters."""

import copy
import math

import torch
from torch import nn
from torch.nn import functional as F

from mgmlib.pretrain.heads import unit


class Queue(nn.Module):
    """The last ``length`` keys, first in first out: unit rows (length, dim); it starts with random ones."""

    def __init__(self, length, dim, generator):
        super().__init__()
        self.register_buffer("keys", unit(torch.randn(length, dim, generator=generator)))
        self.register_buffer("start", torch.zeros((), dtype=torch.long))

    def rows(self):
        """A copy of the keys: autograd keeps it while the queue moves on."""
        return self.keys.clone()

    @torch.no_grad()
    def push(self, keys):
        """Overwrite the oldest."""
        at = (self.start + torch.arange(len(keys), device=self.keys.device)) % len(self.keys)
        self.keys[at] = keys.float()
        self.start.copy_((self.start + len(keys)) % len(self.keys))


class Bank(nn.Module):
    """One feature for each training image, by its index: unit rows (n, dim), random at the start."""

    def __init__(self, n, dim, generator, momentum=0.5):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("rows", unit(torch.randn(n, dim, generator=generator)))

    @torch.no_grad()
    def update(self, index, features):
        """Move the rows at ``index`` (B,) towards ``features`` (B, dim); they stay unit."""
        mixed = self.momentum * self.rows[index] + (1 - self.momentum) * features.float()
        self.rows[index] = unit(mixed)


class Momentum(nn.Module):
    """A twin of a module whose parameters follow it as an exponential moving average.

    ``momentum`` is constant, or rises to 1 on a cosine where ``to_one`` (BYOL, MoCo-v3, DINO). Its batch
    normalisation runs in training mode, on its own batches, as in the published methods.
    """

    def __init__(self, module, momentum, to_one=False):
        super().__init__()
        self.twin = copy.deepcopy(module).requires_grad_(False)
        self.momentum, self.to_one = momentum, to_one

    @torch.no_grad()
    def forward(self, *args):
        """The twin's output, without gradients."""
        return self.twin(*args)

    @torch.no_grad()
    def follow(self, module, progress):
        """One step towards ``module``; ``progress`` in [0, 1] is how much of the training is done."""
        m = self.momentum
        if self.to_one:
            m = 1 - (1 - m) * (1 + math.cos(math.pi * progress)) / 2
        for ours, theirs in zip(self.twin.parameters(), module.parameters(), strict=True):
            ours.lerp_(theirs, 1 - m)


class Clusters(nn.Module):
    """A clustering of n remembered features: unit centroids (k, dim), and a label for each image (n,).

    Before the first `fit`: random centroids, labels -1.
    """

    def __init__(self, n, dim, k, generator):
        super().__init__()
        self.register_buffer("centroids", unit(torch.randn(k, dim, generator=generator)))
        self.register_buffer("labels", torch.full((n,), -1))

    @property
    def fitted(self):
        """Whether there are labels."""
        return bool(self.labels[0] >= 0)

    @torch.no_grad()
    def fit(self, rows, generator):
        """Spherical k-means of unit rows (n, dim)."""
        centroids, labels = spherical_kmeans(rows, len(self.centroids), generator)
        self.centroids.copy_(centroids)
        self.labels.copy_(labels)


@torch.no_grad()
def spherical_kmeans(rows, k, generator, iterations=10):
    """Centroids (k, dim), unit, and assignments (n,) of unit rows (n, dim), from rows drawn at random.

    An empty cluster gets a row drawn at random.
    """
    if len(rows) < k:
        raise ValueError(f"k={k}: expected at most the number of rows, {len(rows)}")
    centroids = rows[torch.randperm(len(rows), generator=generator, device=generator.device)[:k]].clone()
    for _ in range(iterations):
        nearest = (rows @ centroids.T).argmax(1)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, rows)
        empty = torch.bincount(nearest, minlength=k) == 0
        again = torch.randint(len(rows), (k,), generator=generator, device=generator.device)
        centroids = F.normalize(torch.where(empty[:, None], rows[again], sums), dim=1)
    return centroids, (rows @ centroids.T).argmax(1)
