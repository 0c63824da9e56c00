"""Devices that threads share, and the wall time of what is done on them."""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError

import jax

from liverjax.volume import Volume

_LOG = logging.getLogger("liverjax")


class Devices:
    """Devices that threads share: each is with one thread at a time."""

    def __init__(self, devices: Sequence[jax.Device]):
        self._free: queue.SimpleQueue[jax.Device] = queue.SimpleQueue()
        self._closed = False
        for device in devices:
            self._free.put(device)

    def close(self) -> None:
        """Lends none any more: `one` raises `CancelledError`, also where a thread already waits for a device."""
        self._closed = True

    @contextlib.contextmanager
    def one(self) -> Iterator[jax.Device]:
        """Lends a device, as soon as one is free."""
        device = self._free.get()
        try:
            if self._closed:
                raise CancelledError("no device is lent any more")
            yield device
        finally:
            self._free.put(device)


@contextlib.contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Notes the wall time of a stage."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


def warned(found: list[str], scan: Volume) -> list[str]:
    """Logs doubts about a scan in one line, and returns them."""
    if found:
        _LOG.warning("%s: %s", scan.name, "; ".join(found))
    return found
