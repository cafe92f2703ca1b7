"""Metadata of clips, which others edit: what of them is used, and what is wrong with the rest."""

import json
from typing import Any

import pytest

from semdedup.video.clip_meta import describe_faults, parse_meta, parse_object, well_formed

GOOD: dict[str, Any] = {
    "id": "x",
    "video": "é.mp4",
    "duration_span": [0, 2.5],
    "width": 64,
    "framerate": 25,
    "bitrate_source": 1000,
    "windows": [{"caption": "a cat \U0001f3ac", "score": -1e-9}],
    "num_bytes": None,
}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD),
        json.dumps(GOOD, ensure_ascii=False),
        "\ufeff" + json.dumps(GOOD),
        json.dumps(GOOD | {"duration_span": None, "video": None, "width": 64.0, "height": 0, "mine": True}),
        json.dumps(GOOD | {"start_s": 1, "end_s": 1.0, "mine": 10**400}),
        '{"mine": ' + "[" * 99 + "]" * 99 + "}",
        "{}",
    ],
)
def test_what_is_known_of_a_clip_comes_as_it_is(text: str) -> None:
    assert parse_meta(text.encode()) == json.loads(text.lstrip("\ufeff"))


NOT_JSON = {
    "not json": "is no JSON: Expecting value",
    "": "is no JSON: Expecting value",
    '{"a": 1': "is no JSON: Expecting ',' delimiter",
    '{"mine": NaN}': "is no JSON: NaN",
    '{"mine": [-Infinity]}': "is no JSON: -Infinity",
    '{"mine": 1e999}': "is no JSON: 1e999",
    '{"mine": ' + "9" * 5000 + "}": "is no JSON: ",
    "[1]": "is no JSON object, but a list",
    "null": "is no JSON object, but a NoneType",
    '{"video": "\\ud800"}': "half of a surrogate pair",
    '{"mine": {"\\udc00": 1}}': "half of a surrogate pair",
    "[" * 200_000 + "]" * 200_000: "nested deeper than 100",
    '{"mine": ' + "[" * 100 + "]" * 100 + "}": "nested deeper than 100",
    '{"mine": ' + '{"a":' * 500 + "1" + "}" * 500 + "}": "nested deeper than 100",
}


@pytest.mark.parametrize(("text", "words"), NOT_JSON.items(), ids=[text[:20] for text in NOT_JSON])
def test_what_other_programs_would_not_read_is_no_json(text: str, words: str) -> None:
    fault = parse_object(text.encode())
    assert isinstance(fault, str)
    assert words in fault
    assert len(fault) < 120
    assert parse_meta(text.encode()) == fault


@pytest.mark.parametrize("content", [b'\xff{"a": 1}', '{"a": 1}'.encode("utf-16")])
def test_another_encoding_is_told(content: bytes) -> None:
    assert parse_meta(content) == "is not UTF-8"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("duration_span", [5, [], [1], [1, 2, 3], "0-1", {}, [2, 1], [-1, 1], [0, 1e300], [0, 10**400], [0, True]]),
        ("duration_span", [[0, None], [0, "1"]]),
        ("start_s", [-1, "0", [0], 1e10, False]),
        ("video", [{}, 1, [], False, ["a.mp4"]]),
        ("source_video", [0, {"a": 1}]),
        ("width", [True, -1, 3.5, "64", 10**400, 2**31, [64]]),
        ("num_frames", ["many"]),
        ("framerate", ["25", -1, 10**400, True, {}]),
        ("bitrate_source", [0.5, "1M", 2**63, -1]),
    ],
)
def test_a_field_of_another_shape_is_told_with_what_it_must_be(name: str, values: list[Any]) -> None:
    for value in values:
        meta = GOOD | {name: value}
        fault = parse_meta(json.dumps(meta).encode())
        assert isinstance(fault, str), value
        assert fault.startswith(f"has {name} "), value
        assert "which must be" in fault
        assert parse_object(json.dumps(meta).encode()) == meta
        assert well_formed(meta) == {other: held for other, held in GOOD.items() if other != name}
    assert parse_meta(b'{"start_s": 2, "end_s": 1}') == "has end_s 1, before start_s 2"


def test_faults_are_told_with_examples_on_one_line() -> None:
    said = describe_faults(5, [f"{name}.json\nis not UTF-8" for name in "abcde"], "so be it")
    assert said == r"5 metadata files are malformed; so be it: " + "; ".join(
        rf"{name}.json\nis not UTF-8" for name in "abc"
    )
