"""Pairs of clips with their pictures: what `show` shows in a notebook, and in a terminal."""

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest
from PIL import Image

import semdedup
from semdedup import InputError, ParameterError
from semdedup.report.inline import PairsWithPictures, pairs_with_pictures
from tests.helpers import workflow
from tests.pages import HOSTILE, Seen, scores_of
from tests.splits import BRIEF, BRIEF_S, make_folder, make_texture, splitter


@pytest.fixture(scope="module")
def made(inside: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of three videos, one of which is a copy of another, and their dedup: `clips` and `dedup`, as of a run."""
    root = tmp_path_factory.mktemp("made")
    make_folder(root / "videos", ["a.mp4", "b.mp4"], BRIEF_S)
    make_texture(root / "videos" / "copy of a.mp4", sum(b"a.mp4"), BRIEF_S, options={"crf": "30"})
    splitter(root / "videos", root / "clips", **BRIEF).run(inside)
    options: dict[str, Any] = {"eps": 0.5, "metadata_fields": ["video", "start_s", "end_s"]}
    workflow(root / "clips" / "dct3d_embd_parquet", root / "dedup", **options).run(inside)
    return root


@pytest.fixture
def ipython() -> Iterator[Any]:
    """A notebook's shell, as far as what is displayed in it goes."""
    interactiveshell = pytest.importorskip("IPython.core.interactiveshell", reason="notebooks need IPython")
    shell = interactiveshell.InteractiveShell.instance()
    yield shell
    interactiveshell.InteractiveShell.clear_instance()


def opened(found: PairsWithPictures, browser: Any, folder: Path) -> Seen:
    """What a notebook shows, in a browser."""
    (folder / "shown.html").write_text(f"<!DOCTYPE html><meta charset=utf-8>{found._repr_html_()}", encoding="utf-8")
    return Seen(browser, str(folder / "shown.html"))


def pictures(found: PairsWithPictures) -> list[np.ndarray]:
    """The strips, in the order in which they stand."""
    sources = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', found._repr_html_())
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source))), dtype=float) for source in sources]


def test_both_clips_of_a_pair_are_seen_side_by_side_and_nothing_is_fetched(
    made: Path, browser: Any, tmp_path: Path
) -> None:
    result = semdedup.load(str(made / "dedup"))
    found = pairs_with_pictures(result, n=100)
    assert len(found.pairs) == result.duplicates == 2, "n is the most: there are no more pairs than these"
    seen = opened(found, browser, tmp_path)
    assert seen.quiet()
    assert (
        seen.page.evaluate("[...document.images].map(i => [i.naturalWidth > 500, i.naturalHeight])") == [[True, 90]] * 4
    )
    for row, (score, one, other) in enumerate(found._cells()):
        assert f"{result.pairs().cosine_sim_score[row]:.4f}" in score
        assert {name for name in ("copy of a.mp4", ">a.mp4") if name in one + other} == {"copy of a.mp4", ">a.mp4"}
        assert re.search(r"0:0\d\.0 – 0:0\d\.0", one)
    first, second, third, fourth = pictures(found)
    assert np.abs(first - second).mean() < 10 < np.abs(first - third).mean(), "copies are alike, other clips are not"
    assert np.abs(third - fourth).mean() < 10


def test_pairs_on_both_sides_of_the_threshold_can_be_had(made: Path) -> None:
    result = semdedup.load(str(made / "dedup"))
    found = pairs_with_pictures(result, 0.5, 3, borderline=True)
    expected = sorted((pair.score for pair in result.borderline(3, 0.5)), reverse=True)
    assert found.pairs["cosine_sim_score"].tolist() == expected
    assert found.pairs["cosine_sim_score"].between(0.5, 1).sum() == 2
    assert len(pictures(found)) == 6


def test_a_notebook_shows_pictures_and_a_terminal_a_table(
    made: Path, ipython: Any, capsys: pytest.CaptureFixture
) -> None:
    from IPython.utils.capture import capture_output

    result = semdedup.load(str(made / "dedup"))
    with capture_output() as captured:
        result.show(1)
    (output,) = captured.outputs
    assert output.data["text/html"].count("<img") == 2
    type(ipython).clear_instance()
    result.show(1)
    said = capsys.readouterr().out
    assert said.splitlines()[0].split() == ["id", "max_id", "cosine_sim_score"]
    assert result.pairs(n=1)["id"][0] in said
    assert "<" not in said


def test_what_cannot_be_shown_is_said(made: Path, tmp_path: Path) -> None:
    alone = semdedup.load(str(shutil.copytree(made / "dedup", tmp_path / "alone")))
    shown = pairs_with_pictures(alone)._repr_html_()
    assert "<img" not in shown
    assert "name their folder with clips=" in shown
    assert len(pictures(pairs_with_pictures(alone, clips=str(made / "clips")))) == 4
    assert len(pictures(pairs_with_pictures(alone, clips=[str(made / "clips" / "clips")]))) == 4
    with pytest.raises(InputError, match=r"no such folder: .*nowhere"):
        alone.show(clips=str(tmp_path / "nowhere"))
    for nothing in (pairs_with_pictures(alone, n=0), pairs_with_pictures(alone.rethreshold(0.0))):
        for text in (repr(nothing), nothing._repr_html_()):
            assert "no pairs at eps" in text
            assert "a larger eps" in text
    with pytest.raises(ParameterError, match=r"n must be a whole number of at least 0; got 0\.1"):
        alone.show(0.1)  # type: ignore[arg-type]
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(made / "clips" / "clips" / f"{alone.pairs()['id'][0]}.mp4", few)
    (few / f"{alone.pairs()['id'][1]}.mp4").write_bytes(b"no video")
    shown = pairs_with_pictures(alone, clips=str(few))._repr_html_()
    assert (shown.count("<img"), shown.count("no such clip in the folder"), shown.count("cannot be")) == (1, 2, 1)


def test_hostile_ids_and_metadata_show_as_text(made: Path, browser: Any, tmp_path: Path) -> None:
    ids = [HOSTILE, "'\"><img src=x onerror=alert(1)>", "</table><script>alert(1)</script>", "../../etc/passwd"]
    folder = scores_of(tmp_path / "scores", [[("a", "a", 0.0), *((row_id, "a", 0.99) for row_id in ids)]])
    metas = tmp_path / "clips" / "metas" / "v0"
    metas.mkdir(parents=True)
    (metas / "a.json").write_text(json.dumps({"video": HOSTILE, "duration_span": [0, 1]}))
    clip = next((made / "clips" / "clips").iterdir())
    for name in ("a.mp4", f"{ids[1]}.mp4"):
        (tmp_path / "clips" / "clips").mkdir(exist_ok=True)
        shutil.copy(clip, tmp_path / "clips" / "clips" / name)
    found = pairs_with_pictures(semdedup.load(str(folder)), 0.1, clips=str(tmp_path / "clips"))
    seen = opened(found, browser, tmp_path)
    assert seen.quiet()
    assert len(found.pairs) == 4
    assert seen.page.evaluate("document.scripts.length") == 0
    assert all(row_id in seen.text("table") for row_id in ids)
    assert seen.page.evaluate("[...document.images].every(i => i.src.startsWith('data:image/jpeg') && i.naturalWidth)")
    assert seen.page.evaluate("document.images.length") == 5
