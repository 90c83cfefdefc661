"""The trainer: the same bits again, after a kill, from a checkpoint; several processes; collapse seen."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from torch import nn

from mgmlib.data.images import Images
from mgmlib.pretrain.backbones import PocketResNet, backbone
from mgmlib.pretrain.canvas import Canvas
from mgmlib.pretrain.config import Config
from mgmlib.pretrain.convolution import SmallMapConv2d, with_fast_gradients
from mgmlib.pretrain.evaluate import features, quality
from mgmlib.pretrain.probe import knn_probe, linear_probe, wilson
from mgmlib.pretrain.train import Trainer, log_spaced
from mgmlib.pretrain.watch import Watch

N = 48


def squares(n=N, side=32, classes=4):
    """Coloured noise, its colour the class."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % classes
    colors = rng.integers(0, 256, (classes, 3, 1, 1))
    pixels = np.clip(colors[labels] + rng.normal(0, 40, (n, 3, side, side)), 0, 255).astype(np.uint8)
    return Images.from_tensor(torch.as_tensor(pixels), labels, name="squares")


def config(method="simclr-v1", steps=8, **changes):
    """A run of about ``steps`` steps of 16 images."""
    return Config(method, **{"n_views": steps * 32, "batch": 16, "lr": 0.05} | changes)


def weights(folder):
    return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()


# --- configuration ---


def test_a_configuration_survives_json_and_its_digest_tells_runs_apart():
    one = config(options={"tau": 0.2})
    assert Config.from_json(one.to_json()) == one
    assert one.digest == Config.from_json(one.to_json()).digest != one.with_seed(1).digest


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"optimizer": "lars"}, "optimizer='lars': expected one of sgd, adamw"),
        ({"precision": "fp16"}, "precision='fp16'"),
        ({"batch": 1}, "batch=1: expected at least 2"),
        ({"lr": 0}, "lr=0"),
        ({"n_views": 0}, "n_views=0"),
    ],
)
def test_settings_that_make_no_sense_are_errors(changes, told):
    with pytest.raises(ValueError, match=told):
        config(**changes)


def test_unknown_method_and_backbone_name_the_known(tmp_path):
    with pytest.raises(ValueError, match=r"method='simclr': expected one of .*simclr-v1"):
        Trainer(config("simclr"), squares(), tmp_path / "a")
    with pytest.raises(ValueError, match="backbone='resnet19': expected 'pocket-resnet', 'pocket-vit'"):
        Trainer(config(backbone="resnet19"), squares(), tmp_path / "b")


def test_fewer_images_than_a_batch_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="images: 8 of them, fewer than batch=16"):
        Trainer(config(), squares(8), tmp_path)


# --- images ---


def test_canvas_keeps_squares_and_cuts_the_centre_of_others():
    images = squares(6)
    assert torch.equal(Canvas(images, 32)[np.array([4, 1])], torch.stack([images[4], images[1]]))
    wide = torch.zeros(1, 3, 32, 64, dtype=torch.uint8)
    wide[..., 16:48] = 200
    assert (Canvas(Images.from_tensor(wide), 32)[[0]] == 200).all()


def test_canvas_decodes_each_time_what_memory_does_not_hold():
    images = squares(6, side=40)
    assert torch.equal(Canvas(images, 32, memory=0)[[3, 5]], Canvas(images, 32)[[3, 5]])


# --- the loop ---


def test_the_same_configuration_gives_the_same_bits_and_another_seed_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        Trainer(config(seed=seed), squares(), tmp_path / name).run(progress=False)
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


@pytest.mark.parametrize("method", ["moco-v1", "insdis", "pcl-v2", "byol", "deepcluster-v2", "dino", "swav"])
def test_a_run_in_two_parts_gives_the_bits_of_one(method, tmp_path):
    # three epochs of three steps: queues, banks, twins and clusters have all moved at the break
    per_image = {"insdis": 1, "swav": 3, "deepcluster-v2": 3, "dino": 3}.get(method, 2)
    few = {"pcl-v2": {"clusters": (4, 8), "queue": 64}, "deepcluster-v2": {"clusters": (8, 8)}}
    run = config(method, n_views=9 * 16 * per_image, options=few.get(method, {}))
    Trainer(run, squares(), tmp_path / "whole").run(progress=False)
    first = Trainer(run, squares(), tmp_path / "parts")
    assert first.steps == 9
    first.run(progress=False, until=5)
    assert not first.folder.done
    second = Trainer(run, squares(), tmp_path / "parts")
    assert second.step == 5
    second.run(progress=False)
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")
    assert [row["step"] for row in second.log] == list(range(1, 10))


