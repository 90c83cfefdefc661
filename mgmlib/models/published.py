"""Encoders with published weights: every parameter and buffer from the checkpoint, or an error."""

from __future__ import annotations

import math
import os
import uuid
from functools import partial
from pathlib import Path

import torch
from torch import nn

from mgmlib.cache import cache_folder
from mgmlib.models import layouts
from mgmlib.models.catalogue import PUBLISHED
from mgmlib.models.containers import kind_of, read_safetensors, read_torch, sha256_of
from mgmlib.models.download import check_hash, fetch
from mgmlib.models.encoder import Encoder
from mgmlib.models.safe_pickle import read_pickle
from mgmlib.models.tensor_bundle import read_bundle
from mgmlib.models.weights import load_strict, seeded
from mgmlib.steps import Preprocessing

_SIZE, _CROP_FRACTION = 224, 0.875
_WRAPPERS = ("state_dict", "model", "resnet")  # where conversions keep an encoder's tensors
_CONVERSION = 1  # of a pickle into safetensors: raise it when the names or values change


def published_encoder(name, *, weights, seed, layer, pool, input_size, padding="symmetric"):
    """An Encoder of a published model; see `mgmlib.load_model`."""
    row, size = PUBLISHED[name], input_size or _SIZE
    origin = {"weights": str(weights), "seed": seed if weights == "random" else None}
    if weights == "random":
        with seeded(seed):
            net = architecture(row, size, padding)
    else:
        net = blank(row, size, padding)
        pretrained = weights == "pretrained"
        path = fetch(name, row.files, row.known_hash) if pretrained else Path(weights).expanduser()
        state = read_checkpoint(path, row)
        if hasattr(net, "patch_embed"):
            state = layouts.resize_positions(state, net.patch_embed.grid_size[0])
        load_strict(net, _with_counters(state, net), path)
        origin |= {"sha256": sha256_of(path), "published_hash": _agreement(path, row)}
    mean, std = row.normalisation
    return Encoder(
        net.eval(),
        name=name,
        preprocessing=Preprocessing(size, math.floor(size / _CROP_FRACTION), row.interpolation),
        mean=mean,
        std=std,
        layer=layer,
        pool=pool,
        meta=origin | ({"padding": padding} if padding != "symmetric" else {}),
    )


def architecture(row, size=_SIZE, padding="symmetric"):
    """The network of a published model, without its head, as it is initialised."""
    if row.architecture == "resnet50":
        from torchvision.models import resnet50

        net = resnet50(weights=None)
        net.fc = nn.Identity()
        if padding == "same":
            _pad_same(net, convolutions=row.layout == "haiku")
        return net
    import timm

    heads = {"num_heads": 12} if row.name == "mocov3-vits16" else {}  # its authors' ViT-S, not timm's
    return timm.create_model(row.architecture, pretrained=False, num_classes=0, img_size=size, **heads)


def blank(row, size=_SIZE, padding="symmetric"):
    """The network with whatever the memory held: for weights that set every parameter and buffer."""
    with torch.device("meta"):
        net = architecture(row, size, padding)
    unsaved = {name for name, _ in net.named_buffers()} - set(net.state_dict())
    if unsaved:
        raise RuntimeError(f"{row.architecture}: no file sets its buffers {', '.join(sorted(unsaved))}")
    return net.to_empty(device="cpu")


def _pad_same(net, convolutions):
    """TensorFlow's padding where it differs from torchvision's: at stride 2, and one-sided.

    SimCLR pads its convolutions like torchvision (``conv2d_fixed_padding``), only its max-pool as TensorFlow
    does; haiku's ResNet pads both as TensorFlow does.
    """
    from timm.layers import Conv2dSame, create_pool2d

    net.maxpool = create_pool2d("max", 3, stride=2, padding="same")
    strided = [
        (name, module)
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2) and module.kernel_size > (1, 1)
    ]
    for name, old in strided if convolutions else ():
        new = Conv2dSame(old.in_channels, old.out_channels, old.kernel_size, stride=2, bias=False)
        new.load_state_dict(old.state_dict())
        parent, _, child = name.rpartition(".")
        setattr(net.get_submodule(parent), child, new)


