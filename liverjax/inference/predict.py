"""From scan files to mask files: many cases, each written atomically.

Each case is read, predicted and written in a thread of its own, and the devices are handed from case to case: while
one case is on a device, others are read, resampled and written.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import gzip
import io
import logging
import math
import os
import pathlib
import reprlib
import threading
import time
import typing
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from liverjax.datasets.case import Case
from liverjax.errors import InputError, LiverjaxError
from liverjax.files import replacing
from liverjax.inference import memory, outputs
from liverjax.inference.cascade import Cascade
from liverjax.inference.devices import Devices
from liverjax.inference.lesion_table import as_json
from liverjax.inference.segmenter import Segmenter
from liverjax.inference.sharing import DONE, TAKEN, Sharing
from liverjax.labels import TUMOR
from liverjax.prediction import Prediction, rounded
from liverjax.scans import nifti, nifti_header, write

_LOG = logging.getLogger("liverjax")
# Cases that are read or written while every device is busy with one: more would only cost memory.
_WAITING = 2
_MOST_SHARDS = 1_000_000
# Of so many cases the headers are read for the estimate of memory: of 100,000 it would take minutes.
_MOST_HEADERS = 1000
# Matplotlib draws for one thread at a time.
_DRAWING = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Extras:
    """What is written beside the masks, in folders of their own: ``probabilities/``, ``uncertainty/``.

    Attributes:
      probabilities: the probability of each class but the background, voxel on voxel with the scan, float32; of a
        cascade also that of tumour by each view, if there are several: what a lesion filter is trained on.
      uncertainty: maps of entropy and mutual information, likewise, and the quality of each slice as a table, the
        worst first.
      mc_samples: number of draws of dropout that the uncertainty rests on; above 0 it is written in any case.
      picture: draws scan and mask into the PNG file of a path, under a title, as `report.figures.preview` does; beside
        the mask.
    """

    probabilities: bool = False
    uncertainty: bool = False
    mc_samples: int = 0
    picture: Callable[..., object] | None = None

    def __post_init__(self):
        object.__setattr__(self, "uncertainty", self.uncertainty or self.mc_samples > 0)


MASKS_ONLY = Extras()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of one case.

    Attributes:
      case: the case.
      path: where its mask is, or would be.
      prediction: what was written, unless the case was skipped or failed.
      error: what stopped it, if it failed.
      seconds: wall time of its stages: "read", "resample", "network", "back", "write".
      taken: another process predicts it (`sharing.Sharing`).
    """

    case: Case
    path: pathlib.Path
    prediction: Prediction | None = None
    error: Exception | None = None
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    taken: bool = False

    @property
    def stem(self) -> str:
        """Name of the mask without its ending, with which the names of all files of the case begin."""
        return outputs.stem(self.path)

    @property
    def status(self) -> str:
        """One of "done", "skipped", "failed", "taken"."""
        return TAKEN if self.taken else "failed" if self.error else "done" if self.prediction else "skipped"

    def record(self) -> dict:
        """Returns the outcome as JSON takes it."""
        return self._record

    @functools.cached_property
    def _record(self) -> dict:
        volumes = self.prediction.volumes() if self.prediction else {}
        tumors = self.prediction.tumors if self.prediction else None
        return {
            "id": self.case.id,
            "status": self.status,
            "scan": str(self.case.image),
            "mask": str(self.path),
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
            "millilitres": {region: round(ml, 3) for region, ml in volumes.items()},
            "expected_dice": round(self.prediction.expected_dice(), 4) if self.prediction else None,
            "doubts": list(self.prediction.doubts) if self.prediction else [],
            "error": str(self.error) if self.error else None,
            "lesions": as_json(tumors.lesions) if tumors else [],
        }


def subset(model: Segmenter | Cascade, cases: Sequence[Case], name: str) -> list[Case]:
    """Returns the cases of a subset of the model's split: "train", "validation" or "test".

    Raises:
      InputError: there are none, or the model does not list its cases.
    """
    ids = model.subset(name)
    chosen = [case for case in cases if case.id in ids]
    if not chosen:
        raise InputError(
            f"--subset={name}: none of the {len(cases)} cases is in the {name} subset of the model, expected the "
            "data set that it was trained with"
        )
    return chosen


def shard(cases: Sequence[Case], spec: str, *, share: bool = False) -> list[Case]:
    """Returns the cases of one of several equal jobs: "2/8" is every eighth from the second.

    Args:
      cases: all of them.
      spec: number and count of the job.
      share: return all cases, those of this job first: jobs that share cases begin at different ones.

    Raises:
      InputError: the text is not of this form, or there are more than a million jobs.
    """
    index, slash, count = spec.partition("/")
    if not (
        slash and _is_number(index) and _is_number(count) and 1 <= int(index) <= int(count) <= _MOST_SHARDS
    ):
        raise InputError(
            f"--shard is {reprlib.repr(spec)}, expected i/n, such as 2/8, with i from 1 to n and n up to {_MOST_SHARDS}"
        )
    first, step = int(index) - 1, int(count)
    if share:
        return [case for begin in range(step) for case in cases[(first + begin) % step :: step]]
    return list(cases[first::step])


