"""Views of images: named augmentation settings with a strength, reproducible one by one.

A *setting* is a recipe, a tuple of steps (`mgmlib.steps` has the table of what each does at which
strength). The generator of a view depends on ``(seed, image id, view number)`` alone: a view is the same
bits whatever the batch size, the number of workers or the order. Setting and strength are not in the key:
one view at two strengths goes the same way, once less far and once farther.

Conventions of ours: a setting that stands alone applies its step to every view, for where a coin decides,
views repeat. For the same reason ``grayscale`` and ``solarize`` (threshold 0.5 as in BYOL, arXiv
2006.07733) alone are mixtures of the image and its changed version. ``flip`` has two distinct views by
nature, too few for a graph.
"""

from __future__ import annotations

import numpy as np
import torch

from mgmlib.steps import Blend, Blur, ColorJitter, Crop, Flip, Grayscale, Preprocessing, Rotate, checked

CODE_VERSION = 1  # part of every embedding's cache key: raise it when a view's pixels change

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
STUDY_SETTINGS = ("all", "crop", "color-jitter", "rotate", "blur")  # the study's five augmentation manifolds


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
        0 gives the unaugmented view exactly, 1 the published recipe; see `mgmlib.steps`.
    resize, interpolation, crop_mode
        The encoder's evaluation preprocessing, see `Preprocessing`.

    Returns
    -------
    torch.Tensor (3, size, size) float32 in [0, 1]
    """
    check_setting(setting, 2 if setting != "none" else 1, strength)
    preprocessing = Preprocessing(size, resize, interpolation, crop_mode)
    return _augment(checked(image), None, preprocessing, setting, strength, rng)


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
        Anything with ``len``, ``images[i]`` (3, H, W) and, where the images are part of a larger set,
        ``images.ids``.
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
            position, image = i, checked(images[i], i)
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
    """What views are seeded by: the position in the full source, so that a subset keeps its views."""
    ids = getattr(images, "ids", None)
    return i if ids is None else int(ids[i])


def check_setting(setting, n_views, strength):
    """Raise on an unknown setting, a strength outside [0, 1], or a number of views that does not fit."""
    if setting not in RECIPES:
        raise ValueError(f"setting={setting!r}: expected one of {', '.join(SETTINGS)}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength!r}: expected 0 (no augmentation) to 1 (the published recipe)")
    if setting == "none" and n_views != 1:
        raise ValueError(f"n_views={n_views!r}: setting 'none' has one view an image")
    if n_views != int(n_views) or n_views < 1:
        raise ValueError(f"n_views={n_views!r}: expected a whole number >= 1")


def _augment(image, plain, preprocessing, setting, strength, rng):
    """One augmented view of a checked image; ``plain`` is its unaugmented view, where that is known."""
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
    return x.clamp(0, 1)  # interpolation and blur overshoot by a rounding error