def read_checkpoint(path, row):
    """The encoder's tensors of a checkpoint under the encoder's own names, and whatever is left over.

    Parameters
    ----------
    path : file or folder
    row : Published

    Returns
    -------
    dict of str to tensor: a name that is neither the encoder's nor one that may be dropped is kept.
    """
    kind = kind_of(path)
    if kind == "pickle" and row.layout == "haiku":
        return _once_converted(path, row)
    if kind == "bundle" and row.layout == "tensorflow":
        return _told(partial(_from_bundle, path, row), path)
    if kind == "bundle":
        raise ValueError(
            f"weights={str(path)!r}: a TensorFlow checkpoint; {row.name!r} is not published as one"
        )
    content = read_safetensors(path) if kind == "safetensors" else read_torch(path)
    return _told(partial(_from_torch, content, row), path)


def _told(read, path):
    """What reading gives, with the file named in its errors."""
    try:
        return read()
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"weights={str(path)!r}: {error}") from error


def _from_torch(content, row):
    """Published names where they are met, else those of a conversion, else the encoder's own."""
    inner = content.get(row.container) if isinstance(content, dict) and row.container else content
    if _tensors(inner) and any(name.startswith(row.prefix) for name in inner):
        return layouts.under(inner, row.prefix, row.drop)
    heads = (*row.drop, "fc", "head")
    for inner in (content, *(content.get(key) for key in _WRAPPERS if isinstance(content, dict))):
        if _tensors(inner):
            if row.layout == "tensorflow" and "net.0.0.weight" in inner:
                inner = layouts.from_converted_simclr2(inner)
            return layouts.under(inner, "", heads)
    where = f"the encoder's tensors under {row.container!r}" if row.container else "a dict of tensors"
    met = f"the keys {', '.join(map(str, content))}" if isinstance(content, dict) else type(content).__name__
    raise ValueError(f"expected {where}, met {met}")


def _tensors(state):
    return isinstance(state, dict) and len(state) and all(isinstance(v, torch.Tensor) for v in state.values())


def _from_bundle(path, row):
    def dropped(name):
        return name.endswith("/Momentum") or name.split("/")[0] in row.drop

    variables = read_bundle(path, wanted=lambda name: not dropped(name))
    return layouts.from_tensorflow({k: v for k, v in variables.items() if v is not None}, row.prefix)


def _once_converted(path, row):
    """BYOL's tensors, from the safetensors file that the pickle was converted into when it was first met."""
    from safetensors.torch import save_file

    folder = cache_folder() / "weights" / row.name
    stem = f"converted-{_CONVERSION}-{sha256_of(path)[:16]}"
    for kept in folder.glob(f"{stem}-*.safetensors"):
        if sha256_of(kept)[:16] == kept.stem.rpartition("-")[2]:
            return read_safetensors(kept)
        kept.unlink()  # damaged
    state = _told(partial(_from_pickle, path, row), path)
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{uuid.uuid4().hex}.new"
    save_file(state, draft)
    os.replace(draft, folder / f"{stem}-{sha256_of(draft)[:16]}.safetensors")
    return state


def _from_pickle(path, row):
    content = read_pickle(path)
    experiment = content.get(row.container) if isinstance(content, dict) else None
    parts = [experiment.get(f"online_{what}") for what in ("params", "state")] if experiment else [None]
    if not all(isinstance(part, dict) for part in parts):
        raise ValueError(f"expected {row.container} with online_params and online_state")
    return layouts.from_haiku(*parts, row.prefix, row.drop)


def _with_counters(state, net):
    """With batch norm's counters of batches, which play no part in an embedding, where a file has none."""
    if any(name.endswith(".num_batches_tracked") for name in state):
        return state
    own = net.state_dict()
    return state | {k: torch.zeros_like(v) for k, v in own.items() if k.endswith(".num_batches_tracked")}


def _agreement(path, row):
    """How a file's hash stands to the published one."""
    if row.known_hash is None:
        return "none published"
    try:
        check_hash(path, row.known_hash)
    except ValueError:
        return "differs"
    return "agrees"
