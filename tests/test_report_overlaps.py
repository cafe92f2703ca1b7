"""Overlaps on the page: what is counted, how the two videos are aligned, and which frames stand above each other."""

import base64
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from PIL import Image

import semdedup
from semdedup import InputError, OutputConflictError
from semdedup.compute.progress import Reporter
from semdedup.report.aligned import NARROWEST, WIDTH, bars
from semdedup.report.moments import find_videos, load_moments
from semdedup.report.overlaps import N_SHOWN, Overlap, survey_overlaps, varied
from semdedup.runs.record import FORMAT
from semdedup.storage.location import Location
from semdedup.video.child import borrowed_child
from semdedup.video.options import Limits
from semdedup.video.stills import StillsJob, take_stills
from tests.pages import HOSTILE, Seen, scores_of
from tests.splits import embedder, splitter
from tests.videos import make_video, number_of, numbers

RATE = 25
COLUMNS = ("video_a", "start_a_s", "end_a_s", "video_b", "start_b_s", "end_b_s", "speed", "score", "mirrored")
HIGHLIGHT = ("match.mp4", 3.0, 7.0, "highlight.mp4", 1.0, 5.0, 1.0, 0.9731, False)
AGAIN = ("match.mp4", 0.0, 1.5, "match.mp4", 6.0, 7.5, 1.0, 0.99, False)


def write_overlaps(output: Path, rows: list[tuple[Any, ...]], clips: list[str] = [], n_files: int = 1) -> Path:  # noqa: B006
    """What `find_overlaps` writes."""
    schema = pa.schema(
        [(name, pa.string() if "video" in name else pa.float64()) for name in COLUMNS[:-1]] + [("mirrored", pa.bool_())]
    )
    (output / "overlaps").mkdir(parents=True)
    (output / "overlap_duplicates").mkdir()
    for i in range(n_files):
        columns = [[row[j] for row in rows[i::n_files]] for j in range(len(COLUMNS))]
        pq.write_table(pa.table(columns, schema=schema), output / "overlaps" / f"part-{i}.parquet")
    spans = {"start_s": [0.0] * len(clips), "end_s": [1.0] * len(clips)}
    gone = pa.table({"id": pa.array(clips, pa.string()), "video": pa.array(["a"] * len(clips), pa.string()), **spans})
    pq.write_table(gone, output / "overlap_duplicates" / "part-0.parquet")
    write_record(output, {"overlaps": {"status": "committed"}})
    return output


def write_record(output: Path, steps: dict[str, Any]) -> None:
    (output / "_manifest.json").write_text(json.dumps({"format": FORMAT, "steps": steps}))


