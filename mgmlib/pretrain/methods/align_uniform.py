"""Alignment and uniformity as a loss (Wang & Isola, arXiv 2005.10242)."""

from torch import nn

from mgmlib.metrics import alignment, uniformity
from mgmlib.pretrain.heads import by_size, mlp, unit
from mgmlib.pretrain.losses import in_float32
from mgmlib.pretrain.methods.base import Method
from mgmlib.pretrain.methods.simclr import SIMCLR
from mgmlib.pretrain.parallel import gather


@in_float32
def align_uniform_loss(z1, z2, alpha, t, weights):
    """Alignment of unit rows and the mean of both views' uniformity, times ``weights``."""
    spread = (uniformity(z1, t) + uniformity(z2, t)) / 2
    return weights[0] * alignment(z1, z2, alpha) + weights[1] * spread


class AlignUniform(Method):
    """Positive pairs close, all features spread over the sphere; both directly."""

    views = (SIMCLR, SIMCLR)

    def __init__(self, start, *, alpha=2, t=2, weights=(1, 1), hidden=256, out=128, layers=2):
        super().__init__(start)
        self.alpha, self.t, self.weights = alpha, t, weights
        self.online = nn.Sequential(self.backbone, mlp(self.dim, hidden, out, layers))

    def forward(self, views, batch):
        """Both terms, on one batch of both views, as the authors run it."""
        z1, z2 = (gather(unit(z)) for z in by_size(self.online, views))
        return align_uniform_loss(z1, z2, self.alpha, self.t, self.weights)
