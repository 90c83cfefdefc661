"""Images to embeddings: views, batches, device and precision, with an on-disk cache that survives a kill.

Importable by itself: torch and numpy are all that it needs; torchvision is needed where views are made.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mgmlib import augment
from mgmlib.cache import Store, cache_folder

CODE_VERSION = 1  # part of every cache key: raise it when an embedding's values change
_PRECISIONS = ("fp32", "bf16")


@dataclass
class Embeddings:
    """Embeddings of views, with what they were made from.

    Parameters
    ----------
    z : np.ndarray (M, d) float32
        One row a view. Rows of one image are consecutive, images in their order, the unaugmented view first.
    labels : np.ndarray (M,) int64
        Class of the image of each row.
    groups : np.ndarray (M,) int64
        Manifold of each row: the class (semantic manifolds) for setting ``"none"``, else the position of
        the image (augmentation manifolds).
    meta : dict
        Every parameter: encoder, images, setting, strength, n_views, seed, precision, code versions,
        device, seconds.
    """

    z: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    meta: dict = field(default_factory=dict)

    def __post_init__(self):
        if (
            self.z.ndim != 2
            or self.labels.shape != self.groups.shape
            or self.groups.shape != self.z.shape[:1]
        ):
            raise ValueError(
                f"z {self.z.shape}, labels {self.labels.shape}, groups {self.groups.shape}: "
                f"expected (M, d), (M,), (M,)"
            )

    def __len__(self):
        return len(self.z)

    def __repr__(self):
        encoder, images, setting = (self.meta.get(key, "?") for key in ("encoder", "images", "setting"))
        n_groups = len(np.unique(self.groups))
        return f"Embeddings({encoder} on {images}, {setting}: z {self.z.shape}, {n_groups} groups)"


def embed(
    encoder,
    images,
    setting="none",
    n_views=None,
    *,
    strength=1.0,
    seed=0,
    device=None,
    precision="fp32",
    batch_size=None,
    workers=0,
    cache=True,
    progress=True,
    fill=None,
):
    """Embed the views of images.

    Parameters
    ----------
    encoder : Encoder
        From `load_model`. It is run in eval mode and handed back in the state and on the device that it
        came in.
    images : Images, or torch.Tensor (N, 3, H, W) uint8 or float in [0, 1]
        Resized and cropped as the encoder's evaluation preprocessing says. A tensor has no labels: all are 0.
    setting : str
        One of `mgmlib.augment.SETTINGS`.
    n_views : int, optional
        Views an image, the unaugmented one included; default 1 for ``"none"``, else 50.
    strength : float in [0, 1]
    seed : int >= 0
        Of the views.
    device : str or torch.device, optional
        Default ``"cuda"`` where there is one, else ``"cpu"``.
    precision : {"fp32", "bf16"}
        ``bf16``: autocast. On CUDA ``fp32`` is full float32, not TF32. Embeddings are float32 in either case.
    batch_size : int, optional
        Views a batch; default: see `batch_size_for`. Views do not depend on it; embeddings only by float
        rounding.
    workers : int
        Processes that make views; 0: this one does.
    cache : bool or path
        True: in `mgmlib.cache.cache_folder`. What is there is not computed again, and what a killed run had
        finished is kept, but for the batch in flight.
    progress : bool
        Show a bar on long runs, where tqdm is installed.
    fill : callable, optional
        What computes the rows that are not there yet; this process by default, see `mgmlib.cluster.embed`.

    Returns
    -------
    Embeddings

    Raises
    ------
    ValueError
        On an embedding that is not finite; it names the image and the view.
    """
    started = time.perf_counter()
    images = _Tensor(images) if isinstance(images, torch.Tensor) else images
    n_views = n_views if n_views is not None else (1 if setting == "none" else 50)
    _check(encoder, images, setting, n_views, strength, seed, precision, batch_size, workers)
    device = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    spec = _spec(encoder, images, setting, n_views, strength, seed, precision, device)
    root = None if cache is False else cache_folder() if cache is True else Path(cache)

    store = Store(root, spec, (len(images) * n_views, encoder.dim))
    found, how = int(store.done.sum()), {"device": device_name(device), "batch_size": batch_size}
    if found < len(store.done):
        with progress_bar(len(store.done), found, progress) as bar:
            how = (fill or _fill)(store, encoder, images, spec, device, batch_size, workers, bar)
    store.finish()

    seconds = time.perf_counter() - started
    labels = np.repeat(np.asarray(images.labels, np.int64), n_views)
    groups = labels.copy() if setting == "none" else np.repeat(np.arange(len(images)), n_views)
    meta = {
        **spec,
        "encoder": encoder.name,
        "layer": encoder.layer,
        "images": images.name,
        **how,
        "cached_rows": found,
        "seconds": seconds,
        "images_per_second": (len(store.done) - found) / seconds,
        "encoder_meta": encoder.meta,
    }
    return Embeddings(store.z, labels, groups, meta)


def batch_size_for(encoder, device):
    """A batch size that fits in memory, the same on every run on the same kind of device.

    One image is passed through the encoder and the tensors that its modules read and write are measured;
    twice the largest such pair is what an image is taken to need. The batch is the power of two that stays
    within 512 MiB on a CPU, and a quarter of the device's memory elsewhere; at most 16 on a CPU (larger
    ones are no faster there, and a killed run loses no more than one) and 512 elsewhere.

    Returns
    -------
    int
    """
    device = torch.device(device)
    sizes = [4 * 3 * encoder.input_size**2]

    def measure(_module, inputs, output):
        tensors = [t for t in (*inputs, output) if isinstance(t, torch.Tensor)]
        sizes.append(sum(t.numel() * t.element_size() for t in tensors))

    hooks = [m.register_forward_hook(measure) for m in encoder.modules() if m is not encoder]
    try:
        encoder.probe()
    finally:
        for hook in hooks:
            hook.remove()
    if device.type == "cuda":
        budget, most = torch.cuda.get_device_properties(device).total_memory // 4, 512
    else:
        budget, most = 512 * 2**20, 16
    fits = max(1, min(most, budget // (2 * max(sizes))))
    return 2 ** (fits.bit_length() - 1)


class _Tensor:
    """A plain tensor of images, where a set of images is expected."""

    name = "tensor"

    def __init__(self, x):
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"images: expected a tensor (N, 3, H, W), met {tuple(x.shape)}")
        self.x, self.labels = x.detach().cpu(), np.zeros(len(x), np.int64)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i]

    @property
    def digest(self):
        sha = hashlib.sha256(f"{self.x.dtype} {tuple(self.x.shape)}".encode())
        sha.update(self.x.contiguous().flatten().view(torch.uint8).numpy())
        return sha.hexdigest()


class _Batches(torch.utils.data.Dataset):
    """Batches of views, by row range: a dataset whose item is (start, stop, views)."""

    def __init__(self, images, setting, n_views, preprocessing, seed, strength):
        self.images, self.rest = images, (setting, n_views, preprocessing, seed, strength)

    def __getitem__(self, span):
        return *span, augment.view_rows(self.images, *span, *self.rest)


class _Todo:
    """The ranges still to do, as a sampler: what another process has done meanwhile is left out."""

    def __init__(self, store, batch_size):
        self.store, self.spans = store, deque(store.missing(batch_size))

    def __iter__(self):
        while self.spans:
            span = self.spans.popleft()
            if not self.store.has(*span):
                yield span

    def leap(self):
        """Go on from a place at random: at any fixed one, two runs that met could meet again."""
        if self.spans:
            self.spans.rotate(secrets.randbelow(len(self.spans)))


def _fill(store, encoder, images, spec, device, batch_size, workers, bar):
    """Compute the rows that the store does not have; each batch is on disk before the next begins."""
    with ready(encoder, device, spec["precision"]):
        batch_size = batch_size or batch_size_for(encoder, device)
        todo = _Todo(store, batch_size)
        for start, stop, z in rows_of(encoder, images, spec, device, todo, workers):
            if store.put(start, stop, z):
                todo.leap()  # another run is here already
            bar.update(int(store.done.sum()) - bar.n)
    return {"device": device_name(device), "batch_size": batch_size}


def rows_of(encoder, images, spec, device, spans, workers):
    """Yield (start, stop, float32 rows) for each range of views; the encoder has to be `ready`."""
    settings = (spec["setting"], spec["n_views"], encoder.preprocessing, spec["seed"], spec["strength"])
    loader = torch.utils.data.DataLoader(
        _Batches(images, *settings),
        sampler=spans,
        batch_size=None,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # or the loader draws from the global one
    )
    for start, stop, x in loader:
        z = encoder(x.to(device, non_blocking=True)).float()
        _check_finite(z, images, start, spec["n_views"])
        yield start, stop, z.cpu().numpy()


def device_name(device):
    """What the device is called where results are shown; a GPU by its model, where it can be asked."""
    known = device.type == "cuda" and torch.cuda.is_available()
    return f"{device} ({torch.cuda.get_device_name(device)})" if known else str(device)


@contextlib.contextmanager
def ready(encoder, device, precision):
    """The encoder on a device, in eval mode, under inference mode and autocast; then all as it was."""
    training, home = {module: module.training for module in encoder.modules()}, encoder.mean.device
    relaid, full_precision = False, contextlib.nullcontext()
    if device.type == "cuda" and precision == "fp32":
        full_precision = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    half_precision = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    try:
        encoder.eval().to(device)
        relaid = _to_channels_last(encoder, device, precision)
        with torch.inference_mode(), full_precision, half_precision:
            yield
    finally:
        if relaid:
            encoder.to(memory_format=torch.contiguous_format)
        encoder.to(home)
        for module, mode in training.items():
            module.training = mode


def _to_channels_last(encoder, device, precision):
    """Lay convolutions out as (B, H, W, C) where that is faster and the network bears it; True where done.

    On one CPU thread a ResNet-50 takes 0.65 of the time, EfficientNet-Lite0 0.7. On CUDA: bf16 only.
    """
    faster = device.type == "cpu" or (device.type == "cuda" and precision == "bf16")
    if not faster or not any(isinstance(module, torch.nn.Conv2d) for module in encoder.modules()):
        return False
    encoder.to(memory_format=torch.channels_last)
    try:
        encoder.probe()
    except RuntimeError:  # a network that views its maps as they lie in memory
        encoder.to(memory_format=torch.contiguous_format)
        return False
    return True


def _spec(encoder, images, setting, n_views, strength, seed, precision, device):
    """All that determines an embedding, and so the key of its cache."""
    ids = np.asarray(getattr(images, "ids", np.arange(len(images))), np.int64)
    return {
        "encoder_digest": encoder.digest,
        "images_digest": images.digest,
        "image_ids": hashlib.sha256(ids.tobytes()).hexdigest(),
        "setting": setting,
        "strength": float(strength),
        "n_views": int(n_views),
        "seed": int(seed),
        "precision": precision,
        "device_type": device.type,
        "code": [augment.CODE_VERSION, CODE_VERSION],
        "torch": torch.__version__,
    }


def _check(encoder, images, setting, n_views, strength, seed, precision, batch_size, workers):
    if not all(hasattr(encoder, name) for name in ("dim", "digest", "preprocessing")):
        raise TypeError(
            f"encoder: expected an Encoder from load_model, met {type(encoder).__name__}; "
            f"a torch module becomes one by load_model(module, input_size=...)"
        )
    augment.check_setting(setting, n_views, strength)
    if len(images) == 0:
        raise ValueError("images: there are none")
    if precision not in _PRECISIONS:
        raise ValueError(f"precision={precision!r}: expected one of {', '.join(_PRECISIONS)}")
    for name, value, least in (("seed", seed, 0), ("batch_size", batch_size, 1), ("workers", workers, 0)):
        if value is not None and (value != int(value) or value < least):
            raise ValueError(f"{name}={value!r}: expected a whole number >= {least}")


def _check_finite(z, images, start, n_views):
    finite = torch.isfinite(z).all(1)
    if not finite.all():
        i, number = divmod(start + int((~finite).nonzero()[0, 0]), n_views)
        raise ValueError(
            f"embedding of images[{i}] (id {augment.image_id(images, i)}, view {number}) is not finite: "
            f"the encoder gave NaN or Inf"
        )


@contextlib.contextmanager
def progress_bar(total, initial, progress):
    """A progress bar over rows on stderr, shown once a run takes longer than two seconds."""
    bar = _NoBar()
    if progress:
        with contextlib.suppress(ImportError):
            from tqdm import tqdm

            bar = tqdm(total=total, initial=initial, unit="view", leave=False, delay=2)
    with contextlib.closing(bar):
        yield bar


class _NoBar:
    n = 0

    def update(self, n):
        self.n += n

    def close(self):
        pass
