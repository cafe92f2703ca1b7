"""The manifest: begin, announce, commit, resume, refuse, clear."""

import json
import re
from pathlib import Path

import pytest

from semdedup import InputError, OutputConflictError, ParameterError
from semdedup.runs.record import FILE_NAME, SCRATCH, Manifest, fingerprint
from semdedup.storage.location import FileInfo, Location
from tests.helpers import STORAGES, location_in

FILES = [FileInfo("a", 10, "1"), FileInfo("b", 20, "1")]
SOURCE = fingerprint(FILES)


@pytest.fixture(params=STORAGES)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """The folder of a result."""
    return location_in(request, tmp_path, "out")


def write(root: Location, *names: str) -> None:
    for name in names:
        (root / name).write_bytes(b"x")


def names_below(root: Location) -> list[str]:
    return [file.url[len(root.url) + 1 :] for file in root.files()]


def test_a_folder_without_a_manifest_has_no_steps(root: Location) -> None:
    manifest = Manifest(root)
    assert (manifest.steps, manifest.files, manifest.committed("kmeans")) == ({}, set(), None)
    manifest.check("kmeans", {"k": 3}, SOURCE)
    assert names_below(root) == []


def test_a_step_is_begun_then_committed_and_found_again(root: Location) -> None:
    manifest = Manifest(root)
    manifest.begin("kmeans", {"k": 3}, SOURCE, ["_scratch"])
    assert Manifest(root).committed("kmeans") is None
    manifest.commit("kmeans", ["kmeans_results/b", "kmeans_results/a"], {"rows": 5})
    record = Manifest(root).committed("kmeans")
    assert record is not None
    assert (record["facts"], record["files"]) == ({"rows": 5}, ["kmeans_results/a", "kmeans_results/b"])
    assert {"python", "semdedup", "dask", "numpy", "pandas", "pyarrow"} == record["versions"].keys()
    assert Manifest(root).files == {"kmeans_results/a", "kmeans_results/b"}


def test_beginning_again_changes_nothing(root: Location) -> None:
    manifest = Manifest(root)
    manifest.begin("kmeans", {"k": 3}, SOURCE, ["_scratch"])
    before = (root / FILE_NAME).read_bytes()
    manifest.begin("kmeans", {"k": 3}, SOURCE, ["_scratch"])
    Manifest(root).begin("kmeans", {"k": 3}, SOURCE, ["_scratch"])
    assert (root / FILE_NAME).read_bytes() == before
    manifest.commit("kmeans", [], {})
    Manifest(root).begin("kmeans", {"k": 3}, SOURCE, ["_scratch"])
    assert Manifest(root).committed("kmeans"), "a step that was committed stays so"


def test_steps_are_kept_apart(root: Location) -> None:
    manifest = Manifest(root)
    manifest.begin("kmeans", {"k": 3}, SOURCE, [])
    manifest.commit("kmeans", ["a"], {})
    manifest.begin("pairwise", {"batch": 1}, SOURCE, [])
    assert Manifest(root).committed("kmeans")
    assert not Manifest(root).committed("pairwise")
    Manifest(root).check("pairwise", {"batch": 1}, SOURCE)
    with pytest.raises(OutputConflictError, match="the step 'pairwise'"):
        Manifest(root).check("pairwise", {"k": 3}, SOURCE)


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
    manifest = Manifest(Location.of(tmp_path))
    manifest.begin("kmeans", PARAMETERS, SOURCE, [])
    with pytest.raises(OutputConflictError, match=re.escape(str(tmp_path))) as found:
        Manifest(Location.of(tmp_path)).check("kmeans", parameters, fingerprint(files))
    assert [line.strip() for line in str(found.value).splitlines()[1:-1]] == differences
    assert str(found.value).endswith("with clear_output=True (--overwrite).")
    with pytest.raises(OutputConflictError, match=r"\(--overwrite\)\. Do this instead\.$"):
        manifest.check("kmeans", {}, hint="Do this instead.")


