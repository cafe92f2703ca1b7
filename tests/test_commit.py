"""Runs that begin, go on, are refused and commit: complete or absent, and taken forward wherever they were killed."""

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest

from semdedup import InputError, IntegrityError, OutputConflictError, ParameterError, StorageError
from semdedup.compute.session import Session
from semdedup.runs import commit
from semdedup.runs.commit import ORDERS, Orders
from semdedup.runs.identity import fingerprint
from semdedup.runs.owner import FILE_NAME as OWNER
from semdedup.runs.owner import owned
from semdedup.runs.record import FILE_NAME, SCRATCH, Record
from semdedup.runs.run import Run
from semdedup.storage import written as on_disk
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.written import Written
from tests.helpers import contents, near_duplicates, workflow, write_embeddings
from tests.records import ANYTHING, FILES, SOURCE, names_below, put_begun, put_committed, running, write


def found_in(root: Location) -> list[str]:
    """Files below the root, but the one that says who is at work."""
    return [name for name in names_below(root) if name != OWNER]


def note(run: Run, *names: str) -> None:
    """Write files of a run on the client."""
    with run.noting():
        for name in names:
            (run.final / name).write_bytes(name.encode())


def do(root: Location, session: Session, *names: str, facts: Mapping[str, Any] | None = None, **more: Any) -> None:
    """A whole run of one step."""
    with running(root, session, **more) as run:
        assert run is not None
        note(run, *names)
        run.commit(facts or {})


# Begun and committed


def test_a_step_is_begun_then_committed_and_found_again(root: Location, session: Session) -> None:
    with running(root, session) as run:
        assert run is not None
        assert Record(root).steps["kmeans"]["status"] == "begun"
        assert Record(root).committed("kmeans") is None
        note(run, "kmeans_results/b", "kmeans_results/a", "centroids")
        run.commit({"rows": 5})
    record = Record(root).committed("kmeans")
    assert record is not None
    names = ["centroids", "kmeans_results/a", "kmeans_results/b"]
    assert (record["facts"], sorted(record["files"])) == ({"rows": 5}, names)
    assert {"python", "semdedup", "dask", "numpy", "pandas", "pyarrow"} == record["versions"].keys()
    assert all(record["files"][name].n_bytes == len(name) for name in names)
    assert Record(root).changed("kmeans", verify=True) == []
    assert record["commit"] == commit.commit_of(record["files"])
    assert names_below(root) == [FILE_NAME, *names], "no scratch, and nobody at work"
    assert (root / "centroids").read_bytes() == b"centroids"


def test_a_step_is_completed_beside_what_is_not_ours(root: Location, session: Session) -> None:
    write(root, "theirs", "clusters/theirs")
    do(root, session, "clusters/k=0/a", "centroids")
    assert names_below(root) == [FILE_NAME, "centroids", "clusters/k=0/a", "clusters/theirs", "theirs"]
    assert sorted(Record(root).steps["kmeans"]["files"]) == ["centroids", "clusters/k=0/a"]
    if root.is_local:
        assert not Path(f"{root}/{SCRATCH}").exists()


def write_one(job: tuple[Location, str]) -> dict[str, Any]:
    place, name = job
    (place / name).write_bytes(name.encode())
    return {"name": name}


def test_what_tasks_wrote_is_on_record_with_size_and_checksum(root: Location, session: Session) -> None:
    with running(root, session) as run:
        assert run is not None
        jobs = [(run.final, f"clusters/{i}") for i in range(5)]
        results = {entry.key: entry.result for entry in run.each("write", write_one, jobs)}
        assert results == {str(i): {"name": f"clusters/{i}"} for i in range(5)}
        run.commit({})
    assert sorted(Record(root).steps["kmeans"]["files"]) == [f"clusters/{i}" for i in range(5)]
    assert Record(root).changed("kmeans", verify=True) == []


def test_what_nobody_wrote_in_full_is_not_put_in_place(root: Location, session: Session) -> None:
    with running(root, session) as run:
        assert run is not None
        note(run, "clusters/a")
        (run.final / "clusters/half").write_bytes(b"of a task that was killed")
        run.commit({})
    assert names_below(root) == [FILE_NAME, "clusters/a"]


