"""`shard` on an object store: the same bytes as on this machine, and no secret anywhere."""

import json
from pathlib import Path
from typing import Any

import distributed
import fsspec
import pytest

from semdedup import InputError, OutputConflictError, StorageError
from semdedup.runs.at_work import PROGRESS
from semdedup.shards import streams
from semdedup.shards.streams import read_clips, writing_stream
from semdedup.storage.location import Location
from tests.helpers import NOWHERE, contents
from tests.shards import make_clips, score_of, sharder, write_scores

SECRET = "canary-secret-0451"
IDS = [f"clip-{i:02d}" for i in range(24)]
OPTIONS: dict[str, Any] = {"semantic_dedup_epsilon": 0.5, "with_embeddings": True}

Bucket = tuple[str, dict]


@pytest.fixture
def source(s3: Bucket, tmp_path: Path) -> str:
    """Clips and scores in the bucket, and here."""
    root = make_clips(tmp_path / "in", IDS)
    write_scores(root / "dedup", {clip_id: score_of(clip_id) for clip_id in IDS})
    fsspec.filesystem("s3", **s3[1]).put(f"{root}/", f"{s3[0]}/in/", recursive=True)
    return f"{s3[0]}/in"


def options(bucket: Bucket) -> dict[str, Any]:
    return {"read_kwargs": {"storage_options": bucket[1]}, "write_kwargs": {"storage_options": bucket[1]}}


def objects(bucket: Bucket, below: str) -> dict[str, bytes]:
    fs = fsspec.filesystem("s3", **bucket[1], use_listings_cache=False)
    prefix = f"{bucket[0]}/{below}/".removeprefix("s3://")
    found = fs.find(f"{bucket[0]}/{below}")
    return {path.removeprefix(prefix): fs.cat_file(path) for path in found if not path.endswith(PROGRESS)}


@pytest.mark.parametrize("layout", ["flat", pytest.param("cosmos", marks=pytest.mark.slow)])
def test_from_a_bucket_to_a_bucket(
    s3: Bucket, source: str, client: distributed.Client, tmp_path: Path, layout: str
) -> None:
    chosen = OPTIONS if layout == "flat" else {"semantic_dedup_epsilon": 0.5, "layout": "cosmos"}
    run = sharder(source, f"{s3[0]}/out", input_semantic_dedup_path=f"{source}/dedup", **chosen, **options(s3))
    result = run.run(client)
    local = sharder(tmp_path / "in", tmp_path / "out", input_semantic_dedup_path=tmp_path / "in" / "dedup", **chosen)
    assert local.run(client).facts == result.facts
    found = objects(s3, "out")
    told = ("manifest.json", "README.md", "_manifest.json", "wdinfo.json", "wdinfo_list.csv")  # they name the source
    kept = {name: content for name, content in found.items() if not name.endswith(told)}
    assert kept == {name: content for name, content in contents(tmp_path / "out").items() if not name.endswith(told)}
    if layout == "flat":
        assert json.loads(found["manifest.json"])["source"] == source
        assert [name for name in kept if name.endswith(".tar")]
    assert not any(SECRET.encode() in content for content in found.values())
    assert run.run(NOWHERE).resumed
    assert objects(s3, "out") == found


def test_from_this_machine_to_a_bucket_and_cleared_again(
    s3: Bucket, client: distributed.Client, tmp_path: Path
) -> None:
    make_clips(tmp_path / "in", IDS[:5])
    sharder(tmp_path / "in", f"{s3[0]}/out", write_kwargs={"storage_options": s3[1]}).run(client)
    assert "00000.tar" in objects(s3, "out")
    with pytest.raises(OutputConflictError, match="samples_per_shard: 10 there, 2 now") as caught:
        sharder(tmp_path / "in", f"{s3[0]}/out", samples_per_shard=2, write_kwargs={"storage_options": s3[1]}).run(
            NOWHERE
        )
    assert SECRET not in str(caught.value)
    again = {"samples_per_shard": 2, "clear_output": True, "write_kwargs": {"storage_options": s3[1]}}
    sharder(tmp_path / "in", f"{s3[0]}/out", **again).run(client)
    assert "00002.tar" in objects(s3, "out")


def test_clips_are_read_in_pieces_and_a_clip_that_has_changed_is_told(
    s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "REMOTE_PIECE", 4)
    root = Location.of(f"{s3[0]}/in", s3[1])
    clips = {"a.mp4": b"0123456789", "b.mp4": b"", "c.mp4": b"01234567", "d.mp4": b"x"}
    for name, content in clips.items():
        (root / name).write_bytes(content)
    listed = [(name, len(content)) for name, content in clips.items()]
    assert [list(pieces) for pieces in read_clips(root, listed)] == [
        [b"0123", b"4567", b"89"], [], [b"0123", b"4567"], [b"x"],
    ]  # fmt: skip
    for size, error in (
        (7, InputError),
        (6, InputError),
        (9, StorageError),
    ):  # of 9, the last piece is not there at all
        with pytest.raises(error, match=r"c\.mp4"):
            [b"".join(pieces) for pieces in read_clips(root, [("a.mp4", 10), ("c.mp4", size)])]


@pytest.mark.parametrize("size", [0, 10, (5 << 20) + 7])
def test_an_object_is_complete_or_absent(s3: Bucket, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("semdedup.storage.s3.PART_BYTES", 5 << 20)
    place = Location.of(f"{s3[0]}/x.tar", s3[1])

    def write(broken: bool) -> None:
        with writing_stream(place, size) as file:
            file.write(bytes(size))
            if broken:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        write(broken=True)
    assert not place.exists()
    write(broken=False)
    assert place.read_bytes() == bytes(size)
