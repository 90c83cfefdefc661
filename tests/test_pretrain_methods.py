"""Every method of the zoo: what trains and what does not, resuming, symmetries, and its own mechanism."""

import inspect

import pandas as pd
import pytest
import torch
from lightly.loss import DINOLoss
from torch import nn

import mgmlib
from mgmlib.pretrain.backbones import PocketResNet, backbone
from mgmlib.pretrain.heads import unit
from mgmlib.pretrain.memory import Bank, Momentum
from mgmlib.pretrain.methods import METHODS, method_class
from mgmlib.pretrain.methods.base import Batch, Start
from mgmlib.pretrain.views import render

N, CLASSES = 64, 4
SMALL = {  # sizes for a test, where a method has such a keyword
    "hidden": 24,
    "out": 16,
    "bottleneck": 8,
    "queue": 96,
    "noise": 40,
    "prototypes": 12,
    "clusters": (6, 9),
    "labels": (6, 9),
}
SYMMETRIC = ["simclr-v1", "byol", "simsiam", "barlow-twins", "vicreg", "moco-v3"]
SYMMETRIC += ["spectral", "align-uniform", "sigmoid"]
MULTICROP = ["swav", "sela-v2", "deepcluster-v2", "dino"]
CLUSTERED = ["pcl-v1", "pcl-v2", "sela-v2", "deepcluster-v2"]

close = torch.testing.assert_close
every_method = pytest.mark.parametrize("name", METHODS)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def build(name, seed=0, net=None, **options):
    """A method on a tiny network."""
    torch.manual_seed(seed)
    kind = method_class(name)
    known = inspect.signature(kind).parameters
    sizes = {key: value for key, value in SMALL.items() if key in known}
    net = net or PocketResNet(widths=(8, 16), depths=(1, 1), strides=(1, 2))
    return kind(Start(net, N, CLASSES, rng(seed + 100)), **(sizes | options))


def smooth_images(n=N, seed=0):
    """Images of a few waves each, all different, uint8."""
    coarse = torch.rand(n, 3, 4, 4, generator=rng(seed))
    return (255 * nn.functional.interpolate(coarse, size=32, mode="bicubic").clamp(0, 1)).byte()


def make_views(name, seed=0):
    images, draws = smooth_images(), rng(seed)
    return [2 * render(images, view, 32, draws) - 1 for view in method_class(name).views]


def make_batch(progress=0.5, seed=7, order=None):
    order = torch.arange(N) if order is None else order
    return Batch(order, order % CLASSES, progress, rng(seed))


def step(method, views, progress=0.5, lr=0.05, seed=7):
    """One step of training."""
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr)
    loss = method(views, make_batch(progress, seed))
    loss.backward()
    optimizer.step()
    method.zero_grad()
    method.after_step(progress)
    return loss.detach()


def trained(name, **options):
    """A method after a first pass, a clustering and another step: all of its memory is in use."""
    method = build(name, **options)
    method.start_epoch(0.0, rng(1))
    step(method, make_views(name), progress=0.0)
    method.start_epoch(0.5, rng(2))
    step(method, make_views(name, 1), progress=0.5)
    return method


def weights(method):
    return {name: p for name, p in method.named_parameters() if p.requires_grad}


def twins(method):
    return [module for module in method.modules() if isinstance(module, Momentum)]


# All methods


@every_method
@pytest.mark.parametrize("clustered", [False, True])
def test_loss_is_finite_and_every_weight_gets_a_gradient(name, clustered):
    method = trained(name) if clustered else build(name)
    loss = method(make_views(name), make_batch(0.6 if clustered else 0.0))
    assert loss.shape == () and loss.dtype == torch.float32 and loss.isfinite()
    loss.backward()
    resting = {"prototypes.weight"} if name in ("swav", "dino") and not clustered else set()
    for key, weight in weights(method).items():
        assert weight.grad is not None and weight.grad.isfinite().all(), key
        assert bool(weight.grad.any()) == (key not in resting), key


@every_method
def test_what_is_remembered_is_not_trained(name):
    """Twins, banks, queues and clusters move without gradients; only the optimiser moves the weights."""
    method = build(name)
    method(make_views(name), make_batch()).backward()
    for twin in twins(method):
        assert all(p.grad is None and not p.requires_grad for p in twin.parameters())
    assert not any(b.requires_grad for b in method.buffers())
    held = {id(p) for twin in twins(method) for p in twin.parameters()}
    assert not held & {id(p) for p in weights(method).values()}


