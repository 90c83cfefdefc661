"""MoCo v3 (Chen et al., arXiv 2104.02057)."""

from torch import nn

from mgmlib.pretrain.heads import mlp, unit
from mgmlib.pretrain.losses import batch_nce
from mgmlib.pretrain.memory import Momentum
from mgmlib.pretrain.methods.base import Method
from mgmlib.pretrain.methods.byol import FIRST, SECOND
from mgmlib.pretrain.parallel import gather


class MoCov3(Method):
    """InfoNCE of predictions against the momentum twin's keys in the batch, both ways; no queue.

    The patch projection of a ViT keeps its initial weights, for stability (section 4).
    """

    views = (FIRST, SECOND)

    def __init__(self, start, *, tau=0.2, hidden=512, out=128, layers=3, momentum=0.99):
        super().__init__(start)
        self.tau = tau
        if hasattr(self.backbone, "patch_embed"):
            self.backbone.patch_embed.requires_grad_(False)
        self.online = nn.Sequential(self.backbone, mlp(self.dim, hidden, out, layers, last_norm=True))
        self.predictor = mlp(out, hidden, out, last_norm=True)
        self.twin = Momentum(self.online, momentum, to_one=True)

    def forward(self, views, batch):
        """Each view's prediction finds the other's key; the loss is times 2 tau, as published."""
        queries = [gather(unit(self.predictor(self.online(v)))) for v in views]
        keys = [gather(unit(self.twin(v))) for v in views]
        losses = [batch_nce(q, k, self.tau) for q, k in zip(queries, reversed(keys), strict=True)]
        return 2 * self.tau * sum(losses)

    def after_step(self, progress):
        """The twin follows, ever more slowly."""
        self.twin.follow(self.online, progress)
