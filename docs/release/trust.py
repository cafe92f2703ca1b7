"""The page on what is promised: each promise, the tests that hold it, and what became of them in the last run."""

import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from docs.release.page import ROOT, put
from docs.release.promises import PROMISES, UNTESTED, Promise

PAGE = ROOT / "docs" / "trust.md"
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True)
class Outcome:
    """What became of one test.

    Attributes:
        state: `PASSED`, `FAILED` or `SKIPPED`.
        seconds: that it took, with what was made for it.
        why: the reason for which it was skipped.
    """

    state: str
    seconds: float
    why: str = ""


Run = Mapping[str, Sequence[Outcome]]
"""Outcomes by ``file::function``, one for each set of parameters."""


def read(reports: Iterable[Path]) -> tuple[Run, str]:
    """Outcomes from files of ``pytest --junitxml``, and the day of the last one.

    Of a test that stands in several reports the later one counts, unless it was skipped there.
    """
    found: dict[tuple[str, str], Outcome] = {}
    days = []
    for report in reports:
        for suite in ET.parse(report).getroot().iter("testsuite"):
            days.append(suite.get("timestamp", "")[:10])
            for case in suite.iter("testcase"):
                key = (case.get("classname", "").rpartition(".")[2], case.get("name", ""))
                outcome = _outcome(case)
                if outcome.state != SKIPPED or key not in found:
                    found[key] = outcome
    run: dict[str, list[Outcome]] = {}
    for (file, name), outcome in found.items():
        run.setdefault(f"{file}::{name.partition('[')[0]}", []).append(outcome)
    return run, max(days, default="")


def _outcome(case: ET.Element) -> Outcome:
    seconds = float(case.get("time", 0))
    if case.find("failure") is not None or case.find("error") is not None:
        return Outcome(FAILED, seconds)
    skipped = case.find("skipped")
    return Outcome(PASSED, seconds) if skipped is None else Outcome(SKIPPED, seconds, skipped.get("message", ""))


def tests() -> list[str]:
    """All that are named, each once."""
    return list(dict.fromkeys(name for part in PROMISES.values() for promise in part for name in promise.tests))


def table(promises: Sequence[Promise], run: Run) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| what is promised | how it is tested | last run |"
    yield "| --- | --- | --- |"
    for promise in promises:
        yield f"| {promise.says} | {how(promise)} | {told(promise.tests, run)} |"


def how(promise: Promise) -> str:
    """The method, then the tests, whose names are sentences, by their files."""
    by_file: dict[str, list[str]] = {}
    for name in promise.tests:
        file, _, function = name.partition("::")
        by_file.setdefault(file, []).append(function.removeprefix("test_").replace("_", " "))
    named = "<br>".join(f"`{file}`: {'; '.join(sentences)}" for file, sentences in by_file.items())
    return f"{promise.how}.<br>{named}"


def told(names: Sequence[str], run: Run, reasons: bool = True) -> str:
    """What became of tests, in a few words: no figure stands for a test that was not run.

    >>> told(["a::one", "a::two"], {"a::one": [Outcome(PASSED, 1.26), Outcome(PASSED, 0.5)]})
    '2 passed in 1.8 s; 1 not run'
    """
    outcomes = [outcome for name in names for outcome in run.get(name, ())]
    counts = Counter(outcome.state for outcome in outcomes)
    said = []
    if counts[PASSED]:
        seconds = sum(outcome.seconds for outcome in outcomes if outcome.state == PASSED)
        said.append(f"{counts[PASSED]:,} passed in {seconds:,.{0 if seconds >= 10 else 1}f} s")
    if counts[FAILED]:
        said.append(f"**{counts[FAILED]} failed**")
    if counts[SKIPPED]:
        whys = (outcome.why.partition(" (")[0] for outcome in outcomes if outcome.state == SKIPPED)
        why = f": {', '.join(dict.fromkeys(whys))}" if reasons else ""
        said.append(f"{counts[SKIPPED]} skipped{why}".replace("|", "/"))
    if absent := sum(name not in run for name in names):
        said.append(f"{absent} not run")
    return "; ".join(said)


def summary(run: Run, day: str, commit: str) -> Iterator[str]:
    """Where and when, and how much was run in all."""
    named = set(tests())
    others = [name for name in run if name not in named]
    yield f"Last run: {day}, commit `{commit}`, {machine()}.\n"
    yield f"- Of the tests named below, with each set of their parameters: {told(tests(), run)}."
    yield f"- Of all others of that run: {told(others, run, reasons=False)}."


def machine() -> str:
    """This one, in words that name nobody."""
    cpu = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.exists() and (found := re.search(r"model name\s*:\s*(.+)", about.read_text())):
        cpu = " ".join(found[1].split())
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory().total / 2**30
    return f"{cores} cores of {cpu}, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def body(run: Run) -> Iterator[str]:
    """The tables, and what nothing holds."""
    for heading, promises in PROMISES.items():
        yield f"## {heading}\n"
        yield from table(promises, run)
        yield ""
    yield "## What is not tested\n"
    yield from (f"- {sentence}" for sentence in UNTESTED)


def write(reports: Sequence[Path], commit: str | None) -> int:
    """Put the figures into the page; without reports the named tests are run first."""
    with tempfile.TemporaryDirectory() as folder:
        run, day = read(reports or [_run(Path(folder) / "junit.xml")])
    described = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = commit or subprocess.run(described, capture_output=True, text=True, check=True).stdout.strip()
    put(PAGE, "summary", summary(run, day or time.strftime("%Y-%m-%d"), commit))
    put(PAGE, "promises", body(run))
    failed = [name for name in tests() if any(outcome.state == FAILED for outcome in run.get(name, ()))]
    print(f"{PAGE.relative_to(ROOT)}: {told(tests(), run)}", *failed, sep="\n  ")
    return 1 if failed else 0


def _run(report: Path) -> Path:
    """Run the named tests, slow ones among them: this takes an hour on two cores."""
    nodes = [f"tests/{name.replace('::', '.py::')}" for name in tests()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "", f"--junitxml={report}", *nodes]
    subprocess.run(command, cwd=ROOT, check=False)
    return report
