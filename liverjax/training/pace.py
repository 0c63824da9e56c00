"""How long a run takes, how long it waits for data, and how much of the device it uses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import jax

#: Highest dense bfloat16 rate of one device in FLOP/s, as its maker states it; by jax's name of the device.
_PEAK_FLOPS = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
    "Tesla T4": 65e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}


class Clock:
    """Wall-clock time of a view, and its pace without the compilation that the first step waits for."""

    def __init__(self, first_step: int, seconds_before: float):
        """``seconds_before``: time that earlier starts took."""
        self._start = time.monotonic()
        self._before = seconds_before
        self._first_step = first_step
        self._pace_start = self._start
        self._waited = 0.0
        self._look = (first_step, self._start)

    def total(self) -> float:
        """Returns the seconds spent on the view over all starts."""
        return self._before + time.monotonic() - self._start

    def compiled(self, step: int) -> None:
        """Tells that the first step of this start is done."""
        self._first_step, self._pace_start = step, time.monotonic()
        self._look, self._waited = (step, self._pace_start), 0.0

    def steps_per_second(self, step: int) -> float:
        """Returns the pace since the first step, or 0 where it is not known yet."""
        return (step - self._first_step) / max(time.monotonic() - self._pace_start, 1e-9)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time within as waiting for data."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - start

    def look(self, step: int) -> dict[str, float]:
        """Returns the seconds per step since the last look, and the share of them that was waiting for data.

        Time of validation and of saving in between counts as well. Empty where no step was done since.
        """
        now = time.monotonic()
        (before, start), waited = self._look, self._waited
        self._look, self._waited = (step, now), 0.0
        if step == before:
            return {}
        return {"step_seconds": (now - start) / (step - before), "data_wait_share": waited / (now - start)}


def device_memory() -> dict[str, float]:
    """Returns the most memory in bytes that the first local device ever used, where the backend says so."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return {"device_memory_bytes": float(stats["peak_bytes_in_use"])} if "peak_bytes_in_use" in stats else {}


def peak_flops() -> float | None:
    """Returns the bfloat16 peak of all devices together in FLOP/s, or None where it is not known."""
    one = _PEAK_FLOPS.get(jax.devices()[0].device_kind)
    return one and one * jax.device_count()


def step_flops(step_fn: Callable, arguments: tuple, options: dict) -> float | None:
    """Returns the floating point operations of a step as XLA counts them before optimising, or None.

    Nothing is compiled or run. ``arguments`` and ``options`` are those of the jitted step.
    """
    analysis = step_fn.lower(*arguments, **options).cost_analysis()
    return float(analysis["flops"]) if analysis and "flops" in analysis else None
