"""SimSiam (Chen & He, arXiv 2011.10566)."""

from mgmlib.pretrain.heads import mlp, unit
from mgmlib.pretrain.losses import cosine_regression
from mgmlib.pretrain.methods.base import Method
from mgmlib.pretrain.methods.moco import V2


class SimSiam(Method):
    """A bottleneck predictor regresses the other view's projection, through which no gradient flows."""

    views = (V2, V2)

    def __init__(self, start, *, hidden=512, out=512, bottleneck=128):
        super().__init__(start)
        self.projector = mlp(self.dim, hidden, out, layers=3, last_norm=True)
        self.predictor = mlp(out, bottleneck, out)

    def forward(self, views, batch):
        """Regression of each view from the other, mean of both: 2 + 2 times the paper's loss (eq. 2)."""
        projections = [self.projector(self.backbone(v)) for v in views]
        predictions = [unit(self.predictor(z)) for z in projections]
        targets = [unit(z.detach()) for z in reversed(projections)]
        return sum(cosine_regression(p, t) for p, t in zip(predictions, targets, strict=True)) / 2
