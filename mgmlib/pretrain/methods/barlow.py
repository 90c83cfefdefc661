"""Barlow Twins (Zbontar et al., arXiv 2103.03230)."""

import torch

from mgmlib.pretrain.heads import mlp
from mgmlib.pretrain.losses import in_float32
from mgmlib.pretrain.methods.base import Method
from mgmlib.pretrain.methods.byol import FIRST, SECOND
from mgmlib.pretrain.parallel import gather


@in_float32
def barlow_twins_loss(z1, z2, redundancy):
    """Squared distance of the views' cross-correlation (d, d) from the identity (eq. 1-2).

    ``redundancy`` is the weight of what lies off the diagonal.
    """
    z1, z2 = ((z - z.mean(0)) * (z.var(0, correction=0) + 1e-5).rsqrt() for z in (z1, z2))
    gap = z1.T @ z2 / len(z1) - torch.eye(z1.shape[1], device=z1.device)
    on = gap.diagonal().square().sum()
    return on + redundancy * (gap.square().sum() - on)


class BarlowTwins(Method):
    """Outputs that agree between views and are uncorrelated with each other; a three-layer projector."""

    views = (FIRST, SECOND)

    def __init__(self, start, *, redundancy=0.0051, hidden=512, out=512, layers=3):
        super().__init__(start)
        self.redundancy = redundancy
        self.projector = mlp(self.dim, hidden, out, layers, bias=False)  # the loss does not see a shift

    def forward(self, views, batch):
        """Cross-correlation of the two views against the identity."""
        return barlow_twins_loss(*(gather(self.projector(self.backbone(v))) for v in views), self.redundancy)
