"""The manifest: begin, commit, resume, refuse, clear."""

from pathlib import Path

import pytest

from semdedup import InputError, OutputConflictError
from semdedup.manifest import FILE_NAME, Manifest, fingerprint
from semdedup.storage import FileInfo, Location

SOURCE = fingerprint([FileInfo("a", 10, "1"), FileInfo("b", 20, "1")])


@pytest.fixture
def root(tmp_path: Path) -> Location:
    return Location.of(tmp_path / "out")


def test_a_step_is_begun_then_committed_and_found_again(root: Location) -> None:
    manifest = Manifest(root)
    manifest.begin("kmeans", {"k": 3}, SOURCE, ["_scratch"])
    assert Manifest(root).committed("kmeans") is None
    manifest.commit("kmeans", ["kmeans_results/a"], {"rows": 5})
    record = Manifest(root).committed("kmeans")
    assert record is not None
    assert (record["facts"], record["files"]) == ({"rows": 5}, ["kmeans_results/a"])
    assert "semdedup" in record["versions"]


def test_every_difference_is_named(root: Location) -> None:
    manifest = Manifest(root)
    manifest.begin("kmeans", {"k": 3, "tol": 0.1, "same": None}, SOURCE, [])
    manifest.check("kmeans", {"k": 3, "tol": 0.1, "same": None}, SOURCE)
    manifest.check("another", {}, SOURCE)
    with pytest.raises(OutputConflictError, match=r"(?s)k: 3 there, 4 now.*tol: 0.1 there, 0.2 now.*clear_output"):
        manifest.check("kmeans", {"k": 4, "tol": 0.2, "same": None}, SOURCE)
    with pytest.raises(OutputConflictError, match="changed since"):
        manifest.check(
            "kmeans", {"k": 3, "tol": 0.1, "same": None}, fingerprint([FileInfo("a", 10, "2"), FileInfo("b", 20, "1")])
        )


def test_the_fingerprint_does_not_depend_on_the_order_of_the_files() -> None:
    assert fingerprint([FileInfo("b", 20, "1"), FileInfo("a", 10, "1")]) == SOURCE


def test_clearing_deletes_what_is_on_record_and_nothing_else(root: Location) -> None:
    manifest = Manifest(root)
    manifest.begin("kmeans", {}, SOURCE, ["_partial"])
    for name in ("results/ours", "results/deep/ours", "results/theirs", "_partial/x", "theirs"):
        (root / name).write_bytes(b"x")
    Path(root.url, "empty of theirs").mkdir()
    manifest.commit("kmeans", ["results/ours", "results/deep/ours"], {})
    manifest.clear()
    left = sorted(str(path.relative_to(root.url)) for path in Path(root.url).rglob("*"))
    assert left == ["empty of theirs", "results", "results/theirs", "theirs"]


def test_a_refusal_takes_back_what_was_begun(root: Location) -> None:
    manifest = Manifest(root)
    manifest.begin("kmeans", {}, SOURCE, ["_scratch/kmeans"])
    (root / "_scratch/kmeans/x").write_bytes(b"x")
    with pytest.raises(InputError), manifest.refusing("kmeans"):
        raise InputError("no rows")
    assert not Path(root.url).exists()


def test_another_format_is_refused(root: Location) -> None:
    (root / FILE_NAME).write_json({"format": 99, "steps": {}})
    with pytest.raises(OutputConflictError, match="99"):
        Manifest(root)
