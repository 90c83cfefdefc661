"""From a finished run to what the repository carries of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from mgmlib.atomic import write_whole
from mgmlib.augment import STUDY_SETTINGS
from mgmlib.embed import embed
from mgmlib.metrics import METRICS, point_metrics
from mgmlib.metrics.manifold import summarize
from mgmlib.models import layers
from mgmlib.pretrain.backbones import backbone
from mgmlib.pretrain.config import Config
from mgmlib.pretrain.evaluate import quality
from mgmlib.pretrain.pocket import encoder, network
from mgmlib.pretrain.records import manifolds_file
from mgmlib.pretrain.zoo import INITIAL

PER_CLASS, N_IMAGES, N_VIEWS = 100, 20, 40
K = 50  # candidates; a group of 40 views offers 39
UNSTUDIED = ("grayscale", "solarize")  # measured too, for some recipes have them and some not


def publish(name, folder, train, test, assets):
    """Probe, embed and measure one run, and write what the book reads.

    Parameters
    ----------
    name : str
        Of the zoo.
    folder : path
        Of the finished run.
    train, test : Images
        The probes are fitted on all of ``train`` and scored on all of ``test``, whence the manifolds:
        100 images a class, and 40 views of each of 20 images under five settings.
    assets : path
        Gets ``runs/NAME-sSEED.json`` and ``.csv`` (the log), the tables ``metrics/``, ``groups/`` and
        ``depth/NAME-sSEED.csv``, and of seed 0 ``weights/`` and ``embeddings/`` (safetensors, float16). A run
        followed through training adds ``training/NAME-sSEED.csv``, and of seed 0 the weights of four steps.
    """
    folder, assets = Path(folder), Path(assets)
    result = json.loads((folder / "result.json").read_text())
    config = Config(**result["config"])
    run, net = f"{name}-s{config.seed}", network(config, folder / "weights.safetensors")
    _publish_geometry(run, encoder(net, config, f"pocket:{name}"), test, assets)
    write_whole(assets / "runs" / f"{run}.csv", (folder / "log.csv").read_bytes())
    if config.seed == 0:
        write_whole(assets / "weights" / f"{run}.safetensors", (folder / "weights.safetensors").read_bytes())
    _publish_training(run, config, folder, test, assets)
    log = pd.read_csv(folder / "log.csv").iloc[-1]
    signs = {key: float(log[key]) for key in ("loss", "feature_std", "rankme", "alignment", "uniformity")}
    about = {"name": name, "seed": config.seed} | result | signs | quality(net, config, train, test)
    # Last: it says that all is there.
    write_whole(assets / "runs" / f"{run}.json", json.dumps(about, indent=1))


def publish_initial(name, seed, train, test, assets):
    """Probes and metrics of a network with the initial weights of a seed: what training is measured against.

    Parameters
    ----------
    name : str
        Of `mgmlib.pretrain.zoo.INITIAL`.
    seed : int
    train, test, assets
        As for `publish`.
    """
    config = Config("supervised", seed=seed, backbone=INITIAL[name])
    net = backbone(config.backbone, config.size, seed)
    _publish_geometry(f"{name}-s{seed}", encoder(net, config, name), test, Path(assets))
    about = {"name": name, "seed": seed} | quality(net, config, train, test)
    write_whole(Path(assets) / "runs" / f"{name}-s{seed}.json", json.dumps(about, indent=1))


def embed_manifolds(model, images, settings=STUDY_SETTINGS):
    """Embeddings of the zoo's manifolds: "semantic" and each of ``settings``, rounded to float16."""
    found = {"semantic": embed(model, images.per_class(PER_CLASS), cache=False, progress=False)}
    some = images.per_class(N_IMAGES // len(images.classes))
    for setting in settings:
        found[setting] = embed(model, some, setting, N_VIEWS, cache=False, progress=False)
    for z in found.values():
        z.z = z.z.astype(np.float16).astype(np.float32)
    return found


def measure(manifolds):
    """The metrics of each manifold of `embed_manifolds`.

    Returns
    -------
    table : DataFrame
        manifold and the columns of `mgmlib.manifold_metrics`.
    groups : DataFrame
        manifold, group, and the mean of each metric over the points of the group.
    """
    points = {name: point_metrics(z, k=K) for name, z in manifolds.items()}
    tables = {name: summarize(found, K) for name, found in points.items()}
    groups = {name: found.groupby("group")[list(METRICS)].mean() for name, found in points.items()}
    table = pd.concat(tables, names=["manifold"]).reset_index("manifold").reset_index(drop=True)
    return table, pd.concat(groups, names=["manifold"]).reset_index()


def _publish_geometry(run, model, test, assets):
    """Write the tables of the output and of every layer, and of seed 0 the embeddings of the study."""
    manifolds = embed_manifolds(model, test, (*STUDY_SETTINGS, *UNSTUDIED))
    table, groups = measure(manifolds)
    write_whole(assets / "metrics" / f"{run}.csv", _csv(table))
    write_whole(assets / "groups" / f"{run}.csv", _csv(groups))
    depth = [
        measure(embed_manifolds(model.at(layer), test, ("all",)))[0].assign(layer=layer)
        for layer in layers(model)
    ]
    write_whole(assets / "depth" / f"{run}.csv", _csv(pd.concat(depth)))
    if run.endswith("-s0"):
        studied = {name: z for name, z in manifolds.items() if name not in UNSTUDIED}
        write_whole(assets / "embeddings" / f"{run}.safetensors", manifolds_file(studied))


def _publish_training(run, config, folder, test, assets):
    """Metrics at every snapshot; of seed 0 the weights of four, evenly spaced in the logarithm."""
    files = sorted((folder / "snapshots").glob("*.safetensors"))
    tables = []
    for file in files:
        manifolds = embed_manifolds(encoder(network(config, file), config, run), test)
        tables.append(measure(manifolds)[0].assign(step=int(file.stem)))
    if tables:
        write_whole(assets / "training" / f"{run}.csv", _csv(pd.concat(tables)))
    if config.seed == 0 and files:
        for i in np.linspace(0, len(files) - 2, 4).round().astype(int):  # the last are the final weights
            write_whole(assets / "training" / f"{run}-{files[i].name}", files[i].read_bytes())


def _csv(table):
    return table.to_csv(index=False, float_format="%.6g")