@every_method
def test_twin_follows_after_the_step_and_not_before(name):
    method = build(name)
    for twin in twins(method):
        first = [p.clone() for p in twin.parameters()]
    optimizer = torch.optim.SGD(weights(method).values(), 0.1)
    method(make_views(name), make_batch(0.5)).backward()
    optimizer.step()
    for twin in twins(method):
        assert all(torch.equal(p, q) for p, q in zip(twin.parameters(), first, strict=True))
    method.after_step(0.5)
    for twin in twins(method):
        assert any(not torch.equal(p, q) for p, q in zip(twin.parameters(), first, strict=True))
    assert len(twins(method)) <= 1


@every_method
def test_state_dict_holds_everything(name):
    """A copy made from another seed continues as the original does, to the bit."""
    original = trained(name)
    copy = build(name, seed=5)
    copy.load_state_dict(original.state_dict())
    for k in range(2):
        views = make_views(name, 2 + k)
        for method in (original, copy):
            method.start_epoch(0.7 + k / 10, rng(3 + k))
        assert torch.equal(step(original, views, 0.7), step(copy, views, 0.7))
    ours, theirs = original.state_dict(), copy.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@every_method
def test_ten_steps_lower_the_loss(name):
    """On one batch, against what was remembered before it."""
    method, views = trained(name), make_views(name, 3)
    memory = {key: value.clone() for key, value in method.named_buffers()}
    optimizer = torch.optim.SGD(weights(method).values(), 0.02, momentum=0.9)
    values = []
    for _ in range(11):
        for key, value in method.named_buffers():
            value.copy_(memory[key])
        loss = method(views, make_batch(0.6))
        values.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights(method).values(), 1)
        optimizer.step()
    assert values[-1] < values[0] - 0.02 * abs(values[0])


@every_method
@pytest.mark.parametrize("clustered", [False, True])
def test_order_of_the_images_does_not_matter(name, clustered):
    order = torch.randperm(N, generator=rng(4))
    losses = []
    for chosen in (torch.arange(N), order):
        method = trained(name) if clustered else build(name)
        views = [v[chosen] for v in make_views(name, 3)]
        losses.append(method(views, make_batch(0.6, order=chosen)))
    close(*losses, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_order_of_the_two_views_does_not_matter(name):
    views = make_views(name)
    close(*(build(name)(v, make_batch()) for v in (views, views[::-1])), rtol=1e-5, atol=1e-6)


@every_method
def test_forward_draws_from_the_batch_alone(name):
    """The same generator gives the same loss, whatever the global one is at; that one is left as it was."""
    losses = []
    for seed in (0, 1):
        method, views = build(name), make_views(name)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        losses.append(method(views, make_batch()))
        method.start_epoch(0.5, rng())
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*losses)


@every_method
def test_bfloat16_is_close_to_float32(name):
    method, views = build(name).eval(), make_views(name)  # evaluation: batch statistics amplify rounding
    exact = method(views, make_batch())
    method = build(name).eval()
    with torch.autocast("cpu", torch.bfloat16):
        loss = method(views, make_batch())
    assert loss.dtype == torch.float32
    close(loss, exact, rtol=0.05, atol=0.05)


def test_unknown_method_is_named():
    with pytest.raises(ValueError, match="method='mocco': expected one of supervised, simclr-v1"):
        method_class("mocco")


# Recipes


def published():
    path = mgmlib.__path__[0] + "/assets/published/ericsson2021_table10_pretraining_details.csv"
    return pd.read_csv(path, comment="#").set_index("model")


@pytest.mark.parametrize("model", published().index)
def test_recipe_is_the_published_one(model):
    """Table 10 of Ericsson et al., but for `normalize`: here the pixels of all methods are normalised."""
    row, name = published().loc[model], model.lower()
    views = method_class(name).views
    has = lambda condition: any(condition(v) for v in views)  # noqa: E731
    assert has(lambda v: v.jigsaw) == (row.jigsaw == 1)
    assert has(lambda v: v.gray > 0) == bool(row.grayscale)
    assert has(lambda v: v.blur > 0) == bool(row.blur)
    assert has(lambda v: v.solarize > 0) == bool(row.solarize)
    assert has(lambda v: v.zoom < 1) == (row.random_crop == "multi")
    assert has(lambda v: v.flip > 0) == bool(row.horiz_flip)
    assert has(lambda v: v.jitter_p > 0 and any(v.jitter)) == (row.colour_jitter == "1")
    assert has(lambda v: v.pca > 0) == (row.colour_jitter == "PCA")
    method = build(name)
    assert bool(twins(method)) == bool(row.mom_enc or row.target_net)
    banks = any(isinstance(m, Bank) for m in method.modules())
    if not name.startswith("pcl"):  # its bank stands for a pass over the images
        assert banks == bool(row.mem_bank)
    heads = [m for key, m in method.named_modules() if "backbone" not in key and isinstance(m, nn.Linear)]
    layers = max(
        sum(isinstance(p, nn.Linear) for p in m) for m in method.modules() if type(m) is nn.Sequential
    )
    assert heads and (layers >= 2) == bool(row.proj_head)


