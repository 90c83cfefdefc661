"""Networks at initialisation: cosines, the arc-cosine kernel, surgery, many layers in one pass."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import mgmlib as mgm
from mgmlib.metrics.arccosine import relu_cosine, relu_gram
from mgmlib.models.surgery import (
    CentredReLU,
    replaced,
    with_branches,
    with_statistics_of,
    without_skip,
)
from mgmlib.wide_limit import resnet_limit

IMAGES = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def network(name, **options):
    return mgm.load_model(f"timm:{name}", weights="random", input_size=64, **options)


@pytest.fixture(scope="module")
def resnet():
    return network("resnet18")


@pytest.fixture(scope="module")
def vit():
    return network("vit_tiny_patch16_224")


def out(encoder, images=IMAGES):
    with torch.inference_mode():
        return encoder(images)


# --- mean cosine ---


def test_mean_cosine_is_the_mean_over_pairs():
    z = np.random.default_rng(0).standard_normal((17, 5)) + 0.5
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    pairs = [unit[i] @ unit[j] for i in range(17) for j in range(i)]
    assert mgm.mean_cosine(z) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert mgm.mean_cosine(z * np.arange(1, 18)[:, None]) == pytest.approx(np.mean(pairs), abs=1e-12)


@pytest.mark.parametrize(
    ("z", "expected"),
    [
        (np.ones((4, 3)), 1.0),  # one direction
        (np.eye(4), 0.0),  # orthogonal
        (np.array([[1.0, 0], [-1, 0]]), -1.0),  # opposite
        (np.concatenate([np.eye(3), -np.eye(3)]), -1 / 5),  # centred: the least there is
    ],
)
def test_mean_cosine_where_it_is_known(z, expected):
    assert mgm.mean_cosine(z) == pytest.approx(expected, abs=1e-12)


def test_mean_cosine_names_a_row_without_direction():
    with pytest.raises(ValueError, match="z: row 1 is zero"):
        mgm.mean_cosine(np.array([[1.0, 0], [0, 0], [1, 1]]))


# --- the arc-cosine kernel ---


def test_relu_cosine_where_it_is_known():
    assert relu_cosine(0.0) == pytest.approx(1 / math.pi)  # E[relu]² / E[relu²] of a standard normal
    assert relu_cosine(1.0) == pytest.approx(1.0)
    assert relu_cosine(-1.0) == pytest.approx(0.0)
    third = (math.sqrt(3) / 2 + (math.pi - math.pi / 3) / 2) / math.pi  # θ = 60°
    assert relu_cosine(0.5) == pytest.approx(third)


def test_relu_cosine_contracts_and_one_is_its_fixed_point():
    grid = np.linspace(-1, 1, 101)
    after = relu_cosine(grid)
    assert (np.diff(after) > 0).all() and (after >= grid).all()
    assert after[-1] == pytest.approx(1) and (after[:-1] > grid[:-1]).all()


def test_relu_gram_is_what_a_wide_layer_does():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 8)) * np.arange(1, 6)[:, None]
    weights = rng.standard_normal((8, 400_000)) * np.sqrt(2 / 8)
    features = np.maximum(x @ weights, 0)
    wide = features @ features.T / 400_000 * 8  # per output, in units of the inputs' own inner products
    expected = relu_gram(x @ x.T)
    assert np.diag(expected) == pytest.approx(np.diag(x @ x.T))
    assert np.abs(wide - expected).max() < 0.02 * expected.max()


def test_a_centred_relu_takes_away_what_all_have_in_common():
    rng = torch.Generator().manual_seed(0)
    x = torch.eye(6) @ torch.randn(6, 100_000, generator=rng)  # orthogonal inputs, one wide layer
    assert mgm.mean_cosine(x.relu()) == pytest.approx(1 / math.pi, abs=0.01)
    assert mgm.mean_cosine(CentredReLU()(x[:, None])[:, 0]) == pytest.approx(0, abs=0.01)
    maps = CentredReLU()(torch.randn(2, 7, 3, 3, generator=rng))
    assert maps.mean(1).abs().max() < 1e-6


def test_bad_cosines_and_grams_are_refused():
    with pytest.raises(ValueError, match="cosine: expected values in"):
        relu_cosine(np.array([0.5, 1.1]))
    with pytest.raises(ValueError, match="gram: expected a positive diagonal"):
        relu_gram(np.zeros((2, 2)))


@pytest.mark.parametrize("name", ["resnet18", "resnet26"])
def test_a_resnet_is_what_its_stem_and_theory_say(name):
    rng = torch.Generator().manual_seed(1)
    images = nn.functional.interpolate(torch.rand(5, 3, 4, 4, generator=rng), 128, mode="bicubic").clamp(0, 1)
    images *= torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0.1, 0, 0.1]]).view(5, 3, 1, 1)
    pairs = np.triu_indices(5, 1)
    off, unmoved = [], []  # from what is measured: theory, and the stem as it is
    for seed in range(3):
        encoder = network(name, seed=seed)
        theory = resnet_limit(encoder, images)
        stages = [stage for stage in theory if stage != "maxpool"]
        assert len(stages) == (4 if name == "resnet26" else 3)
        for stage, z in mgm.embed_layers(encoder, images, stages).items():
            assert np.diag(theory[stage]) == pytest.approx(1)
            z = z / np.linalg.norm(z, axis=1, keepdims=True)
            off.append(np.abs(z @ z.T - theory[stage])[pairs].mean())
            unmoved.append(np.abs(z @ z.T - theory["maxpool"])[pairs].mean())
    assert np.mean(off) < 0.03 < 0.1 < np.mean(unmoved)
    branches = mgm.embed_layers(with_branches(encoder), images, ["layer4"])["layer4"]
    assert mgm.mean_cosine(branches) > theory["layer4"][pairs].mean()


def test_the_limit_is_of_resnets_alone(vit):
    with pytest.raises(ValueError, match="is not a timm ResNet"):
        resnet_limit(vit, IMAGES)
    with pytest.raises(ValueError, match="no 1 × 1 convolution"):
        resnet_limit(network("resnet18d"), IMAGES)


# --- surgery ---


def changed(a, b):
    """Names of submodules that differ in class, and of weights that differ in value."""
    classes = {n for n, m in a.named_modules() if type(m) is not type(dict(b.named_modules()).get(n))}
    weights = {
        n for n, p in a.named_parameters() if n in (o := dict(b.named_parameters())) and (p != o[n]).any()
    }
    return classes, weights


def test_replaced_changes_the_named_class_and_nothing_else(resnet):
    before = resnet.digest
    other = replaced(resnet, nn.ReLU, lambda module: nn.Tanh())
    classes, weights = changed(resnet, other)
    assert classes == {name for name, module in resnet.named_modules() if type(module) is nn.ReLU}
    assert not weights and resnet.digest == before
    assert not torch.equal(out(other), out(resnet))
    same = replaced(resnet, nn.ReLU, lambda module: nn.ReLU())
    assert torch.equal(out(same), out(resnet))


def test_replaced_says_what_was_not_found(vit):
    with pytest.raises(ValueError, match="has no submodule of class ReLU"):
        replaced(vit, nn.ReLU, lambda module: nn.GELU())


def test_branches_are_zero_and_are_switched_on(resnet):
    other = with_branches(resnet)
    classes, weights = changed(resnet, other)
    assert not classes and weights == {f"net.layer{i}.{j}.bn2.weight" for i in range(1, 5) for j in range(2)}
    assert all((dict(resnet.named_parameters())[name] == 0).all() for name in weights)
    assert all((dict(other.named_parameters())[name] == 1).all() for name in weights)


def test_branches_of_a_vision_transformer_keep_the_variance(vit):
    for block in with_branches(vit).net.blocks:
        for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            assert float(layer.weight.std()) * layer.in_features**0.5 == pytest.approx(1, abs=1e-5)
    classes, weights = changed(vit, with_branches(vit))
    assert not classes and len(weights) == 4 * len(vit.net.blocks)


def test_branches_of_a_convnext_are_switched_on():
    encoder = network("convnext_atto")
    _, weights = changed(encoder, with_branches(encoder))
    assert weights == {name for name, p in encoder.named_parameters() if name.endswith(".gamma")}


def test_without_skip_a_block_is_its_branch(resnet, vit):
    x = torch.randn(2, 64, 8, 8, generator=torch.Generator().manual_seed(0))
    block, full = (e.net.layer1[0] for e in (without_skip(resnet), with_branches(resnet)))
    with torch.inference_mode():
        branch = full.bn2(full.conv2(full.act1(full.bn1(full.conv1(x)))))
        assert torch.allclose(block(x), branch.relu(), atol=1e-6)
        tokens = torch.randn(2, 17, 192, generator=torch.Generator().manual_seed(0))
        block, plain = without_skip(vit).net.blocks[0], vit.net.blocks[0]
        inner = plain.attn(plain.norm1(tokens))
        assert torch.allclose(block(tokens), plain.mlp(plain.norm2(inner)), atol=1e-6)
        assert torch.allclose(
            plain(tokens), tokens + inner + plain.mlp(plain.norm2(tokens + inner)), atol=1e-5
        )


def test_statistics_of_a_batch_are_those_of_training(resnet):
    other = with_statistics_of(resnet, IMAGES)
    assert not other.training and changed(resnet, other) == (set(), set())
    training = network("resnet18").train()
    with torch.inference_mode():  # the kept variance is the unbiased one: lengths differ, directions hardly
        assert nn.functional.cosine_similarity(out(other), training(IMAGES)).min() > 0.9999
        maps = other.net.conv1((IMAGES - other.mean) / other.std)
    assert torch.allclose(other.net.bn1.running_mean, maps.mean((0, 2, 3)), atol=1e-5)


def test_surgery_refuses_what_it_does_not_know(vit):
    mixer = network("mixer_s32_224")
    with pytest.raises(ValueError, match="no blocks of timm's ResNet, ConvNeXt or ViT"):
        with_branches(mixer)
    with pytest.raises(ValueError, match="no blocks of timm's ResNet, ConvNeXt or ViT"):
        without_skip(mixer)
    with pytest.raises(ValueError, match="no batch normalisation"):
        with_statistics_of(vit, IMAGES)


# --- many layers in one pass ---


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_one_pass_gives_what_single_passes_give(name):
    encoder = network(name)
    names = [*mgm.models.layers(encoder), None]
    found = mgm.embed_layers(encoder, IMAGES, names, batch_size=4)
    assert list(found) == names
    for layer, z in found.items():
        assert z.dtype == np.float32
        single = out(encoder.at(layer)).numpy()
        assert z == pytest.approx(single, rel=1e-3, abs=1e-4 * float(np.abs(single).max()))
    assert not encoder.net.get_submodule(names[0])._forward_hooks


def test_pooling_is_a_choice(vit):
    token, mean = (
        mgm.embed_layers(vit, IMAGES, ["blocks.3"], pool=pool)["blocks.3"] for pool in ("token", "mean")
    )
    assert token.shape == mean.shape and not np.allclose(token, mean)


def test_a_layer_that_is_not_reached_is_named(resnet):
    with pytest.raises(ValueError, match="no such layer"):
        mgm.embed_layers(resnet, IMAGES, ["layer9"])
    with pytest.raises(ValueError, match=r"does not reach 'layer3'"):
        mgm.embed_layers(resnet.at("layer2"), IMAGES, ["layer3"])
