"""Spectral contrastive learning (HaoChen et al., arXiv 2106.04156)."""

from mgmlib.metrics import spectral_contrastive_loss
from mgmlib.pretrain.heads import mlp
from mgmlib.pretrain.losses import in_float32
from mgmlib.pretrain.methods.base import Method
from mgmlib.pretrain.methods.simclr import SIMCLR
from mgmlib.pretrain.parallel import gather


class Spectral(Method):
    """Low-rank factorisation of the augmentation graph; outputs in a ball of radius √mu, not on a sphere."""

    views = (SIMCLR, SIMCLR)

    def __init__(self, start, *, mu=1.0, hidden=512, out=256, layers=2):
        super().__init__(start)
        self.mu = mu
        self.projector = mlp(self.dim, hidden, out, layers)

    def forward(self, views, batch):
        """The spectral contrastive loss of the two views, `mgmlib.metrics`' own."""
        z1, z2 = (gather(self.projector(self.backbone(v))) for v in views)
        return in_float32(spectral_contrastive_loss)(z1, z2, self.mu)
