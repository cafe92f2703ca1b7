"""Keys: what a sample is called in a tar. Safe as the name of a file anywhere, and different for different ids."""

from __future__ import annotations

import hashlib
import re

LONGEST_ID = 64
"""Longest id that is its own key."""

PLAIN = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{LONGEST_ID - 1}}}")
HASHED = re.compile(r".*-x[0-9a-f]{32}", re.DOTALL)
DEVICES = re.compile(r"con|prn|aux|nul|(?:com|lpt)[0-9]")
"""Names that Windows reserves, whatever the ending."""

UNSAFE = re.compile(r"[^a-z0-9_-]+")
LONGEST_HINT = 40


def sample_key(clip_id: str) -> str:
    """The key of an id: the id itself where it is short and of ``a-z 0-9 _ -``, else a hint and a hash of 128 bits.

    No key has a dot, a slash or a capital in it: programs that read WebDataset cut a name at its first dot, and file
    systems that ignore case would overwrite one of two clips by the other. An id that looks like such a hash is hashed
    itself, so that different ids have different keys.

    >>> sample_key("clip-0001"), sample_key("a/b"), sample_key("Clip")
    ('clip-0001', 'a_b-xc14cddc033f64b9dea80ea675cf280a0', 'clip-x82337888d76466b26eeef984735aa945')
    """
    if PLAIN.fullmatch(clip_id) and not HASHED.fullmatch(clip_id) and not DEVICES.fullmatch(clip_id):
        return clip_id
    hint = UNSAFE.sub("_", clip_id.lower())[:LONGEST_HINT].strip("_-")
    return f"{hint or 'clip'}-x{hashlib.sha256(clip_id.encode()).hexdigest()[:32]}"
