"""Projection and prediction heads."""

import torch
from torch import nn
from torch.nn import functional as F


def mlp(dim, hidden, out, layers=2, *, norm=True, last_norm=False, bias=True, activation=nn.ReLU):
    """A perceptron of ``layers`` linear maps (1: a linear head), ``activation`` between them.

    ``norm`` puts batch normalisation before each activation, ``last_norm`` after the output (without scale
    and shift, as in SimSiam).
    """
    parts, width = [], dim
    for _ in range(layers - 1):
        parts += [nn.Linear(width, hidden, bias=not norm)]
        parts += [nn.BatchNorm1d(hidden)] if norm else []
        parts += [activation()]
        width = hidden
    parts += [nn.Linear(width, out, bias=bias and not last_norm)]
    parts += [nn.BatchNorm1d(out, affine=False)] if last_norm else []
    return nn.Sequential(*parts)


class Jigsaw(nn.Module):
    """Nine patches' features, in the order given, to one output (Misra & van der Maaten, PIRL, section 3)."""

    def __init__(self, head, out):
        super().__init__()
        self.head, self.join = head, nn.Linear(9 * out, out)

    def forward(self, backbone, patches):
        """(B, 9, 3, P, P) to (B, out)."""
        return self.join(self.head(backbone(patches.flatten(0, 1))).reshape(len(patches), -1))


class Prototypes(nn.Module):
    """Trained directions; gives the cosine of features (B, dim) with each of ``k``, in float32."""

    def __init__(self, dim, k):
        super().__init__()
        self.weight = nn.Parameter(unit(torch.randn(k, dim)))

    def forward(self, features, frozen=False):
        """Cosines (B, k). ``frozen``: the features get a gradient, the prototypes one of zero."""
        weight = self.weight.detach() + 0 * self.weight if frozen else self.weight
        with torch.autocast(features.device.type, enabled=False):
            return unit(features) @ unit(weight).T

    @torch.no_grad()
    def normalize(self):
        """Back to length 1, after a step of the optimiser."""
        self.weight.copy_(unit(self.weight))


def by_size(net, views):
    """Outputs of ``net`` for each view; neighbours of one size go through it as one batch (SwAV, DINO)."""
    outputs, start = [], 0
    for stop in range(1, len(views) + 1):
        if stop == len(views) or views[stop].shape != views[start].shape:
            outputs += net(torch.cat(views[start:stop])).chunk(stop - start)
            start = stop
    return outputs


def unit(x):
    """Rows (..., d) scaled to length 1, in float32."""
    return F.normalize(x.float(), dim=-1)
