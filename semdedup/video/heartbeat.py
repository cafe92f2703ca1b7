"""Signs of life of long work, so that a decoder that hangs can be distinguished from one that is busy."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")
WithHeartbeats = Generator[None, None, T]
"""Work that yields None now and then as a heartbeat, and returns its result."""

SECONDS_BETWEEN_HEARTBEATS = 1.0


class HeartbeatTimer:
    """Tells when the next heartbeat is due."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether a heartbeat should be given now, at this call."""
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_HEARTBEATS:
            return False
        self._last = now
        return True
