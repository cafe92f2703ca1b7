"""What a sample of a shard holds besides the clip: its JSON, and its embedding."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa


def sample_json(meta: Mapping[str, Any], clip_id: str, path: str, score: float | None, max_id: str | None) -> bytes:
    """The JSON of a sample: the metadata of the clip as `parse_meta` gives it, and always these names.

    ``id``, ``source`` (path of the clip in the input), ``video`` and ``start_s``, ``end_s`` (which span of which video
    it is), ``score`` and ``max_id`` (how much it is like which better-ranked clip); null where they are not known. What
    the metadata holds under one of these names, and is something else, is called ``meta_…``.
    """
    start_s, end_s = meta.get("duration_span") or (None, None)
    ours = {
        "id": clip_id,
        "source": os.fsencode(path).decode("utf-8", "backslashreplace"),
        "video": meta.get("video", meta.get("source_video")),
        "start_s": meta.get("start_s", start_s),
        "end_s": meta.get("end_s", end_s),
        "score": score if score is not None and math.isfinite(score) else None,
        "max_id": max_id,
    }
    others = {f"meta_{n}" if n in ours else n: value for n, value in meta.items() if n not in ours or value != ours[n]}
    return json.dumps({**others, **ours}, sort_keys=True, allow_nan=False).encode()


def npy_bytes(vector: pa.ListScalar) -> bytes | None:
    """An embedding as the content of a ``.npy`` file; None where there is none."""
    if not vector.is_valid:
        return None
    content = io.BytesIO()
    np.save(content, vector.values.to_numpy(zero_copy_only=False), allow_pickle=False)
    return content.getvalue()
