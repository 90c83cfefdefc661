"""The embedding cache under kill -9, damage, and company: nothing but the batch in flight is ever lost."""

import hashlib
import io
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import mgmlib as mgm
from mgmlib import cache

N_IMAGES, N_VIEWS, BATCH, DIM = 12, 8, 8, 16
ROWS = N_IMAGES * N_VIEWS
BATCHES = ROWS // BATCH

# A clean process that has everything imported, and forks each run: starting one costs milliseconds.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["torchvision.transforms.v2.functional", "mgmlib.embed", "mgmlib.models"])


class SlowNet(nn.Module):
    """A small network that takes ``pause`` seconds a batch and logs each batch to a file when it begins."""

    def __init__(self):
        super().__init__()
        self.conv, self.log, self.pause = nn.Conv2d(3, DIM, 5, stride=2), None, 0.0

    def forward(self, x):
        if self.log and len(x) > 1:  # one image alone is a probe
            with open(self.log, "ab", buffering=0) as log:
                log.write(b".")
            time.sleep(self.pause)
        return self.conv(x).relu().mean((2, 3))


def embed_once(folder, log=None, pause=0.0, batch_size=BATCH):
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (N_IMAGES, 3, 20, 20), generator=torch.Generator().manual_seed(0)).byte()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = mgm.load_model(SlowNet(), input_size=16)
    encoder.net.log, encoder.net.pause = log, pause
    return mgm.embed(
        encoder, images, "crop", N_VIEWS, cache=folder, batch_size=batch_size, device="cpu", progress=False
    )


def child(folder, log, pause, batch_size, fatal_operation, barrier):
    if barrier is not None:
        barrier.wait(60)
    if fatal_operation is not None:
        die_at(fatal_operation)
    embed_once(folder, log, pause, batch_size)


