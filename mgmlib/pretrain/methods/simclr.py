"""SimCLR (Chen et al., arXiv 2002.05709) and SimCLR-v2 (arXiv 2006.10029)."""

import torch
from torch import nn

from mgmlib.pretrain.heads import mlp, unit
from mgmlib.pretrain.losses import batch_nce, nt_xent
from mgmlib.pretrain.memory import Momentum, Queue
from mgmlib.pretrain.methods.base import Method
from mgmlib.pretrain.parallel import gather
from mgmlib.pretrain.views import View

# Colour strength 0.5, which is the paper's for CIFAR-10.
SIMCLR = View(scale=(0.08, 1), jitter=(0.4, 0.4, 0.4, 0.1), blur=0.5)


class SimCLR(Method):
    """In-batch NT-Xent on a two-layer head."""

    views = (SIMCLR, SIMCLR)

    def __init__(self, start, *, tau=0.1, hidden=256, out=128, layers=2):
        super().__init__(start)
        self.tau = tau
        self.projector = mlp(self.dim, hidden, out, layers)

    def forward(self, views, batch):
        """NT-Xent of the two views."""
        z1, z2 = (gather(unit(self.projector(self.backbone(v)))) for v in views)
        return nt_xent(z1, z2, self.tau)


class SimCLRv2(SimCLR):
    """SimCLR with a three-layer head; keys and further negatives come from a momentum twin."""

    def __init__(self, start, *, tau=0.1, hidden=256, out=128, queue=4096, momentum=0.99):
        super().__init__(start, tau=tau, hidden=hidden, out=out, layers=3)
        self.twin = Momentum(nn.Sequential(self.backbone, self.projector), momentum)
        self.queue = Queue(queue, out, start.generator)

    def forward(self, views, batch):
        """Each view against the other's keys, in the batch and in the memory."""
        queries = [gather(unit(self.projector(self.backbone(v)))) for v in views]
        keys = [gather(unit(self.twin(v))) for v in views]
        memory = self.queue.rows()
        losses = [
            batch_nce(query, torch.cat([key, memory]), self.tau)
            for query, key in zip(queries, reversed(keys), strict=True)
        ]
        self.queue.push(torch.cat(keys))
        return sum(losses) / 2

    def after_step(self, progress):
        """The twin follows."""
        self.twin.follow(nn.Sequential(self.backbone, self.projector), progress)
