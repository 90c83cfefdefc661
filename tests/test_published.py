"""The published models: each layout written synthetically, read back, equal to the network it came from."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import mgmlib as mgm
from mgmlib.models import PUBLISHED, STUDIED, layouts
from mgmlib.models.catalogue import IMAGENET, PADDED, UNIT
from mgmlib.models.published import architecture, blank, read_checkpoint
from mgmlib.models.safe_pickle import read_pickle
from mgmlib.models.synthetic import MARK, random_weights, write_synthetic
from mgmlib.models.synthetic.tensorflow_files import bundle
from mgmlib.models.tensor_bundle import BundleError, masked_crc, read_bundle

REAL = Path(__file__).parent / "checkpoints"  # tiny files that TensorFlow 2.21 and dill 0.4 wrote
SYNTHETIC = [name for name in PUBLISHED if name != "efficientnet-lite0"]
RESNETS = [name for name in SYNTHETIC if PUBLISHED[name].architecture == "resnet50"]


@pytest.fixture
def folder(tmp_path):
    """A folder that does not outlive its test: checkpoints are large."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def source():
    """A ResNet-50 none of whose tensors is as it was initialised."""
    return random_weights(blank(PUBLISHED["supervised"]))


@pytest.fixture(scope="module")
def resnets(tmp_path_factory):
    """Checkpoints of a few layouts, for the tests that spoil or convert them."""
    home = tmp_path_factory.mktemp("checkpoints")
    yield {name: write_synthetic(name, home) for name in ("infomin", "simclr-v2", "byol")}
    shutil.rmtree(home)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MGMLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MGMLIB_MIRROR", raising=False)


@torch.inference_mode()
def outputs(encoder, net, size):
    """What an encoder gives, and what the network gives on the same normalised images."""
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in PUBLISHED[encoder.name].normalisation)
    return encoder(x), net((x - mean) / std)


# ---- the table


def test_the_table_has_all_29():
    table = mgm.models.table()
    assert len(table) == 29 and table.index.is_unique and list(table.index) == list(PUBLISHED)
    assert len(STUDIED) == 14 and set(STUDIED) < set(table.index)
    assert (table["architecture"] == "resnet50").sum() == 19
    assert table.drop(columns=["epochs", "container", "known_hash"]).notna().all(axis=None)
    assert table["source"].str.startswith("https://").all()
    assert set(table["dim"]) == {2048, 384, 768, 1280}
    for name in ("moco-v1", "moco-v2", "supervised", "mae-vitb16", "efficientnet-lite0"):
        assert table.loc[name, "known_hash"].partition(":")[0] in ("md5", "sha256")


def test_epochs_and_augmentations_are_those_of_table_10():
    asset = Path(mgm.__file__).parent / "assets/published/ericsson2021_table10_pretraining_details.csv"
    printed = pd.read_csv(asset, comment="#").set_index("model")
    table = mgm.models.table()
    assert [PUBLISHED[name].in_table10 for name in STUDIED] == list(printed.index)
    assert table.loc[list(STUDIED), "epochs"].tolist() == printed["epochs"].tolist()
    has_blur = table.loc[list(STUDIED), "augmentations"].str.contains("blur").to_numpy()
    assert (has_blur == printed["blur"].to_numpy(bool)).all()
    assert table.loc["byol", "augmentations"] == "crop, flip, colour jitter, greyscale, blur, solarize"
    assert table.loc["swav", "augmentations"].startswith("multi-crop")
    assert table.loc["supervised", "augmentations"] == "crop, flip, PCA colour"


def test_normalisation_is_the_published_one():
    for name, row in PUBLISHED.items():
        expected = UNIT if name.startswith("simclr") else ((0.5,) * 3,) * 2 if "lite0" in name else IMAGENET
        assert row.normalisation == expected
    encoder = mgm.load_model("simclr-v1", weights="random", input_size=64)
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(encoder(x), encoder.net(x))  # pixels in [0, 1] as they are