def test_a_file_that_is_lost_before_the_commit_ends_it(root: Location, session: Session) -> None:
    with running(root, session) as run:
        assert run is not None
        note(run, "clusters/a", "clusters/b")
        (run.final / "clusters/a").write_bytes(b"shorter")
        with pytest.raises(IntegrityError, match=r"1 files that the step 'kmeans' wrote .* not whole: clusters/a"):
            run.commit({})
    assert Record(root).steps["kmeans"]["status"] == "begun"
    assert not (root / "clusters/b").exists()


def test_input_that_changed_meanwhile_is_refused_and_nothing_put_in_place(root: Location, session: Session) -> None:
    later = fingerprint([*FILES, FileInfo("c", 5, "1")])
    with running(root, session) as run:
        assert run is not None
        note(run, "clusters/a")
        words = "the input changed while .* 2 files of 30 bytes at the beginning, 3 files of 35 bytes now"
        with pytest.raises(InputError, match=words):
            run.commit({}, look_again=lambda: later)
    assert not (root / "clusters/a").exists()
    assert Record(root).committed("kmeans") is None


@pytest.mark.parametrize("parameters", [{}, {"k": 3}], ids=["the same", "others"])
def test_a_complete_step_is_reopened_with_its_files_and_facts(
    root: Location, session: Session, parameters: dict[str, Any]
) -> None:
    do(root, session, "clips/a", "clips/old", facts={"clips": 1}, step="split")
    more = fingerprint([*FILES, FileInfo("c", 30, "1")])
    with running(root, session, "split", parameters, more) as run:
        assert run is not None
        again = Record(root)
        assert again.committed("split") is None
        entry = again.steps["split"]
        assert (entry["status"], sorted(entry["files"]), entry["facts"]) == (
            "begun",
            ["clips/a", "clips/old"],
            {"clips": 1},
        )
        assert (entry["input"], entry["parameters"]) == (more, parameters)
        note(run, "clips/b")
        before = entry["files"]
        run.commit({"clips": 2}, kept={"clips/a": before["clips/a"]}, obsolete=["clips/old"])
    entry = Record(root).steps["split"]
    assert (entry["status"], sorted(entry["files"]), entry["facts"]) == (
        "committed",
        ["clips/a", "clips/b"],
        {"clips": 2},
    )
    assert names_below(root) == [FILE_NAME, "clips/a", "clips/b"]


# Gone on with


def test_a_run_goes_on_with_what_a_killed_one_left(root: Location, session: Session) -> None:
    put_begun(root, "kmeans", {"k": 3}, token="0123abcd")
    write(root, f"{SCRATCH}/kmeans-0123abcd/plan.json", f"{SCRATCH}/kmeans-22222222/x")
    with running(root, session, parameters={"k": 3}) as run:
        assert run is not None
        token = run.token if root.is_local else "0123abcd"  # in an object store that would copy everything
        assert run.scratch.url == f"{root}/{SCRATCH}/kmeans-{token}"
        assert (run.scratch / "plan.json").read_bytes() == b"x"
        assert Record(root).steps["kmeans"]["temporary"] == [f"{SCRATCH}/kmeans-{token}"]


def test_what_a_task_of_a_killed_run_writes_late_goes_at_the_commit(tmp_path: Path, session: Session) -> None:
    root = Location.of(tmp_path / "out")
    put_begun(root, "kmeans", token="0123abcd")
    write(root, f"{SCRATCH}/kmeans-0123abcd/final/a")
    with running(root, session) as run:
        assert run is not None
        write(root, f"{SCRATCH}/kmeans-0123abcd/final/late", f"{SCRATCH}/kmeans-0123abcd/journal/late.json")
        note(run, "b")
        run.commit({})
    assert names_below(root) == [FILE_NAME, "b"]
    assert not (tmp_path / "out" / SCRATCH).exists()


@pytest.mark.parametrize("moment", ["before the move", "after it"])
def test_a_run_killed_while_it_took_over_is_taken_over(
    tmp_path: Path, session: Session, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    root = Location.of(tmp_path / "out")
    put_begun(root, "kmeans", token="0123abcd")
    write(root, f"{SCRATCH}/kmeans-0123abcd/plan.json")
    move = Location.move_into

    def killed(place: Location, target: Location, *rest: Any) -> None:
        if moment == "after it":
            move(place, target, *rest)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Location, "move_into", killed)
        with pytest.raises(KeyboardInterrupt), running(root, session):
            pass
    with running(root, session) as run:
        assert run is not None
        assert (run.scratch / "plan.json").exists()
        assert len(Record(root).steps["kmeans"]["temporary"]) == 1


