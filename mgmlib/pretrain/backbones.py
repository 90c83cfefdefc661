"""Backbones of the pocket zoo, from timm's parts, and any other timm architecture by name."""

from __future__ import annotations

from torch import nn

from mgmlib.models.weights import seeded


class PocketResNet(nn.Module):
    """A ResNet for 32-pixel images: a 4 × 4 patch stem, then timm's basic blocks; (B, 3, S, S) to (B, dim).

    Parameters
    ----------
    widths : sequence of int
        Channels of each stage; the last is the feature dimension.
    depths : sequence of int
        Blocks of each stage.
    strides : sequence of int
        Of each stage's first block.
    """

    def __init__(self, widths=(32, 64, 128, 128), depths=(1, 1, 1, 1), strides=(1, 2, 2, 1)):
        super().__init__()
        from timm.models.resnet import BasicBlock

        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 4, 4, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        stages, before = [], widths[0]
        for width, depth, stride in zip(widths, depths, strides, strict=True):
            blocks = []
            for i in range(depth):
                step = stride if i == 0 else 1
                shortcut = None
                if step != 1 or before != width:
                    shortcut = nn.Sequential(
                        nn.Conv2d(before, width, 1, step, bias=False), nn.BatchNorm2d(width)
                    )
                blocks.append(BasicBlock(before, width, stride=step, downsample=shortcut))
                before = width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.dim = before
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        """Features (B, dim), averaged over positions."""
        return self.stages(self.stem(x)).mean((2, 3))


def backbone(name, size, seed):
    """A network with initial weights drawn from ``seed``, from normalised images to features (B, dim).

    Parameters
    ----------
    name : str
        "pocket-resnet" (0.6 M parameters), "pocket-vit" (0.6 M), or any architecture of timm.
    size : int
        Side of the images, in pixels.
    seed : int

    Returns
    -------
    torch.nn.Module with an int ``dim``
    """
    with seeded(seed):
        if name == "pocket-resnet":
            return PocketResNet()
        import timm

        if name == "pocket-vit":
            net = timm.models.VisionTransformer(
                img_size=size,
                patch_size=8,
                embed_dim=128,
                depth=4,
                num_heads=4,
                mlp_ratio=2,
                num_classes=0,
                dynamic_img_size=True,
            )
            for block in net.blocks:  # torch's fused attention takes 3 times longer for 17 tokens on a CPU
                block.attn.fused_attn = False
        elif timm.is_model(name):
            net = timm.create_model(name, num_classes=0)
        else:
            raise ValueError(
                f"backbone={name!r}: expected 'pocket-resnet', 'pocket-vit', or a timm architecture"
            )
    net.dim = net.num_features
    return net