def _is_number(text: str) -> bool:
    # Python refuses to read numbers of thousands of digits.
    return text.isascii() and text.isdecimal() and len(text) < 20


def predict_cases(
    model: Segmenter | Cascade,
    cases: Sequence[Case],
    output: str | os.PathLike,
    *,
    extras: Extras = MASKS_ONLY,
    skip_existing: bool = False,
    found: Sequence[Case] = (),
    format: str = "nifti",
    devices: Sequence[jax.Device] | None = None,
    share: Sharing | None = None,
) -> Generator[Outcome]:
    """Segments the cases and writes their masks, uint8 and voxel on voxel with the scans.

    A case that cannot be used does not stop the others. Yields an `Outcome` after each case, in their order. If the
    iterator is closed before its end, as an interrupt does, no case starts any more, and what is being computed is left
    to itself and not written: after that no file changes.

    Args:
      model: the model.
      cases: see `scans.layouts.find_cases`.
      output: a folder, or the mask file of a single case.
      extras: what to write beside the masks.
      skip_existing: leave cases alone whose mask is already there.
      found: further cases of the data set, whose scans and references are not overwritten either.
      format: of the masks, one of `scans.write.FORMATS`; those of DICOM need scans that are DICOM series.
      devices: that share the cases; see `default_devices`.
      share: with which other processes predict the same cases: each leaves alone what is there, or is another's.

    Raises:
      InputError: as `outputs.check_output`, `outputs.mask_paths` and `outputs.make_ready`, before anything is computed.
      ConfigError: as `Segmenter.plan`, likewise.
    """
    model.check(uncertainty=extras.uncertainty, samples=extras.mc_samples)
    outputs.check_output(output, cases, format)
    paths = outputs.mask_paths(cases, output, found, format)
    stages = (model.liver, model.tumor) if isinstance(model, Cascade) else (model,)
    made = {
        "classes": len(model.labels),
        "algorithm": "liverjax " + " + ".join(stage.config.name for stage in stages),
    }
    skip_existing = skip_existing or share is not None
    outputs.make_ready(path for path in paths if not (skip_existing and path.exists()))
    devices = default_devices() if devices is None else devices
    asked: dict[str, Any] = {"uncertainty": extras.uncertainty, "mc_samples": extras.mc_samples}
    if isinstance(model, Cascade):
        asked["views"] = extras.probabilities
    shared, count = Devices(devices), len(devices) + _WAITING
    # As many threads write at once as there are: who holds all of it knows that none does.
    writing, stopped = threading.Semaphore(count), threading.Event()

    def claimed(case: Case, path: pathlib.Path) -> contextlib.AbstractContextManager[str]:
        if share:
            return share.claim(path, case.image)
        return contextlib.nullcontext(DONE if skip_existing and path.exists() else "")

    def work(case: Case, path: pathlib.Path) -> Outcome:
        try:
            with claimed(case, path) as others:
                return Outcome(case, path, taken=others == TAKEN) if others else of_case(case, path)
        except (LiverjaxError, OSError) as error:
            return Outcome(case, path, error=error)

    def of_case(case: Case, path: pathlib.Path) -> Outcome:
        try:
            prediction = model.predict(case.image, reading=case.reading, devices=shared, **asked)
            with writing:
                if stopped.is_set():
                    raise CancelledError
                start = time.perf_counter()
                outcome = Outcome(case, path, prediction, seconds=dict(prediction.seconds))
                _write_extras(outcome, prediction, extras, model.labels)
                # Last of all: where there is a mask, its extras are complete.
                write.write_labels(path, prediction.labels, format=format, **made)
                outcome.seconds["write"] = time.perf_counter() - start
                if share:
                    share.note(outcome.record(), path)
            return outcome
        except (LiverjaxError, OSError) as error:
            return Outcome(case, path, error=error)
        except CancelledError:
            raise
        except Exception as error:
            # Whatever it is, such as too little memory for this scan, the other cases go on.
            _LOG.debug("case %s", case.id, exc_info=error)
            message = f"{case.image}: {type(error).__name__}: {error}"
            return Outcome(case, path, error=LiverjaxError(message))

    threads = ThreadPoolExecutor(count, "liverjax-case")
    waiting = iter(list(zip(cases, paths, strict=True)))
    running: collections.deque = collections.deque()
    try:
        for _ in range(count):
            _start_next(threads, work, waiting, running)
        while running:
            outcome = running.popleft().result()
            # Only now, so that no more results are held than there are threads.
            _start_next(threads, work, waiting, running)
            yield outcome
            del outcome
    finally:
        stopped.set()
        shared.close()
        # Nobody waits for what is on a device: it can take minutes.
        threads.shutdown(wait=False, cancel_futures=True)
        for _ in range(count):
            writing.acquire()
        # Whoever waits to write sees that it is over: a thread left behind never lets Python end.
        writing.release(count)