def test_a_step_that_was_being_cleared_is_not_mixed_with_the_next(
    root: Location, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(root, session, step="split")
    do(root, session, "clusters/a", "clusters/b", parameters={"k": 3})

    def killed(place: Location, places: Sequence[Location]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Location, "remove_files", killed)
        with pytest.raises(KeyboardInterrupt):
            Record(root).clear(["kmeans"], ANYTHING)
    with running(root, session, parameters={"k": 3}) as run:
        assert run is not None
        assert found_in(root) == [FILE_NAME]
        assert Record(root).steps["kmeans"]["status"] == "begun"
        assert Record(root).committed("split")


# Killed at the commit

MOMENTS: dict[str, tuple[Any, str, int]] = {
    "before the orders": (Orders, "write", 0),
    "after the orders": (Record, "update", 1),
    "before the moves": (Location, "move_into", 0),
    "after the moves": (commit, "delete_files", 0),
    "before it is looked at": (commit, "changed_files", 0),
    "before it is on record": (commit, "commit_of", 0),
    "before the scratch goes": (Location, "remove_tree", 0),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_at_its_commit_is_taken_forward(
    root: Location, session: Session, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    do(root, session, "clusters/old", "clusters/kept", facts={"rows": 1})
    write(root, "clusters/theirs")  # so that files are moved one by one
    target, name, after = MOMENTS[moment]
    calls = [0]
    real = getattr(target, name)

    def killed(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] > after:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with running(root, session) as run:
        assert run is not None
        note(run, "clusters/a", "centroids")
        kept = Record(root).steps["kmeans"]["files"]["clusters/kept"]
        with monkeypatch.context() as patch:
            patch.setattr(target, name, killed)
            with pytest.raises(KeyboardInterrupt):
                run.commit({"rows": 2}, kept={"clusters/kept": kept}, obsolete=["clusters/old"])
    with running(root, session) as again:
        if moment == "before the orders":
            assert again is not None
            assert (again.final / "clusters/a").exists()
            return
        if moment == "before the scratch goes":
            assert Record(root).steps["kmeans"]["facts"] == {"rows": 2}
            return
        assert again is None, "what was ordered is carried out, and there is nothing else to do"
    entry = Record(root).committed("kmeans")
    assert entry is not None
    assert entry["facts"] == {"rows": 2}
    assert sorted(entry["files"]) == ["centroids", "clusters/a", "clusters/kept"]
    assert names_below(root) == [FILE_NAME, "centroids", "clusters/a", "clusters/kept", "clusters/theirs"]


def test_a_move_that_was_interrupted_goes_on(root: Location, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, "clusters/theirs", "_quarantine/theirs")
    moved: list[str] = []
    name = "_copy_from"
    real: Callable[..., Any] = Location._copy_from
    if root.is_local:
        name, real = "_rename_into", Location._rename_into

    def killed(place: Location, other: Location, *rest: Any) -> Any:
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(place.url)
        return real(place, other, *rest)

    with running(root, session) as run:
        assert run is not None
        note(run, "clusters/a", "clusters/b", "_quarantine/c")
        with monkeypatch.context() as patch:
            patch.setattr(Location, name, killed)
            with pytest.raises(KeyboardInterrupt):
                run.commit({})
    assert Record(root).committed("kmeans") is None
    with running(root, session) as again:
        assert again is None
    names = ["_quarantine/c", "_quarantine/theirs", "clusters/a", "clusters/b", "clusters/theirs"]
    assert names_below(root) == [FILE_NAME, *names]
    assert Record(root).changed("kmeans", verify=True) == []


ORDER: dict[str, Any] = {"files": {}, "obsolete": [], "facts": {}, "forced": [0, 0.0]}


@pytest.mark.parametrize(
    "content",
    [b"", bytes(100), b"{", b"[]", b"null", b'{"files": {}}', json.dumps({**ORDER, "files": []}).encode()],
    ids=["empty", "zeros", "half", "a list", "null", "a part", "of another kind"],
)
def test_orders_that_a_power_cut_damaged_are_as_good_as_none(tmp_path: Path, session: Session, content: bytes) -> None:
    root = Location.of(tmp_path / "out")
    put_begun(root, "kmeans")
    (root / f"{SCRATCH}/kmeans-00000000/{ORDERS}").write_bytes(content)
    write(root, f"{SCRATCH}/kmeans-00000000/final/a")
    with running(root, session) as run:
        assert run is not None
        assert (run.final / "a").exists()


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in ("files", "obsolete") for name in ("../x", "/etc/hosts", "", "mine/notes.txt")]
    + [("moved", "mine/notes.txt")],
)
def test_orders_that_name_what_the_step_does_not_write_are_refused(
    root: Location, session: Session, kind: str, name: str
) -> None:
    write(root, "mine/notes.txt")
    put_begun(root, "kmeans")
    scratch = root / f"{SCRATCH}/kmeans-00000000"
    orders = dict(ORDER)
    if kind == "moved":
        (scratch / "final" / name).write_bytes(b"other words")
    else:
        orders[kind] = {name: [1, ""]} if kind == "files" else [name]
    (scratch / ORDERS).write_json(orders)
    before = names_below(root)
    written = {"kmeans": re.compile("clusters/.*")}
    with pytest.raises(OutputConflictError, match="Nothing was changed"), running(root, session, written=written):
        pass
    assert names_below(root) == before
    assert (root / "mine/notes.txt").read_bytes() == b"x"


def test_files_and_folders_are_forced_to_disk_before_the_record_names_them(
    tmp_path: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Location.of(tmp_path / "new" / "out")
    forced: list[str] = []
    real = on_disk.force_to_disk

    def force(path: str) -> int:
        status = Record(root).steps.get("kmeans", {}).get("status")
        forced.append(f"{status} {Path(path).relative_to(tmp_path)}")
        return real(path)

    with running(root, session) as run:
        assert run is not None
        note(run, "clusters/k=0/a", "centroids")
        for module in (on_disk, commit):
            monkeypatch.setattr(module, "force_to_disk", force)
        run.commit({})
        final = run.final.url.removeprefix(f"{tmp_path}/")
    for name in (
        f"{final}/clusters/k=0/a",
        f"{final}/centroids",
        "new/out",
        "new/out/clusters",
        "new/out/clusters/k=0",
    ):
        assert f"begun {name}" in forced
    entry = Record(root).steps["kmeans"]
    assert entry["forced"]["bytes"] == len("clusters/k=0/a") + len("centroids")


# Refused


def refuse(root: Location, session: Session, error: type[BaseException], *names: str, step: str = "kmeans") -> str:
    """Begin a run, write files of these names, and refuse it; the name of its scratch folder."""
    scratch = ""

    def begin_and_refuse() -> None:
        nonlocal scratch
        with running(root, session, step) as run:
            assert run is not None
            note(run, *names)
            scratch = run.scratch.url[len(root.url) + 1 :]
            with run.refusing():
                raise error

    with pytest.raises(error):
        begin_and_refuse()
    return scratch


def test_a_refusal_keeps_an_empty_folder_that_was_there_before_and_takes_those_it_made(
    tmp_path: Path, session: Session
) -> None:
    for there in (True, False):
        root = Location.of(tmp_path / f"{there}" / "of" / "mine")
        if there:
            Path(root.url).mkdir(parents=True)
        refuse(root, session, InputError)
        assert Path(root.url).exists() == (tmp_path / f"{there}").exists() == there


def test_a_refusal_takes_the_folders_that_a_killed_run_made(tmp_path: Path, session: Session) -> None:
    root = Location.of(tmp_path / "of" / "mine")
    refuse(root, session, KeyboardInterrupt)
    assert (tmp_path / "of" / "mine" / FILE_NAME).exists()
    refuse(root, session, InputError)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_a_record_says_were_made_end_at_the_root(tmp_path: Path, session: Session) -> None:
    root = Location.of(tmp_path / "out")
    put_begun(root, "kmeans", made_folders=10**12)
    refuse(root, session, InputError)
    assert names_below(root) == []


@pytest.mark.parametrize("error", [InputError, ParameterError])
def test_a_refusal_takes_back_what_was_begun(root: Location, session: Session, error: type[Exception]) -> None:
    refuse(root, session, error, "x")
    assert names_below(root) == []
    assert not root.exists()


def test_a_refusal_keeps_the_steps_before_it_and_what_is_not_ours(root: Location, session: Session) -> None:
    do(root, session, "clusters/a")
    write(root, "theirs")
    refuse(root, session, InputError, "scores", step="pairwise")
    assert names_below(root) == [FILE_NAME, "clusters/a", "theirs"]
    assert list(Record(root).steps) == ["kmeans"]


def test_a_refusal_keeps_what_a_reopened_step_had(root: Location, session: Session) -> None:
    do(root, session, "clips/a", facts={"clips": 1}, step="split")
    scratch = refuse(root, session, InputError, "x", step="split")
    assert list(Record(root).steps["split"]["files"]) == ["clips/a"]
    assert names_below(root) == [FILE_NAME, f"{scratch}/final/x", "clips/a"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OutputConflictError, StorageError])
def test_other_failures_leave_a_step_to_be_resumed(
    root: Location, session: Session, error: type[BaseException]
) -> None:
    scratch = refuse(root, session, error, "x")
    assert names_below(root) == [FILE_NAME, f"{scratch}/final/x"]


@contextlib.contextmanager
def taken_over(root: Location) -> Iterator[None]:
    """The folder while another run has taken it over."""
    began, end = threading.Event(), threading.Event()

    def other() -> None:
        with owned(root, take_over=True):  # a thread has a context of its own, which owns nothing
            began.set()
            end.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    assert began.wait(30)
    try:
        yield
    finally:
        end.set()
        thread.join()


def test_a_run_that_was_overtaken_touches_neither_record_nor_file_of_the_other(
    root: Location, session: Session
) -> None:
    names = (FILE_NAME, OWNER, "clusters/other")
    before: dict[str, bytes] = {}

    def overtaken() -> None:
        with contextlib.ExitStack() as stack:
            other = stack.enter_context(contextlib.ExitStack())  # ends after this run
            stack.callback(lambda: before.update(after=(root / OWNER).read_bytes()))  # when this run has ended
            run = stack.enter_context(running(root, session))
            assert run is not None
            note(run, "clusters/mine")
            other.enter_context(taken_over(root))
            Record(root).write({})
            put_committed(root, "kmeans", "clusters/other", facts={"rows": 7}, parameters={"k": 9})
            before.update({name: (root / name).read_bytes() for name in names})
            try:
                run.commit({"rows": 1})
            finally:
                assert {name: (root / name).read_bytes() for name in names} == before

    with pytest.raises(OutputConflictError, match=r"another run has taken over: process \d+ on .*, since "):
        overtaken()
    assert before["after"] == before[OWNER], "it does not delete the file of the other when it ends"
    assert not (root / "clusters/mine").exists()
    record = Record(root).committed("kmeans")
    assert record is not None
    assert record["facts"] == {"rows": 7}


def test_the_files_of_a_step_are_known_wherever_they_are() -> None:
    files = {"a": Written(1, "x"), "b": Written(2, "y")}
    assert commit.commit_of(files) == commit.commit_of(dict(reversed(files.items())))
    others = [{}, {"a": files["a"]}, {**files, "b": Written(3, "y")}, {**files, "b": Written(2, "z")}]
    assert len({commit.commit_of(each) for each in [files, *others]}) == 5
    assert SOURCE["files"] == 2


def test_what_was_ordered_and_is_lost_is_made_again(
    client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emb = write_embeddings(tmp_path / "in", *near_duplicates(np.random.default_rng(0), 60), 2)
    workflow(emb, tmp_path / "fresh").run(client)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("semdedup.runs.run.carry_out", killed)
        with pytest.raises(KeyboardInterrupt):
            workflow(emb, tmp_path / "out").run(client)
    next((tmp_path / "out").glob("_scratch/kmeans-*/final/kmeans_results/*/*.parquet")).unlink()
    workflow(emb, tmp_path / "out").run(client)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
