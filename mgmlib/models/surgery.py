"""Surgery: a copy of an encoder with one part changed, everything else the same to the last weight."""

from __future__ import annotations

import copy

import torch
from torch import nn


class CentredReLU(nn.Module):
    """ReLU less its mean over channels, at each position of a map (B, C, H, W) or token (B, T, C).

    In a wide random layer this takes away exactly what the ReLU adds to all inputs alike.
    """

    def forward(self, x):
        """Activations of the shape of x."""
        x = x.relu()
        return x - x.mean(1 if x.ndim == 4 else -1, keepdim=True)


class _Nothing(nn.Module):
    """A shortcut that adds nothing."""

    def forward(self, x):
        return x.new_zeros(())


class _WithoutSkip(nn.Module):
    """A block of timm's vision transformers without its two residual connections."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        block = self.block
        x = block.ls1(block.attn(block.norm1(x)))
        return block.ls2(block.mlp(block.norm2(x)))


def replaced(encoder, kind, make):
    """A copy of an encoder in which every submodule of a class is another.

    Parameters
    ----------
    encoder : Encoder
    kind : class, or tuple of classes
        Subclasses are left alone: the class must be this one.
    make : callable
        Submodule to what stands in its place.

    Returns
    -------
    Encoder

    Raises
    ------
    ValueError
        If there is no such submodule.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    other = copy.deepcopy(encoder)
    targets = [name for name, module in other.net.named_modules() if type(module) in kinds]
    if not targets:
        names = ", ".join(k.__name__ for k in kinds)
        raise ValueError(f"kind: {encoder.name} has no submodule of class {names}")
    for name in targets:
        parent, _, child = name.rpartition(".")
        setattr(other.net.get_submodule(parent), child, make(other.net.get_submodule(name)))
    return other.eval()


def with_branches(encoder):
    """A copy of a timm ResNet whose residual branches are as large as their shortcuts.

    timm starts them at zero: the weight of each block's last normalisation is 0 (Goyal et al. 2017, section
    5.1). Here it is 1.
    """
    other = copy.deepcopy(encoder)
    for block in _residual_blocks(other):
        nn.init.ones_((block.bn3 if hasattr(block, "bn3") else block.bn2).weight)
    return other


def without_skip(encoder):
    """A copy of a timm ResNet or vision transformer without residual connections.

    A ResNet's branches are made as large as in `with_branches`: without both, nothing would be left.
    """
    from timm.models.vision_transformer import Block

    if any(type(module) is Block for module in encoder.net.modules()):
        return replaced(encoder, Block, _WithoutSkip)
    other = with_branches(encoder)
    for block in _residual_blocks(other):
        block.downsample = _Nothing()
    return other


def with_statistics_of(encoder, images):
    """A copy of an encoder whose batch normalisations have the statistics of a batch: what training sees.

    Parameters
    ----------
    encoder : Encoder
    images : torch.Tensor (B, 3, H, W) float in [0, 1]
        B ≥ 2; passed as one batch.

    Returns
    -------
    Encoder
        In eval mode; its outputs on ``images`` are those of training mode, up to the factor n / (n − 1) of an
        unbiased variance over n positions.
    """
    norms = nn.modules.batchnorm._BatchNorm
    if not any(isinstance(module, norms) for module in encoder.modules()):
        raise ValueError(f"encoder: {encoder.name} has no batch normalisation")
    other = copy.deepcopy(encoder)
    with torch.inference_mode():
        torch.optim.swa_utils.update_bn([images], other)
    return other.eval()


def _residual_blocks(encoder):
    """Blocks of a timm ResNet."""
    from timm.models.resnet import BasicBlock, Bottleneck

    blocks = [m for m in encoder.net.modules() if isinstance(m, BasicBlock | Bottleneck)]
    if not blocks:
        raise ValueError(f"encoder: {encoder.name} has no residual blocks of timm's ResNets")
    return blocks
