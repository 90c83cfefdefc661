"""Names to encoders: one table, one function."""

from __future__ import annotations

import difflib
from importlib import import_module

from torch import nn

from mgmlib.models.catalogue import PADDED, PUBLISHED
from mgmlib.models.encoder import Encoder
from mgmlib.steps import Preprocessing

# A name, or a prefix that ends in ":", to the module (of this package, where there is no dot) and function
# that build it.
MODELS = {
    "timm:": ("timm_models", "timm_encoder"),
    "efficientnet-lite0": ("efficientnet_lite0", "efficientnet_lite0"),
    "pocket:": ("mgmlib.pretrain.pocket", "pocket_encoder"),
}
MODELS |= {name: ("published", "published_encoder") for name in PUBLISHED if name not in MODELS}


def load_model(
    name,
    *,
    weights="pretrained",
    seed=0,
    layer=None,
    pool="auto",
    input_size=None,
    resize=None,
    interpolation="bilinear",
    mean=None,
    std=None,
    padding=None,
):
    """An encoder in eval mode: images (B, 3, H, W) in [0, 1] to (B, d), its own normalisation inside.

    Parameters
    ----------
    name : str or torch.nn.Module
        A published model by its name in `mgmlib.models.table`, such as ``"simclr-v2"`` or
        ``"efficientnet-lite0"`` (whose weights a Python package ships); ``"timm:NAME"``, any timm
        architecture, its pooled features before the classifier; or a module of your own, that takes
        normalised images.
    weights : {"pretrained", "random"} or path
        Published weights, fetched once (`mgmlib.models.download.fetch`); initial weights drawn from ``seed``;
        or a file of weights, for a published model in the layout in which it is published, or under the
        encoder's own names. No file's code is run, and all names and shapes must agree: what the encoder
        lacks (heads, queues) must be known as such.
    seed : int
        For ``weights="random"``, and of a pocket model's run. The global generator is neither used nor
        changed.
    layer : str, optional
        Dotted name of a submodule whose output is the embedding, such as ``"layer3"``; `mgmlib.models.layers`
        lists the stages. A classifier's name gives its logits.
    pool : {"auto", "mean", "token", "flatten"}
        How maps and token sequences become one vector. ``auto``: maps (B, C, H, W) are averaged over
        positions; sequences (B, T, C) give their class token where the network has one, else the mean over
        positions.
    input_size : int, optional
        Side of the input in pixels; required for a module, the model's own for a name.
    resize : int, optional
        Modules only: length of the short side before the centre crop, in pixels; default ``input_size``.
    interpolation : {"bilinear", "bicubic"}
        Modules only.
    mean, std : three floats, optional
        Modules only: normalisation of the channels in units of [0, 1]; default none (0 and 1).
    padding : {"symmetric", "same"}, optional
        ``"byol"``, ``"simclr-v1"`` and ``"simclr-v2"`` only, which were trained with TensorFlow's padding
        ``"same"``. Default ``"symmetric"``, torchvision's: the published transfer numbers of these
        checkpoints (arXiv 2011.13377) were measured with it.

    Returns
    -------
    Encoder
    """
    if isinstance(name, nn.Module):
        if isinstance(name, Encoder):
            raise TypeError("name: this is an Encoder already; for another layer use encoder.at(layer)")
        if input_size is None:
            raise ValueError(
                f"input_size: required for a module ({type(name).__name__}); the side of its input in pixels"
            )
        return Encoder(
            name.eval(),
            name=type(name).__name__,
            preprocessing=Preprocessing(input_size, resize, interpolation),
            mean=(0, 0, 0) if mean is None else mean,
            std=(1, 1, 1) if std is None else std,
            layer=layer,
            pool=pool,
            meta={"weights": "module", "seed": None},
        )
    if not isinstance(name, str):
        raise TypeError(f"name: expected a model's name or a torch module, met {type(name).__name__}")
    for option, value in (("resize", resize), ("mean", mean), ("std", std)):
        if value is not None:
            raise ValueError(
                f"{option}: {name!r} brings its own preprocessing; only a module takes {option}="
            )
    if padding not in (None, "symmetric", "same"):
        raise ValueError(f"padding={padding!r}: expected 'symmetric' or 'same'")
    if padding is not None and name not in PADDED:
        raise ValueError(f"padding: {name!r} has one padding; only {', '.join(PADDED)} take padding=")
    prefix, colon, rest = name.partition(":")
    if prefix + colon not in MODELS or (colon and not rest):
        close = difflib.get_close_matches(name, [*MODELS, "timm:NAME"], n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
        known = ", ".join(repr(m + "NAME" if m.endswith(":") else m) for m in MODELS)
        raise ValueError(f"name={name!r}: unknown model. Known: {known}, or a torch module.{hint}")
    module, function = MODELS[prefix + colon]
    build = getattr(import_module(module if "." in module else f"mgmlib.models.{module}"), function)
    options = {"padding": padding or "symmetric"} if name in PADDED else {}
    return build(
        rest or name, weights=weights, seed=seed, layer=layer, pool=pool, input_size=input_size, **options
    )
