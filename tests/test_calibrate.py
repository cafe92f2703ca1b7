"""An eps from judged pairs: how they are drawn, what the verdicts tell, how surely, and which files are refused."""

import json
from pathlib import Path
from typing import Any

import distributed
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

import semdedup
from semdedup import InputError, OutputConflictError, ParameterError, cli
from semdedup.calibration import intervals
from semdedup.calibration.bands import Bands, BandSample
from semdedup.calibration.intervals import Judged, precision_and_recall
from semdedup.calibration.verdicts import FORMAT, MOST_BYTES
from tests.helpers import workflow
from tests.pages import scores_of

EDGES = [0.0, 0.05, 0.1, 0.2, 0.4]
SCORES = [1.0, 0.97, 0.96, 0.92, 0.91, 0.85, 0.83, 0.7, 0.65, 0.3]


def planted(folder: Path, n: int = 30) -> Path:
    """A table of `n` rows of each of `SCORES`, and one that all others are like."""
    rows = [("best", "best", 0.0)]
    rows += [(f"{score}-{i}", "best", score) for score in SCORES for i in range(n)]
    return scores_of(folder, [rows])


def verdicts_of(folder: Path, same_from: float, n: int = 4) -> dict[str, Any]:
    """Verdicts on the first `n` rows of each of `SCORES`: the same where the score is at least `same_from`."""
    listed = [
        {"id": f"{score}-{i}", "max_id": "best", "score": float(np.float32(score)), "same": score >= same_from}
        for score in SCORES
        for i in range(n)
    ]
    return {"format": FORMAT, "bands": EDGES, "verdicts": listed}


# Which pairs are judged


@given(
    st.lists(st.floats(0, 1, width=32), max_size=60),
    st.lists(st.floats(0, 0.99), min_size=1, max_size=5, unique=True),
    st.integers(0, 60),
)
def test_bands_are_the_rows_that_go_at_one_eps_and_not_before(
    values: list[float], edges: list[float], cut: int
) -> None:
    scores, bands = np.array(values, np.float32), Bands(tuple(sorted(edges)))
    found = bands.of(scores)
    for i, eps in enumerate(bands.edges):
        goes = (scores >= np.float32(1 - eps)) & (scores > 0)
        assert ((found >= 0) & (found <= i)).tolist() == goes.tolist()
    assert ((found < 0) == (scores == 0)).all()
    whole, parts = BandSample(bands, 3), BandSample(bands, 3)
    whole.take(0, 0, scores)
    parts.take(0, 0, scores[:cut])
    parts.take(0, min(cut, len(scores)), scores[cut:])
    assert whole.sizes.tolist() == parts.sizes.tolist() == np.bincount(found[found >= 0], minlength=len(bands)).tolist()
    assert whole.to_judge(100) == parts.to_judge(100)
    assert whole.beyond == parts.beyond
    judged = found[[row for _, row in whole.to_judge(100)]]
    assert np.bincount(judged, minlength=len(bands))[:-1].tolist() == np.minimum(whole.sizes, 3)[:-1].tolist()
    turns = [judged[:i].tolist().count(band) for i, band in enumerate(judged)]
    assert turns == sorted(turns), "one of each band, then a second of each"


