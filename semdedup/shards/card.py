"""The description of a dataset: ``manifest.json`` for programs, ``README.md`` for people. Neither holds a time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from semdedup.dedup.threshold.rule import exact_eps
from semdedup.shards.drops import DROP_REASONS, OVERLAP

DATASET_MANIFEST = "manifest.json"
"""Public, of the dataset; the record of the run that wrote it is another file, `semdedup.runs.record.FILE_NAME`."""

README, INDEX, DROPPED = "README.md", "index.parquet", "dropped.parquet"


def dataset_manifest(
    parameters: Mapping[str, Any], facts: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]
) -> bytes:
    """``manifest.json``: the shards with their SHA-256, counts, and what the dataset was made from."""
    content = {
        "format": 1,
        "made_by": "semdedup shard",
        "source": parameters["input_clip_path"],
        "parameters": parameters,
        "counts": {name: value for name, value in facts.items() if name not in ("eps", "eps_from", "removal")},
        "eps": facts["eps"],
        "removal": facts["removal"],
        "shards": list(shards),
    }
    return json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"


def readme(parameters: Mapping[str, Any], facts: Mapping[str, Any], loading: str) -> bytes:
    """``README.md``: the card of the dataset, with Python code that loads it."""
    dropped = "".join(
        f"| dropped, {reason}: {DROP_REASONS[reason]} | {count:,} |\n" for reason, count in facts["dropped"].items()
    )
    reported = [
        ("without a score: kept", "without_score"),
        ("without metadata", "without_metadata"),
        ("of these with metadata that are malformed", "malformed_metadata"),
        ("dropped by filter as what it asks is not known", "filter_unknown"),
        ("without an embedding", "without_embedding"),
        ("videos that are no MP4 files: left out", "left_out"),
        ("in quarantine, as they could not be embedded: left out", "quarantined"),
    ]
    counts = "".join(f"| {words} | {facts[name]:,} |\n" for words, name in reported if facts[name])
    npy = "\n- `{key}.npy`: its embedding, float32" if parameters["with_embeddings"] else ""
    return f"""---
tags:
- webdataset
- video
---

# Video clips

{facts["kept"]:,} clips, {facts["bytes"]:,} bytes, in {facts["shards"]:,} shards, written by `semdedup shard`.

| | |
|---|---|
| clips in the input | {facts["clips"]:,} |
| in the shards | {facts["kept"]:,} |
{dropped}{counts}
- Source: {_code(parameters["input_clip_path"])}
- Near-duplicates: {_threshold(parameters, facts)}
{_by_overlap(parameters)}{_kept_if(parameters)}- Order: {_order(parameters, facts)}

## Samples

- `{{key}}.mp4`: the clip
- `{{key}}.json`: `id`, `source`, `video`, `start_s`, `end_s`, `score`, `max_id`, and what else is known of it{npy}

The key is the id, or made from it where an id is no safe name for a file; the id itself stands in the JSON.
`{DATASET_MANIFEST}` lists the shards with their SHA-256. \
`{INDEX}` has a row for each sample, with the place of each member in
its shard, so that one clip can be read without the others. `{DROPPED}` has a row for each clip that is not here, with
the reason.

## Loading

```python
{loading}```
""".encode()


GOES = {
    "any": "its score is at least 1 - eps",
    "witness": "its similarity to a better-ranked clip that stays is at least 1 - eps",
    "components": "a chain of clips, each at least 1 - eps like the next, leads from it to a better-ranked clip",
}
"""The removal rules in words."""


def _threshold(parameters: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    path = parameters["input_semantic_dedup_path"]
    if path is None:
        return "none were removed"
    if "embedders" in parameters:
        several = [f"by {name} where {_rule(each)}" for name, each in parameters["embedders"].items()]
        which = "each" if parameters["duplicate_when"] == "both" else "one"
        return f"a clip is dropped by {which} of several embedders: {'; '.join(several)}; by {_code(path)}"
    if facts["eps"] is None:
        return f"the ids to drop of {_code(path)}"
    return f"a clip is dropped where {_rule(facts)}, by {_code(path)}"


def _rule(facts: Mapping[str, Any]) -> str:
    if facts["eps"] is None:
        return "it is among the ids to drop"
    return f"{GOES.get(facts['removal'], GOES['any'])}, eps {exact_eps(facts['eps'])}"


def _by_overlap(parameters: Mapping[str, Any]) -> str:
    """A line on clips that go by overlap, where any may."""
    path = parameters.get("input_overlaps_path")
    if path is None:
        return ""
    too = ", and it is a near-duplicate, too" if parameters["drop_when"] == "both" else ""
    return f"- By overlap: a clip is dropped where {DROP_REASONS[OVERLAP]}{too}, by {_code(path)}\n"


def _kept_if(parameters: Mapping[str, Any]) -> str:
    """A line on what is asked of clips, where anything is."""
    conditions = parameters.get("keep_if") or ()
    return f"- Kept if: {' and '.join(map(_code, conditions))}\n" if conditions else ""


def _order(parameters: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    seed, updates = parameters["shuffle_seed"], facts.get("updates", 0)
    order = "by id" if seed is None else f"shuffled, with the seed {seed}"
    return order + f"; clips of {updates:,} updates, each in shards of its own, after those before" * bool(updates)


def _code(text: str) -> str:
    """Text as code in Markdown, whatever it holds, on one line."""
    text = json.dumps(text)[1:-1]
    fence = "`" * (1 + max(map(len, "".join(c if c == "`" else " " for c in text).split()), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"
