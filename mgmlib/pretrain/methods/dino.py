"""DINO (Caron et al., arXiv 2104.14294)."""

from dataclasses import replace

import torch
from torch import nn

from mgmlib.pretrain.heads import Prototypes, by_size, mlp
from mgmlib.pretrain.losses import swapped_prediction
from mgmlib.pretrain.memory import Momentum
from mgmlib.pretrain.methods.base import Method
from mgmlib.pretrain.methods.byol import FIRST, SECOND
from mgmlib.pretrain.parallel import gather

FULL = (replace(FIRST, scale=(0.3, 1)), replace(SECOND, scale=(0.3, 1)))
SMALL = replace(FIRST, scale=(0.1, 0.4), zoom=0.5, blur=0.5)


class DINO(Method):
    """A student predicts a momentum teacher's centred and sharpened output on the two full views.

    The last layer has unit weights, and rests for the first part ``frozen`` of the training; the teacher's
    temperature rises linearly over the first part ``warmup``. ``norm``: batch normalisation in the head,
    which the published code has as an option.
    """

    views = (*FULL, SMALL, SMALL, SMALL, SMALL)

    def __init__(
        self,
        start,
        *,
        tau=0.1,
        teacher_tau=(0.04, 0.07),
        warmup=0.3,
        frozen=0.04,
        center_momentum=0.9,
        momentum=0.99,
        hidden=512,
        norm=False,
        out=128,
        prototypes=500,
    ):
        super().__init__(start)
        self.tau, self.teacher_tau, self.warmup, self.frozen = tau, teacher_tau, warmup, frozen
        head = mlp(self.dim, hidden, out, layers=3, norm=norm, activation=nn.GELU)
        self.online, self.prototypes = nn.Sequential(self.backbone, head), Prototypes(out, prototypes)
        self.teacher = Momentum(nn.Sequential(self.online, self.prototypes), momentum, to_one=True)
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(prototypes))

    def forward(self, views, batch):
        """Cross-entropy of every view with the teacher's other full view; then the centre moves."""
        rest = batch.progress < self.frozen
        scores = [self.prototypes(gather(z), rest) for z in by_size(self.online, views)]
        taught = [gather(t) for t in by_size(self.teacher, views[:2])]
        cold, warm = self.teacher_tau
        tau = cold + (warm - cold) * min(1, batch.progress / self.warmup)
        codes = [((t - self.center) / tau).softmax(1) for t in taught]
        self.center.lerp_(torch.cat(taught).mean(0), 1 - self.center_momentum)
        return swapped_prediction(scores, codes, self.tau)

    def after_step(self, progress):
        """The teacher follows, ever more slowly."""
        self.teacher.follow(nn.Sequential(self.online, self.prototypes), progress)
