"""Files in columns: the same as a list of them, in a fraction of the memory."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.client_memory import MOST_OF_CLIPS, MOST_OF_FILES, in_a_process, make_files
from semdedup.runs.identity import fingerprint, fingerprint_of
from semdedup.runs.written_files import WrittenFiles
from semdedup.shards.inputs import Inputs
from semdedup.shards.plan import plan_memory
from semdedup.storage import batches, file_list, folders
from semdedup.storage.digests import are_among, digest, digests, repeated
from semdedup.storage.file_list import S3_STAMP, FileInfo, FileList, listing_memory
from semdedup.storage.location import Location
from semdedup.storage.written import Written
from semdedup.video.clip_ids import BY_NAME, BY_PATH, file_id
from semdedup.video.files import printable

NAMES = st.text(st.sampled_from("aB.-_é\udc80\udcff\ud7ff\ue000🎬"), min_size=1, max_size=4)
STAMPS = st.sampled_from(["1", "1700000000000000000", '"' + "ab" * 16 + '"', "", "007", "-0", "None"])
FILES = st.lists(
    st.builds(
        lambda path, n_bytes, stamp: FileInfo("/top/" + "/".join(path), n_bytes, stamp),
        st.lists(NAMES, min_size=1, max_size=3),
        st.integers(0, 2**50),
        STAMPS,
    ),
    max_size=12,
)
"""Files in a few folders, with names that sort otherwise than folders do."""


FIXED = 56 * 2**20
"""Bytes that a client takes whatever it lists: files that are objects at a time, and the batches that these become."""


@pytest.fixture(autouse=True)
def small_batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of three files, so that a few files are many batches."""
    if request.node.get_closest_marker("slow") is None:
        for module in (batches, file_list, folders):
            monkeypatch.setattr(module, "ROWS_PER_BATCH", 3)
        monkeypatch.setattr(file_list, "AT_A_TIME", 2)


@settings(max_examples=25)
@given(FILES, st.data())
def test_columns_hold_the_files_whatever_their_names_and_stamps(files: list[FileInfo], data: st.DataObject) -> None:
    found = FileList.of(files)
    assert list(found) == files
    assert found == files
    assert list(found.urls()) == [file.url for file in files]
    assert found.n_bytes.tolist() == [file.n_bytes for file in files]
    assert list(found.ordered()) == sorted(files, key=lambda file: file.url)
    start, stop, step = data.draw(st.tuples(st.integers(-13, 13), st.integers(-13, 13), st.sampled_from([1, 2, -1])))
    part = found[start:stop:step]
    assert list(part) == files[start:stop:step]
    assert pickle.loads(pickle.dumps(part)) == files[start:stop:step]
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(files), max_size=len(files))), dtype=bool)
    assert list(found.filter(mask)) == [file for file, kept in zip(files, mask, strict=True) if kept]
    assert [found[i] for i in range(len(files))] == files
    positions = {file.url: i for i, file in enumerate(found.ordered().once())}
    assert all(found.ordered().once().position(url) == i for url, i in positions.items())
    assert FileList.joined([found, part]) == files + files[start:stop:step]
    assert found.folders() == {file.url.rpartition("/")[0] for file in files}


@settings(max_examples=25)
@given(FILES, FILES)
def test_an_input_is_identified_alike_by_one_list_and_by_several(ours: list[FileInfo], theirs: list[FileInfo]) -> None:
    whole = fingerprint([*ours, *theirs])
    assert (whole["files"], whole["bytes"]) == (len(ours + theirs), sum(file.n_bytes for file in ours + theirs))
    if len({file.url for file in ours + theirs}) == len(ours + theirs):  # else their order says nothing
        assert fingerprint_of([FileList.of(ours), FileList.of(theirs)]) == whole