def die_at(fatal):
    """Have this process kill itself at its n-th file operation; writes are cut off in the middle."""
    count = [0]

    def fatal_now():
        count[0] += 1
        return count[0] - 1 == fatal

    def kill(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(operation):
        def run(*args, **options):
            if fatal_now():
                kill()
            result = operation(*args, **options)
            if fatal_now():
                kill()
            return result

        return run

    class HalfWritten(io.FileIO):
        def writelines(self, parts):
            data = b"".join(parts)
            self.write(data[: len(data) // 2])
            if fatal_now():
                kill()
            self.write(data[len(data) // 2 :])

    def opened(path, mode="r"):
        return HalfWritten(path, "w") if "w" in mode else open(path, mode)

    cache.open = opened
    os.link, os.fsync, Path.unlink = wrapped(os.link), wrapped(os.fsync), wrapped(Path.unlink)


def start(folder, log=None, pause=0.0, batch_size=BATCH, fatal_operation=None, barrier=None):
    process = context.Process(target=child, args=(folder, log, pause, batch_size, fatal_operation, barrier))
    process.start()
    return process


def end(process):
    process.join(60)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


def on_disk(folder):
    """Rows that are on disk under a right checksum, told by numpy and hashlib alone: {row: value}."""
    rows = {}
    for file in Path(folder).glob("embeddings/*/*.npy"):
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            continue  # consolidated meanwhile
        assert hashlib.sha256(data).hexdigest().startswith(file.stem.rpartition("-")[2]), file.name
        span = (0, ROWS) if file.name.startswith("all-") else map(int, file.stem.split("-")[1:3])
        rows |= dict(zip(range(*span), np.load(file), strict=True))
    return rows


def count(log):
    return log.stat().st_size if log.exists() else 0


@pytest.fixture(scope="module")
def reference():
    return embed_once(False).z


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def matches(rows, reference):
    return all(np.array_equal(value, reference[row]) for row, value in rows.items())


def check_kept(folder, begun, before, reference):
    """At least all that was there before and every batch but the last one begun is on disk, and right."""
    rows = on_disk(folder)
    assert set(before) <= set(rows)
    assert len(rows) >= min(ROWS, len(before) + BATCH * max(0, begun - 1))
    assert matches(rows, reference)
    return rows


def test_killed_at_random_moments(tmp_path, reference):
    rng, kills, attempt = np.random.default_rng(0), 0, 0
    while kills < 15:
        folder, log, rows, attempt = tmp_path / f"cache{attempt}", tmp_path / f"log{attempt}", {}, attempt + 1
        runs = 0
        while len(rows) < ROWS:
            begun = count(log)
            process = start(folder, log, pause=0.02)
            while count(log) == begun and process.is_alive():
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.06))
            process.kill()
            kills += end(process) == -signal.SIGKILL
            rows, runs = check_kept(folder, count(log) - begun, rows, reference), runs + 1
        assert count(log) <= BATCHES + runs  # no batch was computed again, but for those in flight
        assert embed_once(folder).z.tobytes() == reference.tobytes()


def test_killed_as_soon_as_each_shard_appears(folder, tmp_path, reference):
    rows, log = {}, tmp_path / "log"
    for shards in range(1, BATCHES):
        begun = count(log)
        process = start(folder, log, pause=0.01)
        while len(list(folder.glob("embeddings/*/rows-*.npy"))) < shards and process.is_alive():
            time.sleep(0.0005)
        process.kill()
        end(process)
        rows = check_kept(folder, count(log) - begun, rows, reference)
        assert len(rows) >= shards * BATCH
    assert embed_once(folder).z.tobytes() == reference.tobytes()


def test_killed_at_every_file_operation(tmp_path, reference):
    """One run for each operation on files, from the first write to the removal of the last shard."""
    kept = 0
    for operation in range(200):
        folder, log = tmp_path / f"cache{operation}", tmp_path / f"log{operation}"
        process = start(folder, log, batch_size=2 * BATCH, fatal_operation=operation)
        code = end(process)
        rows, begun = on_disk(folder), count(log)
        assert matches(rows, reference) and len(rows) >= max(kept, 2 * BATCH * max(0, begun - 1))
        kept = len(rows)  # a later operation leaves no fewer rows: consolidation loses nothing
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert embed_once(folder, batch_size=2 * BATCH).z.tobytes() == reference.tobytes()
        left = sorted(f.name.split("-")[0] for f in folder.glob("embeddings/*/*") if f.name[0] != ".")
        assert left == ["all", "spec.json"]
    assert code == 0 and operation > 3 * BATCHES  # at least before, within and after each write and removal


def test_resumed_with_another_batch_size(folder, tmp_path, reference):
    log = tmp_path / "log"
    process = start(folder, log, pause=0.02)
    while count(log) < 5:
        time.sleep(0.001)
    process.kill()
    end(process)
    kept, before = len(on_disk(folder)), count(log)
    z = embed_once(folder, log, batch_size=6).z
    np.testing.assert_allclose(z, reference, rtol=0, atol=1e-6)
    assert kept >= 4 * BATCH and count(log) - before <= (ROWS - kept) // 6 + 2


def test_two_processes_share_the_work(folder, tmp_path, reference):
    logs, barrier = [tmp_path / "log0", tmp_path / "log1"], context.Barrier(2)
    processes = [start(folder, log, pause=0.05, barrier=barrier) for log in logs]
    assert [end(process) for process in processes] == [0, 0]
    assert matches(on_disk(folder), reference) and len(on_disk(folder)) == ROWS
    assert all(count(log) for log in logs)
    assert sum(map(count, logs)) <= BATCHES + 6  # they meet at the start and in the middle
    assert embed_once(folder).z.tobytes() == reference.tobytes()


def test_one_of_two_processes_is_killed(folder, tmp_path, reference):
    logs, barrier = [tmp_path / "log0", tmp_path / "log1"], context.Barrier(2)
    victim, survivor = (start(folder, log, pause=0.05, barrier=barrier) for log in logs)
    while count(logs[0]) < 2 and victim.is_alive():
        time.sleep(0.001)
    victim.kill()
    assert end(victim) == -signal.SIGKILL and end(survivor) == 0
    assert embed_once(folder).z.tobytes() == reference.tobytes()


def flip_a_byte(file):
    data = bytearray(file.read_bytes())
    data[-7] ^= 1
    file.write_bytes(data)


def another_shape(file):
    np.save(file, np.zeros((BATCH, DIM + 1), np.float32))
    data = file.read_bytes()
    file.unlink()
    (file.parent / f"{file.stem[:-16]}{hashlib.sha256(data).hexdigest()[:16]}.npy").write_bytes(data)


DAMAGE = {
    "flipped byte": flip_a_byte,
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-40]),
    "appended": lambda file: file.write_bytes(file.read_bytes() + b"more"),
    "zero bytes": lambda file: file.write_bytes(b""),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "foreign": lambda file: file.write_text("not an array"),
    "another shape": another_shape,
}


@pytest.mark.parametrize("damage, complete", [(d, c) for d in DAMAGE for c in (False, True)])
def test_damaged_files_are_found_and_computed_again(folder, tmp_path, reference, damage, complete):
    log = tmp_path / "log"
    if complete:
        embed_once(folder, log)
        (victim,) = folder.glob("embeddings/*/all-*.npy")
    else:
        embed_half(folder, log)
        victim = sorted(folder.glob("embeddings/*/rows-*.npy"))[1]
    before = count(log)
    DAMAGE[damage](victim)
    with pytest.warns(UserWarning, match="damaged file in the embedding cache"):
        z = embed_once(folder, log).z
    assert z.tobytes() == reference.tobytes()
    assert count(log) - before == (BATCHES if complete else BATCHES - 4 + 1)
    assert len(on_disk(folder)) == ROWS  # and right on disk again


def embed_half(folder, log):
    """Leave the first four shards of a run that ended early."""

    class Stop(Exception):
        pass

    put, puts = cache.Store.put, []

    def stop(self, *args):
        if len(puts) == 4:
            raise Stop
        puts.append(args)
        return put(self, *args)

    cache.Store.put = stop
    try:
        with pytest.raises(Stop):
            embed_once(folder, log)
    finally:
        cache.Store.put = put


def test_a_damaged_shard_does_not_overwrite_sound_rows(folder, tmp_path, reference):
    log = tmp_path / "log"
    embed_half(folder, log)
    first = min(folder.glob("embeddings/*/rows-*.npy"))
    wide = np.full((2 * BATCH, DIM), 7, np.float32)
    np.save(first.parent / f"rows-{4:09d}-{4 + 2 * BATCH:09d}-{'0' * 16}.npy", wide)
    with pytest.warns(UserWarning, match="damaged"):
        z = embed_once(folder, log).z
    assert z.tobytes() == reference.tobytes()


def test_foreign_files_are_left_alone(folder, reference):
    embed_once(folder)
    (store,) = folder.glob("embeddings/*")
    (store / "notes.txt").write_text("mine")
    (store / "rows-1-2.npy").write_text("mine, too")
    assert embed_once(folder).z.tobytes() == reference.tobytes()
    assert (store / "notes.txt").read_text() == "mine" and (store / "rows-1-2.npy").exists()


def test_unfinished_files_are_swept_when_they_are_old(folder, reference):
    embed_once(folder)
    (store,) = folder.glob("embeddings/*")
    old, new = store / ".tmp-old", store / ".tmp-new"
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    embed_once(folder)
    assert not old.exists() and new.exists()


def test_a_limit_on_file_size_is_met_like_a_full_disk(folder, reference, tmp_path):
    """The whole does not fit: the shards stay, and serve the next run."""
    process = context.Process(target=child_with_limit, args=(folder, tmp_path / "log"))
    process.start()
    assert end(process) == 0
    assert len(list(folder.glob("embeddings/*/rows-*.npy"))) == BATCHES
    assert not list(folder.glob("embeddings/*/all-*")) and not list(folder.glob("embeddings/*/.tmp-*"))
    before = count(tmp_path / "log")
    assert embed_once(folder, tmp_path / "log").z.tobytes() == reference.tobytes()
    assert count(tmp_path / "log") == before


def child_with_limit(folder, log):
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    with pytest.warns(UserWarning, match="embedding cache .* cannot be used .*File too large"):
        embed_once(folder, log)
