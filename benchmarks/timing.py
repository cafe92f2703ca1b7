"""Measuring one thing beside another: the speed of a machine drifts two- and threefold, so rounds are interleaved."""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any
from unittest import mock

THREADS_OF = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def seconds_of(function: Callable[..., object], *arguments: Any, least: float = 0.0) -> float:
    """Seconds of one call; of several in a row where one is shorter than `least`, on average."""
    started, calls, passed = time.perf_counter(), 0, 0.0
    while not calls or passed < least:
        function(*arguments)
        calls += 1
        passed = time.perf_counter() - started
    return passed / calls


def interleave(
    candidates: Mapping[str, Callable[[], object]], limit: Callable[[], float], rounds: int
) -> dict[str, dict[str, float]]:
    """Time each candidate between two measurements of the limit, in rounds.

    Args:
        candidates: functions to call, by name.
        limit: gives the seconds that the machine would need now for what is indispensable.
        rounds: how often.

    Returns:
        For each candidate the medians over the rounds of its ``seconds``, of the limit's, and of their ``ratio``.
    """
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for _ in range(rounds):
        before = limit()
        for name, candidate in candidates.items():
            seconds = seconds_of(candidate, least=0.05)
            after = limit()
            found[name].append((seconds, (before + after) / 2))
            before = after
    return {name: medians(pairs) for name, pairs in found.items()}


def medians(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Medians of what was measured, of the limit beside it, and of their ratios."""
    return {
        "seconds": statistics.median(seconds for seconds, _ in pairs),
        "limit": statistics.median(limit for _, limit in pairs),
        "ratio": statistics.median(seconds / limit for seconds, limit in pairs),
    }


@contextlib.contextmanager
def process(threads: int = 1) -> Iterator[Callable[..., Any]]:
    """A fresh process that has so many threads and cores: libraries count them as they load. Calls happen in there."""
    with ProcessPoolExecutor(1, get_context("spawn"), _keep_to_cores, (threads,)) as pool:
        with mock.patch.dict(os.environ, dict.fromkeys(THREADS_OF, str(threads))):
            pool.submit(int).result()  # it starts with the first call
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def _keep_to_cores(number: int) -> None:
    if hasattr(os, "sched_setaffinity"):  # for libraries that start threads without asking
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-number:])
