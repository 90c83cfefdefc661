"""Train, tune and publish the pocket zoo.

    python scripts/zoo.py train   [--method byol] [--seed 1] --images FOLDER   all runs, or some
    python scripts/zoo.py tune    --method byol --images FOLDER lr=0.1,0.3 tau=0.1,0.2
    python scripts/zoo.py publish --images FOLDER                              what is done, into the package
    python scripts/zoo.py verify  --images FOLDER                              what is in the package
    python scripts/zoo.py repeat  --method byol --seed 0 --images FOLDER       train it again, and compare

FOLDER holds train/CLASS/*.jpg and test/CLASS/*.jpg; "cifar10" is torchvision's copy. Runs are kept under
runs/zoo and taken up where they were left. On 8 GPUs: torchrun --nproc-per-node 8 scripts/zoo.py train ...
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import torch

import mgmlib as mgm
from mgmlib.atomic import write_whole
from mgmlib.pretrain import parallel
from mgmlib.pretrain.evaluate import quality
from mgmlib.pretrain.pocket import network
from mgmlib.pretrain.publish import embed_manifolds, publish, publish_initial
from mgmlib.pretrain.records import ASSETS, manifolds
from mgmlib.pretrain.train import Trainer, log_spaced
from mgmlib.pretrain.zoo import INITIAL, SEEDS, ZOO, runs, varied, zoo_config

ROOT = Path(__file__).resolve().parent.parent
WATCHED = {"simclr-v1", "dino", "dino-vit"}  # followed through training; the last two by one method
N_VALIDATION = 5000
TOLERANCE = 0.01  # of embeddings on another machine; on the one that published them there is no difference


def chosen(args):
    """Name, seed and folder of the runs that were asked for."""
    for name, seed in runs():
        if args.method in (None, name) and args.seed in (None, seed):
            yield name, seed, args.out / f"{name}-s{seed}"


def train(args):
    """Every run that is not done yet, one after another."""
    images = None
    device = parallel.start(args.device)
    for name, seed, folder in chosen(args):
        if (folder / "result.json").is_file():
            continue
        images = images or mgm.load_images(args.images, split="train")
        trainer = Trainer(zoo_config(name, seed), images, folder, device)
        keep = log_spaced(trainer.steps, 15) if name in WATCHED else ()
        trainer.run(snapshots=keep)
        loss = f"{trainer.seconds / 60:.1f} minutes, loss {trainer.log[-1]['loss']:.3f}"
        print(f"{name} seed {seed}: {loss}{_against_record(name, seed, folder)}", flush=True)


def _against_record(name, seed, folder):
    """Whether a run gave the weights that its record names; nothing where there is no record."""
    record = ASSETS / f"runs/{name}-s{seed}.json"
    if not record.is_file():
        return ""
    published = json.loads(record.read_text())["weights_sha256"]
    same = json.loads((folder / "result.json").read_text())["weights_sha256"] == published
    return f", weights {'the same as' if same else 'other than'} those published, bit for bit"


def tune(args):
    """A grid at a quarter of the budget, scored by a linear probe on images held out of the training set."""
    images = mgm.load_images(args.images, split="train")
    order = np.random.default_rng(0).permutation(len(images))
    kept, held_out = (
        images.subset(np.sort(order[N_VALIDATION:])),
        images.subset(np.sort(order[:N_VALIDATION])),
    )
    base = zoo_config(args.method)
    base = varied(base, n_views=base.n_views // 4)
    grid = [part.split("=") for part in args.grid]
    for values in itertools.product(*(_values(text) for _, text in grid)):
        changes = {key: value for (key, _), value in zip(grid, values, strict=True)}
        config = varied(base, **changes)
        trainer = Trainer(
            config, kept, args.out / "tuning" / f"{args.method}-{config.digest[:12]}", args.device
        )
        row = {"name": args.method, "tried": changes, "n_views": config.n_views}
        try:
            row |= _score(trainer.run(), kept, held_out)
        except FloatingPointError:
            row |= {"seconds": round(trainer.seconds), "final_loss": None}
        row |= {"config": config.digest[:12], "device": trainer.device.type}
        write_whole(ASSETS / "tuning" / f"{args.method}-{row['config']}.json", json.dumps(row, indent=1))
        print(row, flush=True)


def _score(trainer, kept, held_out):
    scores = quality(trainer.method.backbone, trainer.config, kept, held_out)
    last = trainer.log[-1]
    signs = {"final_loss": last["loss"], "feature_std": last["feature_std"], "rankme": last["rankme"]}
    return {"seconds": round(trainer.seconds)} | signs | {k: scores[k] for k in ("linear", "knn")}


def publish_all(args):
    """Publish every finished run that was asked for and, if all were, every untrained network."""
    train, test = (mgm.load_images(args.images, split=part) for part in ("train", "test"))
    for name, seed, folder in chosen(args):
        if (folder / "result.json").is_file() and not (ASSETS / f"runs/{name}-s{seed}.json").is_file():
            publish(name, folder, train, test, ASSETS)
            print(f"{name} seed {seed}: published", flush=True)
    untrained = itertools.product(INITIAL, range(SEEDS)) if args.method is None else ()
    for name, seed in untrained:
        if not (ASSETS / f"runs/{name}-s{seed}.json").is_file():
            publish_initial(name, seed, train, test, ASSETS)


def verify(args):
    """Embed the manifolds again with the published weights, and compare with the published embeddings."""
    test, wrong = mgm.load_images(args.images, split="test"), []
    for name, seed, _ in chosen(args):
        run = f"{name}-s{seed}"
        if not (ASSETS / f"embeddings/{run}.safetensors").is_file():
            continue
        published = manifolds(run, ASSETS)
        again = embed_manifolds(mgm.load_model(f"pocket:{name}", seed=seed), test)
        off = max(float(np.linalg.norm(again[m].z - z.z) / np.linalg.norm(z.z)) for m, z in published.items())
        print(f"{run}: relative difference {off:.1e}", flush=True)
        wrong += [run] * (off > TOLERANCE)
    if wrong:
        raise SystemExit(f"more than {TOLERANCE} from the published embeddings: {', '.join(wrong)}")


def repeat(args):
    """Train published runs once more on this machine, and keep what the probes give beside the record."""
    train, test = (mgm.load_images(args.images, split=part) for part in ("train", "test"))
    for name, seed, _ in chosen(args):
        run, config = f"{name}-s{seed}", zoo_config(name, seed)
        kept = ASSETS / f"repeated/{run}-{torch.device(args.device).type}.json"
        if kept.is_file() or not (ASSETS / f"runs/{run}.json").is_file():
            continue
        folder = args.out / "repeated" / run
        Trainer(config, train, folder, args.device).run()
        result = json.loads((folder / "result.json").read_text())
        about = {"name": name, "seed": seed} | {
            key: value for key, value in result.items() if key != "config"
        }
        about |= quality(network(config, folder / "weights.safetensors"), config, train, test)
        write_whole(kept, json.dumps(about, indent=1))
        print(f"{run}: linear {about['linear']:.3f}{_against_record(name, seed, folder)}", flush=True)


def _values(text):
    """What stands between the commas; a value that is itself a list keeps its brackets: [0.02,0.04]."""
    try:
        return json.loads(f"[{text}]")
    except json.JSONDecodeError:  # words
        return text.split(",")


VERBS = {"train": train, "tune": tune, "publish": publish_all, "verify": verify, "repeat": repeat}


def main():
    """Parse, and do."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=tuple(VERBS))
    parser.add_argument("grid", nargs="*")
    parser.add_argument("--method", choices=tuple(ZOO))
    parser.add_argument("--seed", type=int)
    parser.add_argument("--images", default="cifar10")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/zoo")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_intermixed_args()
    VERBS[args.what](args)


if __name__ == "__main__":
    sys.exit(main())
