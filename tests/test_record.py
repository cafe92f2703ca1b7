"""The record: what it says of steps, what it refuses to go on with, what it clears, and which names it believes."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from semdedup import OutputConflictError
from semdedup.runs.identity import fingerprint
from semdedup.runs.owner import owned
from semdedup.runs.record import FILE_NAME, INSIDE, MOST_INDENTED, SCRATCH, Record
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.written import Written
from tests.records import ANYTHING, FILES, SOURCE, names_below, put_begun, put_committed, write

# What it says


def test_a_folder_without_a_record_has_no_steps(root: Location) -> None:
    record = Record(root)
    assert (record.steps, record.files, record.committed("kmeans")) == ({}, set(), None)
    record.check("kmeans", {"k": 3}, SOURCE)
    assert names_below(root) == []


def test_steps_are_kept_apart(root: Location) -> None:
    put_committed(root, "kmeans", "a", parameters={"k": 3})
    put_begun(root, "pairwise", {"batch": 1})
    assert Record(root).committed("kmeans")
    assert not Record(root).committed("pairwise")
    Record(root).check("pairwise", {"batch": 1}, SOURCE)
    with pytest.raises(OutputConflictError, match="the step 'pairwise'"):
        Record(root).check("pairwise", {"k": 3}, SOURCE)


@pytest.mark.parametrize("n_files", [2, MOST_INDENTED + 1])
def test_a_record_says_the_same_of_few_files_and_of_many(root: Location, n_files: int) -> None:
    files = {f"out/{i}.parquet": Written(i, f"{i:032x}") for i in range(n_files)}
    record = Record(root)
    record.update("kmeans", status="committed", parameters={"pair": (1, 2)}, input=SOURCE, facts={}, files=files)
    assert record.steps == Record(root).steps
    assert Record(root).steps["kmeans"]["files"] == files


PARAMETERS = {"k": 3, "tol": 0.1, "none": None, "pair": (1, 2)}
MANY = "2 files of 30 bytes there, "


@pytest.mark.parametrize(
    ("parameters", "files", "differences"),
    [
        ({**PARAMETERS, "k": 4}, FILES, ["k: 3 there, 4 now"]),
        ({**PARAMETERS, "k": 4, "tol": 0.2}, FILES, ["k: 3 there, 4 now", "tol: 0.1 there, 0.2 now"]),
        ({**PARAMETERS, "pair": (1, 3)}, FILES, ["pair: [1, 2] there, [1, 3] now"]),
        ({**PARAMETERS, "new": 1}, FILES, ["new: None there, 1 now"]),
        (PARAMETERS, FILES[:1], [f"input: {MANY}1 files of 10 bytes now"]),
        (PARAMETERS, [FILES[0], FileInfo("b", 20, "2")], [f"input: {MANY}2 files of 30 bytes now, changed since"]),
        (PARAMETERS, [FILES[0], FileInfo("c", 20, "1")], [f"input: {MANY}2 files of 30 bytes now, changed since"]),
        (PARAMETERS, [FILES[0], FileInfo("b", 21, "1")], [f"input: {MANY}2 files of 31 bytes now, changed since"]),
    ],
    ids=["one", "two", "in a list", "a new one", "a file less", "another stamp", "another name", "another size"],
)
def test_every_difference_is_named_with_the_option_that_clears(
    tmp_path: Path, parameters: dict, files: list[FileInfo], differences: list[str]
) -> None:
    record = put_begun(Location.of(tmp_path), "kmeans", PARAMETERS)
    with pytest.raises(OutputConflictError, match=re.escape(str(tmp_path))) as found:
        Record(Location.of(tmp_path)).check("kmeans", parameters, fingerprint(files))
    assert [line.strip() for line in str(found.value).splitlines()[1:-1]] == differences
    assert str(found.value).endswith("with clear_output=True (--overwrite).")
    with pytest.raises(OutputConflictError, match=r"\(--overwrite\)\. Do this instead\.$"):
        record.check("kmeans", {}, hint="Do this instead.")


def test_the_same_parameters_and_input_pass_however_they_were_written(tmp_path: Path) -> None:
    record = put_begun(Location.of(tmp_path), "kmeans", PARAMETERS)
    for again in (record, Record(Location.of(tmp_path))):
        again.check("kmeans", {**PARAMETERS, "pair": [1, 2]}, fingerprint(FILES[::-1]))
        again.check("kmeans", PARAMETERS)
        again.check("another", {"anything": 1}, SOURCE)


def test_the_fingerprint_tells_inputs_apart_but_not_their_order() -> None:
    assert fingerprint(FILES[::-1]) == SOURCE
    assert (SOURCE["files"], SOURCE["bytes"]) == (2, 30)
    others = [[], FILES[:1], [*FILES, FileInfo("c", 0, "")], [FILES[0], FileInfo("b", 20, "2")]]
    digests = {fingerprint(files)["digest"] for files in [FILES, *others]}
    assert len(digests) == 5


def test_the_fingerprint_does_not_depend_on_where_the_files_are() -> None:
    there = [FileInfo("/x/in/a", 1, "1"), FileInfo("/x/in/d/b", 2, "2")]
    moved = [FileInfo("s3://y/a", 1, "1"), FileInfo("s3://y/d/b", 2, "2")]
    assert fingerprint(there) == fingerprint(moved)
    assert fingerprint([FileInfo("/x/in/a", 1, "1"), FileInfo("/x/in/b", 2, "2")]) != fingerprint(there)


def test_a_file_of_ours_is_known_by_its_checksum_and_any_other_by_its_stamp() -> None:
    known = {"/x/a": Written(10, "sum-a"), "/x/b": Written(20, "sum-b")}
    copied = [FileInfo("/x/a", 10, "another time"), FileInfo("/x/b", 20, "another time")]
    assert fingerprint(copied, known) == fingerprint([FileInfo("/x/a", 10, "1"), FileInfo("/x/b", 20, "2")], known)
    assert fingerprint(copied, {"/x/a": known["/x/a"]}) != fingerprint(copied, known)
    assert fingerprint([FileInfo("/x/a", 11, "1"), copied[1]], known)["digest"] != fingerprint(copied, known)["digest"]
    assert fingerprint(copied, {**known, "/x/a": Written(10, "other")}) != fingerprint(copied, known)


def test_missing_and_changed_files_are_named(root: Location) -> None:
    put_committed(root, "kmeans", "clusters/a", "clusters/b", "clusters/c", "centroids")
    assert Record(root).changed("kmeans", verify=True) == []
    (root / "clusters/a").remove()
    (root / "clusters/b").write_bytes(b"")
    (root / "centroids").write_bytes(b"y")
    faults = ["clusters/a is missing", "clusters/b has 0 bytes instead of 1"]
    assert Record(root).changed("kmeans") == faults
    told = ["centroids has another content than was written", *faults]
    assert Record(root).changed("kmeans", verify=True) == told
    assert Record(root).changed("pairwise") == []


def test_nothing_is_written_to_the_record_of_a_folder_that_another_run_owns(root: Location) -> None:
    record = put_begun(root, "kmeans")
    before = (root / FILE_NAME).read_bytes()
    record.token = "0123abcd"
    with owned(root), pytest.raises(OutputConflictError, match="another run has taken over: process"):
        record.update("kmeans", status="committed")
    with pytest.raises(OutputConflictError, match="nobody owns the folder any more"):
        record.update("kmeans", status="committed")
    assert (root / FILE_NAME).read_bytes() == before


# What it clears


def test_clearing_deletes_what_is_on_record_and_nothing_else(root: Location) -> None:
    put_begun(root, "pairwise")
    put_committed(root, "kmeans", "results/ours", "results/deep/ours")
    write(root, "results/theirs", f"{SCRATCH}/pairwise-00000000/x", f"{SCRATCH}/pairwise-00000000/d/y", "theirs")
    Record(root).clear(["kmeans", "pairwise"], ANYTHING)
    assert names_below(root) == ["results/theirs", "theirs"]
    assert Record(root).steps == {}


def test_clearing_leaves_empty_folders_of_others_and_takes_its_own(tmp_path: Path) -> None:
    root = Location.of(tmp_path / "out")
    record = put_committed(root, "kmeans", "a/b/c/ours", "a/theirs/ours")
    (tmp_path / "out/a/theirs/empty").mkdir()
    record.clear(["kmeans"], ANYTHING)
    assert [str(path.relative_to(tmp_path)) for path in sorted((tmp_path / "out").rglob("*"))] == [
        "out/a",
        "out/a/theirs",
        "out/a/theirs/empty",
    ]


def test_clearing_finds_what_a_killed_run_was_putting_in_place(root: Location) -> None:
    put_begun(root, "kmeans", files={"results/a": Written(1, ""), "results/b": Written(1, "")})
    write(root, "results/a", f"{SCRATCH}/kmeans-00000000/final/results/b")  # killed in the middle of the move
    Record(root).clear(["kmeans"], ANYTHING)
    assert names_below(root) == []


def test_clearing_what_semdedup_did_not_write_deletes_nothing(root: Location) -> None:
    write(root, "a", "_manifest.txt")
    Record(root).clear(["kmeans"], ANYTHING)
    assert names_below(root) == ["_manifest.txt", "a"]


def test_clearing_one_step_leaves_the_others(root: Location) -> None:
    for step in ("split", "kmeans"):
        put_committed(root, step, f"results/{step}")
    put_begun(root, "pairwise")
    write(root, "results/pairwise", f"{SCRATCH}/pairwise-00000000/x")
    Record(root).clear(["kmeans", "identify"], ANYTHING)
    again = Record(root)
    assert list(again.steps) == ["pairwise", "split"]
    assert again.committed("split")
    left = f"{SCRATCH}/pairwise-00000000/x"
    assert names_below(root) == [FILE_NAME, left, "results/pairwise", "results/split"]
    again.clear(["pairwise"], ANYTHING)
    again.clear(["split"], ANYTHING)
    assert names_below(root) == ["results/pairwise"], "a file that was never announced is nobody's"


def test_a_step_that_was_being_cleared_is_not_complete(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    put_committed(root, "split")
    record = put_committed(root, "kmeans", "clusters/a", "clusters/b", parameters={"k": 3})

    def killed(place: Location, places: Sequence[Location]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Location, "remove_files", killed)
        with pytest.raises(KeyboardInterrupt):
            record.clear(["kmeans"], ANYTHING)
    again = Record(root)
    assert again.committed("kmeans") is None
    assert again.committed("split")
    with pytest.raises(OutputConflictError, match="clear_output=True"):
        again.check("kmeans", {"k": 4}, SOURCE)
    again.clear(["kmeans"], ANYTHING)
    assert names_below(root) == [FILE_NAME]


# A cache that is elsewhere


@pytest.fixture
def told(root: Location, tmp_path: Path) -> tuple[Record, Record]:
    """The record of a cache with a step in it, and that of a result which tells of it and holds a copy."""
    cache = put_committed(Location.of(tmp_path / "cache"), "kmeans", "clusters/a", facts={"rows": 5})
    record = Record(root)
    write(root, "_quarantine/a.parquet")
    record.include(cache, ["_quarantine/a.parquet"])
    return cache, record


def test_the_results_of_a_cache_are_told_of_and_their_copies_are_ours(
    told: tuple[Record, Record], root: Location
) -> None:
    content = json.loads((root / FILE_NAME).read_bytes())["cache"]
    where = "../cache" if root.is_local else f"file://{told[0].root}"  # a relative path, but in another store a URL
    assert (content["root"], content["steps"]["kmeans"]["facts"]) == (where, {"rows": 5})
    found = Record(root).cache_root
    assert found is not None
    assert found.url == told[0].root.url
    assert Record(root).committed("kmeans") is None, "it stands elsewhere"
    assert Record(root).every_step["kmeans"]["facts"] == {"rows": 5}
    Record(root).clear(["kmeans"], ANYTHING)
    assert names_below(root) == []
    assert names_below(told[0].root) == [FILE_NAME, "clusters/a"]


def test_what_is_told_of_a_cache_stays_while_other_steps_are_cleared(
    told: tuple[Record, Record], root: Location
) -> None:
    put_begun(root, "identify")
    Record(root).clear(["identify"], ANYTHING)
    assert names_below(root) == [FILE_NAME, "_quarantine/a.parquet"]
    assert Record(root).cache["copies"] == ["_quarantine/a.parquet"]
    put_begun(root, "split")
    Record(root).clear(["kmeans"], ANYTHING)
    assert names_below(root) == [FILE_NAME]
    assert (list(Record(root).steps), Record(root).cache) == (["split"], {})


def test_copies_of_a_cache_that_are_told_of_no_more_go(told: tuple[Record, Record], root: Location) -> None:
    write(root, "_quarantine/b.parquet", "_quarantine/theirs")
    told[1].include(told[0], ["_quarantine/b.parquet"])
    assert names_below(root) == [FILE_NAME, "_quarantine/b.parquet", "_quarantine/theirs"]


def test_telling_the_same_of_a_cache_again_changes_no_byte(told: tuple[Record, Record], root: Location) -> None:
    before = (root / FILE_NAME).info()
    Record(root).include(Record(told[0].root), ["_quarantine/a.parquet"])
    assert (root / FILE_NAME).info() == before


# What killed runs left


def test_strays_of_runs_that_are_off_the_record_go_and_nothing_else(root: Location) -> None:
    put_committed(root, "kmeans")
    put_begun(root, "pairwise", token="11111111")
    strays = ("kmeans-00000000/x", "kmeans-22222222/d/x", "pairwise-33333333/x")
    write(root, *(f"{SCRATCH}/{name}" for name in (*strays, "pairwise-11111111/x", "theirs/x", "their file")), "theirs")
    Record(root).remove_strays()
    assert names_below(root) == [
        FILE_NAME,
        f"{SCRATCH}/pairwise-11111111/x",
        f"{SCRATCH}/their file",
        f"{SCRATCH}/theirs/x",
        "theirs",
    ]


def test_a_scratch_folder_without_anything_in_it_goes(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    write(root, f"{SCRATCH}/kmeans-22222222/x")
    Record(root).remove_strays()
    assert not list(tmp_path.iterdir())


def test_a_record_half_written_goes_and_only_that(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    stray = "_0123456789abcdef0123456789abcdef.tmp"
    theirs = [f"below/{stray}", stray.removeprefix("_"), stray.upper(), f"{stray}.tmp", "_0123.tmp", "a.tmp"]
    write(root, stray, *theirs)
    Record(root).remove_strays()
    assert names_below(root) == sorted(theirs)


# What it does not believe


def test_another_format_is_refused(root: Location) -> None:
    (root / FILE_NAME).write_json({"format": 99, "steps": {}})
    with pytest.raises(OutputConflictError, match="format 99; this version of semdedup reads 2"):
        Record(root)


STEP: dict[str, Any] = {"status": "committed", "parameters": {}, "input": SOURCE, "facts": {}, "files": {}}
DAMAGED = {
    "empty": b"",
    "a list": b"[1]",
    "text": b'"x"',
    "cut off": b"{",
    "half": json.dumps({"format": 2, "steps": {"kmeans": STEP}}).encode()[:60],
    "zeros": bytes(100),
    "binary": b"\xff",
    "null": b"null",
    "nothing else": b'{"format": 2}',
    "nothing else of format 1": b'{"format": 1}',
    "steps in a list": b'{"format": 2, "steps": []}',
    "a step is text": b'{"format": 2, "steps": {"kmeans": "x"}}',
    "a cache is text": b'{"format": 2, "steps": {}, "cache": "x"}',
    **{
        f"{name} is {value!r}": json.dumps({"format": 2, "steps": {"kmeans": {**STEP, name: value}}}).encode()
        for name, value in [
            ("status", "done"),
            ("status", None),
            ("parameters", []),
            ("input", "x"),
            ("temporary", "x"),
            ("made_folders", "1"),
            ("files", ["a"]),
            ("files", {"a": "xy"}),
            ("files", {"a": [1]}),
            ("files", {"a": ["1", "sum"]}),
            ("files", {"a": [1, None]}),
            ("facts", "x"),
        ]
    },
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_one_error_with_one_advice_and_is_kept(tmp_path: Path, content: bytes) -> None:
    root = Location.of(tmp_path / "out")
    (root / FILE_NAME).write_bytes(content)
    words = f"{root}/{FILE_NAME} is damaged, or is no record of semdedup .* Choose another output path, or move the "
    with pytest.raises(OutputConflictError, match=f"{words}folder {root} away as a whole"):
        Record(root)
    assert (root / FILE_NAME).read_bytes() == content


OUTSIDE = ["/etc/hosts", "../x", "a/../../x", "a/..", "..", ".", "./a", "", "a//b", "/", "a/", "C:/x", "a\0b"]


def test_the_fast_look_at_a_name_passes_none_that_leads_out_of_the_folder() -> None:
    assert [name for name in OUTSIDE if INSIDE.fullmatch(name)] == []
    names = ["a", "a/b", ".a", "..a", "a.", "a..", "a/.b", "a/...", "...", "a:b", "centroid=3/part.0", "ä/\udcff"]
    assert [name for name in names if not INSIDE.fullmatch(name)] == []


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["files", "old files", "temporary", "copies", "old temporary"])
def test_names_that_lead_out_of_the_folder_are_refused_on_reading(tmp_path: Path, name: str, kind: str) -> None:
    root = Location.of(tmp_path / "out")
    content: dict[str, Any] = {"format": 1 if kind.startswith("old") else 2, "steps": {"kmeans": dict(STEP)}}
    if kind == "copies":
        content["cache"] = {"root": "../cache", "steps": {}, "copies": [name]}
    elif kind == "old files":
        content["steps"]["kmeans"]["files"] = [name]
    else:
        kind = kind.removeprefix("old ")
        content["steps"]["kmeans"][kind] = {name: [1, ""]} if kind == "files" else [name]
    (root / FILE_NAME).write_json(content)
    with pytest.raises(OutputConflictError, match=r"leads out of that folder.*Nothing was changed"):
        Record(root)


@pytest.mark.parametrize(
    "name", ["mine", "_scratch", "_scratch/mine", "_scratch/kmeans-0123abcd/x", "x/kmeans-0123abcd", "_scratch/../x"]
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_scratch_folder_that_no_run_made_is_not_believed(root: Location, name: str, version: int) -> None:
    write(root, "mine/notes.txt", "_scratch/mine/notes.txt")
    steps = {"kmeans": {**STEP, "files": {} if version == 2 else [], "temporary": [name]}}
    (root / FILE_NAME).write_json({"format": version, "steps": steps})
    before = names_below(root)
    with pytest.raises(OutputConflictError):
        Record(root).clear(["kmeans"], ANYTHING)
    assert names_below(root) == before


@pytest.mark.parametrize("name", ["mine/notes.txt", "mine/x.parquet", "_quarantine/d/x.parquet", "_manifest.json"])
def test_a_copy_of_a_cache_that_is_no_quarantine_is_not_believed(root: Location, name: str) -> None:
    write(root, name)
    content = {"format": 2, "steps": {}, "cache": {"root": "../cache", "steps": {}, "copies": [name]}}
    (root / FILE_NAME).write_json(content)
    with pytest.raises(OutputConflictError, match="is damaged"):
        Record(root)


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_that_the_step_cannot_have_written_is_not_deleted(root: Location, version: int) -> None:
    write(root, "mine/notes.txt", "clusters/a")
    names = ["mine/notes.txt", "clusters/a"]
    files = names if version == 1 else {key: [1, ""] for key in names}
    (root / FILE_NAME).write_json({"format": version, "steps": {"kmeans": {**STEP, "files": files}}})
    before = (root / FILE_NAME).read_bytes()
    words = "the step 'kmeans' wrote .*'mine/notes.txt'.*, which it cannot have. Nothing was deleted"
    for written in ({"kmeans": re.compile("clusters/.*")}, {}):
        with pytest.raises(OutputConflictError, match=words):
            Record(root).clear(["kmeans"], written)
    assert names_below(root) == [FILE_NAME, "clusters/a", "mine/notes.txt"]
    assert (root / FILE_NAME).read_bytes() == before


# Records of semdedup 0.1


OLD = {"format": 1, "steps": {"kmeans": {**STEP, "temporary": [], "made_folders": 0, "files": ["clusters/a"]}}}


def test_a_run_does_not_go_on_with_a_record_of_format_1(root: Location) -> None:
    (root / FILE_NAME).write_json(OLD)
    record = Record(root)
    assert (record.steps, record.committed("kmeans"), record.files) == ({}, None, {"clusters/a"})
    with pytest.raises(OutputConflictError, match=r"that semdedup 0\.1 made, .* clear_output=True \(--overwrite\)"):
        record.check("kmeans", {}, SOURCE)
    record.check("pairwise", {}, SOURCE)


def test_a_record_of_format_1_is_cleared_with_its_files(root: Location) -> None:
    (root / FILE_NAME).write_json(OLD)
    write(root, "clusters/a", "clusters/theirs")
    Record(root).clear(["kmeans"], ANYTHING)
    assert names_below(root) == ["clusters/theirs"]


def test_a_record_of_format_1_is_not_cleared_in_part(root: Location) -> None:
    steps = {**OLD["steps"], "split": {**STEP, "files": []}}  # type: ignore[dict-item]
    (root / FILE_NAME).write_json({"format": 1, "steps": steps})
    write(root, "clusters/a")
    with pytest.raises(OutputConflictError, match=r"several steps that semdedup 0\.1 made"):
        Record(root).clear(["kmeans"], ANYTHING)
    assert names_below(root) == [FILE_NAME, "clusters/a"]
