"""`VideoEmbedWorkflow`: embeddings of clips that exist, whether `split` made them or not."""

import json
import shutil
from pathlib import Path

import distributed
import numpy as np
import pyarrow.parquet as pq
import pytest

import semdedup
from semdedup import OutputConflictError, ParameterError, SemanticDeduplicationWorkflow, VideoEmbedWorkflow
from semdedup.shards.workflow import ShardWorkflow
from semdedup.video.of_clips import CLIPS_PER_TASK
from semdedup.video.steps.embed.dct3d import RECOMMENDED_EPS, dct3d
from tests.helpers import NOWHERE, contents, files_below, stamps
from tests.splits import (
    BASE,
    RUN,
    Death,
    copy_folder,
    embedder,
    make_folder,
    make_texture,
    matrix,
    read_metas,
    read_rows,
    run_to_death,
    splitter,
)
from tests.videos import DCT3D, flat, make_video, read_frames, split

CLIPS = ("a.mp4", "below/b.mkv", "c.webm")


pytestmark = pytest.mark.usefixtures("kept_children")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of somebody else, in three containers. Nobody may change them."""
    folder = tmp_path_factory.mktemp("clips")
    make_texture(folder / CLIPS[0], 1, 2)
    make_texture(folder / CLIPS[1], 2, 3.5, (96, 64))
    make_texture(folder / CLIPS[2], 3, 1, codec="libvpx", options={"deadline": "realtime"})
    return folder


@pytest.fixture
def clips(made: Path, tmp_path: Path) -> Path:
    """A copy of them, which may be changed."""
    return copy_folder(made, tmp_path / "mine")


@pytest.fixture(scope="module")
def made_split(client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a split without embeddings wrote of two videos of 5 seconds. Nobody may change it."""
    place = tmp_path_factory.mktemp("split")
    make_folder(place / "in", ("x.mp4", "below/y.mp4"), 5)
    splitter(place / "in", place / "out", generate_embeddings=False).run(client)
    return place / "out"


@pytest.fixture
def done(made_split: Path, tmp_path: Path) -> Path:
    """A copy of it, which may be changed."""
    return copy_folder(made_split, tmp_path / "done")


def vector_of(path: Path) -> np.ndarray:
    """What `dct3d` makes of a whole video in this process."""
    ((clip,), _) = split(path, None, duration_s=100, min_length_s=0.1, sampling=DCT3D)
    return dct3d(clip.frames)


def mean_colour(frames: np.ndarray) -> np.ndarray:
    """A user's embedder."""
    return frames.reshape(-1, 3).mean(axis=0).astype(np.float32)


class Named:
    """A user's embedder with a name and wishes."""

    n_frames, frame_size, recommended_eps = 4, (12, 16), 0.25

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        assert frames.shape == (4, 12, 16, 3)
        return frames.mean(axis=(1, 2, 3))


# Clips of somebody else