@settings(max_examples=25)
@given(FILES, st.data())
def test_a_file_is_known_by_its_checksum_where_it_has_the_size_that_was_written(
    files: list[FileInfo], data: st.DataObject
) -> None:
    known = {
        file.url: Written(file.n_bytes + data.draw(st.integers(0, 1)), f"{i:032x}")
        for i, file in enumerate(files)
        if data.draw(st.booleans())
    }
    entries = [known.get(file.url, Written(-1, "")) for file in files]
    expected = [w.checksum if w.n_bytes == file.n_bytes else file.stamp for w, file in zip(entries, files, strict=True)]
    assert WrittenFiles(known.items()).stamps(files) == expected


def test_folders_are_listed_in_the_order_of_the_paths_of_all_their_files(tmp_path: Path) -> None:
    names = ["a", "b-x/1", "b/1", "b/2", "b/c/3", "b/d", "b.y", "é/1", os.fsdecode(b"\xff/1"), os.fsdecode(b"\x80")]
    names += [f"many/{i}" for i in range(7)] + ["many/3-/a", "many/3x/a"]
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * i)
    found = Location.of(tmp_path).files()
    assert [(file.url, file.n_bytes) for file in found] == sorted(
        (f"{tmp_path}/{name}", i) for i, name in enumerate(names)
    )
    assert found == [Location.of(file.url).info() for file in found]
    assert Location.of(tmp_path).walk().files == found


@given(st.lists(st.sampled_from("abcdef")), st.lists(st.sampled_from("abcxyz")))
def test_digests_stand_for_texts(texts: list[str], others: list[str]) -> None:
    found = digests(texts)
    assert are_among(found, np.sort(digests(others))).tolist() == [text in others for text in texts]
    again, first = repeated(found)
    expected = {i: texts.index(text) for i, text in enumerate(texts) if text in texts[:i]}
    assert dict(zip(again.tolist(), first.tolist(), strict=True)) == expected
    assert digest("é\udcff") == digest("é\udcff".encode(errors="surrogatepass"))


@settings(max_examples=25)
@given(st.lists(st.lists(NAMES.map(lambda name: f"{name}.mp4"), min_size=1, max_size=3), max_size=8))
def test_ids_of_clips_in_columns_are_those_of_each_file(paths: list[list[str]]) -> None:
    names = ["/".join(path) for path in paths if not path[-1].startswith(".")]
    clips = FileList.of(FileInfo(f"/in/clips/{name}", 1, "") for name in names)
    root, none = Location("/in"), FileList()
    for scheme in (BY_NAME, BY_PATH):
        inputs = Inputs(root, clips, none, none, 0, root / "metas", None, root / "clips", scheme)
        found = [clip_id for column in inputs.ids() for clip_id in column.to_pylist()]
        assert found == [printable(file_id(scheme, name)) for name in names]


@pytest.mark.slow
def test_a_client_holds_so_many_bytes_a_listed_file(tmp_path: Path) -> None:
    make_files(tmp_path, 100_000, 100)
    found = in_a_process("files", str(tmp_path))
    assert found["n"] == 100_000
    assert found["peak"] - found["idle"] <= FIXED + 100_000 * (MOST_OF_FILES - FIXED) / 1e6


@pytest.mark.slow
@pytest.mark.parametrize("seed", [None, 1])
def test_a_client_holds_so_many_bytes_a_clip_that_is_planned(seed: int | None) -> None:
    found = in_a_process("clips", 1_000_000, True, seed)
    assert found["n"] == 1_000_000
    grown = found["peak"] - found["idle"]
    assert grown <= FIXED + (MOST_OF_CLIPS - found["idle"] - FIXED) / 10
    named = listing_memory(1_000_000, len("00000000-7c1d-4e5f-8a9b-000000000000.mp4"), S3_STAMP)
    named += listing_memory(1_000_000, len("00000000-7c1d-4e5f-8a9b-000000000000.json"), S3_STAMP)
    expected = named + plan_memory(1_000_000, 1_000_000, 36, seed is not None)
    assert expected == pytest.approx(grown - FIXED, rel=0.2)
