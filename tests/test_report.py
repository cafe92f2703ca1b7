"""The page, in a real browser; the plot; what is told of a result of any size."""

import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import distributed
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from PIL import Image

import semdedup
from semdedup import InputError, OutputConflictError, ParameterError
from semdedup.dedup.results.removed import RemovedRows
from semdedup.dedup.results.scores import Scores
from semdedup.report import survey as survey_module
from semdedup.report.inline import pairs_with_pictures
from semdedup.report.survey import THRESHOLDS, survey
from semdedup.storage.location import Location
from tests.helpers import workflow
from tests.pages import HOSTILE, Seen, scores_of
from tests.splits import make_folder, make_texture, splitter
from tests.videos import read_frames


@pytest.fixture(scope="module")
def made(client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of four videos, one of which is a copy, and their dedup; one video is broken."""
    root = tmp_path_factory.mktemp("made")
    make_folder(root / "videos", ["a.mp4", "b.mp4", "c.mp4"])
    make_texture(root / "videos" / "copy of a.mp4", sum(b"a.mp4"), options={"crf": "30"})
    (root / "videos" / "broken.mp4").write_bytes(b"broken")
    splitter(root / "videos", root / "split").run(client)
    options: dict[str, Any] = {"eps": 0.5, "n_clusters": 1, "metadata_fields": ["video", "start_s", "end_s"]}
    workflow(root / "split" / "dct3d_embd_parquet", root / "dedup", **options).run(client)
    return root


@pytest.fixture(scope="module")
def pictured(made: Path) -> str:
    """Its page, with pictures."""
    target = str(made / "a b#?%" / "pictured.html")
    return semdedup.write_report(str(made / "dedup"), clips=str(made / "split"), output_path=target, verbose=False)


@pytest.fixture(scope="module")
def plain(made: Path) -> str:
    """Its page without pictures."""
    return semdedup.write_report(str(made / "dedup"), output_path=str(made / "plain.html"), verbose=False)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_shows_the_result_and_asks_for_nothing(pictured: str, browser: Any, width: int) -> None:
    seen = Seen(browser, pictured, width)
    assert seen.quiet()
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    assert seen.text("h1") == "2 of 8 clips are near-duplicates"
    assert (seen.text("#n-rows"), seen.text("#n-kept"), seen.text("#n-dropped")) == ("8", "6", "2")
    groups = seen.page.query_selector_all("article.group")
    assert len(groups) == 2
    for group in groups:
        sources = [each.inner_text() for each in group.query_selector_all(".source")]
        assert sorted(sources) == ["a.mp4", "copy of a.mp4"]
        kept, dropped = (group.query_selector(f".{side} img").bounding_box() for side in ("keptside", "droppedside"))
        assert (kept["x"] < dropped["x"]) == (width > 760)
    pictures = seen.page.evaluate("[...document.images].map(i => [i.naturalWidth, i.naturalHeight])")
    assert len(pictures) >= 6, "places that show the same picture show it all"
    embedded = Path(pictured).read_text().split("data:image/jpeg;base64,")[1:]
    assert len({each.partition('"')[0] for each in embedded}) == len(embedded) < len(pictures), "it is there once"
    assert all(height == 90 and wide == 5 * 120 + 4 * 2 for wide, height in pictures)
    for words in ("videos", "unreadable", "broken.mp4"):
        assert words in seen.text("#quarantine")
    for words in ("kmeans", "pairwise", "identify", "pyarrow"):
        assert words in seen.text("#run")
    assert re.search(r"committed · \d+\.\d s", seen.text("#run"))


def test_the_slider_tells_the_counts_and_pairs_follow_it(made: Path, plain: str, browser: Any) -> None:
    seen = Seen(browser, plain)
    result = semdedup.load(str(made / "dedup"))
    curve = seen.page.evaluate("data.curve")
    for position in range(0, len(curve), 29):
        eps, n = curve[position]
        seen.page.evaluate("position => go(position)", position)
        assert n == result.rethreshold(eps).duplicates
        assert seen.text("#n-dropped") == str(n)
        assert seen.text("#n-kept") == str(8 - n)
        for element in seen.page.query_selector_all("[data-score]"):
            goes = np.float32(element.get_attribute("data-score")) >= np.float32(1 - eps)
            assert element.query_selector(".right .fate").text_content() == ("goes" if goes else "stays")
    seen.page.locator("#reset").click()
    assert seen.text("#n-dropped") == "2"
    assert seen.quiet()


@pytest.mark.parametrize("width", [1280, 390])
def test_slider_and_chart_have_one_scale_and_take_keys(plain: str, browser: Any, width: int) -> None:
    seen = Seen(browser, plain, width)
    seen.page.locator("#eps").focus()
    for key in ("ArrowRight", "PageDown", "ArrowLeft", "End", "Home", "PageUp"):
        before = seen.page.evaluate("at")
        seen.page.keyboard.press(key)
        assert seen.page.evaluate("at") != before
        assert_aligned(seen)
        if key == "End":
            assert "0.999" in seen.text("#eps-value")
            assert "semdedup extract" in seen.text("#command")
    for button in seen.page.query_selector_all(".ranges button")[::3]:
        button.click()
        assert float(seen.text("#eps-value")) <= float(button.get_attribute("data-most"))
        assert_aligned(seen)
    box = seen.page.locator("#curve").bounding_box()
    seen.page.mouse.click(box["x"] + 60, box["y"] + 50)
    assert float(seen.text("#eps-value")) < 0.1
    assert_aligned(seen)
    assert seen.quiet()


def assert_aligned(seen: Seen) -> None:
    """The thumb of the slider, which is 20 pixels wide, is below the marker of the chart."""
    track, chart = (seen.page.locator(name).bounding_box() for name in ("#eps", "#curve"))
    value, most = seen.page.evaluate("[Number(slider.value), Number(slider.max)]")
    thumb = track["x"] + 10 + value / most * (track["width"] - 20)
    assert thumb == pytest.approx(chart["x"] + seen.page.evaluate("x(curve[at][0])"), abs=1)
    assert value == pytest.approx(seen.page.evaluate("curve[at][0]"), abs=1e-6)


def test_eps_in_the_command_is_short_and_drops_the_same(plain: str, browser: Any) -> None:
    seen = Seen(browser, plain)
    for eps in (1 - 47.5 / 96, 0.1, 1 / 3, 2**-20):
        text = seen.page.evaluate("eps => exactEps(eps)", eps)
        assert len(text) <= 12
        assert np.float32(1 - float(text)) == np.float32(1 - eps)


def test_around_any_eps_there_are_pairs_on_both_sides(large: tuple[Path, pd.DataFrame], browser: Any) -> None:
    seen = Seen(browser, semdedup.write_report(str(large[0]), verbose=False))
    for eps in (0.02, 0.05, 0.1, 0.3, 0.6):
        seen.page.evaluate("eps => go(nearest(eps))", eps)
        shown = seen.page.evaluate("cards.filter(card => !card.hidden).map(card => Number(card.dataset.score))")
        assert len(shown) == 12
        assert [score >= np.float32(1 - eps) for score in shown] == [True] * 6 + [False] * 6
        assert max(shown) - min(shown) < 0.4, "they are near"
        edge = seen.page.evaluate("[...list.children].filter(each => !each.hidden).map(each => each.className)")
        assert edge.index("edge") == 6
    seen.page.locator("#all").click()
    assert seen.page.evaluate("cards.every(card => !card.hidden)")
    assert seen.quiet()


CHAIN = [("a", "a", 0.0), ("b", "a", 0.93), ("c", "b", 0.97), ("d", "c", 0.95), ("e", "d", 0.2)]


def test_chains_are_told_at_every_eps(browser: Any, tmp_path: Path) -> None:
    seen = Seen(browser, semdedup.write_report(str(scores_of(tmp_path / "scores", [CHAIN])), eps=0.1, verbose=False))
    told = {score: seen.page.query_selector(f"[data-score^='{score}']") for score in ("0.93", "0.97", "0.94")}
    words = [each.query_selector(".chain").text_content() for each in told.values()]
    assert words == [
        "",
        "The better-ranked clip is itself like a (0.9300). So it goes, too.",
        "The better-ranked clip is itself like b (0.9700), that one like a (0.9300). So it goes, too.",
    ]
    assert [told["0.97"].query_selector(f".{side} .fate").text_content() for side in ("left", "right")] == ["goes"] * 2
    faded = "getComputedStyle(document.querySelector('[data-score^=\"0.93\"] .SIDE')).getPropertyValue('opacity')"
    assert seen.page.evaluate(faded.replace("SIDE", "left")) == "1"
    seen.page.evaluate("go(nearest(0.06))")
    assert told["0.93"].query_selector(".right .fate").text_content() == "stays"
    assert told["0.94"].query_selector(".chain").text_content() == (
        "The better-ranked clip is itself like b (0.9700). So it goes, too."
    )
    assert seen.quiet()


def test_the_rule_is_told_where_the_result_was_made_and_left_open_elsewhere(
    browser: Any, client: distributed.Client, tmp_path: Path
) -> None:
    angles = np.cumsum([0, 0.3, 0.3, 0.3])  # each is like the next, and less like the one after that
    rows = {"id": list("abcd"), "embedding": [[np.cos(a), np.sin(a)] for a in angles], "rank": [1, 2, 3, 4]}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    ranking = semdedup.RankingStrategy.metadata_based(["rank"], ascending=True)
    options: dict[str, Any] = {"eps": 0.1, "n_clusters": 1, "ranking_strategy": ranking, "removal": "witness"}
    workflow(tmp_path / "rows.parquet", tmp_path / "out", **options).run(client)
    seen = Seen(browser, semdedup.write_report(str(tmp_path / "out"), verbose=False))
    fates = "cards.map(card => data.pairs[card.dataset.pair].id + ' ' + card.querySelector('.right .fate').textContent)"
    assert set(seen.page.evaluate(fates)) == {"b goes", "c stays", "d goes"}
    assert "Stays: the better-ranked clip goes, and no clip that stays is as like it." in seen.text(".list")
    assert not seen.page.locator(".elsewhere").first.is_visible()
    seen.page.evaluate("go(nearest(0.06))")
    assert set(seen.page.evaluate(fates)) == {"b goes", "c stays or goes", "d stays or goes"}
    assert "By the rule witness this one goes if a clip that stays is as like it." in seen.text(".list")
    assert seen.page.locator(".elsewhere").first.is_visible()
    for eps, wanted in ((0.06, {"b goes", "c goes", "d goes"}), (0.01, {f"{name} stays or goes" for name in "bcd"})):
        seen.page.evaluate("eps => { data.rule = 'components'; go(nearest(eps)); }", eps)
        assert set(seen.page.evaluate(fates)) == wanted
        assert seen.page.evaluate("cards.some(card => card.querySelector('.left .fate').textContent === 'stays')")
    assert seen.quiet()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_person_judges_pairs_by_keys_and_takes_the_verdicts_along(
    width: int, scheme: str, made: Path, pictured: str, browser: Any
) -> None:
    seen = Seen(browser, pictured, width, scheme)
    order = seen.page.evaluate("data.judge")
    assert len(order) >= 2
    seen.page.locator("#begin").focus()
    seen.page.keyboard.press("Enter")
    assert seen.page.evaluate("document.activeElement.dataset.verdict") == "same"
    assert seen.page.evaluate("stage.scrollWidth <= innerWidth")
    assert not seen.page.locator("#stage .score").count(), "the score is not shown to the judge"
    playing = "[...document.querySelectorAll('#stage video')].map(video => !video.paused && video.videoWidth > 0)"
    seen.wait_until(f"({playing}).length === 2 && ({playing}).every(Boolean)")
    for key in ("n", "ArrowLeft", "s", "ArrowLeft"):
        seen.page.keyboard.press(key)
    assert "You said: the same" in seen.text("#stage .answer")
    seen.page.keyboard.press("p")
    assert seen.page.locator("#stage video").count() == 0
    seen.page.keyboard.press("Escape")
    assert not seen.page.locator("#stage").is_visible()
    seen.page.keyboard.press("Enter")  # the button has the focus again, and goes on with what is not judged
    for _ in order[1:]:
        seen.page.keyboard.press("u")
    assert not seen.page.locator("#stage").is_visible(), "all pairs are judged"
    assert "1 of" in seen.text("#n-judged")
    with seen.page.expect_download() as download:
        seen.page.locator("#download").click()
    content = json.loads(Path(download.value.path()).read_text())
    pair = seen.page.evaluate("data.pairs[data.judge[0]]")
    assert content["verdicts"] == [{name: pair[name] for name in ("id", "max_id", "score")} | {"same": True}]
    assert content["embedder"] == "dct3d"
    assert json.loads(seen.page.input_value("#verdicts")) == content
    found = semdedup.calibrate(str(made / "dedup"), content, store=False)
    assert (found.judged, found.same) == (1, 1)
    stored = seen.page.evaluate("JSON.stringify(localStorage)")
    assert "same" in stored
    # A busy Chromium may have lost what a page of a file stored before it is loaded again, so that it is put back.
    seen.page.add_init_script(f"Object.entries({stored}).forEach(([name, value]) => localStorage.setItem(name, value))")
    seen.page.reload()
    seen.wait_until("document.querySelector('#n-judged').textContent.includes('1 of')")  # verdicts are still there
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    dark = seen.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 22, 29)"
    assert dark == (scheme == "dark")
    assert seen.said == []


def test_clips_play_in_the_page_and_lead_to_their_files(pictured: str, browser: Any) -> None:
    seen = Seen(browser, pictured)
    links = seen.page.evaluate("[...document.querySelectorAll('a.open')].map(link => [link.href, link.rel])")
    assert links
    for href, rel in links:
        assert Path(url2pathname(urlsplit(href).path)).exists()
        assert rel == "noopener noreferrer"
    button = seen.page.locator(".pair:not([hidden]) .play").first
    button.click()
    seen.wait_until("document.querySelector('video').currentTime > 0")
    button.click()
    assert seen.page.locator("video").count() == 0
    assert seen.quiet(), "all that plays is in the page"


def test_clips_in_a_store_have_addresses_to_copy(
    made: Path, s3: tuple[str, dict], browser: Any, tmp_path: Path
) -> None:
    bucket, options = s3
    fs = s3fs.S3FileSystem(**options)
    for folder, name in (("split", "clips"), ("dedup", "dedup")):
        fs.put(str(made / folder), f"{bucket}/a b/{name}", recursive=True)
    shown = pairs_with_pictures(semdedup.load(f"{bucket}/a b/dedup", storage_options=options))
    assert shown._repr_html_().count("data:image/jpeg") == 4, "the clips beside a result in a store are found"
    page = semdedup.write_report(
        str(made / "dedup"),
        clips=f"{bucket}/a b/clips",
        output_path=str(tmp_path / "r.html"),
        storage_options=options,
        verbose=False,
    )
    assert options["secret"] not in Path(page).read_text()
    seen = Seen(browser, page)
    seen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    assert seen.page.locator("a.open").count() == 0
    lines = seen.page.locator(".line:has(.address)")
    addresses = {line.locator(".address").text_content() for line in lines.all()}
    assert addresses <= {f"s3://{name}" for name in fs.ls(f"{bucket}/a b/clips/clips")}
    assert len(addresses) >= 6
    for where in ("article.pair:not([hidden])", "#stage"):
        if where == "#stage":
            seen.page.locator("#begin").click()
        line = seen.page.locator(f"{where} .line:has(.address)").first
        line.locator(".copy").click()
        line.locator(".copy", has_text="copied").wait_for()  # it says so for a moment
        assert seen.page.evaluate("navigator.clipboard.readText()") == line.locator(".address").text_content()
    assert seen.quiet(), "an address is text: the page asks for nothing"


def test_long_clips_are_looked_into_and_not_decoded_as_a_whole(
    made: Path, browser: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("semdedup.report.strips.LONG_S", 1.0)
    monkeypatch.setattr("semdedup.report.strips.split_video", None)
    path = semdedup.write_report(
        str(made / "dedup"), clips=str(made / "split"), output_path=str(tmp_path / "r.html"), verbose=False
    )
    seen = Seen(browser, path)
    assert seen.page.evaluate("[...document.images].every(image => image.naturalWidth === 5 * 120 + 4 * 2)")
    assert not seen.page.locator(".play:not([hidden])").count()
    assert seen.quiet()


def test_a_page_with_pictures_is_not_replaced_by_one_without(
    made: Path, pictured: str, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    out = shutil.copytree(made / "dedup", tmp_path / "alone")
    before, shown = Path(pictured).read_bytes(), out / "report.html"
    shown.write_bytes(before)
    with pytest.raises(OutputConflictError, match=r"\d+ pictures, and the new page would have none.*--overwrite"):
        semdedup.write_report(str(out), verbose=False)
    assert shown.read_bytes() == before
    semdedup.write_report(str(out), overwrite=True, verbose=False)
    assert b"data:image/jpeg" not in shown.read_bytes()
    shown.write_bytes(before)
    few = tmp_path / "few"
    few.mkdir()
    for clip in sorted((made / "split" / "clips").iterdir())[:1]:
        shutil.copy(clip, few)
    semdedup.write_report(str(out), clips=str(few), eps=0.999)
    assert "1 pictures; the page that was there had" in capfd.readouterr().err


def test_clips_of_the_run_and_of_the_split_around_a_result_are_found(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "split", tmp_path / "run" / "clips")
    shutil.copytree(made / "dedup", tmp_path / "run" / "dedup")
    shutil.copytree(made / "dedup", tmp_path / "run" / "clips" / "dedup")
    for out in ("run/dedup", "run/clips/dedup"):
        page = Path(semdedup.write_report(str(tmp_path / out), verbose=False)).read_text()
        assert page.count("data:image/jpeg") > 0
    shutil.rmtree(tmp_path / "run" / "clips" / "clips")
    page = Path(semdedup.write_report(str(tmp_path / "run" / "dedup"), overwrite=True, verbose=False)).read_text()
    assert "no such clip" not in page, "what is beside is of something else"


@pytest.mark.parametrize("width", [1280, 390])
def test_hostile_ids_show_as_text(browser: Any, tmp_path: Path, width: int) -> None:
    ids = [HOSTILE, "</script><script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>", "{{ 7 * 7 }}", "a\nb"]
    ids += ["../../etc/passwd", "x" * 3000, "/etc/passwd", "\u202egpj.exe", "\x00nul"]
    rows = [(ids[0], ids[0], 0.0)] + [(row_id, ids[0], 0.95) for row_id in ids[1:]]
    folder = scores_of(tmp_path / "</style><b>", [rows])
    path = semdedup.write_report(str(folder), clips=str(tmp_path), output_path=str(tmp_path / "r.html"), verbose=False)
    seen = Seen(browser, path, width)
    assert seen.quiet()
    assert "hacked" not in seen.page.title()
    assert seen.page.evaluate("document.querySelectorAll('script').length") == 2
    assert seen.page.evaluate("document.querySelectorAll('img').length") == 0
    assert seen.text(".keptside .id") == HOSTILE
    shown = {element.text_content() for element in seen.page.query_selector_all(".pair .id")}
    assert {"{{ 7 * 7 }}", "a\nb", "../../etc/passwd", "'\"><img src=x onerror=alert(1)>"} <= shown
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_policy_forbids_what_the_page_does_not_need(pictured: str) -> None:
    page = Path(pictured).read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; img-src data:; media-src data:;")
    assert "unsafe" not in policy[1]
    assert "http:" not in policy[1]
    assert not re.search(r"src=\"(?!data:)", page)
    links = re.findall(r"<a [^>]*href=\"(?!#)[^>]*>", page)
    assert all(re.match(r'<a class="open" href="\.\.?/', link) for link in links), "they lead to clips, when clicked"


def test_the_same_result_gives_the_same_page(made: Path, tmp_path: Path) -> None:
    pages = [
        Path(
            semdedup.write_report(
                str(made / "dedup"), clips=str(made / "split"), output_path=str(tmp_path / name), verbose=False
            )
        ).read_bytes()
        for name in ("1.html", "2.html")
    ]
    assert pages[0] == pages[1]


def test_a_page_of_ours_is_replaced_and_nothing_else_is(made: Path, tmp_path: Path) -> None:
    target = tmp_path / "r.html"
    for _ in range(2):
        semdedup.write_report(str(made / "dedup"), output_path=str(target), verbose=False)
    target.write_text("theirs")
    with pytest.raises(OutputConflictError, match=r"r\.html exists and is no report"):
        semdedup.write_report(str(made / "dedup"), output_path=str(target), verbose=False)
    assert target.read_text() == "theirs"
    semdedup.write_report(str(made / "dedup"), output_path=str(target), overwrite=True, verbose=False)
    assert "semdedup" in target.read_text()


@pytest.mark.parametrize("tables", [[[("a", "a", 0.0)]], [[("a", "a", 0.0)], [("b", "b", 0.0)]]])
def test_a_result_without_pairs_has_a_page_too(
    tables: list[list[tuple[str, str, float]]], browser: Any, tmp_path: Path
) -> None:
    folder = scores_of(tmp_path / "scores", tables)
    seen = Seen(browser, semdedup.write_report(str(folder), verbose=False))
    assert seen.quiet()
    assert seen.text("h1").startswith("0 of ")
    assert "No two clips were compared" in seen.text("#pairs")
    assert not seen.page.locator("#judge").count()


def test_clips_that_cannot_be_shown_say_why(made: Path, browser: Any, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    shutil.copytree(made / "split" / "clips", clips)
    names = sorted(clips.iterdir())
    names[0].unlink()
    names[1].write_bytes(b"no video")
    for name in names[2:]:
        assert read_frames(name)
    path = semdedup.write_report(
        str(made / "dedup"), clips=str(clips), output_path=str(tmp_path / "r.html"), eps=0.999, verbose=False
    )
    seen = Seen(browser, path)
    said = {element.inner_text() for element in seen.page.query_selector_all(".nopicture")}
    assert any("no such clip" in each for each in said)
    assert any("cannot be decoded: unreadable" in each for each in said)
    assert seen.page.evaluate("document.images.length") > 0
    assert seen.quiet()


def test_metadata_that_are_malformed_are_named_and_the_card_says_so(
    made: Path, browser: Any, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    clips = tmp_path / "clips"
    shutil.copytree(made / "split", clips)
    shapes = ["[1]", '{"duration_span": 5}', '{"width": true, "height": 3}', '{"video": "\\ud800"}', "not json"]
    for file, text in zip(sorted((clips / "metas" / "v0").iterdir()), shapes, strict=False):
        file.write_text(text)
    path = semdedup.write_report(str(made / "dedup"), clips=str(clips), output_path=str(tmp_path / "r.html"), eps=0.999)
    assert re.search(
        r"\d metadata files are malformed; their clips are shown without: .*/metas/v0/", capfd.readouterr().err
    )
    seen = Seen(browser, path)
    said = [element.inner_text() for element in seen.page.query_selector_all(".facts")]
    assert any("its metadata are malformed" in each for each in said)
    assert any("its metadata are malformed" not in each for each in said)
    assert seen.quiet()


def test_leaks_are_shown_with_the_clips_of_both_sets(
    made: Path, browser: Any, client: distributed.Client, tmp_path: Path
) -> None:
    make_texture(tmp_path / "eval" / "again.mp4", sum(b"b.mp4"), options={"crf": "30"})
    splitter(tmp_path / "eval", tmp_path / "other").run(client)
    semdedup.find_leaks(
        str(made / "split"), str(tmp_path / "other"), str(tmp_path / "leaks"), client=client, verbose=False
    )
    clips = [str(made / "split"), str(tmp_path / "other")]
    seen = Seen(browser, semdedup.write_report(str(tmp_path / "leaks"), clips=clips, verbose=False))
    assert seen.quiet()
    assert "clip of the other set" in seen.text("#threshold")
    for group in seen.page.query_selector_all("article.group"):
        assert group.query_selector(".keptside .source").inner_text() == "b.mp4"
        assert group.query_selector(".droppedside .source").inner_text() == "again.mp4"
        assert len(group.query_selector_all("img")) == 2
    assert len(seen.page.query_selector_all("article.group")) == 2


def test_paths_without_scores_or_clips_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        semdedup.write_report(str(tmp_path), verbose=False)
    with pytest.raises(InputError, match="no such folder"):
        semdedup.write_report(str(made / "dedup"), clips=str(tmp_path / "none"), verbose=False)
    with pytest.raises(ParameterError, match="eps must lie in"):
        semdedup.write_report(str(made / "dedup"), eps=1.5, output_path=str(tmp_path / "r.html"), verbose=False)
    assert not (tmp_path / "r.html").exists()
    assert not (made / "dedup" / "report.html").exists()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """Scores of 30 clusters of 2,000 rows."""
    folder = tmp_path_factory.mktemp("large") / "scores"
    folder.mkdir()
    rng = np.random.default_rng(0)
    tables = []
    for cluster in range(30):
        scores = np.sort(rng.beta(3, 2, 2000)).astype(np.float32)
        scores[0] = 0
        ids = np.array([f"{cluster}-{i}" for i in range(2000)])
        others = ids[np.maximum(0, (rng.random(2000) * np.arange(2000)).astype(int))]
        tables.append(pd.DataFrame({"id": ids, "max_id": others, "cosine_sim_score": scores}))
        pq.write_table(pa.Table.from_pandas(tables[-1]), folder / f"cluster_{cluster}.parquet", row_group_size=512)
    return folder, pd.concat(tables, ignore_index=True)


def test_what_is_told_is_so_of_all_rows(large: tuple[Path, pd.DataFrame]) -> None:
    folder, rows = large
    found = survey(RemovedRows(Scores.of(Location.of(folder))), 0.1)
    scores = rows["cosine_sim_score"].to_numpy()
    assert found.n_rows == len(rows)
    assert [eps for eps, _ in found.curve] == sorted({*THRESHOLDS, 0.1})
    for eps, n in found.curve[::40]:
        assert n == (scores >= np.float32(1 - eps)).sum()
    assert found.histogram.sum() == len(rows)
    assert found.cluster_rows.tolist() == [2000] * 30
    assert found.cluster_duplicates.sum() == found.duplicates == (scores >= np.float32(0.9)).sum()
    known = rows.set_index("id")
    limit = np.float32(0.9)
    for pair in (*found.sample.known.values(), *(pair for group in found.groups for pair in group.dropped)):
        assert (known.loc[pair.id, "max_id"], known.loc[pair.id, "cosine_sim_score"]) == (pair.max_id, pair.score)
    sample = found.sample
    distances = np.sort(np.abs(scores - limit))[: len(sample.nearest)]
    assert [abs(np.float32(sample.pairs[i].score) - limit) for i in sample.nearest] == distances.tolist()
    assert sample.sizes == tuple(np.bincount(sample.bands.of(scores[scores > 0]), minlength=len(sample.bands)))
    per_band = np.bincount([sample.bands.of(np.float32([sample.pairs[i].score]))[0] for i in sample.to_judge])
    assert len(sample.to_judge) == 96
    assert per_band[per_band > 0].max() - per_band[per_band > 0].min() <= 1, "there are enough rows in each"
    assert len(found.groups) == 20
    assert len({group.cluster for group in found.groups}) == 8


def test_clusters_with_too_many_duplicates_give_no_groups_and_that_is_told(
    large: tuple[Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey_module, "MOST_DUPLICATES", 10)
    found = survey(RemovedRows(Scores.of(Location.of(large[0]))), 0.1)
    assert found.groups == ()
    assert any("no groups of 30 clusters" in note for note in found.notes)
    assert found.sample.pairs


def test_a_large_page_stays_small_and_says_what_was_sampled(
    large: tuple[Path, pd.DataFrame], browser: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = semdedup.write_report(str(large[0]), output_path=str(tmp_path / "r.html"), verbose=False)
    assert Path(path).stat().st_size < 1 << 20
    seen = Seen(browser, path)
    assert seen.quiet()
    assert "20 groups, the largest of 8 clusters, of 30 clusters with duplicates" in seen.text("footer")
    assert "all 60,000 rows" in seen.text("footer")
    assert "100 pairs, drawn at random from 13 bands of score" in seen.text("footer")


def test_pictures_stop_at_a_budget_and_that_is_told(
    made: Path, browser: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("semdedup.report.strips.MOST_BYTES", 20_000)
    monkeypatch.setattr("semdedup.report.strips.PREVIEW_BYTES", 40_000)
    path = semdedup.write_report(
        str(made / "dedup"), clips=str(made / "split"), output_path=str(tmp_path / "r.html"), verbose=False
    )
    seen = Seen(browser, path)
    pictures = sum(len(src) for src in set(seen.page.evaluate("[...document.images].map(i => i.src)")))
    assert 0 < pictures <= 20_000
    previews = seen.page.evaluate("Object.values(data.previews).map(each => each[0].length)")
    assert 0 < sum(previews) <= 40_000
    assert seen.page.locator(".play:not([hidden])").count() >= len(previews)
    assert "left out, to keep the page small" in seen.text("main")


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_curve_alone_is_a_picture(made: Path, ending: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.{ending}" for i in range(2)]
    for path in paths:
        assert semdedup.plot_curve(str(made / "dedup"), str(path)) == str(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    if ending == "png":
        with Image.open(paths[0]) as picture:
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        assert len(np.unique(pixels, axis=0)) > 50
    else:
        assert "deduplication threshold" in paths[0].read_text()
    with pytest.raises(ParameterError, match=r"\.png or \.svg"):
        semdedup.plot_curve(str(made / "dedup"), str(tmp_path / "x.jpg"))


def test_the_data_of_the_page_is_the_curve(large: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    path = semdedup.write_report(str(large[0]), output_path=str(tmp_path / "r.html"), eps=0.0123, verbose=False)
    found = re.search(r'id="data">(.*?)</script>', Path(path).read_text())
    assert found is not None
    data = json.loads(found[1])
    assert data["rows"] == 60_000
    assert [0.0123, int((large[1]["cosine_sim_score"] >= np.float32(1 - 0.0123)).sum())] in data["curve"]


def test_a_plot_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(semdedup.ParameterError, match="pip install 'matplotlib>="):
        semdedup.plot_curve(str(tmp_path), str(tmp_path / "curve.png"))
