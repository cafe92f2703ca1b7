"""The card of a Hugging Face data set: the file that tells `load_dataset` and the Hub where its rows are."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

CARD = """---
{yaml}---

# Without near-duplicates

{kept} of {rows} rows, written by [semdedup](https://pypi.org/project/semdedup): {gone}.

```python
from datasets import load_dataset

dataset = load_dataset("path/of/this/folder", split="train")
```
"""


def card(data_files: str, counts: Mapping[str, int], eps: float | None, removal: str | None) -> str:
    """The text of README.md.

    Args:
        data_files: the pattern of the files with the rows.
        counts: rows, kept, and what became of the others.
        eps: the threshold, where it is known.
        removal: the rule, likewise.
    """
    about = {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": data_files}]}],
        "tags": ["semdedup", "deduplicated"],
    }
    others = [f"{count:,} {why}" for why, count in sorted(counts.items()) if why not in ("rows", "kept") and count]
    gone = f"without {', '.join(others)}" if others else "nothing was left out"
    at = "" if eps is None else f" (eps {eps:g}, removal {removal})"
    return CARD.format(
        yaml=yaml.safe_dump(about), kept=f"{counts['kept']:,}", rows=f"{counts['rows']:,}", gone=gone + at
    )
