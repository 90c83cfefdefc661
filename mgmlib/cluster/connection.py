"""The connection to a Ray cluster, and what the machines of it can hold."""

import contextlib


def connect(address):
    """The ray module, connected."""
    try:
        import ray
    except ImportError as error:
        raise ImportError("mgmlib.cluster needs Ray: pip install 'mgmlib[cluster]'") from error
    if not ray.is_initialized():
        ray.init(address=address)
    elif address not in (None, "auto", met := ray.get_runtime_context().gcs_address):
        raise ValueError(f"address: got {address!r}, and this process is connected to {met} already")
    return ray


def shares(ray, cpus, gpus):
    """How many shares of these sizes the machines of the cluster hold together."""
    asked = {name: size for name, size in (("CPU", cpus), ("GPU", gpus)) if size > 0}
    if not asked:
        raise ValueError(f"cpus={cpus!r}, gpus={gpus!r}: one of them has to be positive")
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    held = sum(int(min(have.get(name, 0) / size for name, size in asked.items())) for have in machines)
    if not held:
        shown = [{name: have.get(name, 0) for name in asked} for have in machines]
        raise ValueError(f"cpus={cpus!r}, gpus={gpus!r}: no machine of the cluster has as much, met {shown}")
    return held


@contextlib.contextmanager
def plain_errors(ray):
    """What a task raised, as if it had been raised here."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
