"""The study at full size: measure the published models on a folder of images, and draw what was found.

    paper.py run --images FOLDER [--weights FOLDER] [--params FILE] [--out FOLDER] [--device cuda]
    paper.py dry [--params FILE] [--out FOLDER]     the rehearsal: synthetic weights, a few small images
    paper.py draw [--out FOLDER]                    the figures of the tables that are there

A model whose table is there is not measured again; an interrupted one goes on from its embeddings.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

import mgmlib as mgm
from mgmlib.models.synthetic import write_synthetic
from mgmlib.study import Study, results, run

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "notebooks" / "results"
PARAMS = ROOT / "notebooks" / "params"
REHEARSAL = ROOT / "_build" / "paper-dry"  # weights and images of the rehearsal
METRICS = {"diameter": "diameter", "affinity": "affinity", "dimension": "calibrated dimension"}


def measure(params, images, out, weights=None, **options):
    """Run a study; the models that failed end the script with an error that lists them."""
    study = Study.read(params)
    print(f"{len(study.models)} models, {study.n_forward} images through each; tables: {out}", flush=True)
    failed = run(
        study, mgm.load_images(images), out, weights, say=lambda line: print(line, flush=True), **options
    )
    if failed:
        listed = "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
        raise SystemExit(f"{len(failed)} of {len(study.models)} models were not measured:\n{listed}")


def rehearse(params, out):
    """The whole run on synthetic checkpoints and a small image folder, both made here."""
    started = time.monotonic()
    study = Study.read(params)
    for name in study.models:  # the same network in every format: what is measured must agree
        path, _ = write_synthetic(name, REHEARSAL / "weights")
        print(f"synthetic weights: {path.name} of {name}", flush=True)
    measure(params, small_folder(REHEARSAL / "images", study), out, REHEARSAL / "weights", progress=False)
    draw(out)
    shutil.rmtree(REHEARSAL / "weights")  # gigabytes that cost seconds
    print(f"the rehearsal took {time.monotonic() - started:.0f} s")


def small_folder(folder, study):
    """A folder of images like ImageNet's, one sub-folder a class, from a pack."""
    from torchvision.io import write_png

    pack = mgm.load_images("noto")
    sizes = [int((pack.labels == label).sum()) for label in range(len(pack.classes))]
    large = sorted(range(len(sizes)), key=lambda label: -sizes[label])[: study.n_classes]
    for label in large:
        some = pack.subset(pack.labels == label).per_class(study.n_per_class, study.seed)
        home = folder / f"class-{label:02d}"
        home.mkdir(parents=True, exist_ok=True)
        for number in range(len(some)):
            write_png(some[number], str(home / f"{number:03d}.png"))
    return folder


def draw(out):
    """Draw the figures of a study into the folder of its tables' figures; synthetic ones say so."""
    from mgmlib import plots

    table = results(out)
    if not len(table):
        raise SystemExit(f"{out}: no tables")
    plots.use_style()
    figures = {
        f"{metric}.png": plots.models_by_manifold(table, metric, METRICS[metric]) for metric in METRICS
    }
    for manifold in table["manifold"].unique():
        figures[f"profile-{manifold}.png"] = plots.models_with_intervals(table, manifold, METRICS, METRICS)
    folder = ROOT / "_build" / "figures" / Path(out).name
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        if (table["weights"] != "published").any():
            plots.mark(figure, "synthetic weights")
        figure.savefig(folder / name)
    print(f"{len(figures)} figures: {folder}")


def main():
    """Read the command line and do one of the three things."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    whole = commands.add_parser("run")
    whole.add_argument("--images", required=True, help="a folder with one sub-folder a class")
    whole.add_argument("--weights", help="a folder with MODEL/FILE of each model; default: fetched")
    whole.add_argument("--device", default=None)
    whole.add_argument("--workers", type=int, default=0, help="processes that make views")
    dry = commands.add_parser("dry")
    drawn = commands.add_parser("draw")
    for command, params, out in ((whole, "paper", "paper"), (dry, "paper-dry", "paper-dry")):
        command.add_argument("--params", type=Path, default=PARAMS / f"{params}.yaml")
        command.add_argument("--out", type=Path, default=RESULTS / out)
    drawn.add_argument("--out", type=Path, default=RESULTS / "paper")
    chosen = parser.parse_args()
    try:
        if chosen.command == "run":
            if not chosen.images:
                parser.error("images: name a folder with one sub-folder a class (make paper IMAGES=FOLDER)")
            options = {"device": chosen.device, "workers": chosen.workers}
            measure(chosen.params, chosen.images, chosen.out, chosen.weights or None, **options)
            draw(chosen.out)
        elif chosen.command == "dry":
            rehearse(chosen.params, chosen.out)
        else:
            draw(chosen.out)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