def test_the_same_parameters_and_input_pass_however_they_were_written(tmp_path: Path) -> None:
    manifest = Manifest(Location.of(tmp_path))
    manifest.begin("kmeans", PARAMETERS, SOURCE, [])
    for again in (manifest, Manifest(Location.of(tmp_path))):
        again.check("kmeans", {**PARAMETERS, "pair": [1, 2]}, fingerprint(FILES[::-1]))
        again.check("kmeans", PARAMETERS)
        again.check("another", {"anything": 1}, SOURCE)


def test_the_fingerprint_tells_inputs_apart_but_not_their_order() -> None:
    assert fingerprint(FILES[::-1]) == SOURCE
    assert (SOURCE["files"], SOURCE["bytes"]) == (2, 30)
    others = [[], FILES[:1], [*FILES, FileInfo("c", 0, "")], [FILES[0], FileInfo("b", 20, "2")]]
    digests = {fingerprint(files)["digest"] for files in [FILES, *others]}
    assert len(digests) == 5


def test_clearing_deletes_what_is_on_record_and_nothing_else(root: Location) -> None:
    manifest = Manifest(root)
    manifest.begin("kmeans", {}, SOURCE, ["_partial"])
    write(root, "results/ours", "results/deep/ours", "results/theirs", "_partial/x", "_partial/d/y", "theirs")
    manifest.commit("kmeans", ["results/ours", "results/deep/ours"], {})
    Manifest(root).clear(["kmeans"])
    assert names_below(root) == ["results/theirs", "theirs"]
    assert Manifest(root).steps == {}


def test_clearing_leaves_empty_folders_of_others_and_takes_its_own(tmp_path: Path) -> None:
    root = Location.of(tmp_path / "out")
    manifest = Manifest(root)
    manifest.begin("kmeans", {}, SOURCE, [])
    write(root, "a/b/c/ours", "a/theirs/ours")
    (tmp_path / "out/a/theirs/empty").mkdir()
    manifest.commit("kmeans", ["a/b/c/ours", "a/theirs/ours"], {})
    manifest.clear(["kmeans"])
    assert [str(path.relative_to(tmp_path)) for path in sorted((tmp_path / "out").rglob("*"))] == [
        "out/a",
        "out/a/theirs",
        "out/a/theirs/empty",
    ]


def test_clearing_finds_what_a_killed_run_was_putting_in_place(root: Location) -> None:
    manifest = Manifest(root)
    manifest.begin("kmeans", {}, SOURCE, ["_partial_results"])
    manifest.announce("kmeans", ["results/a", "results/b"])
    write(root, "results/a", "_partial_results/b")  # killed in the middle of the move
    Manifest(root).clear(["kmeans"])
    assert names_below(root) == []


def test_clearing_what_semdedup_did_not_write_deletes_nothing(root: Location) -> None:
    write(root, "a", "_manifest.txt")
    Manifest(root).clear(["kmeans"])
    assert names_below(root) == ["_manifest.txt", "a"]


def test_clearing_one_step_leaves_the_others(root: Location) -> None:
    manifest = Manifest(root)
    for step in ("split", "kmeans", "pairwise"):
        manifest.begin(step, {}, SOURCE, [f"{SCRATCH}/{step}-00000000"])
        write(root, f"results/{step}", f"{SCRATCH}/{step}-00000000/x")
        if step != "pairwise":
            manifest.commit(step, [f"results/{step}"], {})
    Manifest(root).clear(["kmeans", "identify"])
    again = Manifest(root)
    assert list(again.steps) == ["pairwise", "split"]
    assert again.committed("split")
    left = [f"{SCRATCH}/{step}-00000000/x" for step in ("pairwise", "split")]
    assert names_below(root) == [FILE_NAME, *left, "results/pairwise", "results/split"]
    again.clear(["pairwise"])
    again.clear(["split"])
    assert names_below(root) == ["results/pairwise"], "a file that was never announced is nobody's"


