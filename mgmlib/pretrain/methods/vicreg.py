"""VICReg (Bardes et al., arXiv 2105.04906)."""

from torch.nn import functional as F

from mgmlib.pretrain.heads import mlp
from mgmlib.pretrain.losses import in_float32
from mgmlib.pretrain.methods.base import Method
from mgmlib.pretrain.methods.byol import FIRST, SECOND
from mgmlib.pretrain.parallel import gather


@in_float32
def vicreg_loss(z1, z2, weights=(25, 25, 1)):
    """Invariance, variance and covariance terms of outputs (B, d), times ``weights`` (eq. 1-6)."""
    invariance = F.mse_loss(z1, z2)
    variance = covariance = 0
    for z in (z1, z2):
        z = z - z.mean(0)
        second = z.T @ z / (len(z) - 1)
        variances = second.diagonal()
        variance += F.relu(1 - (variances + 1e-4).sqrt()).mean() / 2
        covariance += (second.square().sum() - variances.square().sum()) / z.shape[1]
    return weights[0] * invariance + weights[1] * variance + weights[2] * covariance


class VICReg(Method):
    """Views that agree, outputs of unit variance, no covariance; a three-layer projector."""

    views = (FIRST, SECOND)

    def __init__(self, start, *, weights=(25, 25, 1), hidden=512, out=512, layers=3):
        super().__init__(start)
        self.weights = weights
        self.projector = mlp(self.dim, hidden, out, layers, bias=False)  # the loss does not see a shift

    def forward(self, views, batch):
        """The three terms on the two views."""
        return vicreg_loss(*(gather(self.projector(self.backbone(v))) for v in views), self.weights)
