"""Models as vectors of manifold graph metrics: one model's profile, over manifolds or through its layers."""

import numpy as np
import pandas as pd

from mgmlib.augment import STUDY_SETTINGS
from mgmlib.embed import embed
from mgmlib.metrics import manifold_metrics

SMALLEST_CLASS = 5  # images that a semantic manifold must have to be measured


def profile(
    encoder,
    images=None,
    view_images=None,
    *,
    settings=STUDY_SETTINGS,
    n_views=40,
    k=50,
    seed=0,
    metric_options=None,
    **embed_options,
):
    """Manifold graph metrics of one model on semantic and augmentation manifolds.

    Parameters
    ----------
    encoder : Encoder
    images : Images, optional
        Measured as semantic manifolds, one per class of at least `SMALLEST_CLASS` images.
    view_images : Images, optional
        Measured as augmentation manifolds, one per image and setting.
    settings : sequence of str, of `mgmlib.augment.SETTINGS`.
    n_views : views of an image, the unaugmented one included.
    k : candidates of each point.
    seed : of views, bootstrap and calibration.
    metric_options, embed_options : further arguments of `manifold_metrics` and of `embed`.

    Returns
    -------
    DataFrame: encoder, dim, manifold ("semantic" or a setting) and the columns of `manifold_metrics`,
        metric "dimension" (calibrated) among them.
    """
    if images is None and view_images is None:
        raise ValueError("images, view_images: give at least one of them")
    options = {"k": k, "seed": seed, "calibrated": True} | (metric_options or {})
    tables = {}
    if images is not None:
        z = embed(encoder, large_classes(images), seed=seed, **embed_options)
        tables["semantic"] = manifold_metrics(z, **options)
    for setting in settings if view_images is not None else ():
        z = embed(encoder, view_images, setting, n_views, seed=seed, **embed_options)
        tables[setting] = manifold_metrics(z, **options)
    table = pd.concat(tables, names=["manifold"]).reset_index("manifold").reset_index(drop=True)
    table.insert(0, "encoder", encoder.name)
    table.insert(1, "dim", encoder.dim)
    return table


def depth_profile(encoder, view_images, layers, *, setting="all", **options):
    """`profile` of one augmentation setting at several layers, input to output.

    Parameters
    ----------
    encoder : Encoder
    view_images : Images
    layers : names of `mgmlib.models.layers`; None stands for the output.
    setting : str
    options : further arguments of `profile`.

    Returns
    -------
    DataFrame: layer, depth (0…1, position in ``layers``) and the columns of `profile`.
    """
    tables = []
    for number, layer in enumerate(layers):
        table = profile(encoder.at(layer), view_images=view_images, settings=(setting,), **options)
        table.insert(0, "layer", layer or "output")
        table.insert(1, "depth", number / max(len(layers) - 1, 1))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def large_classes(images):
    """The images of classes that are large enough to be a manifold."""
    sizes = np.bincount(images.labels, minlength=len(images.classes))
    kept = sizes[images.labels] >= SMALLEST_CLASS
    if not kept.any():
        raise ValueError(
            f"images: no class of {images.name!r} has {SMALLEST_CLASS} images (the largest has {sizes.max()})"
        )
    return images if kept.all() else images.subset(kept)