@pytest.fixture(scope="module")
def embedded(made: Path, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their embeddings."""
    out = tmp_path_factory.mktemp("embedded") / "out"
    embedder(made, out).run(client)
    return out


def test_nothing_is_written_but_embeddings_and_what_a_later_run_goes_by(embedded: Path) -> None:
    assert files_below(embedded) == [
        "_dct3d_embd_parquet_clips.parquet",
        "_manifest.json",
        "dct3d_embd_parquet/part-00000.parquet",
        "fingerprints/part-00000.parquet",
    ]


def test_ids_are_the_names_of_the_files_and_the_rows_tell_of_each_as_a_whole(made: Path, embedded: Path) -> None:
    rows = read_rows(embedded)
    assert rows["id"].tolist() == ["a", "b", "c"]
    assert rows["video"].tolist() == list(CLIPS)
    assert rows["start_s"].tolist() == [0, 0, 0]
    assert rows["end_s"].tolist() == rows["duration_s"].tolist() == [2.0, 3.5, 1.0]
    assert rows["n_frames"].tolist() == [20, 35, 10]
    assert rows[["width", "height"]].values.tolist() == [[64, 48], [96, 64], [64, 48]]
    assert rows["fps"].tolist() == [10, 10, 10]
    assert not rows["low_information"].any()
    for row in rows.itertuples():
        size = (made / row.video).stat().st_size
        assert 0.5 * size < row.bitrate * row.duration_s / 8 <= size


def test_vectors_are_those_of_the_files(made: Path, embedded: Path) -> None:
    found = matrix(read_rows(embedded))
    np.testing.assert_array_equal(found, [vector_of(made / name) for name in CLIPS])
    told = pq.read_schema(embedded / "dct3d_embd_parquet" / "part-00000.parquet").metadata
    assert told[b"semdedup.embedder"] == b"dct3d"
    assert float(told[b"semdedup.recommended_eps"]) == RECOMMENDED_EPS


def test_without_an_output_the_embeddings_stand_beside_the_clips(
    clips: Path, embedded: Path, client: distributed.Client
) -> None:
    result = embedder(clips).run(client)
    assert (result.processed, result.clips, result.embedded) == (3, 3, 3)
    assert result.paths["embeddings"] == str(clips / "dct3d_embd_parquet")
    assert read_rows(clips).equals(read_rows(embedded))
    before = stamps(clips)
    assert embedder(clips).run(NOWHERE).processed == 0
    assert stamps(clips) == before


@pytest.mark.parametrize("per_task", [1, 2])
def test_how_clips_go_together_makes_no_difference(
    per_task: int,
    made: Path,
    embedded: Path,
    client: distributed.Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert VideoEmbedWorkflow.per_task == CLIPS_PER_TASK > 3
    monkeypatch.setattr(VideoEmbedWorkflow, "per_task", per_task)
    embedder(made, tmp_path / "out", embedding_batch_size=per_task).run(client)
    assert contents(tmp_path / "out").keys() == contents(embedded).keys()
    assert read_rows(tmp_path / "out").equals(read_rows(embedded))


def test_clips_that_show_nothing_are_marked(clips: Path, client: distributed.Client, tmp_path: Path) -> None:
    make_video(clips / "dark.mp4", pictures=flat(20), rate=10)
    embedder(clips, tmp_path / "out").run(client)
    marked = read_rows(tmp_path / "out").set_index("id")["low_information"]
    assert marked.to_dict() == {"a": False, "b": False, "c": False, "dark": True}


def test_where_names_are_the_same_ids_are_paths_and_dedup_report_and_shards_take_them(
    client: distributed.Client, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    names = [f"videos/cam.{camera}/episode_{i:06d}.mp4" for camera in ("side", "top") for i in range(2)]
    make_folder(source, names[:3], 1)
    shutil.copy(source / names[0], source / names[3])
    embedder(source).run(client)
    assert read_rows(source)["id"].tolist() == read_rows(source)["video"].tolist() == names
    dedup, options = tmp_path / "dedup", {"eps": RECOMMENDED_EPS, "verbose": False}
    SemanticDeduplicationWorkflow(str(source / "dct3d_embd_parquet"), str(dedup), **options).run(client)
    (duplicate,) = pq.read_table(dedup / "duplicates")["id"].to_pylist()
    assert duplicate in (names[0], names[3])
    page = Path(semdedup.write_report(str(dedup), clips=str(source), verbose=False)).read_text()
    assert page.count('alt="Frames of clip') >= 4
    assert page.count("data:image/jpeg") == 2
    assert "no such clip" not in page
    shards = ShardWorkflow(str(source), str(tmp_path / "out"), input_semantic_dedup_path=str(dedup), verbose=False)
    assert (shards.run(client).kept, shards.run(NOWHERE).duplicates) == (3, 1)
    shutil.rmtree(source / "videos" / "cam.top")
    assert embedder(source).run(NOWHERE).processed == 0, "ids stay paths where names do not repeat any more"


def test_a_folder_that_goes_by_names_refuses_one_that_repeats_and_says_what_to_do(
    clips: Path, client: distributed.Client
) -> None:
    embedder(clips).run(client)
    make_texture(clips / "more" / "a.mkv", 9, 1)
    before = contents(clips)
    with pytest.raises(
        OutputConflictError, match=r"the same id: a\.mp4 and more/a\.mkv\. Rename one; or .*--overwrite"
    ):
        embedder(clips).run(NOWHERE)
    assert contents(clips) == before
    embedder(clips, clear_output=True).run(client)
    assert read_rows(clips)["id"].tolist() == ["a.mp4", "below/b.mkv", "c.webm", "more/a.mkv"]


# Clips of a split


def test_spans_and_videos_of_a_split_come_from_its_metadata(done: Path, client: distributed.Client) -> None:
    embedder(done).run(client)
    rows, metas = read_rows(done), read_metas(done)
    assert rows[["video", "start_s", "end_s"]].values.tolist() == [
        [name, *span] for name in ("below/y.mp4", "x.mp4") for span in ([0, 2], [2, 4], [4, 5])
    ]
    assert set(rows["id"]) == set(metas)
    for row in rows.itertuples():
        meta = metas[row.id]
        assert [row.start_s, row.end_s] == meta["duration_span"]
        assert (row.video, row.bitrate) == (meta["video"], meta["bitrate_source"])
        assert (row.width, row.height, row.n_frames) == (meta["width"], meta["height"], meta["num_frames"])
        np.testing.assert_array_equal(row.embedding, vector_of(done / "clips" / f"{row.id}.mp4"))


def test_the_vectors_are_those_that_split_gives_but_for_what_the_encoder_changed(
    done: Path, made_split: Path, client: distributed.Client, tmp_path: Path
) -> None:
    embedder(done).run(client)
    splitter(made_split.parent / "in", tmp_path / "split").run(client)
    own, by_split = (read_rows(out).set_index("id").sort_index() for out in (done, tmp_path / "split"))
    columns = ["video", "start_s", "end_s", "duration_s", "width", "height", "fps", "bitrate", "n_frames"]
    assert own[columns].equals(by_split[columns])
    scores = (matrix(own) * matrix(by_split)).sum(axis=1)
    assert scores.min() > 0.9
    assert np.abs(matrix(own) @ matrix(by_split).T - np.eye(6)).max() < 0.5


def test_metadata_that_are_malformed_are_named_and_their_clips_embedded_as_if_there_were_none(
    done: Path, client: distributed.Client, capfd: pytest.CaptureFixture
) -> None:
    metas = read_metas(done)
    wrong = ['{"duration_span": 5}', "[1]", '{"video": "\\ud800"}', '{"video": {}}', '{"bitrate_source": NaN}']
    *bad, good = sorted(metas)
    for clip_id, text in zip(bad, wrong, strict=True):
        (done / "metas" / "v0" / f"{clip_id}.json").write_text(text)
    workflow = VideoEmbedWorkflow(str(done))
    result = workflow.run(client)
    said = capfd.readouterr().err
    assert "5 metadata files are malformed; their clips are embedded as if there were none: " in said
    assert f"metas/v0/{bad[0]}.json has duration_span 5, which must be two times in seconds" in said
    assert (result.embedded, result.malformed_metadata) == (6, 5)
    assert ("  with malformed metadata", "5") in result.rows()
    assert VideoEmbedWorkflow(str(done)).run(NOWHERE).malformed_metadata == 5
    rows = read_rows(done).set_index("id")
    for clip_id in bad:
        assert rows.loc[clip_id, ["video", "start_s", "end_s"]].tolist() == [
            f"{clip_id}.mp4",
            0,
            rows.loc[clip_id, "duration_s"],
        ]
    assert rows.loc[good, ["video", "start_s", "end_s"]].tolist() == [
        metas[good]["video"],
        *metas[good]["duration_span"],
    ]


@pytest.mark.parametrize("given", ["clips", "clips/*.mp4", "one file"])
def test_the_clips_of_a_split_may_be_named_themselves(
    given: str, done: Path, client: distributed.Client, tmp_path: Path
) -> None:
    clip = sorted((done / "clips").iterdir())[0]
    path = clip if given == "one file" else done / given
    embedder(path, tmp_path / "out").run(client)
    rows = read_rows(tmp_path / "out").set_index("id")
    assert len(rows) == (1 if given == "one file" else 6)
    assert rows.loc[clip.stem, "video"] == read_metas(done)[clip.stem]["video"]


def test_the_folder_stays_one_that_split_goes_on_with(
    done: Path, made_split: Path, client: distributed.Client, tmp_path: Path
) -> None:
    source = copy_folder(made_split.parent / "in", tmp_path / "in")
    embedder(done).run(client)
    rows = read_rows(done)
    before = stamps(done)
    assert splitter(source, done, generate_embeddings=False).run(NOWHERE).processed == 0
    assert stamps(done) == before
    make_texture(source / "z.mp4", 99, 2)
    splitter(source, done, generate_embeddings=False).run(client)
    assert embedder(done).run(client).processed == 1
    assert len(read_rows(done)) == 7
    assert read_rows(done)[:6].equals(rows)


def test_the_dedup_reads_what_embed_wrote(done: Path, client: distributed.Client, tmp_path: Path) -> None:
    clip = sorted((done / "clips").iterdir())[0]
    shutil.copy(clip, done / "clips" / "copy.mp4")
    embedder(done).run(client)
    found = SemanticDeduplicationWorkflow(
        str(done / "dct3d_embd_parquet"), str(tmp_path / "dedup"), eps=RECOMMENDED_EPS, verbose=False
    ).run(client)
    assert (found.total, found.duplicates) == (7, 1)
    assert pq.read_table(tmp_path / "dedup" / "duplicates")["id"].to_pylist()[0] in (clip.stem, "copy")


# Embedders


def test_two_embedders_stand_side_by_side_and_leave_each_other_alone(
    clips: Path, embedded: Path, client: distributed.Client
) -> None:
    embedder(clips).run(client)
    before = stamps(clips / "dct3d_embd_parquet")
    result = embedder(clips, embedding_algorithm=mean_colour).run(client)
    assert result.paths["embeddings"] == str(clips / "custom_embd_parquet")
    assert stamps(clips / "dct3d_embd_parquet") == before
    assert read_rows(clips).equals(read_rows(embedded))
    rows = read_rows(clips, "custom_embd_parquet")
    assert rows["id"].tolist() == ["a", "b", "c"]
    for row in rows.itertuples():
        colour = np.mean([pixels.mean(axis=(0, 1)) for _, pixels in read_frames(clips / row.video)], axis=0)
        assert row.embedding @ colour / np.linalg.norm(colour) > 0.999
    assert set(json.loads((clips / "_manifest.json").read_bytes())["steps"]) == {
        "embed dct3d_embd_parquet",
        "embed custom_embd_parquet",
    }
    before = stamps(clips)
    for algorithm in ("dct3d", mean_colour):
        embedder(clips, embedding_algorithm=algorithm).run(NOWHERE)
    assert stamps(clips) == before


def test_a_function_with_a_name_has_a_folder_and_an_eps_of_its_own(clips: Path, client: distributed.Client) -> None:
    for name in ("one", "two"):
        embedder(clips, embedding_algorithm=Named(name)).run(client)
        told = pq.read_schema(clips / f"{name}_embd_parquet" / "part-00000.parquet").metadata
        assert (told[b"semdedup.embedder"], told[b"semdedup.recommended_eps"]) == (name.encode(), b"0.25")
    assert matrix(read_rows(clips, "one_embd_parquet")).shape == (3, 4)
    changed = Named("one")
    changed.n_frames = 5
    with pytest.raises(OutputConflictError, match=r"embedding_n_frames: 4 there, 5 now"):
        embedder(clips, embedding_algorithm=changed).run(NOWHERE)


def by_grey_level(frames: np.ndarray) -> np.ndarray:
    """A user's embedder that is right for some clips only."""
    grey = frames.mean()
    if grey > 200:
        raise RuntimeError("too bright")
    return np.ones(5) if grey > 150 else np.full(3, np.nan if grey > 100 else grey)


def test_clips_that_an_embedder_fails_on_are_in_quarantine_and_the_others_are_embedded(
    client: distributed.Client, tmp_path: Path
) -> None:
    for grey in (20, 40, 60, 120, 170, 220):
        make_video(tmp_path / "in" / f"grey{grey}.mp4", pictures=flat(10, grey=grey), rate=10)
    result = embedder(tmp_path / "in", embedding_algorithm=by_grey_level, embedding_batch_size=4).run(client)
    assert (result.clips, result.embedded, result.quarantined_clips) == (6, 3, {"embed_error": 3})
    assert read_rows(tmp_path / "in", "custom_embd_parquet")["id"].tolist() == ["grey20", "grey40", "grey60"]
    rows = pq.read_table(tmp_path / "in" / "_quarantine" / "custom_embd_parquet_clips.parquet").to_pylist()
    assert [(row["id"], row["source"]) for row in rows] == [(f"grey{g}", f"grey{g}.mp4") for g in (120, 170, 220)]
    for row, words in zip(rows, ("not finite", "has 5 elements where most have 3", "too bright"), strict=True):
        assert words in row["detail"]


def test_an_embedder_that_there_is_not_is_refused(clips: Path) -> None:
    with pytest.raises(ParameterError, match="embedding_algorithm must be one of"):
        embedder(clips, embedding_algorithm="resnet")


# Again


def test_clips_that_are_new_or_have_changed_are_embedded_and_no_others(
    clips: Path, client: distributed.Client, tmp_path: Path
) -> None:
    embedder(clips).run(client)
    make_texture(clips / "below" / "b.mkv", 20, 2)
    make_texture(clips / "d.mp4", 21, 2)
    assert embedder(clips).run(client).processed == 2
    embedder(clips, tmp_path / "fresh").run(client)
    assert read_rows(clips).equals(read_rows(tmp_path / "fresh"))


def test_a_limit_leaves_the_rest_for_the_next_run(
    clips: Path, embedded: Path, client: distributed.Client, tmp_path: Path
) -> None:
    counts = []
    for _ in range(3):
        result = embedder(clips, tmp_path / "out", limit=2).run(client)
        counts.append((result.processed, result.left_out, result.embedded))
    assert counts == [(2, 1, 2), (1, 0, 3), (0, 0, 3)]
    assert read_rows(tmp_path / "out").equals(read_rows(embedded))


def test_a_clip_that_turns_bad_leaves_the_rows_and_stays_a_file(done: Path, client: distributed.Client) -> None:
    """It is not ours: a split may own the clips of a folder, this never does."""
    embedder(done).run(client)
    bad = sorted((done / "clips").iterdir())[0]
    bad.write_bytes(b"bad")
    before = {name: content for name, content in contents(done).items() if name.startswith(("clips", "metas"))}
    result = embedder(done).run(client)
    assert result.quarantined == {"unreadable": 1}
    assert before.items() <= contents(done).items()
    assert len(read_rows(done)) == 5
    assert bad.stem not in set(read_rows(done)["id"])
    (row,) = pq.read_table(done / "_quarantine" / "dct3d_embd_parquet.parquet").to_pylist()
    assert (row["id"], row["reason"], row["source"]) == (bad.name, "unreadable", str(bad))


def test_clear_output_clears_the_embeddings_and_leaves_the_clips_and_other_embedders(
    done: Path, client: distributed.Client
) -> None:
    (done / "clips" / "bad.mp4").write_bytes(b"bad")
    embedder(done, embedding_algorithm=Named("one")).run(client)
    embedder(done, embedding_algorithm=Named("two")).run(client)
    kept = {name: content for name, content in contents(done).items() if "two" not in name}
    (done / "clips" / "bad.mp4").unlink()
    del kept["clips/bad.mp4"]

    class Other(Named):
        n_frames = 2

        def __call__(self, frames: np.ndarray) -> np.ndarray:
            return frames.mean(axis=(1, 2, 3))

    embedder(done, embedding_algorithm=Other("two"), clear_output=True).run(client)
    assert kept.items() <= contents(done).items()
    assert matrix(read_rows(done, "two_embd_parquet")).shape == (6, 2)
    assert not (done / "_quarantine" / "two_embd_parquet.parquet").exists()


@pytest.mark.parametrize("death", [Death(BASE, "commit", 1), Death(RUN, "carry_out", 1)], ids=["embedded", "ordered"])
def test_a_run_that_was_killed_goes_on(
    death: Death, clips: Path, embedded: Path, client: distributed.Client, tmp_path: Path
) -> None:
    scheduler = ["--scheduler", client.scheduler.address, "--quiet"]
    run_to_death(death, ["embed", "--input-clip-path", str(clips), "--output-path", str(tmp_path / "out"), *scheduler])
    assert not (tmp_path / "out" / "dct3d_embd_parquet").exists()
    (rows,) = tmp_path.glob("out/_scratch/embed-*/rows")
    before = stamps(rows)
    assert len(before) == 3
    assert embedder(clips, tmp_path / "out").run(client).processed == (3 if death.name == "commit" else 0)
    assert files_below(tmp_path / "out") == files_below(embedded)
    assert read_rows(tmp_path / "out").equals(read_rows(embedded))


@pytest.mark.parametrize("clear_output", [False, True])
def test_a_folder_with_embeddings_of_somebody_else_is_refused(
    clear_output: bool, clips: Path, embedded: Path, client: distributed.Client
) -> None:
    copy_folder(embedded / "dct3d_embd_parquet", clips / "dct3d_embd_parquet")
    before = contents(clips)
    with pytest.raises(OutputConflictError, match=r"1 files .*part-00000\.parquet.*not deleted"):
        embedder(clips, clear_output=clear_output).run(client if clear_output else NOWHERE)
    assert contents(clips) == before
