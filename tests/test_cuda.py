"""The one code path on a GPU: the CPU's graph and embeddings, and training that repeats bit for bit."""

import hashlib

import numpy as np
import pytest
import torch

import mgmlib as mgm
from mgmlib.pretrain.config import Config
from mgmlib.pretrain.methods import METHODS
from mgmlib.pretrain.train import Trainer
from tests.test_pretrain_train import squares
from tests.truth import weight_matrix

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
N = 1024  # images: more than any method clusters them into


@pytest.fixture(scope="module")
def images():
    return squares(N)


def sheets(n, d=64, seed=0):
    """Points (n, d) float32 near a few planes."""
    rng = np.random.default_rng(seed)
    planes = rng.standard_normal((8, 6, d))
    z = np.einsum("nk,nkd->nd", rng.standard_normal((n, 6)), planes[np.arange(n) % 8])
    return (z + 0.05 * rng.standard_normal((n, d))).astype(np.float32)


@pytest.mark.parametrize("kernel", [{"kernel": "cosine"}, {"kernel": "rbf", "bandwidth": 5.0}])
@pytest.mark.parametrize("solver", ["exact", "certified"])
@pytest.mark.parametrize("n, grouped", [(1000, True), (3000, False)])
def test_the_graph_is_the_cpu_s(n, grouped, solver, kernel):
    z = sheets(n)
    options = {"solver": solver, "groups": np.arange(n) % 20 if grouped else None} | kernel
    ours = mgm.nnk(z, 30, device="cuda", **options)
    theirs = mgm.nnk(z, 30, **options | {"solver": "exact"})
    assert ours.settings["engine"] == "torch" and ours.converged.all()
    found, expected = (
        weight_matrix(graph, n) for graph in (ours, theirs)
    )  # float32 may swap tied candidates
    np.testing.assert_array_equal(found > 1e-6, expected > 1e-6)
    np.testing.assert_allclose(found, expected, atol=1e-7 if solver == "exact" else 1e-3)
    for metric in (mgm.diameter, mgm.affinity):
        np.testing.assert_allclose(metric(ours, z), metric(theirs, z), rtol=1e-9)


def test_embeddings_are_the_cpu_s_to_rounding(images):
    encoder = mgm.load_model("timm:resnet18", weights="random")
    some = images.subset(range(8))
    options = {"setting": "all", "n_views": 3, "cache": False, "progress": False}
    on_gpu = mgm.embed(encoder, some, device="cuda", **options)
    on_cpu = mgm.embed(encoder, some, device="cpu", **options)
    np.testing.assert_allclose(on_gpu.z, on_cpu.z, rtol=1e-3, atol=1e-4)
    assert next(encoder.parameters()).device.type == "cpu", "handed back where it came from"


def train(method, images, folder, **options):
    """sha256 of the weights after five steps or more, four a pass: clusters are made once."""
    config = Config(method, n_views=8 * 512 * (1 if method in ("supervised", "insdis") else 2), batch=256)
    Trainer(config, images, folder, "cuda").run(progress=False, **options)
    weights = folder / "weights.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None


@pytest.mark.parametrize("method", METHODS)
def test_training_repeats_bit_for_bit_also_when_it_was_cut(method, images, tmp_path):
    whole = train(method, images, tmp_path / "whole")
    assert train(method, images, tmp_path / "cut", until=3) is None
    assert train(method, images, tmp_path / "cut") == whole