@every_method
def test_views_are_what_the_method_expects(name):
    shapes = [tuple(v.shape) for v in make_views(name)]
    whole, quarter, jigsaw = (N, 3, 32, 32), (N, 3, 16, 16), (N, 9, 3, 8, 8)
    expected = {"supervised": [whole], "insdis": [whole], "pirl": [whole, jigsaw]}
    expected |= {"infomin": [whole, whole, jigsaw]} | dict.fromkeys(MULTICROP, [whole] * 2 + [quarter] * 4)
    assert shapes == expected.get(name, [whole, whole])


# Each mechanism


@pytest.mark.parametrize("name", ["swav", "dino"])
def test_prototypes_rest_at_first(name):
    method, views = build(name, frozen=0.2), make_views(name)
    before = method.prototypes.weight.clone()
    step(method, views, progress=0.1)
    close(unit(method.prototypes.weight), before)
    step(method, views, progress=0.3)
    assert not torch.allclose(unit(method.prototypes.weight), before, atol=1e-4)


@pytest.mark.parametrize("name", ["swav", "sela-v2"])
def test_prototypes_stay_on_the_sphere(name):
    method = trained(name)
    heads = method.heads if name == "sela-v2" else [method.prototypes]
    for head in heads:
        close(head.weight.norm(dim=1), torch.ones(len(head.weight)))


def test_dino_is_lightlys_loss_with_its_centre():
    method, views = (
        build("dino", center_momentum=0.8, teacher_tau=(0.04, 0.08), warmup=0.5),
        make_views("dino"),
    )
    method.center.copy_(torch.randn(12, generator=rng(3)) / 10)
    theirs = DINOLoss(12, student_temp=0.1, center_momentum=0.8)
    theirs.center = method.center.clone()[None, None]
    scores = [
        method.prototypes(z) for v in (views[:2], views[2:]) for z in method.online(torch.cat(v)).split(N)
    ]
    taught = list(method.teacher(torch.cat(views[:2])).split(N))
    loss = method(views, make_batch(0.25))  # half of the warm-up: 0.06
    close(loss, theirs(taught, scores, teacher_temp=0.06))
    close(method.center, theirs.center[0, 0])


def test_insdis_fixes_its_constant_on_the_first_batch():
    method = build("insdis", objective="nce")
    assert method.log_z.isinf()
    step(method, make_views("insdis"))
    first = method.log_z.clone()
    assert first.isfinite()
    step(method, make_views("insdis", 1))
    assert torch.equal(method.log_z, first)


@pytest.mark.parametrize("name", ["insdis", "pirl"])
def test_both_objectives_of_the_bank_learn(name):
    views = make_views(name)
    for objective in ("softmax", "nce"):
        method = build(name, objective=objective)
        noise = method.bank.rows.clone()
        first = method(views, make_batch())
        for _ in range(10):
            method.bank.rows.copy_(noise)
            last = step(method, views, lr=0.01)
        assert last < first
    with pytest.raises(ValueError, match="objective='nca': expected 'softmax' or 'nce'"):
        build(name, objective="nca")


