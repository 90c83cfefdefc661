"""The steps of augmentation: each draws its parameters, and applies them with torchvision's kernels.

``strength`` runs from 0, which changes nothing, to 1, the step as published:

===========  =================================================  ==============================================
step         at strength 1                                      what ``strength`` scales
===========  =================================================  ==============================================
Crop         area 8-100 %, aspect 3/4-4/3 [1]_                  how far each edge of the box moves from the
                                                                evaluation crop (0) to the drawn box (1)
Flip         mirrored with probability 0.5                      the probability
ColorJitter  brightness, contrast, saturation 0.8, hue 0.2,     the four ranges: it is SimCLR's ``s``, 1 for
             in random order [1]_                               ImageNet and 0.5 for CIFAR-10
Grayscale    grey with probability 0.2 [1]_                     the probability
Blur         sigma 0.1-2 pixels, kernel 10 % of the side [1]_   sigma
Rotate       angle uniform in -45 to 45 degrees (ours)          the angle
Blend        mixed with its grey or solarized version, weight   the weight
             uniform in 0-1 (ours)
===========  =================================================  ==============================================

Rotation continues the image as its mirror image, rotates, and crops the centre: black corners would tell
the angle. Crops are cut from the original image, with the encoder's interpolation. Every other step works
on the image after evaluation preprocessing, in float32, where the published pipelines round to 8 bits after
each step.

References
----------
.. [1] Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, arXiv 2002.05709,
   appendix A.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Preprocessing:
    """Evaluation preprocessing of an encoder: resize, then crop the centre; antialiased.

    Parameters
    ----------
    size : int
        Side of the square that the encoder takes, in pixels.
    resize : int, optional
        Length that the short side is resized to before the crop, in pixels; default ``size``.
    interpolation : {"bilinear", "bicubic"}
    crop_mode : {"center", "squash"}
        ``squash`` resizes both sides to ``resize`` and ignores the aspect ratio, as some published models do.
    """

    size: int
    resize: int | None = None
    interpolation: str = "bilinear"
    crop_mode: str = "center"

    def __post_init__(self):
        object.__setattr__(self, "resize", self.size if self.resize is None else self.resize)
        if not 1 <= self.size <= self.resize:
            raise ValueError(f"size={self.size}, resize={self.resize}: expected 1 <= size <= resize")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation={self.interpolation!r}: expected 'bilinear' or 'bicubic'")
        if self.crop_mode not in ("center", "squash"):
            raise ValueError(f"crop_mode={self.crop_mode!r}: expected 'center' or 'squash'")

    def __call__(self, image):
        """Unaugmented view (3, size, size) float32 in [0, 1] of an image (3, H, W)."""
        from torchvision.transforms.v2 import functional as F

        image = checked(image)
        target = [self.resize] if self.crop_mode == "center" else [self.resize, self.resize]
        image = F.resize(image, target, interpolation=_mode(self.interpolation), antialias=True)
        return _unit_float(F.center_crop(image, [self.size, self.size]))

    def box(self, height, width):
        """Top, left, height, width, in pixels of the original (float), of what the unaugmented view shows."""
        fraction = self.size / self.resize
        if self.crop_mode == "center":
            h = w = fraction * min(height, width)
        else:
            h, w = fraction * height, fraction * width
        return (height - h) / 2, (width - w) / 2, h, w


@dataclass(frozen=True)
class Crop:
    """Random resized crop: the box is drawn as torchvision's ``RandomResizedCrop`` draws it."""

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def draw(self, rng, height, width):
        """Top, left, height, width of a box inside (height, width), in whole pixels."""
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            aspect = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        w = min(width, round(height * self.ratio[1]))  # the largest box of a permitted aspect, at the centre
        h = min(height, round(width / self.ratio[0]))
        return (height - h) // 2, (width - w) // 2, h, w

    def apply(self, image, box, preprocessing, strength=1.0):
        """Cut the box, moved towards the evaluation crop by ``1 - strength``; (3, size, size) float32."""
        from torchvision.transforms.v2 import functional as F

        if strength < 1:
            box = _between(preprocessing.box(*image.shape[1:]), box, strength)
        side = [preprocessing.size, preprocessing.size]
        mode = _mode(preprocessing.interpolation)
        return _unit_float(F.resized_crop(image, *box, side, interpolation=mode, antialias=True))


@dataclass(frozen=True)
class Flip:
    """Mirror left and right with probability p."""

    p: float = 0.5

    def draw(self, rng, strength):
        """Parameters for `apply`, or None to leave the view as it is."""
        return {} if rng.random() < self.p * strength else None

    def apply(self, x):
        """The step on a view x (3, S, S) float32 in [0, 1]."""
        return x.flip(-1)