def test_each_row_of_a_band_is_drawn_as_often() -> None:
    bands, drawn = Bands((0.5,)), np.zeros(20)
    for file in range(2000):
        sample = BandSample(bands, 5)
        sample.take(file, 7, np.full(20, 0.9, np.float32))
        for _, row in sample.to_judge(5):
            drawn[row - 7] += 1
    assert abs(drawn - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


# What verdicts tell


@settings(max_examples=30)
@given(st.integers(1, 60), st.data())
def test_of_one_band_it_is_the_interval_of_clopper_and_pearson(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    judged = Judged(np.array([10**6, 10**9]), np.array([n, 0]), np.array([k, 0]))
    ((precision, recall),) = precision_and_recall(judged, [1])
    wanted = binomtest(k, n).proportion_ci(method="exact")
    assert precision.estimate == pytest.approx(k / n)
    assert (precision.low, precision.high) == pytest.approx((wanted.low, wanted.high), abs=2e-3)
    assert (recall.low, recall.high) == pytest.approx((0, 1), abs=0.01), "of the other band nothing is known"


def test_bands_count_by_their_size() -> None:
    judged = Judged(np.array([100, 900, 9000]), np.array([10, 10, 20]), np.array([10, 5, 1]))
    found = precision_and_recall(judged, [1, 2, 3])
    assert [share.estimate for share, _ in found] == pytest.approx([1, 550 / 1000, 1000 / 10_000])
    assert [share.estimate for _, share in found] == pytest.approx([100 / 1000, 550 / 1000, 1])
    for pair in found:
        for share in pair:
            assert share.low <= share.estimate <= share.high
    assert found[2][1] == (1, 1, 1), "where all go nothing is missed"


def test_what_was_judged_in_full_is_known() -> None:
    judged = Judged(np.array([4, 6]), np.array([4, 6]), np.array([4, 3]))
    assert precision_and_recall(judged, [1, 2]) == [((1, 1, 1), (4 / 7, 4 / 7, 4 / 7)), ((0.7, 0.7, 0.7), (1, 1, 1))]


def test_intervals_hold_what_is_true(monkeypatch: pytest.MonkeyPatch) -> None:
    """At least as often as they say: of 200 drawings no end misses more often than five standard errors allow."""
    monkeypatch.setattr(intervals, "N_DRAWS", 500)
    rng = np.random.default_rng(0)
    sizes, true = np.array([60, 300, 2000, 40_000]), np.array([60, 270, 1000, 400])
    misses = np.zeros((3, 4))
    for _ in range(200):
        same = rng.hypergeometric(true, sizes - true, 12)
        for j, (precision, recall) in enumerate(precision_and_recall(Judged(sizes, np.full(4, 12), same), [1, 2, 3])):
            kept = true[: j + 1].sum()
            found = kept / sizes[: j + 1].sum(), kept / true.sum()
            ends = zip(found, (precision, recall), strict=True)
            misses[j] += [end for value, share in ends for end in (value < share.low, value > share.high)]
    assert misses.max() / 200 < 0.025 + 5 * np.sqrt(0.025 * 0.975 / 200)


@pytest.mark.parametrize(("same_from", "eps"), [(1.0, 0.0), (0.96, 0.05), (0.91, 0.1), (0.83, 0.2), (0.65, 0.4)])
def test_the_eps_that_parts_the_same_from_the_others_is_recommended(
    same_from: float, eps: float, tmp_path: Path
) -> None:
    folder = planted(tmp_path / "scores")
    found = semdedup.calibrate(str(folder), verdicts_of(folder, same_from))
    assert found.eps == eps
    assert found.precision.estimate == found.recall.estimate == 1
    assert found.precision.low < 1
    assert found.figures["removed"].tolist() == [30, 90, 150, 210, 270]
    assert found.figures["judged"].tolist() == [4, 12, 20, 28, 36]
    assert (found.judged, found.same) == (40, 4 * sum(score >= same_from for score in SCORES))
    assert semdedup.load(str(folder)).rethreshold(eps).duplicates == found.figures.set_index("eps").loc[eps, "removed"]


def test_a_precision_that_is_asked_for_is_reached_at_the_largest_eps_that_has_it(tmp_path: Path) -> None:
    folder = planted(tmp_path / "scores")
    verdicts = verdicts_of(folder, 0.96)
    at = {wish: semdedup.calibrate(str(folder), verdicts, min_precision=wish).eps for wish in (1.0, 0.6, 0.4, 0.0)}
    assert at == {1.0: 0.05, 0.6: 0.1, 0.4: 0.2, 0.0: 0.4}
    verdicts["verdicts"] = [{**entry, "same": entry["id"].endswith("-0")} for entry in verdicts["verdicts"]]
    with pytest.raises(
        ParameterError, match=r"min_precision 0\.9 .* is reached at no eps: the best precision is 0\.25"
    ):
        semdedup.calibrate(str(folder), verdicts, min_precision=0.9)


def test_recall_is_among_the_bands_that_were_judged(tmp_path: Path) -> None:
    folder = planted(tmp_path / "scores")
    verdicts = verdicts_of(folder, 0.91)
    verdicts["verdicts"] = [entry for entry in verdicts["verdicts"] if entry["score"] > 0.8]
    found = semdedup.calibrate(str(folder), verdicts)
    assert found.least_score == pytest.approx(0.8)
    assert found.figures["eps"].tolist() == [0.0, 0.05, 0.1, 0.2]
    assert "a score of at least 0.8" in str(found)


@pytest.mark.slow
def test_it_is_stored_with_the_name_of_the_embedder_and_the_next_page_shows_it(
    client: distributed.Client, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(30, 16))
    rows = np.concatenate([base, base + 0.01 * rng.normal(size=base.shape)]).astype(np.float32)
    numbers = 2**53 + np.arange(60)  # JavaScript would round them
    table = pa.table({"id": numbers, "embedding": pa.array(rows.tolist(), pa.list_(pa.float32()))})
    metadata = {b"semdedup.embedder": b"some model"}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "rows.parquet")
    out = tmp_path / "out"
    workflow(tmp_path / "rows.parquet", out, eps=0.1, n_clusters=1).run(client)
    page = Path(semdedup.write_report(str(out), verbose=False))
    data = json.loads(page.read_text().partition('id="data">')[2].partition("</script>")[0])
    assert data["embedder"] == "some model"
    judged = [{**{k: data["pairs"][i][k] for k in ("id", "max_id", "score")}, "same": True} for i in data["judge"]]
    content = {"format": data["format"], "bands": data["bands"], "verdicts": judged}
    (tmp_path / "verdicts.json").write_text(json.dumps(content))
    found = semdedup.calibrate(str(out), str(tmp_path / "verdicts.json"))
    stored = json.loads((out / "_calibration.json").read_text())
    assert stored["embedder"] == found.embedder == "some model"
    assert stored["eps"] == found.eps
    assert found.path == str(out / "_calibration.json")
    page = Path(semdedup.write_report(str(out), verbose=False))
    assert f"recommends ε = <b>{found.eps:.6g}</b>" in page.read_text()
    assert semdedup.load(str(out)).duplicates == 30, "it is no table of the result"
    (out / "_calibration.json").write_text(json.dumps({**stored, "scores": "others"}))
    page = Path(semdedup.write_report(str(out), verbose=False))
    assert "recommends" not in page.read_text(), "the scores are others now"
    with pytest.raises(InputError, match="page of another result"):
        semdedup.calibrate(str(out), {**content, "verdicts": [{**judged[0], "score": 0.5}]})
    (out / "_calibration.json").write_text("{}")
    with pytest.raises(OutputConflictError, match="is no calibration"):
        semdedup.calibrate(str(out), content)


# Files that are refused


def changed(**changes: Any) -> str:
    good = {"id": "1.0-0", "max_id": "best", "score": 1.0, "same": True}
    content = {"format": FORMAT, "bands": EDGES, "verdicts": [good], **changes}
    return json.dumps(content)


def of_entry(**changes: Any) -> str:
    return changed(verdicts=[{"id": "1.0-0", "max_id": "best", "score": 1.0, "same": True, **changes}])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("not json", "is no JSON"),
        ("", "is no JSON"),
        ("[1]", "is no JSON object, but a list"),
        ("[" * 100_000, "nested deeper|is no JSON"),
        ('{"a":' * 200 + "1" + "}" * 200, "nested deeper"),
        (b"\xff\xfe", "is not UTF-8"),
        ("{}", 'has the format null, and not "semdedup verdicts 1"'),
        (changed(format=["x" * 10_000]), "has the format"),
        (changed(verdicts=[]), "holds no verdicts"),
        (changed(verdicts={"a": 1}), "holds no verdicts"),
        (changed(verdicts=[1]), "verdict 1 of .* is no JSON object"),
        (changed(bands=None), "must be a list of rising eps"),
        (changed(bands=[0.1, 0.1]), "must be a list of rising eps"),
        (changed(bands=[0.1, True]), "must be a list of rising eps"),
        (changed(bands=[-1]), "must be a list of rising eps"),
        (changed(bands=[i / 10**4 for i in range(5000)]), "must be a list of rising eps"),
        (of_entry(id=None), '"id" of verdict 1 of .* must be text or a whole number'),
        (of_entry(id=True), '"id" of verdict 1'),
        (of_entry(max_id=["best"]), '"max_id" of verdict 1'),
        (of_entry(score="1"), '"score" of verdict 1'),
        (of_entry(score=1e300), '"score" of verdict 1'),
        (of_entry(score=0), '"score" of verdict 1'),
        (changed().replace("1.0,", "NaN,"), "NaN"),
        (of_entry(same="yes"), '"same" of verdict 1 of .* must be true or false'),
        (of_entry(id="none"), "1 of the 1 pairs in .* such as 'none' with 'best'"),
        (of_entry(id=7), "1 of the 1 pairs"),
        (of_entry(max_id="other"), "they were judged on the page of another result"),
        (of_entry(score=0.5), "they were judged on the page of another result"),
        (of_entry(same=False), "none of the 1 pairs that were judged is the same"),
        (changed(bands=[0.0], verdicts=[{"id": "0.3-0", "max_id": "best", "score": float(np.float32(0.3)),
                                         "same": True}]), "go at no eps up to 0"),
        (changed(verdicts=[{"id": "1.0-0", "max_id": "best", "score": 1.0, "same": s} for s in (True, False)]),
         "two different verdicts on '1.0-0'"),
    ],
)  # fmt: skip
def test_files_that_tell_nothing_are_refused_in_a_sentence(content: str | bytes, words: str, tmp_path: Path) -> None:
    folder = planted(tmp_path / "scores", 3)
    file = tmp_path / "verdicts.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = CliRunner().invoke(cli.main, ["calibrate", str(folder), str(file)])
    assert done.exit_code == 1
    assert done.output.startswith("error: ")
    assert len(done.output.splitlines()) == 1
    assert len(done.output) < 1000
    with pytest.raises(InputError, match=words):
        semdedup.calibrate(str(folder), str(file))
    assert not (folder / "_calibration.json").exists()


