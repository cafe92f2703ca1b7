"""What is told of a run while it goes on: words, lines, the output of a notebook, and the file that others read."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.counting_s3 import counting
from semdedup import ClusterError, InputError
from semdedup.cli import main
from semdedup.compute import displays, work
from semdedup.compute.activity import Activity
from semdedup.compute.displays import page_of
from semdedup.compute.pace import LEAST_S, Pace, rate_words, time_words
from semdedup.compute.progress import Reporter
from semdedup.runs import at_work as at_work_module
from semdedup.runs.at_work import PROGRESS, at_work
from semdedup.runs.owner import FILE_NAME, owned
from semdedup.runs.record import Record
from semdedup.runs.status import read_status
from semdedup.storage.location import Location
from tests.helpers import near_duplicates, write_embeddings

ROOT = str(Path(__file__).parents[1])


def pace_of(*done: tuple[float, int]) -> Pace:
    pace = Pace(0.0)
    for now, n in done:
        pace.note(now, n)
    return pace


# How fast it goes


def test_the_rate_is_that_of_late_and_of_enough_units() -> None:
    steady = pace_of(*((i / 2, i) for i in range(1, 400)))
    assert steady.rate(200.0) == pytest.approx(2, rel=0.05)
    assert steady.seconds_left(200.0, 799) == pytest.approx(200, rel=0.05)
    slower = pace_of(*((i / 100, i) for i in range(1, 3000)), *((30 + i, 3000 + i) for i in range(400)))
    assert slower.rate(430.0) == pytest.approx(1, rel=0.05), "what was faster is long ago"
    few = pace_of((100.0, 1), (200.0, 2), (300.0, 3))
    assert few.rate(300.0) == pytest.approx(0.01)
    assert few.rate(600.0) == pytest.approx(0.005), "it falls while nothing ends"


def test_nothing_is_said_of_what_cannot_be_known() -> None:
    assert Pace(0.0).rate(10.0) is None
    assert Pace(0.0).seconds_left(10.0, 5) is None
    assert pace_of((1.0, 1)).seconds_left(2.0, None) is None
    assert pace_of((LEAST_S, 5)).seconds_left(LEAST_S, 5) == 0


@pytest.mark.parametrize(
    ("rate", "words"),
    [(1234.5, "1,234/s"), (2.345, "2.3/s"), (1.0, "1.0/s"), (0.05, "3.0/min"), (0.001, "3.6/h"), (1e-6, "0.0/h")],
)
def test_a_rate_is_said_by_the_unit_of_time_in_which_it_is_one_or_more(rate: float, words: str) -> None:
    assert rate_words(rate) == words


def test_a_span_of_time_is_said_to_the_second() -> None:
    assert [time_words(s) for s in (0, 7.4, 59.6, 754, 3675, 90_000, 200_000)] == [
        *("0:00", "0:07", "1:00", "12:34", "1:01:15", "1 day 1:00:00", "2 days 7:33:20")
    ]


# Where there is no terminal


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds in place of minutes."""
    monkeypatch.setattr(work, "SECONDS_BETWEEN_TICKS", 0.02)
    monkeypatch.setattr(displays, "SECONDS_BETWEEN_LINES", 0.1)
    monkeypatch.setattr(at_work_module, "SECONDS_BETWEEN", 0.05)


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_line_is_printed_while_nothing_ends_and_one_at_the_end(
    quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = Reporter()
    with reporter.step("wait", 4, "naps") as advance:
        advance(1)
        time.sleep(0.5)
    first, *_, last = said = lines_of(capsys)
    assert re.fullmatch(r"wait: 1/4 naps, 0:00, \d+\.\d/(s|min), 0:0\d left", first)
    assert re.fullmatch(r"wait: 1/4 naps in 0\.[5-9] s", last)
    assert 3 <= len(said) <= 6, "not at every tick"


def test_what_is_announced_is_said_at_once_and_what_is_not_only_where_it_takes_a_while(
    quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = Reporter()
    with reporter.doing("starting workers", is_announced=True):
        assert lines_of(capsys) == ["starting workers"]
    with reporter.doing("looking at the input"):
        pass
    assert lines_of(capsys) == []
    with reporter.doing("looking at the input"):
        time.sleep(0.3)
    assert set(lines_of(capsys)) == {"looking at the input, 0:00"}


def test_a_quiet_reporter_says_nothing(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(verbose=False)
    reporter.say("a")
    reporter.part("1 of 2: b")
    with reporter.step("wait", 2, "naps") as advance, reporter.doing("starting workers", is_announced=True):
        advance(1)
        time.sleep(0.2)
    assert lines_of(capsys) == []
    assert reporter.seconds["wait"] > 0.1
    assert reporter.work.ended[0]["done"] == 1


# In a notebook


def test_what_a_notebook_shows_is_escaped_and_short() -> None:
    activity = Activity("read <b>", 3, "files")
    activity.advance(1)
    page, text = page_of(activity, [f"line {i} <i>" for i in range(10)], "1 of 5: <split>")
    assert not re.search(r"<(b>read|i>|split)", page)
    assert '<progress value="1" max="3"' in page
    assert page.index("line 9") < page.index("7 lines before") < page.index("line 6")
    assert text.splitlines()[-1].startswith("read <b>: 1/3 files")
    assert "value=" not in page_of(Activity("fit", None, "iterations"), [], "")[0]


@pytest.mark.slow
def test_a_run_in_a_notebook_is_one_output_that_ends_as_done(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "in", *near_duplicates(np.random.default_rng(0), 60), 2)
    code = f"""
import os; os.chdir({str(tmp_path)!r})
import distributed
from semdedup import SemanticDeduplicationWorkflow
client = distributed.Client(processes=False, n_workers=1, dashboard_address=None, set_as_default=False)
result = SemanticDeduplicationWorkflow("in", "out", 3, eps=0.1).run(client)
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    assert re.search(r"<b>done after \d+\.\d s</b>", output.data["text/html"])
    assert "threshold: 1/1 groups in" in output.data["text/html"]
    assert "<progress" not in output.data["text/html"]
    assert output.data["text/plain"].splitlines()[-1].startswith("done after")


# The file


def file_in(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / PROGRESS).read_bytes())
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run_in(place: Path | Location, error: BaseException | None = None, refused: bool = False) -> None:
    """A run that does a thing, and may end badly."""
    reporter, root = Reporter(verbose=False), place if isinstance(place, Location) else Location.of(place)
    with at_work(root, reporter):
        reporter.begun()
        with reporter.step("wait", 3, "naps") as advance:
            advance(2)
            reporter.quarantined(1)
            if refused:
                reporter.begun(-1)
            if error is not None:
                raise error
        reporter.summarize([("rows", "7")])


def test_while_it_runs_the_file_says_how_far_it_is_and_at_the_end_what_came_of_it(quick: None, tmp_path: Path) -> None:
    root, reporter = tmp_path / "out", Reporter(verbose=False)
    with at_work(Location.of(root), reporter):
        beginning = read_status(str(root))
        assert (beginning.state, beginning.facts["step"]) == ("running", "start")
        assert beginning.facts["owner"]["pid"] == os.getpid()
        reporter.part("2 of 5: overlaps")
        reporter.begun()
        with reporter.step("compare", 1234, "pairs of blocks") as advance:
            advance(100)
            wait_for((root / PROGRESS).exists)
            found = read_status(str(root))
            assert (found.facts["done"], found.facts["all"]) == (100, 1234)
            assert re.fullmatch(
                r"running, 2 of 5: overlaps, compare: 100/1,234 pairs of blocks, [\d,.]+/s, 0:\d\d left", found.line()
            )
            written = file_in(root)["updated"]
            wait_for(lambda: file_in(root)["updated"] > written)  # though nothing went on
        reporter.summarize([("rows", "7")])
    found = read_status(str(root))
    assert (found.state, found.facts["owner"], found.facts["error"]) == ("done", None, None)
    assert ("rows", "7") in found.rows()
    assert [step["step"] for step in found.facts["steps"]] == ["compare"]
    assert os.listdir(root) == [PROGRESS]


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (KeyboardInterrupt(), "stopped", "it was interrupted"),
        (ClusterError("no workers. Start some."), "failed", "no workers. Start some."),
        (TypeError("secret"), "failed", "an unexpected TypeError; its traceback stands where the run was started"),
    ],
)
def test_of_a_run_that_ends_badly_the_file_says_why_and_where(
    tmp_path: Path, error: BaseException, state: str, why: str
) -> None:
    with pytest.raises(type(error)):
        run_in(tmp_path, error)
    found = read_status(str(tmp_path))
    assert (found.state, found.facts["error"]) == (state, why)
    assert found.line() == f"{state}, wait: 2/3 naps"
    assert found.facts["quarantined"] == 1
    assert found.facts["owner"]["pid"] == os.getpid()


def test_a_run_that_is_refused_leaves_no_file_and_keeps_that_of_the_run_before(quick: None, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        run_in(tmp_path / "out", InputError("no rows"), refused=True)
    assert not (tmp_path / "out").exists()
    run_in(tmp_path / "out")
    before = file_in(tmp_path / "out")
    with pytest.raises(InputError), at_work(Location.of(tmp_path / "out"), Reporter(verbose=False)):
        raise InputError("no such path")
    assert file_in(tmp_path / "out") == before


def test_a_part_of_a_run_is_told_where_the_run_is(tmp_path: Path) -> None:
    outer = Reporter(verbose=False)
    with at_work(Location.of(tmp_path / "out"), outer):
        run_in(tmp_path / "out" / "clips")
        assert Reporter(verbose=False).work is outer.work
    assert not (tmp_path / "out" / "clips").exists()
    assert [step["step"] for step in file_in(tmp_path / "out")["steps"]] == ["wait"]
    assert Reporter(verbose=False).work is not outer.work


KILLED = """
import sys, time
from semdedup.compute.progress import Reporter
from semdedup.runs import at_work
from semdedup.storage.location import Location
at_work.SECONDS_BETWEEN = 0.05
reporter = Reporter()
with at_work.at_work(Location.of(sys.argv[1]), reporter):
    reporter.begun()
    with reporter.step("wait", 3, "naps") as advance:
        advance(1)
        time.sleep(600)
"""


def test_a_run_that_was_killed_is_told_from_one_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(root)], cwd=ROOT) as process:
        wait_for((root / PROGRESS).exists)
        assert read_status(str(root)).state == "running"
        process.kill()
    killed = read_status(str(root))
    assert killed.state == "stopped"
    assert f"its process {process.pid} is gone: it was killed. Run the same command again" in killed.facts["error"]
    assert killed.line() == "stopped, wait: 1/3 naps"
    (root / FILE_NAME).unlink()
    content = file_in(root)
    content["owner"]["host"] = "elsewhere"
    (root / PROGRESS).write_text(json.dumps({**content, "updated": time.time() - 10}))
    assert read_status(str(root)).state == "running"
    (root / PROGRESS).write_text(json.dumps({**content, "updated": time.time() - 100}))
    assert "nothing was heard of it for 1:40" in str(read_status(str(root)).facts["error"])


def test_another_run_that_begins_in_the_folder_is_told_in_place_of_the_one_before(tmp_path: Path) -> None:
    run_in(tmp_path)
    with owned(Location.of(tmp_path)):
        assert read_status(str(tmp_path)).line() == "running, start"
    assert read_status(str(tmp_path)).state == "done"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": "running"}', '{"state": 7}'])
def test_a_file_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / PROGRESS).write_text(content)
    with pytest.raises(InputError, match="no run of semdedup"):
        read_status(str(tmp_path))


def test_of_a_run_on_a_store_a_file_is_written_and_in_a_short_one_with_one_request(s3_server: dict) -> None:
    with counting(s3_server["client_kwargs"]["endpoint_url"]) as s3:
        root = Location.of("s3://progress/out", s3.storage_options)
        root.fs.mkdir("progress")
        run_in(root)
        asked = [request.operation for request in s3.requests if request.path.endswith(PROGRESS)]
        assert asked == ["PutObject"]
        s3.reset()
        assert read_status("s3://progress/out", s3.storage_options).state == "done"
        assert s3.total().n == 2, "this file, and that of the owner, which is not there"


# The command


def status_of(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["status", *arguments])


def test_the_command_ends_with_0_whatever_the_state_with_1_without_a_run_and_with_2_without_a_path(
    tmp_path: Path,
) -> None:
    with contextlib.suppress(ClusterError):
        run_in(tmp_path / "out", ClusterError("no workers"))
    done = status_of(str(tmp_path / "out"))
    assert done.exit_code == 0
    assert "failed, wait: 2/3 naps" in done.output
    assert "no workers" in done.output
    facts = json.loads(status_of(str(tmp_path / "out"), "--json").output)
    names = ("state", "step", "done", "all", "unit", "rate", "seconds_left", "quarantined", "owner", "updated")
    assert facts.keys() >= {*names}
    assert status_of(str(tmp_path / "out"), "--watch").exit_code == 0, "it is over"
    assert (status_of(str(tmp_path)).exit_code, status_of(str(tmp_path / "absent")).exit_code) == (1, 2)
    (tmp_path / "out" / "clips").mkdir()
    hinted = " ".join(status_of(str(tmp_path / "out" / "clips")).output.split())
    assert f"semdedup status {tmp_path / 'out'}" in hinted


def test_who_watches_is_told_until_the_end(quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["semdedup.cli.status"], "SECONDS_BETWEEN", 0.05)
    command = [sys.executable, "-c", KILLED.replace("600", "0.6"), str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL):
        wait_for((tmp_path / PROGRESS).exists)
        said = status_of(str(tmp_path), "--watch").output.splitlines()
    assert said[0].startswith("running, wait: 1/3 naps")
    assert len(said) > 2
    assert any(re.search(r"state +│ done", line) for line in said)


def test_results_without_the_file_are_told_by_their_record(tmp_path: Path) -> None:
    step = {"parameters": {}, "input": {}, "facts": {}, "files": {}}
    record = Record(Location.of(tmp_path))
    record.update("kmeans", status="committed", **step)
    found = read_status(str(tmp_path))
    assert (found.state, found.facts["updated"], found.rows()[1:]) == ("done", None, [("state", "done")])
    record.update("pairwise", status="begun", **step)
    assert read_status(str(tmp_path)).state == "stopped"
