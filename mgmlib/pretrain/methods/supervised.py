"""Supervised training: cross-entropy on the labels."""

from torch import nn
from torch.nn import functional as F

from mgmlib.pretrain.methods.base import Method
from mgmlib.pretrain.views import View


class Supervised(Method):
    """A linear classifier on the features; crop, flip and PCA colour noise, as torchvision's ResNet."""

    views = (View(scale=(0.08, 1), jitter_p=0, gray=0, pca=0.1),)

    def __init__(self, start):
        super().__init__(start)
        self.classifier = nn.Linear(self.dim, start.n_classes)

    def forward(self, views, batch):
        """Cross-entropy of the labels."""
        return F.cross_entropy(self.classifier(self.backbone(views[0])).float(), batch.labels)