@pytest.mark.parametrize("name", ["byol", "dinov2-vits14"])
def test_random_weights_follow_the_seed(name):
    first, again, other = (mgm.load_model(name, weights="random", seed=s).digest for s in (3, 3, 4))
    assert first == again != other


# ---- each layout, written and read


@pytest.mark.parametrize("name", SYNTHETIC)
def test_a_checkpoint_gives_back_its_network(name, folder):
    path, net = write_synthetic(name, folder)
    row = PUBLISHED[name]
    size = 518 if row.layout == "dinov2" else None
    encoder = mgm.load_model(name, weights=path, input_size=64 if name in RESNETS else size)
    own = net.state_dict()
    for key, value in encoder.net.state_dict().items():
        # counters that TensorFlow and haiku do not keep are zero; all else is the source's
        counts = key.endswith("num_batches_tracked") and row.layout in ("tensorflow", "haiku")
        assert torch.equal(value, torch.zeros_like(value) if counts else own[key]), key
    assert encoder.dim == row.dim and encoder.meta["published_hash"] in ("differs", "none published")
    if name in RESNETS:
        torch.testing.assert_close(*outputs(encoder, net, 64), rtol=1e-5, atol=1e-5)
    elif size is None and row.dim == 384:
        torch.testing.assert_close(*outputs(encoder, net, 224), rtol=1e-5, atol=1e-5)


def test_moco_v3s_small_vit_has_12_heads():
    heads = {
        name: {block.attn.num_heads for block in blank(PUBLISHED[name]).blocks}
        for name in ("mocov3-vits16", "dino-vits16", "ibot-vits16", "mocov3-vitb16")
    }
    assert heads == {"mocov3-vits16": {12}, "dino-vits16": {6}, "ibot-vits16": {6}, "mocov3-vitb16": {12}}


def test_the_momentum_model_is_not_taken_by_accident(resnets, folder):
    path, _ = resnets["infomin"]
    content = torch.load(path, weights_only=False)
    assert {"model", "model_ema", "contrast", "optimizer"} <= set(content)
    torch.save({"model_ema": content["model"], "epoch": 1}, folder / "ema.pth")
    with pytest.raises(ValueError, match=r"expected the encoder's tensors under 'model', met .*model_ema"):
        mgm.load_model("infomin", weights=folder / "ema.pth")


def test_positions_of_dinov2_are_resized_as_its_authors_do(folder):
    path, net = write_synthetic("dinov2-vits14", folder)
    encoder = mgm.load_model("dinov2-vits14", weights=path)
    assert encoder.input_size == 224 and encoder.net.pos_embed.shape == (1, 257, 384)
    old = net.pos_embed.detach()
    grid = old[:, 1:].reshape(1, 37, 37, 384).permute(0, 3, 1, 2)
    resized = nn.functional.interpolate(grid, scale_factor=(16.1 / 37,) * 2, mode="bicubic")
    resized = resized.permute(0, 2, 3, 1).reshape(1, 256, 384)
    assert torch.equal(encoder.net.pos_embed, torch.cat([old[:, :1], resized], 1))
    assert not torch.equal(encoder.net.pos_embed[:, 1:], old[:, 1:257])


# ---- exactness: what is missing, left over or of another shape is told


def spoilt(state, change):
    state = dict(state)
    change(state)
    return state


SPOILT = {
    "1 missing: layer1.0.bn1.running_var": lambda s: s.pop("layer1.0.bn1.running_var"),
    "1 missing: layer4.2.bn3.num_batches_tracked": lambda s: s.pop("layer4.2.bn3.num_batches_tracked"),
    "1 unexpected: layer5.weight": lambda s: s.update({"layer5.weight": torch.zeros(1)}),
    "1 of another shape: conv1.weight": lambda s: s.update({"conv1.weight": torch.zeros(64, 3, 3, 3)}),
}


