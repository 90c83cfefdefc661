"""Several processes (torchrun), one batch: what each does, and what they tell each other."""

from __future__ import annotations

import os

import torch
from torch import distributed


def start(device):
    """Join the processes that torchrun started, if it did; the device of this one."""
    if "WORLD_SIZE" not in os.environ:
        return torch.device(device)
    distributed.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")
    if torch.device(device).type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    return torch.device(device)


def world():
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank():
    """Number of this process."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def share(index):
    """Part of a batch of indices (B,) that this process takes."""
    return index if world() == 1 else index[rank() :: world()]


def gather(x):
    """Rows (B, ...) of all processes, in the order of their numbers; gradients flow back to each."""
    if world() == 1:
        return x
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(x.contiguous()))


def average_gradients(module):
    """Mean of every gradient over the processes."""
    if world() == 1:
        return
    for parameter in module.parameters():
        if parameter.grad is not None:
            distributed.all_reduce(parameter.grad)
            parameter.grad /= world()


def synchronize_norms(module):
    """Batch normalisation over the batch of all processes, where the device can."""
    if world() == 1 or not torch.cuda.is_available():
        return module
    return torch.nn.SyncBatchNorm.convert_sync_batchnorm(module)
