"""A block of work that is done again for its gradient, instead of being kept for it."""

import torch
from torch.autograd.function import once_differentiable


def recompute(function, *tensors):
    """``function(*tensors)``, of which the backward pass remembers the tensors alone.

    As `torch.utils.checkpoint` does, without its import of the compiler (seconds) on the first call.
    """
    return _Recompute.apply(function, *tensors)


class _Recompute(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, *tensors):
        ctx.function = function
        ctx.save_for_backward(*tensors)
        return function(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        tensors = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            value = ctx.function(*tensors)
        return None, *torch.autograd.grad(value, tensors, gradient)