@pytest.fixture(scope="module")
def made(inside: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a run leaves it: clips of two seconds of two videos whose frames tell their numbers, overlaps and scores."""
    root = tmp_path_factory.mktemp("overlaps")
    make_video(root / "videos" / "match.mp4", 10 * RATE, size=(128, 72))
    pictures = list(numbers(7 * RATE, (128, 72), first=2 * RATE))  # its second 1 is second 3 of the match
    make_video(root / "videos" / "highlight.mp4", pictures=pictures)
    splitter(root / "videos", root / "out" / "clips").run(inside)
    ids = [path.stem for path in sorted((root / "out" / "clips" / "clips").iterdir())]
    shutil.copytree(scores_of(root / "scores", [[(i, ids[0], 0.5) for i in ids]]), root / "out", dirs_exist_ok=True)
    write_overlaps(root / "out" / "overlaps", [HIGHLIGHT, AGAIN], ids[:3])
    write_overlaps(root / "out" / "overlaps-0002", [], ids[2:4])
    return root


@pytest.fixture(scope="module")
def page(made: Path) -> str:
    """Of the root of the run."""
    return page_of(made / "out", made / "page.html")


def numbers_shown(seen: Seen, card: int) -> list[list[int]]:
    """The numbers that the frames of both strips of an overlap show."""
    strips = seen.page.query_selector_all("article.overlap")[card].query_selector_all(".moments")
    sources = [[image.get_attribute("src") for image in strip.query_selector_all("img")] for strip in strips]
    return [[number_of(decoded(source)) for source in strip] for strip in sources]


def decoded(source: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
        return np.asarray(picture.convert("RGB"))


def page_of(results: Path, target: Path, **options: Any) -> str:
    return semdedup.write_report(str(results), output_path=str(target), verbose=False, **options)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_frames_of_both_videos_are_of_the_same_moments(page: str, browser: Any, width: int) -> None:
    seen = Seen(browser, page, width)
    assert seen.quiet()
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    tiles = [" ".join(tile.inner_text().split()) for tile in seen.page.query_selector_all("#overlaps .tile")]
    assert tiles == [
        "2 overlaps",
        "1 pair of videos, 1 video repeats a part",
        "5.5 seconds in all",
        "4 clips go by overlap",
    ]
    first, second = seen.page.query_selector_all("article.overlap")
    assert "0:03.0 – 0:07.0 of 0:10.0" in first.inner_text()
    assert "0:01.0 – 0:05.0 of 0:07.0" in first.inner_text()
    assert "twice in one video" in second.inner_text()
    (match, highlight), again = numbers_shown(seen, 0), numbers_shown(seen, 1)
    assert match == highlight == [int((3 + 4 * (i + 0.5) / 5) * RATE) for i in range(5)]
    assert again == [[int((start + 1.5 * (i + 0.5) / 5) * RATE) for i in range(5)] for start in (0, 6)]
    marks = [mark.bounding_box() for mark in first.query_selector_all(".mark")]
    assert marks[0]["x"] == pytest.approx(marks[1]["x"], abs=0.5)
    assert marks[0]["width"] == pytest.approx(marks[1]["width"], abs=0.5)
    pictures = [image.bounding_box() for image in first.query_selector_all(".moments img")]
    shown = [box["x"] for box in pictures if box]
    assert shown[: len(shown) // 2] == shown[len(shown) // 2 :], "they stand above each other"
    assert len(shown) == (10 if width > 760 else 6)


def test_without_javascript_it_is_all_there(page: str, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(Path(page).as_uri())
    assert opened.locator("article.overlap img").count() == 20
    assert opened.locator("nav a[href='#overlaps']").is_visible()
    context.close()


@pytest.mark.slow
def test_where_clips_are_gone_the_video_is_asked_and_then_nobody(
    made: Path, page: str, browser: Any, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(made / "out", tmp_path / "out"))
    with_clips = numbers_shown(Seen(browser, page), 0)
    metas = list((out / "clips" / "metas" / "v0").iterdir())
    spans = {path.stem: json.loads(path.read_bytes())["duration_span"] for path in metas}
    for clip, (start_s, _) in spans.items():
        if start_s == 4.0:
            (out / "clips" / "clips" / f"{clip}.mp4").unlink()
    for path in metas:
        if json.loads(path.read_bytes())["video"] == "highlight.mp4":
            path.write_text("[]")
    seen = Seen(browser, page_of(out, tmp_path / "r.html"))
    assert numbers_shown(seen, 0) == with_clips
    shutil.rmtree(out / "clips" / "clips")
    table = pq.read_table(out / "clips" / "_videos.parquet")
    away = pa.array([str(tmp_path / "away.mp4")] * len(table), pa.string())
    at = table.schema.get_field_index("url")
    pq.write_table(table.set_column(at, table.schema.field(at), away), out / "clips" / "_videos.parquet")
    with pytest.raises(OutputConflictError, match=r"r\.html has \d+ pictures, and the new page would have none"):
        page_of(out, tmp_path / "r.html")
    seen = Seen(browser, page_of(out, tmp_path / "r.html", overwrite=True))
    assert numbers_shown(seen, 0) == [[], []]
    assert seen.page.locator("#overlaps .grey").count() == 20
    assert "0:03.4" in seen.text("#overlaps")
    assert seen.quiet()


def test_hostile_names_of_videos_show_as_text(browser: Any, tmp_path: Path) -> None:
    names = [HOSTILE, "x" * 3000, "{{ 7 * 7 }}", "../../etc/passwd", "\x00nul", "'\"><img src=x onerror=alert(1)>"]
    rows = [(a, 1.0, 2.0, b, 0.0, 1.0, 1.05, 0.9, True) for a in names for b in names]
    output = write_overlaps(tmp_path / "found", rows)
    (output / "_manifest.json").unlink()
    results = scores_of(tmp_path / "scores", [[("a", "a", 0.0)]])
    path = page_of(results, tmp_path / "r.html", overlaps=str(output), clips=str(tmp_path))
    seen = Seen(browser, path, 390)
    assert seen.quiet()
    assert seen.page.evaluate("document.querySelectorAll('script').length") == 2
    assert seen.page.evaluate("document.querySelectorAll('img').length") == 0
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert len(seen.page.query_selector_all("article.overlap")) == N_SHOWN
    assert "below at 105 % speed" in seen.text("#overlaps")
    assert "mirrored" in seen.text("#overlaps")
    assert f"{N_SHOWN} of {len(rows)} overlaps, the longest of each worse-ranked video first" in seen.text("footer")


def test_a_result_without_overlaps_says_so_or_has_no_such_section(tmp_path: Path) -> None:
    results = scores_of(tmp_path / "scores", [[("a", "a", 0.0)]])
    assert 'id="overlaps"' not in Path(page_of(results, tmp_path / "r.html")).read_text()
    write_overlaps(results / "overlaps", [])
    assert "No stretch of time is shared" in Path(page_of(results, tmp_path / "r.html")).read_text()
    with pytest.raises(InputError, match="no overlaps in"):
        page_of(results, tmp_path / "r.html", overlaps=str(tmp_path / "none"))
    write_record(results / "overlaps", {})
    assert 'id="overlaps"' not in Path(page_of(results, tmp_path / "r.html")).read_text(), "it is not complete"


def test_clips_that_go_only_as_near_duplicates_too_are_told_so(tmp_path: Path) -> None:
    results = scores_of(tmp_path / "scores", [[("a", "a", 0.0)]])
    output = write_overlaps(results / "overlaps", [HIGHLIGHT], ["a"])
    assert "<b>1</b><span>clip goes by overlap</span>" in Path(page_of(results, tmp_path / "r.html")).read_text()
    drop = {"status": "committed", "parameters": {"drop_when": "both"}}
    write_record(output, {"overlaps": {"status": "committed"}, "drop": drop})
    page = Path(page_of(results, tmp_path / "r.html")).read_text()
    assert "<b>1</b><span>clip goes by overlap, if near-duplicate, too</span>" in page


@pytest.mark.parametrize(
    "wrong", [{"end_b_s": [float("nan")]}, {"end_b_s": [0.0]}, {"speed": ["fast"]}, {"speed": None}]
)
def test_tables_that_hold_no_times_are_refused_by_name(wrong: dict[str, Any], tmp_path: Path) -> None:
    output = write_overlaps(tmp_path / "found", [HIGHLIGHT])
    columns = {**pq.read_table(output / "overlaps").to_pydict(), **wrong}
    columns = {name: column for name, column in columns.items() if column is not None}
    pq.write_table(pa.table(columns), output / "overlaps" / "part-0.parquet")
    with pytest.raises(InputError, match=r"part-0\.parquet"):
        survey_overlaps([Location.of(str(output))])


def test_what_is_counted_does_not_depend_on_the_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        (f"v{a}", 0.0, length, f"v{b}", 1.0, 1.0 + length, 1.0, 0.9, False)
        for a, b, length in zip(*rng.integers(0, 9, (2, 200)), rng.uniform(1, 99, 200).round(3), strict=True)
    ]
    found = [survey_overlaps([Location.of(str(write_overlaps(tmp_path / str(n), rows, n_files=n)))]) for n in (1, 3)]
    longest = sorted((Overlap(*row) for row in rows), key=lambda o: -o.seconds)
    assert found[0].shown == found[1].shown == varied(longest)[:N_SHOWN]
    assert found[0].shown[0] in longest[:20]
    assert sorted(varied(longest), key=lambda o: -o.seconds) == longest, "each is there once"
    assert {(each.overlaps, each.pairs) for each in found} == {
        (200, len({(row[0], row[3]) for row in rows if row[0] != row[3]}))
    }
    assert found[0].within == len({row[0] for row in rows if row[0] == row[3]})
    assert found[0].seconds == pytest.approx(sum(row[2] for row in rows))


def test_pictures_of_overlaps_and_of_clips_share_one_budget(
    made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("semdedup.report.strips.MOST_BYTES", 30_000)
    page = Path(page_of(made / "out", tmp_path / "r.html", eps=0.5)).read_text()
    pictures = {part.partition('"')[0] for part in page.split('src="')[1:]}
    assert 0 < sum(map(len, pictures)) <= 30_000
    assert "no picture" in page
    assert "left out, to keep the page small" in page


@pytest.mark.parametrize(
    "overlap",
    [
        Overlap("a", 10, 20, "b", 0, 10, 1.0, 0.9),
        Overlap("a", 0, 1, "b", 7199, 7200, 1.0, 0.9),
        Overlap("a", 5, 15.5, "b", 2, 12, 1.05, 0.9),
        Overlap("a", 0, 10, "a", 20, 30, 1.0, 0.9),
    ],
)
def test_bars_have_one_scale_stay_inside_and_are_aligned(overlap: Overlap) -> None:
    a, b = bars(overlap, 30, 30 if overlap.video_a == overlap.video_b else 7200)
    assert min(a.x, b.x) == 0
    assert max(a.x + a.width, b.x + b.width) == pytest.approx(WIDTH)
    for bar in (a, b):
        assert bar.mark_x >= 0
        assert bar.mark_end <= WIDTH
        assert bar.mark_width >= NARROWEST
    if overlap.video_a != overlap.video_b:
        assert a.width / 30 == pytest.approx(b.width / 7200)
        assert (a.mark_x + a.mark_end) / 2 == pytest.approx((b.mark_x + b.mark_end) / 2, abs=NARROWEST)
    else:
        assert a.mark_end < b.mark_x


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("late.mp4", {"start_pts": 50}),
        ("reordered.mkv", {"options": {"bf": "3", "preset": "medium"}}),
        ("no index.ts", {"options": {"bf": "3", "preset": "medium"}}),
        ("no index.mpg", {"codec": "mpeg2video"}),
        ("turned.mp4", {"rotation": 90}),
    ],
)
def test_stills_are_the_frames_shown_at_their_moments(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    path = make_video(tmp_path / name, 100, gop=30, **options)
    moments = [2.01, 0.0, 0.99, 1.0, 3.99, 7.0]
    with borrowed_child() as child:
        (found,) = child.call(take_stills, StillsJob(str(path), moments, 40, Limits()), 60.0)
    assert [number_of(picture) for picture in found.pictures] == [50, 0, 24, 25, 99, 99]


def test_a_file_that_is_no_video_gives_no_stills_and_a_reason(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    (found,) = take_stills(StillsJob(str(tmp_path / "a.mp4"), [0.0], 40, Limits()))
    assert found is not None
    assert found.pictures == ()
    assert found.fault.startswith("unreadable")


@pytest.mark.parametrize("place", ["disk", "store"])
def test_videos_that_were_embedded_as_they_are_and_clips_in_a_store_are_seen(
    made: Path, inside: distributed.Client, place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if place == "disk":
        embedder(made / "videos", tmp_path / "embedded").run(inside)
        folder = Location.of(str(tmp_path / "embedded"))
    else:
        bucket, options = request.getfixturevalue("s3")
        s3fs.S3FileSystem(**options).put(str(made / "out" / "clips"), f"{bucket}/clips", recursive=True)
        folder = Location.of(f"{bucket}/clips", options)
    videos = find_videos(["match.mp4", "highlight.mp4", "none.mp4"], [folder])
    assert {name: round(video.duration_s, 2) for name, video in videos.items()} == {"match.mp4": 10, "highlight.mp4": 7}
    if place == "store":
        videos = {name: replace(video, url="") for name, video in videos.items()}
    wanted = [("match.mp4", [3.5, 9.9]), ("none.mp4", [1.0]), ("highlight.mp4", [1.5])]
    match, nothing, highlight = load_moments(wanted, videos, 1 << 20, Reporter(False))
    assert [number_of(decoded(picture)) for picture in (*match, *highlight)] == [87, 247, 87]
    assert nothing == [""]
