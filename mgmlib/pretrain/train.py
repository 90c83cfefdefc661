"""The loop that trains every method: seeded, resumable to the bit, watched for collapse."""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils import deterministic

from mgmlib.models.weights import seeded
from mgmlib.pretrain import parallel
from mgmlib.pretrain.backbones import backbone
from mgmlib.pretrain.canvas import Canvas
from mgmlib.pretrain.convolution import with_fast_gradients
from mgmlib.pretrain.methods import method_class
from mgmlib.pretrain.methods.base import Batch, Start
from mgmlib.pretrain.run_folder import RunFolder
from mgmlib.pretrain.views import render
from mgmlib.pretrain.watch import Watch

_N_WATCHED = 512
# cuBLAS reads it at its first product: without, it may add in another order at every call.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


class Trainer:
    """One run: a configuration, training images and a folder that keeps what is done.

    Parameters
    ----------
    config : Config
    images : Images
        What to train on.
    folder : path
        Of this run alone. A folder that holds an unfinished run of the same configuration is resumed; one of
        another configuration is an error.
    device : str or torch.device
    """

    def __init__(self, config, images, folder, device="cpu"):
        self.config, self.device = config, torch.device(device)
        if config.batch > len(images):
            raise ValueError(f"images: {len(images)} of them, fewer than batch={config.batch}")
        torch.set_num_threads(config.threads)
        self.canvas = Canvas(images, config.size)
        self.method = _build(config, images, self.device)
        self.steps = max(1, round(config.n_views / (_area(self.method.views) * config.batch)))
        self.optimizer = _optimizer(self.method, config)
        self.folder = RunFolder(Path(folder), config)
        self.step, self.log, self.seconds = 0, [], 0.0
        self._mean, self._std = (
            torch.tensor(v, device=self.device).view(-1, 1, 1) for v in (config.mean, config.std)
        )
        pixels = self.canvas[np.arange(min(_N_WATCHED, len(images)))].to(self.device)
        self._watch = Watch(pixels, config.size, self.normalize)
        self._resume()

    def normalize(self, x):
        """Pixels (B, 3, S, S) in [0, 1] to the network's input, channels last."""
        return ((x - self._mean) / self._std).contiguous(memory_format=torch.channels_last)

    def run(self, *, snapshots=(), save_every=60.0, log_every=None, progress=True, until=None):
        """Train to the end, or to step ``until``.

        Parameters
        ----------
        snapshots : sequence of int
            Steps after which the backbone's weights are kept; 0 are the initial ones.
        save_every : float
            Seconds between checkpoints.
        log_every : int, optional
            Steps between rows of the log; default 40 rows in a run.
        progress : bool
            Show a progress bar.
        until : int, optional

        Returns
        -------
        Trainer
            Itself; ``.log`` holds a dict for each row.

        Raises
        ------
        FloatingPointError
            When the loss is not finite. The last checkpoint stays.
        """
        from tqdm import tqdm

        log_every = log_every or max(1, self.steps // 40)
        end = self.steps if until is None else min(until, self.steps)
        keep, saved, started = set(snapshots), time.monotonic(), time.monotonic() - self.seconds
        bar = tqdm(total=self.steps, initial=self.step, disable=not progress, desc=self.config.method)
        if self.step == 0 and 0 in keep:
            self.folder.snapshot(self.method.backbone, 0)
        while self.step < end:
            with _deterministic(self.device):
                loss = self._one_step()
            self.step += 1
            bar.update()
            if self.step in keep:
                self.folder.snapshot(self.method.backbone, self.step)
            if self.step % log_every == 0 or self.step in (1, self.steps):
                self._note(loss)
                bar.set_postfix(loss=f"{loss:.3f}", std=f"{self.log[-1]['feature_std']:.2f}")
            self.seconds = time.monotonic() - started
            if time.monotonic() - saved > save_every or self.step == end:
                self._save()
                saved = time.monotonic()
        bar.close()
        if self.step == self.steps:
            self.folder.finish(self.method.backbone, self.log, self.seconds, self.steps, self.device)
        return self

    def _one_step(self):
        config = self.config
        progress = self.step / self.steps
        per_epoch = len(self.canvas) // config.batch
        epoch, place = divmod(self.step, per_epoch)
        if place == 0:
            self.method.start_epoch(progress, self._rng("epoch"))
        order = np.random.default_rng([config.seed, epoch]).permutation(len(self.canvas))
        index = parallel.share(order[place * config.batch :][: config.batch])
        rng = self._rng("step")
        pixels = self.canvas[index].to(self.device, non_blocking=True)
        views = [self._input(pixels, view, rng) for view in self.method.views]
        batch = self._batch(index, progress, rng)
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * _schedule(progress, config.warmup)
        with seeded(_seed(config.seed, self.step, 2), self.device):  # for layers that draw, such as dropout
            with self._autocast():
                loss = self.method(views, batch)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"{config.method}, seed {config.seed}: the loss is {value} at step {self.step} of "
                    f"{self.steps} (lr={config.lr}); the last checkpoint is in {self.folder.path}"
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        parallel.average_gradients(self.method)
        if config.clip:
            torch.nn.utils.clip_grad_norm_(self.method.parameters(), config.clip)
        self.optimizer.step()
        self.method.after_step((self.step + 1) / self.steps)
        return value

    def _input(self, pixels, view, rng):
        x = render(pixels, view, self.config.size, rng)
        return self.normalize(x) if x.ndim == 4 else self.normalize(x.flatten(0, 1)).view_as(x)

    def _batch(self, index, progress, rng):
        at = torch.as_tensor(index)
        return Batch(at.to(self.device), self.canvas.labels[at].to(self.device), progress, rng)

    def _autocast(self):
        if self.config.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _rng(self, purpose):
        """A generator that depends on seed, step, process and purpose alone: nothing to save for a resume."""
        key = {"step": 0, "epoch": 1}[purpose]
        rank = 0 if purpose == "epoch" else parallel.rank()
        return torch.Generator(self.device).manual_seed(_seed(self.config.seed, self.step, key, rank))

    def _note(self, loss):
        views = self.step * self.config.batch * _area(self.method.views)
        lr = self.optimizer.param_groups[0]["lr"]
        row = {"step": self.step, "views": views, "seconds": self.seconds, "loss": loss, "lr": lr}
        self.log.append(row | self._watch(self.method.backbone))

    def _save(self):
        self.folder.save(
            {
                "step": self.step,
                "seconds": self.seconds,
                "log": self.log,
                "method": self.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
        )

    def _resume(self):
        state = self.folder.load(self.device)
        if state is not None:
            self.step, self.seconds, self.log = state["step"], state["seconds"], state["log"]
            self.method.load_state_dict(state["method"])
            self.optimizer.load_state_dict(state["optimizer"])


@contextlib.contextmanager
def _deterministic(device):
    """On a GPU, kernels that add in one order alone, for a run to repeat bit for bit; a CPU's do anyway.

    Where CUDA has no such kernel torch warns: position embeddings interpolated for a ViT's small crops.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    filled = deterministic.fill_uninitialized_memory
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Torch would fill fresh memory, with half of all launches; nothing here reads what was not written.
        deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        deterministic.fill_uninitialized_memory = filled


def log_spaced(steps, n):
    """0 and about ``n`` steps from 1 to ``steps``, at equal ratios."""
    return sorted({0, *np.unique(np.geomspace(1, steps, n).round().astype(int)).tolist()})


def _build(config, images, device):
    net = with_fast_gradients(backbone(config.backbone, config.size, config.seed))
    generator = torch.Generator().manual_seed(_seed(config.seed, 0, 3))
    with seeded(_seed(config.seed, 0, 4)):
        start = Start(net, len(images), len(images.classes), generator)
        method = method_class(config.method)(start, **config.options)
    method = parallel.synchronize_norms(method).to(device, memory_format=torch.channels_last)
    return method.train()


def _optimizer(method, config):
    """Weights of one dimension (biases, norms) are not decayed."""
    trained = [p for p in method.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)


def _schedule(progress, warmup):
    """Factor of the learning rate: linear to 1, then half a cosine to 0."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


def _area(views):
    """What the views of one image count in the budget: pixels over those of a full view."""
    return sum(9 / 16 if view.jigsaw else view.zoom**2 for view in views)


def _seed(*key):
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
