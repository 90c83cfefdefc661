"""SwAV (Caron et al., arXiv 2006.09882)."""

from torch import nn

from mgmlib.pretrain.heads import Prototypes, by_size, mlp
from mgmlib.pretrain.losses import sinkhorn, swapped_prediction
from mgmlib.pretrain.methods.base import Method
from mgmlib.pretrain.parallel import gather
from mgmlib.pretrain.views import View

# At 224 pixels the crops cover 14-100 % and 5-14 % of the image; at 32 that leaves too little to see.
FULL = View(scale=(0.3, 1), blur=0.5)
SMALL = View(scale=(0.1, 0.4), zoom=0.5, blur=0.5)
MULTICROP = (FULL, FULL, SMALL, SMALL, SMALL, SMALL)


class SwAV(Method):
    """Each view's scores predict the Sinkhorn codes of the two full views, over trained prototypes.

    The batch is to be larger than the number of prototypes: the paper's queue of past features is left out.
    """

    views = MULTICROP

    def __init__(self, start, *, tau=0.1, epsilon=0.05, hidden=512, out=128, prototypes=200, frozen=0.04):
        super().__init__(start)
        self.tau, self.epsilon, self.frozen = tau, epsilon, frozen
        self.online = nn.Sequential(self.backbone, mlp(self.dim, hidden, out))
        self.prototypes = Prototypes(out, prototypes)

    def forward(self, views, batch):
        """Swapped prediction; the prototypes rest for the first part ``frozen`` of the training."""
        rest = batch.progress < self.frozen
        scores = [self.prototypes(gather(z), rest) for z in by_size(self.online, views)]
        codes = [sinkhorn(s, self.epsilon) for s in scores[:2]]
        return swapped_prediction(scores, codes, self.tau)

    def after_step(self, progress):
        """Prototypes stay on the sphere."""
        self.prototypes.normalize()
