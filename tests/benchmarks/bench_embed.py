"""What `embed` costs beyond the bare forward pass: ResNet-50, 224 px, fp32, medians of interleaved rounds.

    python tests/benchmarks/bench_embed.py [--images 128] [--rounds 3] [--threads 2] [--device cpu] [--write]

The bare pass runs over batches that lie ready in memory, in the faster of two memory layouts. `embed` gets
the same images as one tensor, prepared but for the crop, with an empty cache on disk; then as JPEG files, and
as augmented views of them. On a CPU, time is the process's own CPU time, so that other work on the machine
counts little; on a GPU, the clock's. The table goes to _build/benchmarks/embed.csv and, with --write, to
notebooks/results/throughput.csv, from which the book says what the whole study takes.
"""

# ruff: noqa: E402 - the libraries read their number of threads when they are imported
import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for option, default in (("--images", 128), ("--rounds", 3), ("--threads", 2)):
    parser.add_argument(option, type=int, default=default)
parser.add_argument("--device", default="cpu")
parser.add_argument("--write", action="store_true")
args = parser.parse_args()
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(args.threads)

import numpy as np
import pandas as pd
import torch
from torchvision.io import encode_jpeg, write_file

import mgmlib as mgm

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1.10  # embed on prepared tensors against the bare forward pass


def photographs(n):
    """Crops of scikit-learn's photographs, 320 x 320, uint8."""
    photos, rng = list(mgm.load_images("photos")), np.random.default_rng(0)
    corners = [(rng.integers(p.shape[1] - 320), rng.integers(p.shape[2] - 320)) for p in photos * n][:n]
    return [photos[i % 2][:, y : y + 320, x : x + 320] for i, (y, x) in enumerate(corners)]


def bare(encoder, batches, device, layout):
    """The forward pass alone, over batches that are ready."""
    encoder.to(device, memory_format=layout)
    with torch.inference_mode():
        for batch in batches:
            encoder(batch.to(device, memory_format=layout)).cpu()


def interleaved(tasks, rounds, clock):
    """Median seconds of each task over rounds in which all take turns."""
    times = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            start = clock()
            task()
            times[name].append(clock() - start)
    return {name: float(np.median(found)) for name, found in times.items()}


def new_folder(parent):
    """A cache that nothing is in."""
    return tempfile.mkdtemp(dir=parent)


def machine(device):
    """What a row was measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU ({platform.machine()}), {threads} thread{'s' * (threads > 1)}"


def main():
    """Run every row, print the table, fail where embed costs too much."""
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    encoder = mgm.load_model("supervised", weights="random")
    photos = photographs(args.images)
    side = encoder.resize
    x = mgm.views(photos, "none", 1, side)  # the crop alone is left to do
    edge = (side - encoder.input_size) // 2
    cropped = x[:, :, edge : side - edge, edge : side - edge].contiguous()
    batches = cropped.split(16 if device.type == "cpu" else 256)
    options = {"device": device, "progress": False}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "images", "crops")
        home.mkdir(parents=True)
        for number, photo in enumerate(photos):
            write_file(str(home / f"{number:04d}.jpg"), encode_jpeg(photo, quality=90))
        files, n_views = mgm.load_images(home.parent), 8
        some = files.subset(np.arange(max(1, len(files) // n_views)))
        tasks = {
            "forward pass": lambda: bare(encoder, batches, device, torch.contiguous_format),
            "forward pass, channels last": lambda: bare(encoder, batches, device, torch.channels_last),
            "embed, tensor": lambda: mgm.embed(encoder, x, cache=new_folder(folder), **options),
            "embed, files": lambda: mgm.embed(encoder, files, cache=False, **options),
            "embed, files, views 'all'": lambda: mgm.embed(
                encoder, some, "all", n_views, cache=False, **options
            ),
        }
        mgm.embed(encoder, x[:2], cache=False, **options)  # warm-up
        clock = time.process_time if device.type == "cpu" else time.perf_counter
        found = interleaved(tasks, args.rounds, clock)
        share = torch.get_num_threads() if device.type == "cpu" else 1
    counts = {name: len(some) * n_views if "'all'" in name else len(x) for name in tasks}
    rates = {name: counts[name] * share / took for name, took in found.items()}
    best = max(rate for name, rate in rates.items() if name.startswith("forward"))
    table = pd.DataFrame(
        [(machine(device), name, round(rate, 2), round(best / rate, 3)) for name, rate in rates.items()],
        columns=["device", "what", "images per second", "time against the forward pass"],
    )
    print(f"torch {torch.__version__}, {args.images} images, {args.rounds} rounds")
    print(table.to_string(index=False))
    folders = [ROOT / "_build" / "benchmarks"] + [ROOT / "notebooks/results"] * args.write
    for folder, name in zip(folders, ("embed.csv", "throughput.csv"), strict=False):
        folder.mkdir(parents=True, exist_ok=True)
        table.to_csv(folder / name, index=False)
    cost = table.set_index("what").loc["embed, tensor", "time against the forward pass"]
    if cost > LIMIT:
        raise SystemExit(f"embed takes {cost:.2f} times the bare forward pass: expected at most {LIMIT:.2f}")


if __name__ == "__main__":
    main()