@pytest.mark.parametrize("told", SPOILT)
def test_a_tensor_more_or_less_is_told(told, folder, source):
    torch.save(spoilt(source.state_dict(), SPOILT[told]), folder / "w.pth")
    with pytest.raises(ValueError, match=f"w.pth.*do not fit ResNet: {told}"):
        mgm.load_model("vicreg-rn50", weights=folder / "w.pth")


def test_what_stands_beside_the_encoder_must_be_known(folder, source):
    state = {f"module.encoder_q.{k}": v for k, v in source.state_dict().items()}
    known = {"module.encoder_k.conv1.weight": torch.zeros(1), "module.queue": torch.zeros(1)}
    torch.save({"state_dict": state | known}, folder / "w.pth")
    mgm.load_model("moco-v2", weights=folder / "w.pth", input_size=64)
    torch.save({"state_dict": state | {"module.surprise.weight": torch.zeros(1)}}, folder / "w.pth")
    with pytest.raises(ValueError, match=r"1 unexpected: module.surprise.weight"):
        mgm.load_model("moco-v2", weights=folder / "w.pth")


def test_weights_of_another_model_do_not_load(resnets):
    path, _ = resnets["byol"]
    with pytest.raises(ValueError, match=r"pretrain_res50x1.pkl"):
        mgm.load_model("swav", weights=path)
    path, _ = resnets["simclr-v2"]
    with pytest.raises(ValueError, match=r"a TensorFlow checkpoint; 'swav' is not published as one"):
        mgm.load_model("swav", weights=path)
    with pytest.raises(ValueError, match="a TensorFlow checkpoint, which this model does not read"):
        mgm.load_model("timm:resnet10t", weights=path)


# ---- conversions that are around


@pytest.mark.parametrize("name", ["moco-v1", "byol", "simclr-v1", "simclr-v2"])
def test_a_file_with_torchvisions_names_is_taken_too(name, folder, source):
    state = {k: v for k, v in source.state_dict().items() if "num_batches" not in k}
    state["fc.weight"] = torch.zeros(1000, 2048)
    torch.save({"state_dict": state}, folder / "converted.pth")
    encoder = mgm.load_model(name, weights=folder / "converted.pth", input_size=64)
    torch.testing.assert_close(*outputs(encoder, source, 64), rtol=1e-5, atol=1e-5)


def as_simclr2_conversion(state):
    """Names of torchvision as the public converter of SimCLR-v2 writes them."""
    renamed = {}
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        if module in ("conv1", "bn1"):
            module = {"conv1": "net.0.0", "bn1": "net.0.1.0"}[module]
        else:
            stage, block, rest = module.removeprefix("layer").split(".", 2)
            inner = {"downsample.0": "projection.shortcut", "downsample.1": "projection.bn.0"}
            inner |= {f"conv{i}": f"net.{2 * i - 2}" for i in (1, 2, 3)}
            inner |= {f"bn{i}": f"net.{2 * i - 1}.0" for i in (1, 2, 3)}
            module = f"net.{stage}.blocks.{block}.{inner[rest]}"
        renamed[f"{module}.{leaf}"] = value
    return renamed


def test_the_public_conversion_of_simclr2_is_read(folder, source):
    state = as_simclr2_conversion(source.state_dict()) | {"fc.weight": torch.zeros(1000, 2048)}
    assert sum("num_batches" not in key for key in state) == 266  # 265 of the encoder
    torch.save({"resnet": state, "head": {"layers.0.weight": torch.zeros(1)}}, folder / "r50_1x_sk0.pth")
    encoder = mgm.load_model("simclr-v2", weights=folder / "r50_1x_sk0.pth", input_size=64)
    torch.testing.assert_close(*outputs(encoder, source, 64), rtol=1e-5, atol=1e-5)


def test_safetensors_are_read(folder, source):
    from safetensors.torch import save_file

    save_file(source.state_dict(), folder / "w.safetensors")
    encoder = mgm.load_model("supervised", weights=folder / "w.safetensors", input_size=64)
    torch.testing.assert_close(*outputs(encoder, source, 64), rtol=1e-5, atol=1e-5)


# ---- paddings