def test_a_vit_trains_and_resumes_with_adamw(tmp_path):
    run = config("moco-v3", backbone="pocket-vit", optimizer="adamw", lr=1e-3, n_views=6 * 32, clip=1.0)
    Trainer(run, squares(), tmp_path / "whole").run(progress=False)
    Trainer(run, squares(), tmp_path / "parts").run(progress=False, until=3)
    Trainer(run, squares(), tmp_path / "parts").run(progress=False)
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")


SCRIPT = """
    import sys, time
    from pathlib import Path
    from mgmlib.pretrain.train import Trainer
    from tests.test_pretrain_train import config, squares
    trainer = Trainer(config(steps=40), squares(), Path(sys.argv[1]))
    one_step = trainer._one_step
    def slow():
        time.sleep(0.02)
        return one_step()
    trainer._one_step = slow
    print("ready", flush=True)
    trainer.run(progress=False, save_every=0)
"""


def test_a_killed_run_is_resumed_to_the_same_bits(tmp_path):
    folder = tmp_path / "killed"
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    patience = time.monotonic() + 60
    while not (folder / "checkpoint.pt").is_file() and time.monotonic() < patience:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    resumed = Trainer(config(steps=40), squares(), folder)
    assert 0 < resumed.step < 40
    resumed.run(progress=False)
    Trainer(config(steps=40), squares(), tmp_path / "whole").run(progress=False)
    assert weights(folder) == weights(tmp_path / "whole")


def test_a_folder_of_another_run_is_an_error(tmp_path):
    Trainer(config(), squares(), tmp_path).run(progress=False)
    with pytest.raises(ValueError, match=r"holds another run: lr=0.05 there, 0.5 asked for"):
        Trainer(config(lr=0.5), squares(), tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_and_the_checkpoint_stays(tmp_path):
    trainer = Trainer(config(), squares(), tmp_path)
    trainer.run(progress=False, until=2)
    with torch.no_grad():
        trainer.method.projector[0].weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"simclr-v1, seed 0: the loss is nan at step 2 of 8"):
        trainer.run(progress=False)
    assert Trainer(config(), squares(), tmp_path).step == 2


def test_training_leaves_the_global_generator_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    Trainer(config("infomin", n_views=2 * 16 * 3), squares(), tmp_path).run(progress=False)
    assert torch.equal(torch.rand(1), expected)


def test_snapshots_are_kept_where_asked(tmp_path):
    trainer = Trainer(config(), squares(), tmp_path)
    trainer.run(progress=False, snapshots=log_spaced(trainer.steps, 4))
    names = [f.stem for f in sorted((tmp_path / "snapshots").iterdir())]
    assert names == ["000000", "000001", "000002", "000004", "000008"]
    assert (tmp_path / "snapshots/000008.safetensors").read_bytes() == (
        tmp_path / "weights.safetensors"
    ).read_bytes()


def test_the_log_of_a_run_says_what_was_seen(tmp_path):
    trainer = Trainer(config(), squares(), tmp_path).run(progress=False, log_every=4)
    assert [row["step"] for row in trainer.log] == [1, 4, 8]
    assert trainer.log[-1]["views"] == 8 * 32
    assert set(trainer.log[0]) >= {"loss", "lr", "feature_std", "rankme", "alignment", "uniformity"}


def test_ten_epochs_separate_the_classes(tmp_path):
    images = squares(64)
    trainer = Trainer(config("supervised", n_views=64 * 20, lr=0.05), images, tmp_path).run(progress=False)
    assert trainer.log[-1]["loss"] < 0.5 * trainer.log[0]["loss"]
    assert quality(trainer.method.backbone, trainer.config, images, images)["linear"] == 1


# --- several processes ---

PAIR = """
    import os, sys
    from pathlib import Path
    from mgmlib.pretrain import parallel
    from mgmlib.pretrain import train
    from mgmlib.pretrain.train import Trainer
    from tests.test_pretrain_train import config, squares
    train.render = lambda images, *_: images.float() / 255  # processes draw different views
    parallel.start("cpu")
    run = config("moco-v2", backbone="pocket-vit", precision="fp32", batch=4, n_views=3 * 8)
    trainer = Trainer(run, squares(12), Path(sys.argv[1]) / str(parallel.rank()))
    trainer.run(progress=False)
"""


