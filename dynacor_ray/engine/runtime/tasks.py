"""Functions that run as Ray tasks on a cluster, or here one after the other where one process is enough."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from threadpoolctl import threadpool_limits

from dynacor_ray.core.progress import Stage
from dynacor_ray.engine.runtime.machine import usable_cpus
from dynacor_ray.engine.runtime.session import on_cluster, remote_errors

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Shared(Generic[Value]):
    """A value that tasks read: in the object store, with its reference, or in this process."""

    here: Value | None = None
    ref: Any = None

    def get(self) -> Value:
        """The value."""
        if self.ref is None:
            return self.here  # type: ignore[return-value]
        import ray

        with remote_errors():
            value: Value = ray.get(self.ref)
        return value


def share(value: Value) -> Shared[Value]:
    """Put a value where all tasks read it: it is not sent with each."""
    if not on_cluster():
        return Shared(value)
    import ray

    return Shared(ref=ray.put(value))


def run_tasks(function: Callable[..., Value], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Shared[Value]]]:
    """Run `function(*call)` for every call with one thread of torch; yields its number and its result as it is done.

    A call's `Shared` arguments are handed over as their values. On a cluster each call is a task, and its result stays
    in the object store until it is asked for.
    """

    def stream(*arguments: Any) -> Iterator[Value]:
        yield function(*arguments)

    for (number, _), result in run_streams(stream, calls, [1] * len(calls)):
        yield number, result


def run_streams(
    function: Callable[..., Iterator[Value]], calls: Sequence[tuple[Any, ...]], counts: Sequence[int]
) -> Iterator[tuple[tuple[int, int], Shared[Value]]]:
    """As `run_tasks`, with several results of each call, `counts` of them; yields (number of the call, of the result).

    A task holds one of its results at a time.
    """
    if not on_cluster():
        for number, (call, count) in enumerate(zip(calls, counts, strict=True)):
            results = function(*(one.get() if isinstance(one, Shared) else one for one in call))
            for place in range(count):
                with one_thread():
                    result = next(results)
                yield (number, place), Shared(result)
        return
    import ray

    def one(*arguments: Any) -> Value:
        with one_thread():
            return next(function(*arguments))

    def several(*arguments: Any) -> Iterator[Value]:
        with one_thread():
            yield from function(*arguments)

    waiting: dict[Any, tuple[int, int]] = {}
    for number, (call, count) in enumerate(zip(calls, counts, strict=True)):
        # DEFAULT: inside a trial of Ray Tune a task would else be held to the trial's own small share of the cluster.
        options = {"num_cpus": 1, "scheduling_strategy": "DEFAULT", "num_returns": count}
        task = ray.remote(**options)(one if count == 1 else several)
        refs = task.remote(*(given.ref if isinstance(given, Shared) else given for given in call))
        waiting |= {ref: (number, place) for place, ref in enumerate(refs if count > 1 else [refs])}
    while waiting:
        with remote_errors():
            (done,), _ = ray.wait(list(waiting), num_returns=1, fetch_local=False)
            yield waiting.pop(done), Shared(ref=done)


def run_in_order(function: Callable[..., Value], calls: Sequence[tuple[Any, ...]]) -> list[Shared[Value]]:
    """The results of `run_tasks` in the order of the calls, when all are done."""
    return [result for _, result in sorted(run_tasks(function, calls), key=lambda done: done[0])]


def run_task(function: Callable[..., Value], *arguments: Any) -> Value:
    """The result of one task with one thread: its steps are too small to share."""
    ((_, result),) = run_tasks(function, [arguments])
    return result.get()


def map_shared(
    function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any], bar: Stage
) -> Iterator[tuple[Any, Any]]:
    """Yield every item with `function(shared, item)` as it is done, in a task each. bar: advanced by 1 per item."""
    known = share(shared)
    for number, result in run_tasks(function, [(known, item) for item in items]):
        value = result.get()
        bar.advance(1)
        yield items[number], value


def map_threads(function: Callable[[Item], Value], items: Iterable[Item]) -> Iterator[Value]:
    """Yield `function(item)` in order, as many at a time as there are CPUs, each with one thread of torch.

    No more results than threads wait to be taken. What is begun when the caller stops is waited for, the rest dropped.
    """
    coming = deque[Any]()
    # For all threads alike: each would put back what it found, which is another one's.
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(usable_cpus(), initializer=_one_torch_thread) as pool,
    ):
        try:
            for item in items:
                coming.append(pool.submit(function, item))
                if len(coming) > usable_cpus():
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _one_torch_thread() -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@contextmanager
def one_thread() -> Iterator[None]:
    """NumPy's products, and torch if it is loaded, with one thread: sums then do not depend on the machine's CPUs."""
    torch = sys.modules.get("torch")
    with threadpool_limits(1, user_api="blas"), torch_threads(1) if torch is not None else nullcontext():
        yield


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """torch with so many threads for a while, in this thread of Python."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