def same(layer, x):
    """TensorFlow's padding "same", restated: as little as reaches every pixel, the odd one after."""
    kernel, stride = layer.kernel_size, layer.stride
    kernel, stride = (v[0] if isinstance(v, tuple) else v for v in (kernel, stride))
    total = max((-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1], 0)
    before, after = total // 2, total - total // 2
    if isinstance(layer, nn.MaxPool2d):
        padded = nn.functional.pad(x, (before, after) * 2, value=-torch.inf)
        return nn.functional.max_pool2d(padded, kernel, stride)
    padded = nn.functional.pad(x, (before, after) * 2)
    return nn.functional.conv2d(padded, layer.weight, stride=stride)


@torch.inference_mode()
@pytest.mark.parametrize("name", PADDED)
def test_same_padding_is_tensorflows(name, folder, source):
    torch.save(source.state_dict(), folder / "w.pth")
    encoder = mgm.load_model(name, weights=folder / "w.pth", input_size=64, padding="same")
    plain = mgm.load_model(name, weights=folder / "w.pth", input_size=64)
    assert encoder.meta["padding"] == "same" and "padding" not in plain.meta
    assert encoder.digest != plain.digest

    def forward(x):  # torchvision's forward pass, each layer padded as asked
        convolve = same if name == "byol" else lambda layer, x: layer(x)
        x = same(source.maxpool, source.bn1(convolve(source.conv1, x)).relu())
        for stage in (source.layer1, source.layer2, source.layer3, source.layer4):
            for block in stage:
                y = block.bn1(convolve(block.conv1, x)).relu()
                y = block.bn2(convolve(block.conv2, y)).relu()
                y = block.bn3(convolve(block.conv3, y))
                if block.downsample is not None:
                    x = block.downsample[1](convolve(block.downsample[0], x))
                x = (x + y).relu()
        return x.mean((2, 3))

    for size in (64, 63):
        z, expected = outputs(encoder, forward, size)
        torch.testing.assert_close(z, expected, rtol=1e-5, atol=1e-3)
        assert (outputs(plain, source, size)[0] - z).abs().max() > 1


# ---- TensorFlow's and haiku's files


def test_a_bundle_written_by_tensorflow_is_read():
    found = read_bundle(REAL / "tensorflow.index")
    assert {name: value.shape for name, value in found.items()} == {
        "base_model/batch_normalization/gamma": (4,),
        "base_model/batch_normalization/gamma/Momentum": (4,),
        "base_model/batch_normalization_10/moving_mean": (4,),
        "base_model/conv2d/kernel": (3, 3, 2, 4),
        "base_model/conv2d_1/kernel": (1, 1, 4, 2),
        "base_model/empty": (0, 3),
        "global_step": (),
    }
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(
        found["base_model/conv2d/kernel"], rng.standard_normal((3, 3, 2, 4)).astype("f4")
    )
    assert found["global_step"] == 225206


def test_our_bundles_are_tensorflows_to_the_byte():
    real = REAL / "tensorflow.index"
    found = read_bundle(real)
    order = ["conv2d/kernel", "conv2d_1/kernel", "batch_normalization/gamma"]  # in which it was written
    order += ["batch_normalization_10/moving_mean", "batch_normalization/gamma/Momentum"]
    index, data = bundle(
        {f"base_model/{name}": found[f"base_model/{name}"] for name in order}
        | {name: found[name] for name in ("global_step", "base_model/empty")}
    )
    assert index == real.read_bytes()
    assert data == real.with_suffix(".data-00000-of-00001").read_bytes()


