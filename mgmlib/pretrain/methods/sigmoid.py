"""The sigmoid loss of SigLIP (Zhai et al., arXiv 2303.15343), for two views of an image."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from mgmlib.pretrain.heads import mlp, unit
from mgmlib.pretrain.losses import in_float32
from mgmlib.pretrain.methods.base import Method
from mgmlib.pretrain.methods.simclr import SIMCLR
from mgmlib.pretrain.parallel import gather


@in_float32
def sigmoid_loss(z1, z2, log_scale, bias):
    """Logistic loss of all B² pairs, partners against the others, over B (algorithm 1)."""
    logits = z1 @ z2.T * log_scale.exp() + bias
    sign = 2 * torch.eye(len(z1), device=z1.device) - 1
    return -F.logsigmoid(sign * logits).sum() / len(z1)


class Sigmoid(Method):
    """Each pair of views is judged alone: same image or not; scale and bias are learned."""

    views = (SIMCLR, SIMCLR)

    def __init__(self, start, *, scale=10.0, bias=-10.0, hidden=256, out=128, layers=2):
        super().__init__(start)
        self.projector = mlp(self.dim, hidden, out, layers)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(self, views, batch):
        """The loss of all pairs of a first and a second view."""
        z1, z2 = (gather(unit(self.projector(self.backbone(v)))) for v in views)
        return sigmoid_loss(z1, z2, self.log_scale, self.bias)
