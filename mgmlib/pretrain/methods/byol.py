"""BYOL (Grill et al., arXiv 2006.07733)."""

from torch import nn

from mgmlib.pretrain.heads import mlp, unit
from mgmlib.pretrain.losses import cosine_regression
from mgmlib.pretrain.memory import Momentum
from mgmlib.pretrain.methods.base import Method
from mgmlib.pretrain.views import View

JITTER = (0.4, 0.4, 0.2, 0.1)
FIRST = View(scale=(0.08, 1), jitter=JITTER, blur=1.0)
SECOND = View(scale=(0.08, 1), jitter=JITTER, blur=0.1, solarize=0.2)


class BYOL(Method):
    """A predictor regresses the momentum twin's projection of the other view; no negatives."""

    views = (FIRST, SECOND)

    def __init__(self, start, *, hidden=512, out=128, momentum=0.99):
        super().__init__(start)
        self.online = nn.Sequential(self.backbone, mlp(self.dim, hidden, out))
        self.predictor = mlp(out, hidden, out)
        self.twin = Momentum(self.online, momentum, to_one=True)

    def forward(self, views, batch):
        """Regression of each view's projection from the other, mean of both."""
        predictions = [unit(self.predictor(self.online(v))) for v in views]
        targets = [unit(self.twin(v)) for v in views]
        return sum(cosine_regression(p, t) for p, t in zip(predictions, reversed(targets), strict=True)) / 2

    def after_step(self, progress):
        """The twin follows, ever more slowly."""
        self.twin.follow(self.online, progress)