def test_ids_that_the_result_cannot_have_are_of_another_result(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    table = pa.table({"id": [1, 2], "max_id": [1, 1], "cosine_sim_score": pa.array([0, 1], pa.float32())})
    pq.write_table(table, tmp_path / "scores" / "cluster_0.parquet")
    for row_id in ("a", "9" * 40, "1.0-0"):
        with pytest.raises(InputError, match="so they are of another result"):
            semdedup.calibrate(str(tmp_path / "scores"), json.loads(of_entry(id=row_id)))
    for row_id in ("2", 2):
        assert semdedup.calibrate(str(tmp_path / "scores"), json.loads(of_entry(id=row_id, max_id=1))).judged == 1


def test_a_file_that_is_not_there_or_far_too_large_is_not_read(tmp_path: Path) -> None:
    folder = planted(tmp_path / "scores", 3)
    with pytest.raises(InputError, match="no such file"):
        semdedup.calibrate(str(folder), str(tmp_path / "none.json"))
    with pytest.raises(InputError, match="no such file"):
        semdedup.calibrate(str(folder), str(tmp_path))
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(InputError, match="is larger than 100 MiB"):
        semdedup.calibrate(str(folder), str(tmp_path / "large.json"))


def test_result_and_verdicts_may_be_in_a_store(s3: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    bucket, options = s3
    fs = fsspec.filesystem("s3", **options, use_listings_cache=False)
    fs.put(f"{planted(tmp_path / 'scores')}/", f"{bucket}/scores/", recursive=True)
    fs.pipe_file(f"{bucket}/verdicts.json", json.dumps(verdicts_of(tmp_path, 0.91)).encode())
    found = semdedup.calibrate(f"{bucket}/scores", f"{bucket}/verdicts.json", storage_options=options)
    assert json.loads(fs.cat_file(f"{bucket}/scores/_calibration.json"))["eps"] == found.eps == 0.1


def test_the_command_prints_a_table_or_json_and_can_write_nothing(tmp_path: Path) -> None:
    folder, file = planted(tmp_path / "scores"), tmp_path / "verdicts.json"
    file.write_text(json.dumps(verdicts_of(folder, 0.91)))
    done = CliRunner().invoke(cli.main, ["calibrate", str(folder), str(file), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "recommended eps: 0.1" in done.output
    assert "embedder: not known" in done.output
    assert not (folder / "_calibration.json").exists()
    command = ["calibrate", str(folder), str(file), "--json", "--min-precision", "0.5"]
    done = CliRunner().invoke(cli.main, command)
    assert json.loads(done.output)["eps"] == 0.4
    assert (folder / "_calibration.json").exists()
    assert "<td>→</td><td>0.1</td>" in semdedup.calibrate(str(folder), str(file))._repr_html_()
