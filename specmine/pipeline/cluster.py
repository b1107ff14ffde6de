"""Where heavy passes over the samples run: here, or on the workers of a dask.distributed cluster (extra `cluster`)."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from specmine.errors import BadConfig

try:
    from dask import distributed
except ImportError:
    distributed = None  # type: ignore[assignment]

TIMEOUT_S = 20.0


@contextmanager
def executor_at(address: str | None) -> Iterator[Executor | None]:
    """The executor of the cluster whose scheduler has this address, such as tcp://node:8786; None, so here, without one.

    Workers need this version of specmine, and write tables themselves, so the run folder must be at the same path for all.
    Raises BadConfig where dask is not installed or no scheduler answers.
    """
    if address is None:
        yield None
        return
    if distributed is None:
        raise BadConfig("a cluster needs dask.distributed; install it with: pip install 'specmine[cluster]'")
    try:
        client = distributed.Client(address, timeout=TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise BadConfig(f"no scheduler answers at {address!r}: {error}; start one with: dask scheduler") from error
    with client:
        yield client.get_executor()
