"""Embeddings: rows and groups, what they depend on, and the state that is left behind."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import mgmlib as mgm
from mgmlib import augment
from mgmlib.cache import Store, cache_folder
from mgmlib.embed import batch_size_for


class Counting(nn.Module):
    """A small convolutional network that counts the images that went through it in batches."""

    def __init__(self, dim=5):
        super().__init__()
        self.conv, self.bn, self.images = nn.Conv2d(3, dim, 5, stride=2), nn.BatchNorm2d(dim), 0

    def forward(self, x):
        self.images += len(x) if len(x) > 1 else 0  # one alone probes
        return self.bn(self.conv(x)).relu().mean((2, 3))


@pytest.fixture
def encoder():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = mgm.load_model(Counting(), input_size=16, resize=18, mean=(0.5,) * 3, std=(0.25,) * 3)
    made.net.images = 0
    return made


@pytest.fixture(scope="module")
def images():
    pixels = torch.randint(
        0, 256, (7, 3, 24, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return mgm.Images.from_tensor(pixels, labels=[2, 0, 1, 1, 0, 2, 2])


def quiet(*args, **options):
    return mgm.embed(*args, **({"cache": False, "progress": False, "device": "cpu"} | options))


# ---- rows


def test_semantic_rows_are_the_images_in_order(encoder, images):
    e = quiet(encoder, images)
    with torch.inference_mode():
        expected = encoder(mgm.views(images, "none", 1, 16, resize=18)).numpy()
    np.testing.assert_allclose(e.z, expected, rtol=0, atol=1e-6)
    assert e.z.dtype == np.float32 and e.z.shape == (7, 5)
    assert e.labels.tolist() == e.groups.tolist() == [2, 0, 1, 1, 0, 2, 2]
    assert e.labels.dtype == e.groups.dtype == np.int64


def test_augmentation_rows_are_views_of_an_image_after_each_other(encoder, images):
    e = quiet(encoder, images, "all", 4, seed=3, strength=0.7, batch_size=5)
    with torch.inference_mode():
        x = mgm.views(images, "all", 4, 16, seed=3, strength=0.7, resize=18)
        expected = encoder(x).numpy()
    np.testing.assert_allclose(e.z, expected, rtol=0, atol=1e-6)
    assert e.groups.tolist() == np.repeat(range(7), 4).tolist()
    assert e.labels.tolist() == np.repeat(images.labels, 4).tolist()
    np.testing.assert_allclose(e.z[::4], quiet(encoder, images).z, rtol=0, atol=1e-6)  # view 0 is unaugmented
    assert len(e) == 28 and "7 groups" in repr(e)


def test_default_number_of_views(encoder, images):
    assert quiet(encoder, images).meta["n_views"] == 1
    assert quiet(encoder, images.subset([0]), "flip").z.shape == (50, 5)


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 3}, {"batch_size": 3, "workers": 2}])
def test_batches_and_workers_change_nothing(encoder, images, options):
    whole = quiet(encoder, images, "all", 4)
    np.testing.assert_allclose(quiet(encoder, images, "all", 4, **options).z, whole.z, rtol=0, atol=1e-6)


def test_the_same_batches_give_the_same_bits(encoder, images):
    one, other = (quiet(encoder, images, "all", 4, batch_size=3, workers=w).z for w in (0, 1))
    assert one.tobytes() == other.tobytes()


def test_a_plain_tensor_is_a_set_of_images(encoder, images):
    x = torch.stack(list(images))
    e = quiet(encoder, x, "crop", 3)
    assert e.z.tobytes() == quiet(encoder, images, "crop", 3).z.tobytes()
    assert e.groups.tolist() == np.repeat(range(7), 3).tolist() and not e.labels.any()
    np.testing.assert_allclose(quiet(encoder, x.float() / 255).z, quiet(encoder, x).z, atol=0.02)


def test_a_subset_keeps_its_views(encoder, images):
    whole = quiet(encoder, images, "all", 4).z.reshape(7, 4, 5)
    np.testing.assert_allclose(
        quiet(encoder, images.subset([5, 2]), "all", 4).z.reshape(2, 4, 5), whole[[5, 2]], rtol=0, atol=1e-6
    )


def test_bf16_gives_float32_near_fp32(encoder, images):
    full, half = (quiet(encoder, images, precision=p) for p in ("fp32", "bf16"))
    assert half.z.dtype == np.float32
    error = np.abs(full.z - half.z).max() / np.abs(full.z).max()
    assert 0 < error < 0.03


# ---- state


def test_the_encoder_is_evaluated_in_eval_mode_and_handed_back_as_it_was(encoder, images):
    expected = quiet(encoder, images).z
    encoder.train()
    encoder.net.conv.eval()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    assert quiet(encoder, images).z.tobytes() == expected.tobytes()
    assert encoder.training and encoder.net.bn.training and not encoder.net.conv.training
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    encoder(torch.rand(2, 3, 16, 16)).sum().backward()  # not left in inference mode


def test_global_generators_are_not_touched(encoder, images):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    quiet(encoder, images, "all", 3)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_meta_carries_every_parameter(encoder, images):
    meta = quiet(encoder, images, "blur", 3, strength=0.5, seed=4, batch_size=4).meta
    expected = {
        "encoder": "Counting",
        "encoder_digest": encoder.digest,
        "images": images.name,
        "images_digest": images.digest,
        "layer": None,
        "setting": "blur",
        "strength": 0.5,
        "n_views": 3,
        "seed": 4,
        "precision": "fp32",
        "device": "cpu",
        "batch_size": 4,
        "cached_rows": 0,
    }
    assert expected.items() <= meta.items()
    assert meta["seconds"] > 0 and meta["images_per_second"] == pytest.approx(21 / meta["seconds"])


def test_a_network_that_views_its_maps_is_embedded_too(images):
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x).view(len(x), -1)  # an error on a channels_last map

    encoder = mgm.load_model(Views(), input_size=16)
    with torch.inference_mode():
        expected = encoder(mgm.views(images, "none", 1, 16)).numpy()
    np.testing.assert_allclose(quiet(encoder, images).z, expected, rtol=0, atol=1e-6)
    assert encoder.net.conv.weight.is_contiguous()


# ---- batch size


def test_batch_size_is_within_the_documented_bound(encoder):
    assert batch_size_for(encoder, "cpu") == 16
    wide = mgm.load_model(nn.Sequential(nn.Conv2d(3, 64, 1), nn.Flatten()), input_size=256)
    activations = 4 * 256**2 * (64 + 64)  # bytes that Flatten reads and writes
    assert batch_size_for(wide, "cpu") == 8 <= 512 * 2**20 / (2 * activations) < 16
    assert not any(m._forward_hooks for m in wide.modules())


# ---- errors


def test_a_nonfinite_embedding_names_its_image(encoder, images):
    class Fails(nn.Module):
        def forward(self, x):
            z = x.mean((2, 3))
            return torch.where(z[:, :1] > 0.9, torch.inf, z)

    x = torch.zeros(4, 3, 8, 8)
    x[2] = 1
    fails = mgm.load_model(Fails(), input_size=8)
    with pytest.raises(ValueError, match=r"images\[2\] \(id 2, view 0\) is not finite"):
        quiet(fails, x, "flip", 3, batch_size=4)


@pytest.mark.parametrize(
    "options, told",
    [
        ({"setting": "colour"}, "setting='colour'"),
        ({"n_views": 2}, "n_views=2.*'none'"),
        ({"setting": "all", "strength": -1}, "strength=-1"),
        ({"precision": "fp16"}, "precision='fp16'.*fp32, bf16"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
        ({"workers": 1.5}, "workers=1.5"),
        ({"images": torch.zeros(0, 3, 8, 8)}, "images: there are none"),
        ({"images": torch.zeros(3, 8, 8)}, r"images: expected.*\(3, 8, 8\)"),
    ],
)
def test_bad_input_is_named(encoder, images, options, told):
    options = {"images": images} | options
    with pytest.raises(ValueError, match=told):
        quiet(encoder, options.pop("images"), **options)


def test_a_bare_module_is_not_an_encoder(images):
    with pytest.raises(TypeError, match=r"encoder: .*Counting.*load_model\(module"):
        quiet(Counting(), images)


# ---- cache


def test_a_second_run_computes_nothing(encoder, images, tmp_path):
    one = quiet(encoder, images, "all", 3, cache=tmp_path, batch_size=8)
    assert encoder.net.images == 21
    two = quiet(encoder, images, "all", 3, cache=tmp_path)
    assert encoder.net.images == 21 and two.meta["cached_rows"] == 21 and two.meta["images_per_second"] == 0
    assert one.z.tobytes() == two.z.tobytes() == quiet(encoder, images, "all", 3, batch_size=8).z.tobytes()
    (folder,) = (tmp_path / "embeddings").iterdir()
    (whole,) = folder.glob("*.npy")
    assert np.array_equal(np.load(whole), one.z)


def test_everything_that_matters_is_in_the_key(encoder, images, tmp_path, monkeypatch):
    def computed(encoder=encoder, images=images, setting="all", n_views=3, **options):
        before = encoder.net.images
        quiet(encoder, images, setting, n_views, cache=tmp_path, **options)
        return encoder.net.images > before

    assert computed()
    assert not computed() and not computed(batch_size=4) and not computed(workers=1)
    assert computed(setting="crop") and computed(n_views=4) and computed(seed=1) and computed(strength=0.5)
    assert computed(precision="bf16") and computed(images=images.subset(range(6)))
    assert computed(encoder=encoder.at("conv"))
    monkeypatch.setattr(augment, "CODE_VERSION", -1)
    assert computed()
    with torch.no_grad():
        encoder.net.conv.weight[0, 0, 0, 0] += 1
    assert computed()


def test_missing_ranges_are_cut_at_multiples_of_the_batch_size():
    store = Store(None, {}, (20, 2))
    assert store.missing(8) == [(0, 8), (8, 16), (16, 20)]
    store.done[[0, 1, 2, 9, 10, 19]] = True
    assert store.missing(4) == [(3, 4), (4, 8), (8, 9), (11, 12), (12, 16), (16, 19)]
    store.done[:] = True
    assert store.missing(4) == []


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path, encoder, images):
    monkeypatch.setenv("MGMLIB_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    quiet(encoder, images, cache=True)
    assert len(list((tmp_path / "mine" / "embeddings").iterdir())) == 1
    monkeypatch.delenv("MGMLIB_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "mgmlib"


def test_an_unusable_folder_is_a_warning_that_names_it(encoder, images, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match=r"embedding cache .*file.*cannot be used .*going on without it"):
        e = quiet(encoder, images, cache=tmp_path / "file")
    assert e.z.tobytes() == quiet(encoder, images).z.tobytes()


def test_a_disk_that_fills_up_costs_the_cache_and_not_the_result(encoder, images, tmp_path, monkeypatch):
    import errno

    published, link = [], os.link

    def refused(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    def full(source, target):
        published.append(target)
        (link if len(published) <= 3 else refused)(source, target)  # spec.json and two shards

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(os, "replace", refused)
    with pytest.warns(UserWarning, match="No space left") as caught:
        e = quiet(encoder, images, "all", 3, cache=tmp_path, batch_size=4)
    assert len(caught) == 1
    monkeypatch.undo()
    assert not list(tmp_path.rglob(".tmp-*"))
    assert e.z.tobytes() == quiet(encoder, images, "all", 3, batch_size=4).z.tobytes()
    assert quiet(encoder, images, "all", 3, cache=tmp_path, batch_size=4).meta["cached_rows"] == 8


def test_a_file_system_without_hard_links_will_do(encoder, images, tmp_path, monkeypatch):
    def unsupported(source, target):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", unsupported)
    e = quiet(encoder, images, "all", 3, cache=tmp_path, batch_size=4)
    assert quiet(encoder, images, "all", 3, cache=tmp_path).meta["cached_rows"] == len(e)
    assert not list(tmp_path.rglob(".tmp-*"))


# ---- imports


def test_importing_needs_torch_and_numpy_only():
    code = """
import sys, torch, numpy
before = set(sys.modules)
import mgmlib.embed, mgmlib.augment, mgmlib.models
heavy = {"torchvision", "timm", "pandas", "PIL", "tqdm", "sklearn", "scipy", "huggingface_hub"}
print(*sorted(heavy & (set(sys.modules) - before)), type(mgmlib.embed).__name__)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["function"]  # no heavy module; and the function, not the module of its name
