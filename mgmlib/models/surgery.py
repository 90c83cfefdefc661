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
    kind : class
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
    other = copy.deepcopy(encoder)
    targets = [name for name, module in other.net.named_modules() if isinstance(module, kind)]
    if not targets:
        raise ValueError(f"kind: {encoder.name} has no submodule of class {kind.__name__}")
    for name in targets:
        parent, _, child = name.rpartition(".")
        setattr(other.net.get_submodule(parent), child, make(other.net.get_submodule(name)))
    return other.eval()


def with_branches(encoder):
    """A copy of a timm network whose residual branches start at full size.

    timm starts those of a ResNet at 0 (the weight of each block's last normalisation, Goyal et al. 2017,
    section 5.1) and those of a ConvNeXt at 1e-6 (layer scale): here they are 1. It draws the linear layers of
    a vision transformer with standard deviation 0.02 whatever their width: here it is 1 / √inputs.

    Raises
    ------
    ValueError
        If the network is of none of these kinds.
    """
    from timm.models.convnext import ConvNeXtBlock
    from timm.models.resnet import BasicBlock, Bottleneck
    from timm.models.vision_transformer import Block

    other, met = copy.deepcopy(encoder), False
    for block in other.net.modules():
        if isinstance(block, BasicBlock | Bottleneck):
            nn.init.ones_((block.bn3 if isinstance(block, Bottleneck) else block.bn2).weight)
        elif isinstance(block, ConvNeXtBlock):
            nn.init.ones_(block.gamma)
        elif isinstance(block, Block):
            for layer in block.modules():
                if isinstance(layer, nn.Linear):
                    layer.weight.data *= layer.in_features**-0.5 / layer.weight.std()
        else:
            continue
        met = True
    if not met:
        raise ValueError(f"encoder: {encoder.name} has no blocks of timm's ResNet, ConvNeXt or ViT")
    return other


def without_skip(encoder):
    """A copy of a timm ResNet or vision transformer without residual connections.

    A ResNet's branches are made as large as in `with_branches`: without both, nothing would be left.
    """
    from timm.models.resnet import BasicBlock, Bottleneck
    from timm.models.vision_transformer import Block

    if any(isinstance(module, Block) for module in encoder.net.modules()):
        return replaced(encoder, Block, _WithoutSkip)
    other = with_branches(encoder)
    blocks = [module for module in other.net.modules() if isinstance(module, BasicBlock | Bottleneck)]
    if not blocks:
        raise ValueError(f"encoder: {encoder.name} has no blocks of timm's ResNet or ViT")
    for block in blocks:
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
