"""Training views, rendered a batch at a time on the device that trains.

The recipes are those of the published checkpoints (Table 10 of Ericsson et al., arXiv 2011.13377), with the
strengths that each method's paper gives. What differs from torchvision's transforms, for speed: everything
that is linear in colour (brightness, contrast, saturation, hue, PCA noise, grey) is composed into one affine
map of the three channels for each view, hue being a rotation about the grey axis in YIQ, and the
result is clamped once, at the end. Crops are cut bilinearly, without antialiasing.

Every number is drawn from the generator that is passed in.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)
# Columns: the three principal directions of ImageNet's colours times their spread (Krizhevsky et al. 2012).
_PCA = (
    (-0.5675 * 0.2175, 0.7192 * 0.0188, 0.4009 * 0.0045),
    (-0.5808 * 0.2175, -0.0045 * 0.0188, -0.8140 * 0.0045),
    (-0.5836 * 0.2175, -0.6948 * 0.0188, 0.4203 * 0.0045),
)
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class View:
    """How one view is made. Probabilities and ranges as in the method's paper; 0 leaves a step out.

    Parameters
    ----------
    scale : (low, high)
        Area of the crop, as a fraction of the image; aspect 3/4 to 4/3.
    zoom : float
        Side of the view, as a fraction of the training resolution.
    flip, jitter_p, gray, blur, solarize : float
        Probabilities.
    jitter : (brightness, contrast, saturation, hue)
        Factors 1 ± range; hue in turns ± range.
    pca : float
        Standard deviation of AlexNet's colour noise.
    randaugment : bool
        torchvision's RandAugment (two operations of magnitude 9), drawn anew for every 16 images.
    jigsaw : bool
        Nine patches from a 3 × 3 grid, in random order, instead of one crop.
    """

    scale: tuple[float, float] = (0.2, 1.0)
    zoom: float = 1.0
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_p: float = 0.8
    gray: float = 0.2
    blur: float = 0.0
    solarize: float = 0.0
    pca: float = 0.0
    randaugment: bool = False
    jigsaw: bool = False


def render(images, view, size, rng):
    """One view of each image.

    Parameters
    ----------
    images : torch.Tensor (B, 3, H, W) uint8
    view : View
    size : int
        Training resolution in pixels; the side of the view is ``view.zoom`` of it.
    rng : torch.Generator
        On the device of ``images``.

    Returns
    -------
    torch.Tensor (B, 3, S, S) float32 in [0, 1], S = round(size · zoom); of a jigsaw (B, 9, 3, P, P), its
    patches of side P = size // 4.
    """
    if view.jigsaw:
        return _jigsaw(images, view, size, rng)
    if view.randaugment:
        images = _randaugment(images, rng)
    side = round(size * view.zoom)
    x = _crop(images.float() / 255, _boxes(images, view.scale, view.flip, rng), side)
    return _solarize(_blur(_recolor(x, view, rng), view.blur, rng), view.solarize, rng)


@functools.cache
def _on(device, rows):
    """A constant matrix on a device: copied there once, for a copy makes the GPU wait."""
    return torch.tensor(rows).to(device)


@functools.cache
def _from_yiq(device):
    return torch.linalg.inv(torch.tensor(_YIQ)).to(device)


def _uniform(rng, low, high, *shape):
    return low + (high - low) * torch.rand(shape, generator=rng, device=rng.device)


def _coin(rng, p, n):
    return torch.rand(n, generator=rng, device=rng.device) < p


def _boxes(images, scale, flip, rng):
    """Centre x, centre y, half width, half height, as fractions of the half image; half width < 0 mirrors."""
    n, (height, width) = len(images), images.shape[-2:]
    area = _uniform(rng, *scale, n)
    aspect = torch.exp(_uniform(rng, math.log(3 / 4), math.log(4 / 3), n)) * (height / width)
    w = (area * aspect).sqrt().clamp(max=1)
    h = (area / aspect).sqrt().clamp(max=1)
    x, y = (1 - w) * _uniform(rng, -1, 1, n), (1 - h) * _uniform(rng, -1, 1, n)
    return torch.stack([x, y, torch.where(_coin(rng, flip, n), -w, w), h])


def _crop(x, boxes, side):
    """Cut one box from each image, resized to (side, side), bilinear."""
    cx, cy, w, h = boxes
    zero = torch.zeros_like(w)
    affine = torch.stack([torch.stack([w, zero, cx], 1), torch.stack([zero, h, cy], 1)], 1)
    grid = F.affine_grid(affine, (len(x), 3, side, side), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _recolor(x, view, rng):
    """All that is affine in colour, composed for each image: x -> A x + b, then clamped to [0, 1]."""
    n, eye = len(x), torch.eye(3, device=x.device)
    luma = _on(x.device, (LUMA,) * 3)
    A, b = eye.repeat(n, 1, 1), torch.zeros(n, 3, 1, device=x.device)
    on = _coin(rng, view.jitter_p, n).float()
    turns = [r * on * _uniform(rng, -1, 1, n) for r in view.jitter]
    brightness, contrast, saturation = (1 + t.view(n, 1, 1) for t in turns[:3])
    A = A * brightness
    gray_mean = luma @ (A @ x.mean((2, 3)).unsqueeze(2))  # of the image as it is by now
    A, b = A * contrast, b + (1 - contrast) * gray_mean
    for mix in (
        saturation * eye + (1 - saturation) * luma,
        _hue(2 * math.pi * turns[3]),
        torch.where(_coin(rng, view.gray, n).view(n, 1, 1), luma, eye),
    ):
        A, b = mix @ A, mix @ b
    if view.pca:
        noise = torch.randn(n, 3, 1, generator=rng, device=rng.device)
        b = b + view.pca * _on(x.device, _PCA) @ noise
    return torch.baddbmm(b, A, x.flatten(2)).view_as(x).clamp_(0, 1)


def _hue(angle):
    """Rotation (n, 3, 3) of colours about the grey axis, in YIQ."""
    one, zero, c, s = torch.ones_like(angle), torch.zeros_like(angle), angle.cos(), angle.sin()
    turn = torch.stack([one, zero, zero, zero, c, -s, zero, s, c], 1).view(-1, 3, 3)
    return _from_yiq(angle.device) @ turn @ _on(angle.device, _YIQ)


def _blur(x, p, rng):
    """Gaussian blur of sigma 0.1-2 pixels for a fraction p of the images; kernel 10 % of the side.

    One product with a banded matrix for each axis; its rows are normalised, also at the border.
    """
    if not p:
        return x
    n, side = len(x), x.shape[-1]
    chosen = _coin(rng, p, n).nonzero().squeeze(1)
    sigma = _uniform(rng, 0.1, 2, n)[chosen]
    at = torch.arange(side, device=x.device)
    gap = (at[:, None] - at).abs()
    reach = max(3, side // 10 | 1) // 2
    taps = torch.arange(reach + 2, device=x.device)
    weights = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2) * (taps <= reach)
    band = weights[:, gap.clamp(max=reach + 1)]
    band = band / band.sum(2, keepdim=True)
    rows = torch.bmm(x[chosen].flatten(1, 2), band.transpose(1, 2)).view(-1, 3, side, side)
    return x.index_copy(0, chosen, band.unsqueeze(1) @ rows)


def _solarize(x, p, rng):
    """Invert what is brighter than a half, for a fraction p of the images."""
    if not p:
        return x
    on = _coin(rng, p, len(x)).view(-1, 1, 1, 1)
    return torch.where(on & (x >= 0.5), 1 - x, x)


def _randaugment(images, rng, chunk=16):
    """RandAugment draws once for a whole batch, from the global generator: fork it, and go chunk by chunk."""
    from torchvision.transforms import v2

    transform = v2.RandAugment()
    seed = int(torch.randint(2**31, (), generator=rng, device=rng.device))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return torch.cat([transform(part) for part in images.split(chunk)])


def _jigsaw(images, view, size, rng):
    """Nine patches (B, 9, 3, P, P): each cut at random from its cell of a 3 × 3 grid, recoloured alone."""
    n, side = len(images), size // 4
    x = _crop(images.float() / 255, _boxes(images, view.scale, view.flip, rng), size)
    half = side / size
    free = 1 / 3 - half  # how far a patch can move within its cell
    patches = []
    for cell in range(9):
        cx, cy = ((at - 1) * (2 / 3) + free * _uniform(rng, -1, 1, n) for at in (cell % 3, cell // 3))
        extent = torch.full((n,), half, device=x.device)
        patches.append(_recolor(_crop(x, torch.stack([cx, cy, extent, extent]), side), view, rng))
    order = torch.rand(n, 9, generator=rng, device=rng.device).argsort(1)
    return torch.stack(patches, 1)[torch.arange(n, device=x.device)[:, None], order]
