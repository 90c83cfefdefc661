"""Images → embeddings by actors, one per share of the cluster."""

import copy
import functools

import torch

from mgmlib.cluster.connection import connect, plain_errors, shares
from mgmlib.embed import batch_size_for, device_name, ready, rows_of
from mgmlib.embed import embed as embed_here

BATCHES = 16  # most batches of a call to an actor: what a killed worker has to do again
RETRIES = 3  # times that Ray gives a call of a dead worker to its successor


def embed(encoder, images, setting="none", n_views=None, *, address=None, cpus=1, gpus=None, **options):
    """Embed the views of images by one actor per share of the cluster; otherwise as `mgmlib.embed`.

    Batches are those of one process, so that rows are equal to the last bit where the actors compute as this
    process does (kind of device, number of threads). Rows go to the cache of this process as they arrive.

    Parameters
    ----------
    encoder, images, setting, n_views : as in `mgmlib.embed`. Files that images read must be on every machine.
    address : str, optional
        Of the cluster. Default: the one this process is connected to, else the one that ``RAY_ADDRESS`` names
        or that runs on this machine, else a local one, which ends with this process.
    cpus, gpus : float
        The share of one actor. ``gpus`` is 1 by default where the cluster has GPUs, else 0.
    options : further arguments of `mgmlib.embed`, but for ``device``.

    Returns
    -------
    Embeddings

    Raises
    ------
    ImportError
        Without Ray.
    ValueError
        As `mgmlib.embed`, and where no machine of the cluster has the share.
    """
    ray = connect(address)
    gpus = float(ray.cluster_resources().get("GPU", 0) > 0) if gpus is None else gpus
    actors = shares(ray, cpus, gpus)
    fill = functools.partial(_fill, ray, actors, cpus, gpus)
    device = "cuda" if gpus else "cpu"
    with plain_errors(ray):
        return embed_here(encoder, images, setting, n_views, device=device, fill=fill, **options)


class _Embedder:
    """An actor: an encoder on its share of the cluster, and the images to embed."""

    def __init__(self, encoder, images, spec, device, workers):
        self.encoder, self.images, self.spec = encoder, images, spec
        self.device, self.workers = torch.device(device), workers

    def how(self, batch_size):
        """The batch size, where None the one that fits here, and what the device is called."""
        with ready(self.encoder, self.device, self.spec["precision"]):
            size = batch_size or batch_size_for(self.encoder, self.device)
        return {"device": device_name(self.device), "batch_size": size}

    def rows(self, spans):
        """The rows of each range of views: a list of (start, stop, z)."""
        with ready(self.encoder, self.device, self.spec["precision"]):
            return list(rows_of(self.encoder, self.images, self.spec, self.device, spans, self.workers))


def _fill(ray, actors, cpus, gpus, store, encoder, images, spec, device, batch_size, workers, bar):
    """What `mgmlib.embed` does in its own process: compute the rows that the store does not have."""
    from ray.util import ActorPool

    kind = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=-1, max_task_retries=RETRIES)(_Embedder)
    encoder, images = ray.put(copy.deepcopy(encoder).cpu()), ray.put(images)
    start = functools.partial(kind.remote, encoder, images, spec, str(device), workers)
    first = start()
    how = ray.get(first.how.remote(batch_size))
    spans = store.missing(how["batch_size"])
    step = min(BATCHES, max(1, len(spans) // (4 * actors)))
    chunks = [spans[at : at + step] for at in range(0, len(spans), step)]
    pool = ActorPool([first, *(start() for _ in range(min(actors, len(chunks)) - 1))])
    for rows in pool.map_unordered(lambda actor, chunk: actor.rows.remote(chunk), chunks):
        for begin, end, z in rows:
            store.put(begin, end, z)
            bar.update(end - begin)
    return how
