"""Encoders from timm: any of its architectures, pooled features before the classifier."""

from __future__ import annotations

import difflib
import math
import os
import urllib.error
import urllib.parse
import urllib.request

import torch

from mgmlib.models.encoder import Encoder
from mgmlib.models.weights import load_strict, read_weights, seeded
from mgmlib.steps import Preprocessing


def timm_encoder(name, *, weights, seed, layer, pool, input_size):
    """An Encoder of the timm model ``name`` (with or without a ``.tag``); see `mgmlib.load_model`."""
    import timm

    config = _config(name)
    preprocessing = _preprocessing(name, config, input_size)
    size = {"img_size": input_size} if input_size and config.fixed_input_size else {}
    head = {} if _is_head(config, layer) else {"num_classes": 0}
    build = {**size, **head}
    if weights == "pretrained":
        net = _pretrained(name, config, build)
    else:
        with seeded(seed):
            net = timm.create_model(name, pretrained=False, **build)
        if weights != "random":
            load_strict(net, read_weights(weights), weights, drop=_heads(config) if head else ())
    origin = {
        "weights": str(weights),
        "seed": seed if weights == "random" else None,
        "timm": timm.__version__,
    }
    return Encoder(
        net.eval(),
        name=f"timm:{name}",
        preprocessing=preprocessing,
        mean=config.mean,
        std=config.std,
        layer=layer,
        pool=pool,
        meta=origin,
    )


def _config(name):
    """What timm knows of a model's published weights and preprocessing."""
    import timm

    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        close = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5)) or "none"
        raise ValueError(f"name='timm:{name}': timm {timm.__version__} has no such model; close: {close}")
    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:  # no such tag
        known = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none"
        raise ValueError(f"name='timm:{name}': timm knows no such weights; known: {known}") from error


def _preprocessing(name, config, input_size):
    """The model's own evaluation preprocessing: short side to ``floor(size / crop_pct)``, as timm does."""
    height, width = config.input_size[1:]
    if height != width or config.crop_mode == "border":
        raise ValueError(
            f"name='timm:{name}': preprocessing {config.input_size}, {config.crop_mode!r} is not supported"
        )
    size = input_size or height
    return Preprocessing(size, math.floor(size / config.crop_pct), config.interpolation, config.crop_mode)


def _heads(config):
    return (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ())


def _is_head(config, layer):
    return layer is not None and any(head == layer or head.startswith(f"{layer}.") for head in _heads(config))


def _pretrained(name, config, build):
    """The published weights, from the local cache or the network; where there is neither, an error, soon."""
    import timm

    overlay = {}
    if config.hf_hub_id:
        from huggingface_hub import constants, try_to_load_from_cache

        address = constants.ENDPOINT
        for file in ("model.safetensors", "pytorch_model.bin"):
            cached = try_to_load_from_cache(config.hf_hub_id, file)
            if isinstance(cached, str):
                overlay = {"file": cached, "custom_load": False}
                break
    elif config.url:
        address = config.url
        cached = os.path.join(
            torch.hub.get_dir(), "checkpoints", os.path.basename(urllib.parse.urlsplit(address).path)
        )
        overlay = {"file": cached} if os.path.isfile(cached) else {}
    else:
        raise ValueError(
            f"name='timm:{name}': no pretrained weights are published; pass weights='random' or weights=PATH"
        )
    try:
        if not overlay:
            _reach(address)
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **build)
    except (OSError, RuntimeError) as error:
        raise RuntimeError(
            f"weights='pretrained' of 'timm:{name}' could not be had: {error}\n"
            f"Pass weights='random' (with seed=), or weights=PATH to a safetensors or torch file, or fill "
            f"timm's cache once where there is a network: timm.create_model({name!r}, pretrained=True)."
        ) from error


def _reach(address, timeout=5):
    """Raise OSError, in seconds, where a host cannot be reached: the hub's own retries take a minute."""
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=timeout).close()
    except urllib.error.HTTPError:
        pass  # an answer, whatever it says: the host is there
    except OSError as error:
        host = urllib.parse.urlsplit(address).hostname
        raise OSError(f"not in the local cache, and {host} does not answer: {error}") from error