@dataclass(frozen=True)
class ColorJitter:
    """Factors 1 ± range for brightness, contrast, saturation; hue shift ± range, in turns; random order."""

    p: float = 1.0
    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2

    def draw(self, rng, strength):
        """Parameters for `apply`, or None to leave the view as it is."""
        coin, order = rng.random(), rng.permutation(4)
        u = strength * rng.uniform(-1, 1, 4)
        if coin >= self.p:
            return None
        ranges = (self.brightness, self.contrast, self.saturation)
        factors = [1 + width * float(v) for width, v in zip(ranges, u[:3], strict=True)]
        return {"order": tuple(order.tolist()), "factors": (*factors, self.hue * float(u[3]))}

    def apply(self, x, order, factors):
        """The step on a view x (3, S, S) float32 in [0, 1]."""
        from torchvision.transforms.v2 import functional as F

        adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
        for i in order:
            x = adjust[i](x, factors[i])
        return x


@dataclass(frozen=True)
class Grayscale:
    """Replace the three channels by the luma with probability p."""

    p: float = 0.2

    def draw(self, rng, strength):
        """Parameters for `apply`, or None to leave the view as it is."""
        return {} if rng.random() < self.p * strength else None

    def apply(self, x):
        """The step on a view x (3, S, S) float32 in [0, 1]."""
        from torchvision.transforms.v2 import functional as F

        return F.rgb_to_grayscale(x, num_output_channels=3)


@dataclass(frozen=True)
class Blur:
    """Gaussian blur with probability p; sigma in pixels of the view; kernel: odd, 10 % of the side."""

    p: float = 1.0
    sigma: tuple[float, float] = (0.1, 2.0)

    def draw(self, rng, strength):
        """Parameters for `apply`, or None to leave the view as it is."""
        coin, sigma = rng.random(), strength * rng.uniform(*self.sigma)
        return {"sigma": sigma} if coin < self.p else None

    def apply(self, x, sigma):
        """The step on a view x (3, S, S) float32 in [0, 1]."""
        from torchvision.transforms.v2 import functional as F

        kernel = max(3, x.shape[-1] // 10 | 1)
        x = F.gaussian_blur(x, [kernel, 1], [sigma, sigma])  # one axis at a time: the kernel is separable
        return F.gaussian_blur(x, [1, kernel], [sigma, sigma])


@dataclass(frozen=True)
class Rotate:
    """Rotate about the centre by an angle uniform in ± degrees; the image continues as its mirror image."""

    degrees: float = 45.0

    def draw(self, rng, strength):
        """Parameters for `apply`, or None to leave the view as it is."""
        return {"angle": strength * rng.uniform(-self.degrees, self.degrees)}

    def apply(self, x, angle):
        """The step on a view x (3, S, S) float32 in [0, 1]."""
        from torchvision.transforms.v2 import functional as F

        side = x.shape[-1]
        margin = math.ceil(side * (math.sqrt(2) - 1) / 2) + 1  # to the diagonal, and one to interpolate with
        x = F.pad(x, [margin], padding_mode="reflect")
        return F.center_crop(F.rotate(x, angle, interpolation=_mode("bilinear")), [side, side])


@dataclass(frozen=True)
class Blend:
    """Mix the image with its grey or its solarized version, weight uniform in [0, 1)."""

    target: str

    def draw(self, rng, strength):
        """Parameters for `apply`, or None to leave the view as it is."""
        return {"weight": strength * rng.random()}

    def apply(self, x, weight):
        """The step on a view x (3, S, S) float32 in [0, 1]."""
        from torchvision.transforms.v2 import functional as F

        gray = self.target == "grayscale"
        other = F.rgb_to_grayscale(x, num_output_channels=3) if gray else F.solarize(x, 0.5)
        return torch.lerp(x, other, weight)


def checked(image, i=None):
    """A contiguous (3, H, W) uint8 or float32 tensor, or an error."""
    which = "image" if i is None else f"images[{i}]"
    if not isinstance(image, torch.Tensor) or image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        met = tuple(image.shape) if hasattr(image, "shape") else type(image).__name__
        raise ValueError(f"{which}: expected a torch tensor (3, H, W), met {met}")
    if image.dtype == torch.uint8:
        return image.contiguous()  # resize kernels differ in the last bit between memory layouts
    if not image.is_floating_point():
        raise TypeError(f"{which}: expected uint8, or float in [0, 1], met {image.dtype}")
    image = image.float().contiguous()
    if not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(
            f"{which}: float pixels must lie in [0, 1], met {float(image.min())} to {float(image.max())}"
        )
    return image


def _between(a, b, t):
    """Box (top, left, height, width) in whole pixels, its edges a fraction t of the way from box a to b."""
    ends = ((a[0], b[0]), (a[1], b[1]), (a[0] + a[2], b[0] + b[2]), (a[1] + a[3], b[1] + b[3]))
    top, left, bottom, right = (round((1 - t) * u + t * v) for u, v in ends)
    return top, left, max(1, bottom - top), max(1, right - left)


def _unit_float(x):
    return x.float() / 255 if x.dtype == torch.uint8 else x.clamp(0, 1)  # bicubic overshoots


def _mode(interpolation):
    from torchvision.transforms import InterpolationMode

    return InterpolationMode(interpolation)