@pytest.mark.parametrize("name", ["insdis", "pirl"])
def test_bank_learns_the_image_and_not_its_jigsaw(name):
    method, views = build(name, momentum=0.5), make_views(name)
    before = method.bank.rows.clone()
    method(views, make_batch())
    feature = unit(method.head(method.backbone(views[0])))
    close(method.bank.rows, unit(before / 2 + feature.detach() / 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["pirl", "infomin"])
def test_jigsaw_weighs_what_it_is_told(name):
    views = make_views(name)
    whole, half, parts = (build(name, jigsaw=w)(views, make_batch()) for w in (0, 0.25, 1))
    close(half, 0.75 * whole + 0.25 * parts)
    without = [*views[:-1], torch.zeros_like(views[-1])]
    assert torch.equal(build(name, jigsaw=0)(without, make_batch()), whole)
    assert not torch.equal(build(name, jigsaw=1)(without, make_batch()), parts)


def test_pcl_clusters_after_its_warm_up():
    method, moco = build("pcl-v1", warmup=0.5), build("moco-v1", tau=0.2)
    views = make_views("pcl-v1")
    close(method(views, make_batch(0.4)), moco(views, make_batch(0.4)))
    method.start_epoch(0.4, rng())
    assert not any(cells.fitted for cells in method.clusters)
    method.start_epoch(0.5, rng())
    assert all(cells.fitted for cells in method.clusters)
    for phi in method.concentration.split(method.sizes):
        close(phi.mean(), torch.tensor(0.2))
    with_prototypes, without = method(views, make_batch(0.5)), moco(views, make_batch(0.5))
    assert with_prototypes > without + 0.1


def test_pcl_remembers_the_keys_by_image():
    method, order = build("pcl-v2"), torch.randperm(N, generator=rng(4))
    views = make_views("pcl-v2")
    keys = unit(method.twin(views[1]))
    method(views, make_batch(order=order))
    close(method.bank.rows[order], keys, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["sela-v2", "deepcluster-v2"])
def test_banks_remember_both_full_views_by_image(name):
    method, order = build(name), torch.randperm(N, generator=rng(4))
    views = make_views(name)
    full = [unit(z) for z in method.online(torch.cat(views[:2])).chunk(2)]
    method(views, make_batch(order=order))
    for bank, z in zip(method.banks, full, strict=True):
        close(bank.rows[order], z.detach(), rtol=1e-4, atol=1e-5)


def test_deepcluster_labels_are_the_nearest_centroids_of_its_bank():
    method = build("deepcluster-v2")
    step(method, make_views("deepcluster-v2"), 0.0)
    method.start_epoch(0.0, rng())
    assert not any(cells.fitted for cells in method.clusters), "before the first pass the bank is noise"
    method.start_epoch(0.5, rng())
    for head, cells in enumerate(method.clusters):
        assert torch.equal(cells.labels, (method.banks[head % 2].rows @ cells.centroids.T).argmax(1))
    loss = method(make_views("deepcluster-v2"), make_batch(0.5))
    method.clusters[0].labels.copy_(method.clusters[0].labels.roll(1))
    assert method(make_views("deepcluster-v2"), make_batch(0.5)) > loss, "the labels are read by image"


def test_sela_shares_even_equal_images_among_labels():
    """All rows nearly the same: k-means would find one cluster, the labels are used equally all the same."""
    method = build("sela-v2", iterations=50)
    for bank in method.banks:
        bank.rows.copy_(unit(torch.ones(N, 16) + 0.1 * torch.randn(N, 16, generator=rng())))
    method.start_epoch(0.5, rng())
    for labels, k in zip(method.labels, SMALL["labels"], strict=True):
        for own in labels:
            assert own.min() >= 0
            counts = torch.bincount(own, minlength=k)
            assert counts.max() <= 2 * N / k


def test_sela_predicts_the_other_views_label():
    method = trained("sela-v2")
    views, batch = make_views("sela-v2"), make_batch(0.6)
    alone = [v.clone() for v in views]
    method.labels[:, 0] = 0  # what view 0 is labelled
    method.labels[:, 1] = 1
    features = [unit(z) for v in (views[:2], views[2:]) for z in method.online(torch.cat(v)).split(N)]
    expected = []
    for head in method.heads:
        predictions = [(head(z) / method.tau).log_softmax(1) for z in features]
        for v, p in enumerate(predictions):
            expected += [-p[:, label].mean() for label in (0, 1) if label != v]
    close(method(alone, batch), sum(expected) / len(expected))


def test_queue_takes_the_keys_of_the_twin():
    method, views = build("moco-v2"), make_views("moco-v2")
    keys = unit(method.twin(views[1]))
    method(views, make_batch())
    close(method.queue.rows()[:N], keys)


@pytest.mark.parametrize("name", ["moco-v3", "dino"])
def test_vit(name):
    """MoCo-v3 leaves the patch projection as it is; DINO's small crops fit."""
    method = build(name, net=backbone("pocket-vit", 32, 0))
    patches = method.backbone.patch_embed.proj
    before = patches.weight.clone()
    step(method, make_views(name))
    assert torch.equal(patches.weight, before) == (name == "moco-v3")
    assert patches.weight.requires_grad == (name != "moco-v3")


@pytest.mark.parametrize("name", ["simsiam", "byol"])
def test_predictor_alone_cannot_pull_the_target(name):
    """With a predictor that gives a constant, the encoder gets no gradient: the target passes none on."""
    method = build(name)
    for weight in method.predictor[-1].parameters():
        nn.init.constant_(weight, float(weight.ndim == 1))
    method(make_views(name), make_batch()).backward()
    assert not any(p.grad.any() for p in method.backbone.parameters())


def test_sigmoid_learns_its_scale_and_bias():
    method, views = build("sigmoid"), make_views("sigmoid")
    assert method.log_scale.exp().item() == pytest.approx(10) and method.bias.item() == -10
    step(method, views)
    assert method.log_scale.exp().item() != pytest.approx(10) and method.bias.item() != -10


@pytest.mark.parametrize("name", CLUSTERED)
def test_clustering_depends_on_the_generator_alone(name):
    states = []
    for seed in (0, 0, 1):
        method = build(name)
        step(method, make_views(name), 0.0)
        method.start_epoch(0.5, rng(seed))
        states.append(method.state_dict())
    changed = [any(not torch.equal(states[0][k], s[k]) for k in s) for s in states[1:]]
    assert changed == [False, name != "sela-v2"]  # which draws nothing