def default_devices() -> list[jax.Device]:
    """Returns all local accelerators, or one CPU: what XLA can be told to call several are the same cores."""
    return jax.local_devices() if jax.default_backend() != "cpu" else jax.local_devices()[:1]


def describe(model: Segmenter | Cascade, cases: Sequence[Case], extras: Extras = MASKS_ONLY) -> str:
    """Returns a line that says how many cases, which devices, and how much memory the largest case takes.

    Only headers are read, of many cases those of every n-th; files that cannot be read are skipped, and reported when
    they are predicted.
    """
    devices = default_devices()
    line = f"{len(cases)} case{'s' * (len(cases) != 1)} on {len(devices)} x {devices[0].device_kind}"
    needs = []
    some = cases[:: math.ceil(len(cases) / _MOST_HEADERS) or 1]
    for case in some:
        with contextlib.suppress(Exception):
            needs.append(model.memory(*_geometry(case), uncertainty=extras.uncertainty))
    if not needs:
        return line
    most = memory.Memory(*(max(need) / 2**30 for need in zip(*needs, strict=True)))
    on_device = most.slab + most.accumulator
    on_host = memory.PROGRAM / 2**30 + most.accumulator + most.scan * min(len(cases), len(devices) + _WAITING)
    if devices[0].platform == "cpu":
        # Of several cases one is cleaned while the next is computed.
        on_host += on_device + most.clean_up if len(cases) > 1 else max(on_device, most.clean_up)
        line += f"; about {on_host:.1f} GiB of memory"
    else:
        on_host += most.clean_up
        line += f"; about {on_device:.1f} GiB of memory on the device and {on_host:.1f} GiB on the host"
    line += f" (by {len(some)} of them)" if len(some) < len(cases) else ""
    there = memory.host_memory() / 2**30
    return line + (f", MORE THAN THE {there:.1f} GiB of this machine" if on_host > there else "")


def _geometry(case: Case) -> tuple[tuple[int, int, int], np.ndarray]:
    """Returns shape and affine in mm of a NIfTI scan from its header; raises anything where there is none."""
    if not case.image.is_file():  # To open a named pipe is to wait for its writer.
        raise InputError(f"{case.image}: no file")
    with (gzip.open if case.image.name.lower().endswith(".gz") else open)(case.image, "rb") as stream:
        header = nifti_header.read_header(typing.cast(io.BufferedIOBase, stream), case.image)
    shape, _ = nifti_header.checked_shape(header, case.image)
    if case.reading.spacing is not None:
        return shape, np.diag([*case.reading.spacing, 1.0])
    return shape, nifti_header.stated_affine(header, case.image)


def _write_extras(outcome: Outcome, prediction: Prediction, extras: Extras, names: Sequence[str]) -> None:
    folder, stem = outcome.path.parent, outcome.stem

    def write_map(kind: str, name: str, values: np.ndarray) -> None:
        on_scan = prediction.scan.with_voxels(rounded(values))
        nifti.write(folder / kind / f"{stem}_{name}.nii.gz", on_scan, dtype=np.float32)

    if extras.probabilities:
        for label, name in list(enumerate(names))[1:]:
            write_map("probabilities", name, prediction.probability(label))
        for view, values in prediction.tumor_maps():
            write_map("probabilities", f"{names[TUMOR]}_{view}", values)
    if found := prediction.uncertainty:
        write_map("uncertainty", "entropy", prediction.on_scan(found.entropy).voxels)
        write_map("uncertainty", "mutual_information", prediction.on_scan(found.mutual_information).voxels)
        quality = prediction.slice_quality()
        rows = [f"{index},{quality[index]:.4f}" for index in np.argsort(quality, kind="stable")]
        with replacing(folder / "uncertainty" / f"{stem}_quality.csv") as temporary:
            temporary.write_text("\n".join(["slice,expected_dice", *rows]) + "\n", encoding="utf-8")

    if extras.picture:
        with _DRAWING:
            extras.picture(prediction.scan, prediction.labels, folder / f"{stem}.png", title=outcome.case.id)


def _start_next(threads: ThreadPoolExecutor, work, waiting: Iterator, running: collections.deque) -> None:
    with contextlib.suppress(StopIteration):
        running.append(threads.submit(work, *next(waiting)))
