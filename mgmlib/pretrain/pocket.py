"""Encoders of the pocket zoo: committed weights, runs of one's own, or a run started on demand."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

from mgmlib.cache import cache_folder
from mgmlib.data import load_images
from mgmlib.models.encoder import Encoder
from mgmlib.models.weights import load_strict, read_weights
from mgmlib.pretrain.backbones import backbone
from mgmlib.pretrain.records import ASSETS, records
from mgmlib.pretrain.zoo import zoo_config
from mgmlib.steps import Preprocessing


def pocket_encoder(name, *, weights, seed, layer, pool, input_size):
    """The encoder of the run ``name`` from ``seed``; see `mgmlib.load_model`.

    Committed weights where the repository has them, else those of a finished run in the cache
    (``zoo/NAME-sSEED``), else the network is trained there now, on `load_images("cifar10")`.
    """
    config = zoo_config(name, seed)
    if weights == "random":
        net = backbone(config.backbone, config.size, seed)
    else:
        net = network(config, _weights(name, config) if weights == "pretrained" else weights)
    return encoder(
        net, config, f"pocket:{name}", layer, pool, input_size, {"weights": str(weights), "seed": seed}
    )


def network(config, path):
    """The backbone of a run, with the weights of a file, which may be of half precision."""
    net = backbone(config.backbone, config.size, config.seed)
    state = {k: v.float() if v.is_floating_point() else v for k, v in read_weights(path).items()}
    load_strict(net, state, path)
    return net


def encoder(net, config, name, layer=None, pool="auto", input_size=None, meta=None):
    """An Encoder of a backbone that was trained with ``config``."""
    return Encoder(
        net.eval(),
        name=name,
        preprocessing=Preprocessing(input_size or config.size),
        mean=config.mean,
        std=config.std,
        layer=layer,
        pool=pool,
        meta=meta,
    )


def _weights(name, config):
    committed = ASSETS / "weights" / f"{name}-s{config.seed}.safetensors"
    if committed.is_file():
        run = json.loads((ASSETS / "runs" / f"{name}-s{config.seed}.json").read_text())
        if hashlib.sha256(committed.read_bytes()).hexdigest() != run["weights_sha256"]:
            raise ValueError(f"{committed}: its sha256 is not the one of the run's record; restore the file")
        return committed
    return _trained_here(name, config)


def _trained_here(name, config):
    """Weights of a run in the cache, which is finished, resumed or started now."""
    folder = Path(cache_folder()) / "zoo" / f"{name}-s{config.seed}"
    if not (folder / "result.json").is_file():
        from mgmlib.pretrain.train import Trainer

        minutes = _minutes(name)
        told = f"about {minutes:.0f} minutes on one core" if minutes else "some minutes"
        warnings.warn(
            f"pocket:{name}, seed {config.seed}, is trained now: {told}; kept in {folder}", stacklevel=5
        )
        Trainer(config, load_images("cifar10", split="train"), folder).run()
    return folder / "weights.safetensors"


def _minutes(name):
    """What the recorded runs of this name took on one core, or of all."""
    runs = records(ASSETS)
    if "device" not in runs:
        return None
    runs = runs[runs["device"] == "cpu"]
    same = runs[runs["name"] == name]
    return (same if len(same) else runs)["seconds"].mean() / 60
