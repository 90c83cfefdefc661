"""Two machines, one processor each: the numbers of one process, also when a worker dies with work in hand."""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import mgmlib as mgm
from mgmlib import cluster
from mgmlib.cluster import actors
from tests import ray_worker
from tests.truth import clustered

ROOT = Path(__file__).resolve().parent.parent
STORE = 80 * 2**20  # bytes of each machine's object store, about the least that Ray takes
BATCH, N_VIEWS, K = 4, 8, 20


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def machines():
    """A Ray cluster of two machines, this process connected to it: the folder of the workers' notes."""
    place = Path(tempfile.mkdtemp(prefix="r"))  # short: sockets lie below it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(place))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # by default they yield to everything else
        patch.setenv("RAY_health_check_failure_threshold", "100")  # a machine that is slow is not dead
        patch.setenv("OMP_NUM_THREADS", "1")
        import ray
        from ray.cluster_utils import Cluster

        one = {"num_cpus": 1, "object_store_memory": STORE}
        two = Cluster(initialize_head=True, head_node_args=one | {"include_dashboard": False})
        try:
            two.add_node(**one)
            environment = {"PYTHONPATH": str(ROOT), ray_worker.FOLDER: str(place)}
            hook = {"worker_process_setup_hook": "tests.ray_worker.watch", "env_vars": environment}
            ray.init(address=two.address, runtime_env=hook, log_to_driver=False)
            yield place
        finally:
            ray.shutdown()
            two.shutdown()
            shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def workers(machines):
    """The folder of notes and orders, empty, and left without orders."""
    machines.joinpath("notes").unlink(missing_ok=True)
    yield machines
    for name in ("notes", "meet", "die", "died"):
        machines.joinpath(name).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def encoder():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return mgm.load_model(ray_worker.Watched(), input_size=16)


@pytest.fixture(scope="module")
def images():
    pixels = torch.randint(0, 256, (12, 3, 20, 20), generator=torch.Generator().manual_seed(0)).byte()
    return mgm.Images.from_tensor(pixels, labels=[0, 1, 2] * 4)


def quiet(embed, *args, **options):
    return embed(*args, **({"cache": False, "progress": False, "batch_size": BATCH} | options))


POINTS = clustered(900, 24, np.random.default_rng(0)).astype(np.float32)
POINTS[[5, 700]] = POINTS[[3, 4]]  # two copies
SEMANTIC = np.random.default_rng(1).choice([-3, 5, 9], 900, p=[0.5, 0.3, 0.2])  # a few large groups, mixed
VIEWS = np.repeat(np.arange(30), 30)  # many small groups, one after the other
UNEVEN = np.where(np.arange(900) < 500, -1, VIEWS)  # one group is split, the others are not

CASES = {
    "semantic": {"groups": SEMANTIC},
    "semantic, split": {"groups": SEMANTIC, "shard": 100},
    "augmentation": {"groups": VIEWS, "shard": 100},
    "augmentation, random subset": {"groups": VIEWS, "shard": 100, "queries": 100, "seed": 3},
    "one set": {},
    "one set, split": {"shard": 150},
    "one set, split, random subset": {"shard": 40, "queries": 100, "seed": 3},
    "some split, chosen rows": {"groups": UNEVEN, "shard": 200, "queries": [899, 4, 4, 700, 0, 5, 520]},
    "RBF, split": {"shard": 150, "kernel": "rbf", "bandwidth": 3.0},
    "RBF, groups": {"groups": VIEWS, "shard": 100, "kernel": "rbf", "bandwidth": 3.0},
    "the authors' solver, copies kept": {"groups": VIEWS, "solver": "authors", "duplicates": "keep"},
}


def in_one_process(case):
    return {name: value for name, value in case.items() if name != "shard"}