def test_a_bundle_of_many_blocks_is_read(tmp_path):
    variables = {f"base_model/v_{i}": np.full((i % 3, 2), i, np.float32) for i in range(300)}
    for path, content in zip(("m.index", "m.data-00000-of-00001"), bundle(variables, 512), strict=True):
        (tmp_path / path).write_bytes(content)
    found = read_bundle(tmp_path / "m.index")
    assert list(found) == sorted(variables)
    assert all(np.array_equal(found[name], value) for name, value in variables.items())
    assert masked_crc(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF


def flipped(raw, at):
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


SPOILT_BUNDLES = {
    "truncated": lambda index, data: (index, data[:-40]),
    "checksum does not match: the data file is damaged": lambda index, data: (index, flipped(data, 20)),
    "as a tensor bundle does": lambda index, data: (index[:-9], data),
    "checksum of the index": lambda index, data: (flipped(index, 30), data),
}


@pytest.mark.parametrize("told", SPOILT_BUNDLES)
def test_a_spoilt_bundle_is_told(told, tmp_path):
    raw = [(REAL / f"tensorflow.{end}").read_bytes() for end in ("index", "data-00000-of-00001")]
    for end, content in zip(("index", "data-00000-of-00001"), SPOILT_BUNDLES[told](*raw), strict=True):
        (tmp_path / f"b.{end}").write_bytes(content)
    with pytest.raises(BundleError, match=told):
        read_bundle(tmp_path / "b.index")


def test_a_compressed_or_lonely_bundle_is_told(tmp_path):
    content = b"anything"
    table = content + b"\1" + masked_crc(content + b"\1").to_bytes(4, "little")
    footer = bytes([0, 8, 0, 8]).ljust(40, b"\0") + (REAL / "tensorflow.index").read_bytes()[-8:]
    (tmp_path / "b.index").write_bytes(table + footer)
    with pytest.raises(BundleError, match=r"expected the file b.data-00000-of-00001 beside it"):
        read_bundle(tmp_path / "b.index")
    (tmp_path / "b.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(BundleError, match=r"compressed \(type 1\)"):
        read_bundle(tmp_path / "b.index")


def test_names_of_variables_that_no_encoder_has_are_listed(resnets, folder):
    variables = read_bundle(resnets["simclr-v2"][0], wanted=lambda name: name.startswith("base_model"))
    state = layouts.from_tensorflow({k: v for k, v in variables.items() if v is not None})
    assert len(state) == 265 + 106  # the slots of the optimiser keep their names
    first = architecture(PUBLISHED["simclr-v2"]).state_dict()
    assert sum(key in first for key in state) == 265
    row = PUBLISHED["simclr-v2"]
    assert len(read_checkpoint(resnets["simclr-v2"][0], row)) == 265
    extra = {"base_model/conv2d_53/kernel": np.zeros((1, 1, 2, 2), np.float32)}
    assert list(layouts.from_tensorflow(extra)) == list(extra)


def test_a_pickle_written_by_dill_is_read():
    found = read_pickle(REAL / "dill.pkl")
    experiment = found["experiment_state"]
    assert list(experiment) == ["online_params", "target_params", "online_state", "target_state", "opt_state"]
    np.testing.assert_array_equal(
        experiment["target_params"]["res_net50/~/initial_conv"]["w"], np.arange(6.0).reshape(1, 1, 2, 3)
    )
    assert found["step"] == 300000 and found["rng"].dtype == np.uint32


def test_byol_is_converted_once_and_checked_after(resnets, monkeypatch, own_cache):
    from mgmlib.cache import cache_folder
    from mgmlib.models import published

    path, net = resnets["byol"]
    first = mgm.load_model("byol", weights=path, input_size=64)
    (kept,) = (cache_folder() / "weights" / "byol").glob("converted-*.safetensors")
    unpickled = []
    monkeypatch.setattr(published, "read_pickle", lambda p: unpickled.append(p) or read_pickle(p))
    assert mgm.load_model("byol", weights=path, input_size=64).digest == first.digest and not unpickled
    raw = bytearray(kept.read_bytes())
    raw[-5] ^= 1
    kept.write_bytes(raw)
    again = mgm.load_model("byol", weights=path, input_size=64)
    assert again.digest == first.digest and unpickled == [path]


def test_synthetic_checkpoints_are_marked(resnets):
    path, _ = resnets["infomin"]
    assert (path.parents[1] / MARK).is_file()
