"""One synthetic checkpoint per published model: the names, heads, queues and containers of the real file."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from mgmlib.atomic import whole
from mgmlib.models.catalogue import PUBLISHED
from mgmlib.models.published import blank
from mgmlib.models.synthetic.haiku_files import write_byol
from mgmlib.models.synthetic.tensorflow_files import write_simclr

MARK = "SYNTHETIC"  # a file of this name lies beside synthetic checkpoints
_BEFORE_ZIP = {"insdis", "pirl", "infomin", "moco-v1", "moco-v2", "pcl-v1", "pcl-v2", "sela-v2", "swav"}
_BEFORE_ZIP |= {"deepcluster-v2", "simsiam-rn50"}  # saved by a torch before 1.6


def write_synthetic(name, folder, seed=0):
    """Write a random network as the published checkpoint of a model.

    Parameters
    ----------
    name : a model of `mgmlib.models.table`, but for "efficientnet-lite0", whose package has the real one.
    folder : the file goes to ``FOLDER/NAME/FILE``, as in a mirror; `MARK` says that it is synthetic.
    seed : of the weights.

    Returns
    -------
    path of the file, and the network (eval mode, without head) that it was made from.
    """
    row = PUBLISHED[name]
    net = random_weights(blank(row, 518 if row.layout == "dinov2" else 224), seed)
    path = Path(folder) / name / row.file
    path.parent.mkdir(parents=True, exist_ok=True)
    Path(folder, MARK).write_text("Random networks in published formats.\n", encoding="utf-8")
    if row.layout == "haiku":
        with whole(path) as draft:
            write_byol(draft, net.state_dict())
    elif row.layout == "tensorflow":
        write_simclr(path, net.state_dict(), momentum=name == "simclr-v2")
    else:
        content = _published_form(row, net.state_dict())
        zipped = name not in _BEFORE_ZIP
        with whole(path) as draft:
            torch.save(content, draft, _use_new_zipfile_serialization=zipped)
    return path, net


def random_weights(net, seed=0):
    """The network in eval mode with weights, statistics and counters from a seed, none as at the start."""
    rng = torch.Generator().manual_seed(seed)
    state = {}
    for name, old in net.state_dict().items():
        if not old.is_floating_point():
            state[name] = torch.full_like(old, 1000)
        elif name.endswith("running_var"):
            state[name] = torch.rand(old.shape, generator=rng) + 0.5
        elif old.ndim == 1:
            centre = 0.0 if name.endswith(("bias", "running_mean")) else 1.0
            state[name] = torch.randn(old.shape, generator=rng) * 0.1 + centre
        else:
            scale = (2 / old[0].numel()) ** 0.5 if name.endswith("weight") else 0.02
            state[name] = torch.randn(old.shape, generator=rng) * scale
    net.load_state_dict(state)
    return net.eval()


def _published_form(row, own):
    """Names, companions and container of a published torch file; companions are zeros that take no room."""
    state = {row.prefix + name: value for name, value in own.items()}
    for part in row.drop:
        if part.endswith(("encoder_k", "momentum_encoder")):
            state |= {f"{part}.{name}": _zeros(value.shape, value.dtype) for name, value in own.items()}
        elif part.endswith("queue"):
            state[part] = _zeros((128, 65536))
        elif part.endswith("queue_ptr"):
            state[part] = _zeros((1,), torch.long)
        elif part.endswith(("mask_token", "decoder_pos_embed", "masked_embed")):
            state[part] = _zeros((1, 1, 384))
        else:
            state |= {f"{part}.{number}.weight": _zeros((128, 2048)) for number in (0, 2)}
            state |= {f"{part}.{number}.bias": _zeros((128,)) for number in (0, 2)}
    if row.container is None:
        return state
    companions = {
        "epoch": 200,
        "arch": "resnet50",
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.03}]},
    }
    if row.container == "model":
        companions |= {"contrast": {"memory": _zeros((1281167, 128))}, "args": argparse.Namespace(lr=0.03)}
        companions |= {"model_ema": {name: _zeros(value.shape, value.dtype) for name, value in state.items()}}
    return {row.container: state, **companions}


def _zeros(shape, dtype=torch.float32):
    return torch.zeros((), dtype=dtype).expand(shape)
