"""Views of images: named augmentation settings with a strength, reproducible one by one.

A *setting* is a recipe, a tuple of steps. Every step draws its parameters from an explicit generator and applies them
with torchvision's kernels. The generator of a view depends on ``(seed, image id, view number)`` alone, so that a view
is the same bits whatever the batch size, the number of workers or the order. The setting and the strength are not in
the key: one view seen at two strengths has the same direction and a different length.

``strength`` runs from 0 (every view is the unaugmented one, exactly) to 1 (the recipe as published). What it scales:

=============  ============================================================  =========================================
step           at strength 1                                                 ``strength`` scales
=============  ============================================================  =========================================
Crop           area 8-100 %, aspect 3/4-4/3 (Szegedy et al. 2015; SimCLR)    the box, from the evaluation crop (0)
                                                                             to the drawn box (1), edge by edge
Flip           mirrored with probability 1/2                                 the probability
ColorJitter    brightness, contrast, saturation 0.8, hue 0.2, in random      the four ranges: it is the ``s`` of SimCLR,
               order (SimCLR, arXiv 2002.05709, appendix A, s = 1)           whose CIFAR-10 models used s = 0.5
Grayscale      grey with probability 0.2 (SimCLR)                            the probability
Blur           Gaussian, sigma 0.1-2 pixels, kernel 10 % of the side         sigma
Rotate         angle uniform in -45 to 45 degrees (ours)                     the angle
Blend          a mixture of the image and its grey or solarized version,     the weight
               weight uniform in 0-1 (ours)
=============  ============================================================  =========================================

Conventions of ours. A setting that stands alone applies its step to every view: a step left to a coin would repeat the
unaugmented view. For the same reason ``grayscale`` and ``solarize`` (threshold 1/2, as BYOL, arXiv 2006.07733) alone are
mixtures; ``flip`` has two distinct views by nature, too few for a neighborhood graph. Rotation mirrors the image at its
border, rotates, and crops the centre: black corners would tell the angle. Crops are cut from the original image with
the encoder's interpolation; every other step works on the image after evaluation preprocessing, in float32 between
steps, where the published pipelines round to 8 bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

CODE_VERSION = 1  # part of every embedding's cache key: raise it when a view's pixels change


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
        """The unaugmented view of an image (3, H, W) uint8 or float in [0, 1]: (3, size, size) float32 in [0, 1]."""
        from torchvision.transforms.v2 import functional as F

        image = _checked(image)
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
        return {} if rng.random() < self.p * strength else None

    def apply(self, x):
        return x.flip(-1)


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast, saturation factors in 1 ± range and hue shift in ± range (turns), in random order."""

    p: float = 1.0
    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2

    def draw(self, rng, strength):
        coin, order = rng.random(), rng.permutation(4)
        u = strength * rng.uniform(-1, 1, 4)
        if coin >= self.p:
            return None
        ranges = (self.brightness, self.contrast, self.saturation)
        factors = [1 + width * float(v) for width, v in zip(ranges, u)]
        return {"order": tuple(order.tolist()), "factors": (*factors, self.hue * float(u[3]))}

    def apply(self, x, order, factors):
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
        return {} if rng.random() < self.p * strength else None

    def apply(self, x):
        from torchvision.transforms.v2 import functional as F

        return F.rgb_to_grayscale(x, num_output_channels=3)