def test_a_step_that_was_being_cleared_is_neither_complete_nor_mixed_with_the_next(
    root: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Manifest(root)
    manifest.begin("split", {}, SOURCE, [])
    manifest.commit("split", [], {})
    manifest.begin("kmeans", {"k": 3}, SOURCE, [f"{SCRATCH}/kmeans-00000000"])
    write(root, "clusters/a", "clusters/b")
    manifest.commit("kmeans", ["clusters/a", "clusters/b"], {})

    def killed(place: Location) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Location, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            manifest.clear(["kmeans"])
    again = Manifest(root)
    assert again.committed("kmeans") is None
    assert again.committed("split")
    with pytest.raises(OutputConflictError, match="clear_output=True"):
        again.check("kmeans", {"k": 4}, SOURCE)
    again.begin("kmeans", {"k": 3}, SOURCE, [f"{SCRATCH}/kmeans-11111111"])
    assert names_below(root) == [FILE_NAME]
    assert again.steps["kmeans"]["status"] == "begun"


@pytest.fixture
def told(root: Location, tmp_path: Path) -> tuple[Manifest, Manifest]:
    """The manifest of a cache with a step in it, and that of a result which tells of it and holds a copy."""
    cache = Manifest(Location.of(tmp_path / "cache"))
    cache.begin("kmeans", {}, SOURCE, [])
    write(cache.root, "clusters/a")
    cache.commit("kmeans", ["clusters/a"], {"rows": 5})
    manifest = Manifest(root)
    write(root, "_quarantine/a")
    manifest.include(cache, ["_quarantine/a"])
    return cache, manifest


def test_the_results_of_a_cache_are_told_of_and_their_copies_are_ours(
    told: tuple[Manifest, Manifest], root: Location
) -> None:
    content = json.loads((root / FILE_NAME).read_bytes())["cache"]
    assert (content["root"], content["steps"]["kmeans"]["facts"]) == (str(told[0].root), {"rows": 5})
    assert Manifest(root).committed("kmeans") is None, "it stands elsewhere"
    Manifest(root).clear(["kmeans"])
    assert names_below(root) == []
    assert names_below(told[0].root) == [FILE_NAME, "clusters/a"]


def test_what_is_told_of_a_cache_stays_while_other_steps_are_cleared(
    told: tuple[Manifest, Manifest], root: Location
) -> None:
    told[1].begin("identify", {}, SOURCE, [])
    Manifest(root).clear(["identify"])
    assert names_below(root) == [FILE_NAME, "_quarantine/a"]
    assert Manifest(root).cache["copies"] == ["_quarantine/a"]
    Manifest(root).begin("split", {}, SOURCE, [])
    Manifest(root).clear(["kmeans"])
    assert names_below(root) == [FILE_NAME]
    assert (list(Manifest(root).steps), Manifest(root).cache) == (["split"], {})


def test_copies_of_a_cache_that_are_told_of_no_more_go(told: tuple[Manifest, Manifest], root: Location) -> None:
    write(root, "_quarantine/b", "_quarantine/theirs")
    told[1].include(told[0], ["_quarantine/b"])
    assert names_below(root) == [FILE_NAME, "_quarantine/b", "_quarantine/theirs"]


def test_a_complete_step_is_reopened_with_its_files_and_facts(root: Location) -> None:
    manifest = Manifest(root)
    manifest.begin("split", {"seconds": 5}, SOURCE, [f"{SCRATCH}/split-00000000"])
    write(root, "clips/a")
    manifest.commit("split", ["clips/a"], {"clips": 1})
    more = fingerprint([*FILES, FileInfo("c", 30, "1")])
    manifest.reopen("split", {"seconds": 5}, more, [f"{SCRATCH}/split-11111111"])
    again = Manifest(root)
    assert again.committed("split") is None
    record = again.steps["split"]
    assert (record["status"], record["files"], record["facts"]) == ("begun", ["clips/a"], {"clips": 1})
    assert record["input"] == more
    assert again.files == {"clips/a"}
    again.begin("split", {}, SOURCE, [f"{SCRATCH}/split-22222222"])
    assert again.scratch("split").name == "split-11111111", "a run that was killed goes on in the same place"
    write(root, f"{SCRATCH}/split-00000000/x", f"{SCRATCH}/split-11111111/x")
    again.remove_strays()
    assert names_below(root) == [FILE_NAME, f"{SCRATCH}/split-11111111/x", "clips/a"]
    again.commit("split", ["clips/a", "clips/b"], {"clips": 2})
    assert Manifest(root).steps["split"]["facts"] == {"clips": 2}


def test_only_a_complete_step_is_reopened(root: Location) -> None:
    manifest = Manifest(root)
    with pytest.raises(ValueError, match=r"'split' of .* is not complete"):
        manifest.reopen("split", {}, SOURCE, [])
    manifest.begin("split", {}, SOURCE, [])
    with pytest.raises(ValueError, match="is not complete"):
        manifest.reopen("split", {}, SOURCE, [])


def test_a_refusal_keeps_what_a_reopened_step_had(root: Location) -> None:
    manifest = Manifest(root)
    manifest.begin("split", {}, SOURCE, [f"{SCRATCH}/split-00000000"])
    write(root, "clips/a")
    manifest.commit("split", ["clips/a"], {"clips": 1})
    manifest.reopen("split", {}, SOURCE, [f"{SCRATCH}/split-11111111"])
    write(root, f"{SCRATCH}/split-11111111/x")
    with pytest.raises(InputError), manifest.refusing("split"):
        raise InputError("no")
    assert Manifest(root).steps["split"]["files"] == ["clips/a"]
    assert names_below(root) == [FILE_NAME, f"{SCRATCH}/split-11111111/x", "clips/a"]


def test_a_step_is_completed_in_place_and_its_scratch_folder_goes(root: Location) -> None:
    manifest = Manifest(root)
    manifest.begin("kmeans", {}, SOURCE, [f"{SCRATCH}/kmeans-00000000"])
    scratch = manifest.scratch("kmeans")
    write(scratch, "output/k=0/a", "beside/centroids", "journal/0.json")
    write(root, "theirs")
    files = ["clusters/k=0/a", "centroids"]
    manifest.complete("kmeans", [(scratch / "output", "clusters"), (scratch / "beside", "")], files, {"rows": 1})
    assert names_below(root) == [FILE_NAME, "centroids", "clusters/k=0/a", "theirs"]
    assert Manifest(root).steps["kmeans"]["files"] == sorted(files)
    if root.is_local:
        assert not Path(f"{root}/{SCRATCH}").exists()


def test_completing_goes_on_after_an_interruption(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    Manifest(root).begin("kmeans", {}, SOURCE, [f"{SCRATCH}/kmeans-00000000"])
    scratch = Manifest(root).scratch("kmeans")
    write(scratch, "output/a", "quarantine/b")
    moves = [(scratch / "output", "clusters"), (scratch / "quarantine", "_quarantine")]
    move = Location.move_into

    def killed(made: Location, target: Location) -> None:
        move(made, target)
        raise KeyboardInterrupt

    manifest = Manifest(root)
    with monkeypatch.context() as patch:
        patch.setattr(Location, "move_into", killed)
        with pytest.raises(KeyboardInterrupt):
            manifest.complete("kmeans", moves, ["clusters/a", "_quarantine/b"], {})
    assert names_below(root) == [FILE_NAME, f"{SCRATCH}/kmeans-00000000/quarantine/b", "clusters/a"]
    Manifest(root).complete("kmeans", moves, ["clusters/a", "_quarantine/b"], {})
    assert names_below(root) == [FILE_NAME, "_quarantine/b", "clusters/a"]
    assert Manifest(root).committed("kmeans")


def test_a_step_works_in_the_first_of_its_folders_until_it_is_committed(root: Location) -> None:
    manifest = Manifest(root)
    manifest.begin("kmeans", {}, SOURCE, ["_scratch/kmeans-0123abcd"])
    again = Manifest(root)
    again.begin("kmeans", {}, SOURCE, ["_scratch/kmeans-99999999"])
    assert again.scratch("kmeans").url == f"{root}/_scratch/kmeans-0123abcd", "a resumed run goes on in the same place"


def test_strays_of_runs_that_are_off_the_record_go_and_nothing_else(root: Location) -> None:
    manifest = Manifest(root)
    manifest.begin("kmeans", {}, SOURCE, [f"{SCRATCH}/kmeans-00000000"])
    manifest.commit("kmeans", [], {})
    manifest.begin("pairwise", {}, SOURCE, [f"{SCRATCH}/pairwise-11111111"])
    strays = ("kmeans-00000000/x", "kmeans-22222222/d/x", "pairwise-33333333/x")
    write(root, *(f"{SCRATCH}/{name}" for name in (*strays, "pairwise-11111111/x", "theirs/x", "their file")), "theirs")
    Manifest(root).remove_strays()
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
    Manifest(root).remove_strays()
    assert not list(tmp_path.iterdir())


def test_a_manifest_half_written_goes_and_only_that(tmp_path: Path) -> None:
    root = Location.of(tmp_path)
    stray = "_0123456789abcdef0123456789abcdef.tmp"
    theirs = [f"below/{stray}", stray.removeprefix("_"), stray.upper(), f"{stray}.tmp", "_0123.tmp", "a.tmp"]
    write(root, stray, *theirs)
    Manifest(root).remove_strays()
    assert names_below(root) == sorted(theirs)


def test_a_refusal_keeps_an_empty_folder_that_was_there_before_and_takes_those_it_made(tmp_path: Path) -> None:
    for there in (True, False):
        root = Location.of(tmp_path / f"{there}" / "of" / "mine")
        if there:
            Path(root.url).mkdir(parents=True)
        manifest = Manifest(root)
        manifest.begin("kmeans", {}, SOURCE, [])
        with pytest.raises(InputError), manifest.refusing("kmeans"):
            raise InputError("no")
        assert Path(root.url).exists() == (tmp_path / f"{there}").exists() == there


@pytest.mark.parametrize("error", [InputError, ParameterError])
def test_a_refusal_takes_back_what_was_begun(root: Location, error: type[Exception]) -> None:
    manifest = Manifest(root)
    manifest.begin("kmeans", {}, SOURCE, [f"{SCRATCH}/kmeans", "_partial"])
    write(root, f"{SCRATCH}/kmeans/x", "_partial/y")
    with pytest.raises(error), manifest.refusing("kmeans"):
        raise error("no")
    assert names_below(root) == []
    assert not root.exists()


def test_a_refusal_keeps_the_steps_before_it_and_what_is_not_ours(root: Location) -> None:
    manifest = Manifest(root)
    manifest.begin("kmeans", {}, SOURCE, [])
    write(root, "clusters/a", "theirs")
    manifest.commit("kmeans", ["clusters/a"], {})
    manifest.begin("pairwise", {}, SOURCE, ["_partial"])
    with pytest.raises(InputError), manifest.refusing("pairwise"):
        raise InputError("no")
    assert names_below(root) == [FILE_NAME, "clusters/a", "theirs"]
    assert list(Manifest(root).steps) == ["kmeans"]


def test_other_failures_leave_a_step_to_be_resumed(root: Location) -> None:
    manifest = Manifest(root)
    manifest.begin("kmeans", {}, SOURCE, ["_partial"])
    write(root, "_partial/x")
    with pytest.raises(RuntimeError), manifest.refusing("kmeans"):
        raise RuntimeError
    assert names_below(root) == [FILE_NAME, "_partial/x"]


def test_another_format_is_refused(root: Location) -> None:
    (root / FILE_NAME).write_json({"format": 99, "steps": {}})
    with pytest.raises(OutputConflictError, match="format 99; this version of semdedup reads 1"):
        Manifest(root)


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b'"x"', b"{", b"\xff"], ids=["empty", "a list", "text", "cut off", "binary"]
)
def test_a_file_of_the_same_name_that_is_no_manifest_is_refused_and_kept(root: Location, content: bytes) -> None:
    (root / FILE_NAME).write_bytes(content)
    with pytest.raises(OutputConflictError, match=f"{root}/{FILE_NAME} is no manifest of semdedup"):
        Manifest(root)
    assert (root / FILE_NAME).read_bytes() == content
