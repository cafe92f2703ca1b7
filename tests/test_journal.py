"""The journal: what counts as done, by key, and is not done again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semdedup.compute.session import Session
from semdedup.runs.journal import FORMAT, Entry, Job, read_journal
from semdedup.storage.location import Location
from semdedup.storage.written import Written
from tests.records import running


def work(item: Any) -> Any:
    """Write the files that the item names below a place, and give back how many."""
    place, names = item
    for name in names:
        (place / name).write_bytes(name.encode())
    return {"files": len(names)}


def entries(root: Location) -> dict[str, Entry]:
    return {entry.key: entry for entry in read_journal(root, root / "s", root / "s/journal")}


def do(root: Location, key: str, *names: str) -> None:
    Job(work, (root, names), root, root / "s", root / f"s/journal/{key}.json")()


def test_an_entry_holds_the_result_and_what_was_written(root: Location) -> None:
    do(root, "some-key", "clips/a", "s/final/b")
    (entry,) = entries(root).values()
    assert (entry.key, entry.result) == ("some-key", {"files": 2})
    assert {name: written.n_bytes for name, written in entry.written.items()} == {"clips/a": 7, "~/final/b": 9}


def test_an_entry_outlives_the_name_of_the_scratch_folder(root: Location) -> None:
    do(root, "a", "s/final/b")
    (root / "s").move_into(root / "t")
    found = list(read_journal(root, root / "t", root / "t/journal"))
    assert [name for entry in found for name in entry.written] == ["~/final/b"]


CHANGES: dict[str, Callable[[Location], None]] = {
    "missing": lambda root: (root / "clips/a").remove(),
    "empty": lambda root: (root / "clips/a").write_bytes(b""),
    "longer": lambda root: (root / "s/final/a").write_bytes(b"more than was written"),
    "its folder is gone": lambda root: (root / "s/final/a").remove(),
    "the entry is empty": lambda root: (root / "s/journal/a.json").write_bytes(b""),
    "the entry is cut off": lambda root: (root / "s/journal/a.json").write_bytes(b'{"format": 2, "result": 1, "wri'),
    "the entry is zeros": lambda root: (root / "s/journal/a.json").write_bytes(bytes(50)),
    "of an earlier version": lambda root: (root / "s/journal/a.json").write_json({"rows": 5}),
    "of another format": lambda root: (root / "s/journal/a.json").write_json({"format": 1, "result": 1, "written": {}}),
    "a list": lambda root: (root / "s/journal/a.json").write_json([1]),
    "names in a list": lambda root: (root / "s/journal/a.json").write_json(
        {"format": FORMAT, "result": 1, "written": ["clips/a"]}
    ),
    "a name leads out": lambda root: (root / "s/journal/a.json").write_json(
        {"format": FORMAT, "result": 1, "written": {"../x": [1, ""]}}
    ),
    "a name leads out of the scratch": lambda root: (root / "s/journal/a.json").write_json(
        {"format": FORMAT, "result": 1, "written": {"~/../clips/a": [7, ""]}}
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_entry_counts_only_while_its_files_are_there_as_they_were_written(
    root: Location, change: Callable[[Location], None]
) -> None:
    do(root, "a", "clips/a", "s/final/a")
    do(root, "b", "clips/b")
    assert sorted(entries(root)) == ["a", "b"]
    change(root)
    assert sorted(entries(root)) == ["b"]


def test_entries_with_a_folder_each_are_compared_with_one_listing(
    root: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(20):
        do(root, str(i), f"s/final/centroid={i}/part.parquet", f"s/final/centroid={i}/more/part.parquet")
    listed = []
    for name in ("files", "sizes"):
        plain = getattr(Location, name)
        monkeypatch.setattr(Location, name, lambda place, plain=plain: listed.append(place.url) or plain(place))
    assert len(entries(root)) == 20
    assert sorted(listed) == [f"{root}/s/final", f"{root}/s/journal"]


def test_entries_that_nobody_wants_are_not_given(root: Location) -> None:
    for key in ("a", "b", "c"):
        do(root, key, f"clips/{key}")
    found = read_journal(root, root / "s", root / "s/journal", {"c", "a", "d"})
    assert [entry.key for entry in found] == ["a", "c"]


def test_what_is_no_entry_is_passed_over(root: Location) -> None:
    do(root, "a", "clips/a")
    for name in ("_0123456789abcdef0123456789abcdef.tmp", "notes.txt"):
        (root / "s/journal" / name).write_bytes(b"{}")
    assert sorted(entries(root)) == ["a"]
    assert list(read_journal(root, root / "s", root / "s/nothing")) == []


def count(item: tuple[Location, str]) -> str:
    """Leave a trace of each time that it is called."""
    place, name = item
    (place / f"{name}-{len(place.files())}").write_bytes(b"")
    return name


def each(session: Session, root: Location, traces: Location, names: list[str]) -> dict[str, Any]:
    with running(root, session) as run:
        assert run is not None
        jobs = {name: (traces, name) for name in names}
        found = {entry.key: entry.result for entry in run.each("count", count, jobs, unit="names")}
        again = {entry.key: entry.result for entry in run.entries("count")}
        assert found == {key: again[key] for key in found}
        return found


def test_a_job_that_is_in_the_journal_is_not_done_again_and_a_plan_may_grow(
    root: Location, session: Session, tmp_path: Path
) -> None:
    traces = Location.of(tmp_path / "traces")
    assert each(session, root, traces, ["a"]) == {"a": "a"}
    assert each(session, root, traces, ["b", "a"]) == {"a": "a", "b": "b"}
    assert each(session, root, traces, ["b"]) == {"b": "b"}, "only what is asked for is given"
    assert sorted(path.name for path in (tmp_path / "traces").iterdir()) == ["a-0", "b-1"]


def test_a_part_that_is_forgotten_is_done_again(root: Location, session: Session, tmp_path: Path) -> None:
    traces = Location.of(tmp_path / "traces")
    with running(root, session) as run:
        assert run is not None
        for part in ("one", "two"):
            list(run.each(part, count, [(traces, part)]))
        run.forget("one")
        for part in ("one", "two"):
            list(run.each(part, count, [(traces, part)]))
    assert sorted(path.name for path in (tmp_path / "traces").iterdir()) == ["one-0", "one-2", "two-1"]


def test_an_entry_is_json_that_says_its_files_and_their_checksums(root: Location) -> None:
    do(root, "a", "clips/a")
    content = json.loads((root / "s/journal/a.json").read_bytes())
    assert Written(*content["written"]["clips/a"]) == entries(root)["a"].written["clips/a"]
    assert len(content["written"]["clips/a"][1]) == 32
