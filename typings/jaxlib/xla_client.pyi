"""The compiled part of jaxlib, whose wheel has no types: what `jax.Device` is. All else is `Any`."""

from typing import Any

class Device:
    id: int
    process_index: int
    platform: str
    device_kind: str
    def memory_stats(self) -> dict[str, int] | None: ...

def __getattr__(name: str) -> Any: ...