def test_two_processes_train_as_one(tmp_path):
    """The gradient of two half batches, negatives gathered, is the one of the whole batch."""
    script = tmp_path / "pair.py"
    script.write_text(textwrap.dedent(PAIR))
    env = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    for n in ("1", "2"):
        done = subprocess.run([*torchrun, n, script, tmp_path / n], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    from safetensors.torch import load_file

    one, first, second = (load_file(tmp_path / p / "weights.safetensors") for p in ("1/0", "2/0", "2/1"))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert max((one[k].float() - first[k].float()).abs().max() for k in one) < 2e-3


# --- indicators and probes ---


class Constant(nn.Module):
    """Every image on one point."""

    def forward(self, x):
        return torch.ones(len(x), 16)


class Pixels(nn.Module):
    """The image itself."""

    def forward(self, x):
        return x.flatten(1)


def test_the_indicators_tell_collapse_from_spread():
    pixels = torch.randint(0, 256, (64, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    watch = Watch(pixels, 32, lambda x: 2 * x - 1)
    dead = nn.Sequential(Constant(), nn.ReLU(), nn.Threshold(np.inf, 0.0))  # zeros
    for collapsed in (watch(Constant()), watch(dead)):
        assert collapsed["feature_std"] == pytest.approx(0, abs=1e-6)
        assert collapsed["rankme"] == pytest.approx(1, abs=1e-3)
        assert collapsed["uniformity"] == pytest.approx(0, abs=1e-6)
    spread = watch(Pixels())
    assert spread["feature_std"] == pytest.approx(1, abs=0.02)
    assert spread["rankme"] > 50


def test_probes_on_classes_that_are_apart_and_on_noise():
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4
    apart = np.eye(4)[labels] * 10 + rng.normal(size=(400, 4))
    noise = rng.normal(size=(400, 4))
    for probe in (linear_probe, knn_probe):
        assert probe(apart[:200], labels[:200], apart[200:], labels[200:]) == 1
        assert probe(noise[:200], labels[:200], noise[200:], labels[200:]) < 0.4


def test_wilson_interval_is_the_published_one():
    low, high = wilson(0.5, 100)  # Newcombe 1998, method 3: 50 of 100
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(0, 20)[0] == pytest.approx(0, abs=1e-15)


def test_features_are_of_the_network_in_evaluation_mode():
    net = PocketResNet().train()
    z = features(net, config(), squares(5), batch=2)
    assert z.shape == (5, 128) and net.training
    assert np.allclose(z, features(net, config(), squares(5)), atol=1e-5)


# --- the convolution ---


@pytest.mark.parametrize(
    "channels, out, side, stride, k", [(8, 16, 8, 2, 3), (16, 16, 2, 1, 3), (8, 8, 4, 2, 1)]
)
def test_the_fast_gradient_is_that_of_torch(channels, out, side, stride, k):
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, out, k, stride, k // 2, bias=False)
    x, found = torch.randn(16, channels, side, side), []
    for net in (layer, with_fast_gradients(nn.Sequential(layer))):
        layer.weight.grad = None
        given = x.clone().contiguous(memory_format=torch.channels_last).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = net(given)
        y.float().pow(2).sum().backward()
        found.append((y.float(), given.grad, layer.weight.grad.clone()))
    assert isinstance(layer, SmallMapConv2d)
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() < 5e-3 * theirs.norm()


def test_fast_gradients_leave_other_convolutions_and_precisions_alone():
    net = with_fast_gradients(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2, bias=False), nn.Conv2d(4, 4, 3)))
    assert not any(isinstance(m, SmallMapConv2d) for m in net)
    layer = with_fast_gradients(nn.Sequential(nn.Conv2d(4, 4, 1, bias=False)))[0].double()
    assert torch.autograd.gradcheck(layer, torch.randn(2, 4, 2, 2, dtype=torch.double, requires_grad=True))


def test_backbones_have_the_size_of_the_zoo_and_start_from_their_seed():
    for name in ("pocket-resnet", "pocket-vit"):
        one, again, other = (backbone(name, 32, seed) for seed in (0, 0, 1))
        assert 0.5e6 < sum(p.numel() for p in one.parameters()) < 0.7e6
        x = torch.rand(2, 3, 32, 32)
        assert one.eval()(x).shape == (2, one.dim) == (2, 128)
        assert torch.equal(one(x), again.eval()(x)) and not torch.equal(one(x), other.eval()(x))
        assert one(torch.rand(1, 3, 16, 16)).shape == (1, 128)  # a small crop