@dataclass(frozen=True)
class Blur:
    """Gaussian blur with probability p; sigma in pixels of the view; kernel: the odd number at 10 % of the side."""

    p: float = 1.0
    sigma: tuple[float, float] = (0.1, 2.0)

    def draw(self, rng, strength):
        coin, sigma = rng.random(), strength * rng.uniform(*self.sigma)
        return {"sigma": sigma} if coin < self.p else None

    def apply(self, x, sigma):
        from torchvision.transforms.v2 import functional as F

        kernel = max(3, x.shape[-1] // 10 | 1)
        return F.gaussian_blur(x, [kernel, kernel], [sigma, sigma])


@dataclass(frozen=True)
class Rotate:
    """Rotate about the centre by an angle uniform in ± degrees; the image continues as its mirror image."""

    degrees: float = 45.0

    def draw(self, rng, strength):
        return {"angle": strength * rng.uniform(-self.degrees, self.degrees)}

    def apply(self, x, angle):
        from torchvision.transforms.v2 import functional as F

        side = x.shape[-1]
        margin = (
            math.ceil(side * (math.sqrt(2) - 1) / 2) + 1
        )  # the diagonal, and one pixel to interpolate with
        x = F.pad(x, [margin], padding_mode="reflect")
        return F.center_crop(F.rotate(x, angle, interpolation=_mode("bilinear")), [side, side])


@dataclass(frozen=True)
class Blend:
    """Mix the image with its grey or its solarized version, weight uniform in [0, 1)."""

    target: str

    def draw(self, rng, strength):
        return {"weight": strength * rng.random()}

    def apply(self, x, weight):
        from torchvision.transforms.v2 import functional as F

        gray = self.target == "grayscale"
        other = F.rgb_to_grayscale(x, num_output_channels=3) if gray else F.solarize(x, 0.5)
        return torch.lerp(x, other, weight)


RECIPES = {
    "none": (),
    "all": (Crop(), Flip(), ColorJitter(p=0.8), Grayscale(), Blur(p=0.5)),  # SimCLR, appendix A
    "crop": (Crop(),),
    "color-jitter": (ColorJitter(),),
    "rotate": (Rotate(),),
    "blur": (Blur(),),
    "flip": (Flip(),),
    "grayscale": (Blend("grayscale"),),
    "solarize": (Blend("solarize"),),
}
SETTINGS = tuple(RECIPES)


def view(
    image, setting, size, *, rng, strength=1.0, resize=None, interpolation="bilinear", crop_mode="center"
):
    """One view of one image.

    Parameters
    ----------
    image : torch.Tensor (3, H, W), uint8, or float in [0, 1]
    setting : str
        One of `SETTINGS`.
    size : int
        Side of the view, in pixels.
    rng : numpy.random.Generator
        Source of every random parameter; see `view_generator`.
    strength : float in [0, 1]
        0 gives the unaugmented view exactly, 1 the published recipe; see the module's table.
    resize, interpolation, crop_mode
        The encoder's evaluation preprocessing, see `Preprocessing`.

    Returns
    -------
    torch.Tensor (3, size, size) float32 in [0, 1]
    """
    check_setting(setting, 2 if setting != "none" else 1, strength)
    preprocessing = Preprocessing(size, resize, interpolation, crop_mode)
    return _augment(_checked(image), None, preprocessing, setting, strength, rng)


def views(
    images,
    setting,
    n_views,
    size,
    *,
    seed=0,
    strength=1.0,
    resize=None,
    interpolation="bilinear",
    crop_mode="center",
):
    """All views of all images; the views of an image are consecutive, the first is the unaugmented one.

    Parameters
    ----------
    images : Images, or torch.Tensor (N, 3, H, W) uint8 or float in [0, 1]
        Anything with ``len``, ``images[i]`` (3, H, W) and, where the images are part of a larger set, ``images.ids``.
    setting, size, strength, resize, interpolation, crop_mode
        As for `view`.
    n_views : int
        Views per image, the unaugmented one included; 1 for ``"none"``.
    seed : int >= 0

    Returns
    -------
    torch.Tensor (N * n_views, 3, size, size) float32 in [0, 1]
    """
    check_setting(setting, n_views, strength)
    preprocessing = Preprocessing(size, resize, interpolation, crop_mode)
    return view_rows(images, 0, len(images) * n_views, setting, n_views, preprocessing, seed, strength)


def view_rows(images, start, stop, setting, n_views, preprocessing, seed, strength):
    """Rows ``start`` to ``stop`` of what `views` returns; every image is read once."""
    out = torch.empty(stop - start, 3, preprocessing.size, preprocessing.size)
    position = -1
    for row in range(start, stop):
        i, number = divmod(row, n_views)
        if i != position:
            position, image = i, _checked(images[i], i)
            plain = preprocessing(image)
        if number == 0:
            out[row - start] = plain
        else:
            rng = view_generator(seed, image_id(images, i), number)
            out[row - start] = _augment(image, plain, preprocessing, setting, strength, rng)
    return out


def view_generator(seed, image_id, number):
    """The generator of one view: counter-based, keyed by (seed, image id, view number) and nothing else."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(image_id, number))))


def image_id(images, i):
    """What the views of image i are seeded by: its position in the full source, so that a subset keeps its views."""
    ids = getattr(images, "ids", None)
    return i if ids is None else int(ids[i])


def check_setting(setting, n_views, strength):
    """Raise on an unknown setting, a strength outside [0, 1], or a number of views that does not fit the setting."""
    if setting not in RECIPES:
        raise ValueError(f"setting={setting!r}: expected one of {', '.join(SETTINGS)}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength!r}: expected 0 (no augmentation) to 1 (the published recipe)")
    if setting == "none" and n_views != 1:
        raise ValueError(f"n_views={n_views!r}: setting 'none' has one view an image")
    if n_views != int(n_views) or n_views < 1:
        raise ValueError(f"n_views={n_views!r}: expected a whole number >= 1")


def _augment(image, plain, preprocessing, setting, strength, rng):
    """One augmented view of a checked image; ``plain`` is its unaugmented view where that is known already."""
    steps = RECIPES[setting]
    crops = bool(steps) and isinstance(steps[0], Crop) and strength > 0
    if crops:
        box = steps[0].draw(rng, *image.shape[1:])
        x, steps = steps[0].apply(image, box, preprocessing, strength), steps[1:]
    else:
        x = preprocessing(image) if plain is None else plain
    for step in steps if strength > 0 else ():
        parameters = step.draw(rng, strength)
        if parameters is not None:
            x = step.apply(x, **parameters)
    return x


def _between(a, b, t):
    """Box (top, left, height, width) a fraction t of the way from box a to box b, in whole pixels."""
    edges = [
        (1 - t) * u + t * v
        for u, v in zip((a[0], a[1], a[0] + a[2], a[1] + a[3]), (b[0], b[1], b[0] + b[2], b[1] + b[3]))
    ]
    top, left, bottom, right = (round(e) for e in edges)
    return top, left, max(1, bottom - top), max(1, right - left)


def _checked(image, i=None):
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


def _unit_float(x):
    return x.float() / 255 if x.dtype == torch.uint8 else x.clamp(0, 1)  # bicubic overshoots


def _mode(interpolation):
    from torchvision.transforms import InterpolationMode

    return InterpolationMode(interpolation)