# ---- the same numbers


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_point_metrics(machines, case):
    one = mgm.point_metrics(POINTS, k=K, **in_one_process(case))
    many = cluster.point_metrics(POINTS, k=K, **case)
    assert many.to_string() == one.to_string() and many.attrs == one.attrs
    exact = ["row", "group", "n_neighbors", "kkt"]
    if case.get("shard", 900) >= np.unique(case.get("groups", [0] * 900), return_counts=True)[1].max():
        exact = list(one)  # no group is split
    pd.testing.assert_frame_equal(many[exact], one[exact], check_exact=True)
    pd.testing.assert_frame_equal(many, one, check_exact=False, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_nnk(machines, case):
    case = {name: value for name, value in case.items() if name != "seed"}
    if isinstance(case.get("queries"), int):
        case["queries"] = np.random.default_rng(0).permutation(900)[: case["queries"]]
    one, many = mgm.nnk(POINTS, K, **in_one_process(case)), cluster.nnk(POINTS, K, **case)
    assert vars(one).keys() == vars(many).keys()
    for name, value in vars(one).items():
        np.testing.assert_array_equal(getattr(many, name), value, err_msg=name)


def test_manifold_metrics(machines):
    case = {"groups": VIEWS, "k": K, "calibrated": True, "n_boot": 100, "seed": 2, "confidence": 0.9}
    one, many = mgm.manifold_metrics(POINTS, **case), cluster.manifold_metrics(POINTS, shard=100, **case)
    pd.testing.assert_frame_equal(many, one, check_exact=True)
    assert many.attrs == one.attrs


def test_two_machines_measure(workers):
    workers.joinpath("meet").touch()
    many = cluster.point_metrics(POINTS, VIEWS, K, shard=100)
    assert machines_of(workers) == 2
    pd.testing.assert_frame_equal(many, mgm.point_metrics(POINTS, VIEWS, K), check_exact=True)


def machines_of(workers):
    return len({machine for *_, machine in ray_worker.notes(workers)})


def test_bfloat16_and_tensors(machines):
    z = torch.as_tensor(POINTS).bfloat16()
    one, many = (
        mgm.point_metrics(z, torch.as_tensor(VIEWS), K),
        cluster.point_metrics(z, torch.as_tensor(VIEWS), K),
    )
    pd.testing.assert_frame_equal(many, one, check_exact=True)


# ---- no work twice


def test_each_neighbourhood_of_a_split_group_is_solved_once(workers):
    queries = np.random.default_rng(5).permutation(900)[:60]
    cluster.point_metrics(POINTS, k=K, queries=queries, shard=20)
    solved = sum(
        size for event, _, size, name, *_ in ray_worker.notes(workers) if (event, name) == ("done", "nnk")
    )
    graph = mgm.nnk(POINTS, K, queries=queries)
    assert solved == len(np.union1d(queries, graph.indices[graph.support]))


# ---- a worker dies


def check_death(workers):
    """One worker died with work in hand, some was done before, and another worker did that work again."""
    work, pid = workers.joinpath("died").read_text().split()
    written = ray_worker.notes(workers)
    takers = [by for event, what, _, _, by, _ in written if (event, what) == ("begun", work)]
    finishers = [by for event, what, _, _, by, _ in written if (event, what) == ("done", work)]
    assert takers[0] == int(pid) and len(takers) > 1 and int(pid) not in takers[1:]
    assert finishers and int(pid) not in finishers
    assert any(event == "done" and what != work for event, what, *_ in written)
    deadline = time.monotonic() + 30
    while is_alive(int(pid)):
        assert time.monotonic() < deadline, "the worker lives"
        time.sleep(0.05)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("case", ["augmentation", "one set, split, random subset"])
def test_a_worker_dies_while_it_measures(workers, case):
    workers.joinpath("die").touch()
    many = cluster.manifold_metrics(POINTS, k=K, **CASES[case])
    check_death(workers)
    one = mgm.manifold_metrics(POINTS, k=K, **in_one_process(CASES[case]))
    assert many.to_string() == one.to_string() and many.attrs == one.attrs
    pd.testing.assert_frame_equal(many, one, check_exact=False, rtol=0, atol=1e-12)


def test_two_machines_embed_and_a_worker_dies(workers, encoder, images, tmp_path):
    one = quiet(mgm.embed, encoder, images, "crop", N_VIEWS, seed=1, device="cpu")
    for order in ("meet", "die"):
        workers.joinpath(order).touch()
    many = quiet(cluster.embed, encoder, images, "crop", N_VIEWS, seed=1, cache=tmp_path)
    check_death(workers)
    assert machines_of(workers) == 2
    assert many.z.tobytes() == one.z.tobytes()
    assert (many.labels == one.labels).all() and (many.groups == one.groups).all()
    same = many.meta.keys() - {"seconds", "images_per_second"}
    assert {name: many.meta[name] for name in same} == {name: one.meta[name] for name in same}

    workers.joinpath("notes").unlink()  # the cache is that of one process
    for embed in (cluster.embed, mgm.embed):
        again = quiet(embed, encoder, images, "crop", N_VIEWS, seed=1, cache=tmp_path)
        assert again.meta["cached_rows"] == len(again) and again.z.tobytes() == one.z.tobytes()
    assert ray_worker.notes(workers) == []


# ---- errors


def test_bad_input_is_refused_as_in_one_process(machines):
    broken = POINTS.copy()
    broken[17, 3] = np.nan
    with pytest.raises(ValueError, match=r"^z: row 17 holds NaN or Inf"):
        cluster.nnk(broken, K)
    with pytest.raises(ValueError, match=r"^queries: rows lie in 0…899, got 0…900"):
        cluster.nnk(POINTS, K, queries=[0, 900])
    with pytest.raises(ValueError, match=r"^queries: expected 1…900 rows to draw, got 901"):
        cluster.point_metrics(POINTS, k=K, queries=901)
    with pytest.raises(ValueError, match=r"^groups: expected shape \(900,\)"):
        cluster.point_metrics(POINTS, VIEWS[1:], K)
    with pytest.raises(ValueError, match=r"^shard: expected a positive number of rows, got 0"):
        cluster.nnk(POINTS, K, shard=0)


def test_an_error_of_a_task_arrives_as_it_was_raised(machines):
    groups = VIEWS.copy()
    groups[-2:] = 77  # seen by the task that has this group
    with pytest.raises(
        ValueError, match=r"^z: group 77 has 2 distinct points \(2 rows\), NNK needs at least 3$"
    ):
        cluster.manifold_metrics(POINTS, groups, K)


def test_an_embedding_that_is_not_finite_is_named(machines, images):
    class Broken(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) / (x.shape[0] == 1)  # a single image probes

    with pytest.raises(ValueError, match=r"^embedding of images\[\d+\] \(id \d+, view 0\) is not finite"):
        quiet(cluster.embed, mgm.load_model(Broken(), input_size=16), images)


def test_shares_and_addresses_that_are_not_there(machines, encoder, images):
    with pytest.raises(ValueError, match=r"^cpus=2, gpus=0\.0: no machine of the cluster has as much"):
        quiet(cluster.embed, encoder, images, cpus=2)
    with pytest.raises(ValueError, match=r"^cpus=0, gpus=0: one of them has to be positive"):
        quiet(cluster.embed, encoder, images, cpus=0, gpus=0)
    with pytest.raises(ValueError, match=r"^address: got 'elsewhere:1', and this process is connected to"):
        cluster.nnk(POINTS, K, address="elsewhere:1")


@pytest.mark.parametrize("call", [cluster.nnk, cluster.point_metrics, cluster.manifold_metrics])
def test_without_ray(monkeypatch, call):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"^mgmlib\.cluster needs Ray: pip install 'mgmlib\[cluster\]'$"):
        call(POINTS)
    with pytest.raises(ImportError, match=r"^mgmlib\.cluster needs Ray"):
        actors.embed(None, None)
