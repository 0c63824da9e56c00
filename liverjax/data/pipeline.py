"""Batches of slices: read from the store ahead of the step by Grain, as NumPy arrays."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence

import grain
import numpy as np
from absl import flags

from liverjax import labels as label_ids
from liverjax.data.sampling import Sampler
from liverjax.data.store import OUTSIDE, StoredCase
from liverjax.errors import InputError, TrainingError, unguarded_main
from liverjax.options import Config


class _Batches:
    """Grain's random-access source whose record k is this process's rows of the global batch of step k.

    The whole batch is one record, so that its content and order depend on no number of threads or workers, and
    all there is to save of the pipeline is the step.
    """

    def __init__(self, cases: Sequence[StoredCase], network: str, config: Config, rows: range, steps: int):
        self._cases = cases
        self._patch = config.batch.patch
        self._keep_tumor = "tumor" in config.labels
        self._sampler = Sampler(cases, config.views_of(network), config.batch, config.seed)
        self._rows = rows
        self._steps = steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        batch = blank_batch(len(self._rows), self._patch)
        for place, row in enumerate(self._rows):
            draw = self._sampler.draw(index, row)
            case = self._cases[draw.case]
            try:
                place_slice(batch, place, case, draw.view, draw.slice, (draw.row, draw.column))
            except Exception as error:
                raise InputError(f"case {case.id}, {draw.view} slice {draw.slice}: {error}") from error
        return {**batch, "label": merge_labels(batch["label"], self._keep_tumor)}


def merge_labels(label: np.ndarray, keep_tumor: bool) -> np.ndarray:
    """Returns the mask's labels as classes of the network: without a tumour class, tumour is liver."""
    return label if keep_tumor else np.minimum(label, label_ids.LIVER)


def blank_batch(rows: int, patch: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns a batch of air without labels.

    Returns:
      - "image" (rows, H, W) int16, voxels as stored: `augment.normalise` scales them on the device, so that half as
        much has to be copied there;
      - "window" (rows, 2) float32, the stored voxels that become -1 and 1;
      - "label" (rows, H, W) uint8.
    """
    return {
        "image": np.full((rows, *patch), OUTSIDE, np.int16),
        "window": np.zeros((rows, 2), np.float32),
        "label": np.zeros((rows, *patch), np.uint8),
    }


def place_slice(
    batch: dict[str, np.ndarray],
    row: int,
    case: StoredCase,
    view: str,
    index: int,
    place: tuple[float, float] = (0.5, 0.5),
) -> None:
    """Writes a slice into a row of a `blank_batch`: centred in a larger patch, else cropped at ``place``.

    Args:
      case: the case, and ``view`` and ``index`` its slice.
      place: for rows and columns, where the crop lies: 0 is the first possible place, 1 the last.
    """
    source, target = [], []
    patch_shape = batch["image"].shape[1:]
    for size, patch, share in zip(case.shapes[view][1:], patch_shape, place, strict=True):
        start = int(share * (max(size - patch, 0) + 1)) if size > patch else 0
        margin = max(patch - size, 0) // 2
        length = min(size, patch)
        source.append(slice(start, start + length))
        target.append(slice(margin, margin + length))
    stored, labels = case.slice(view, index)
    batch["image"][row][tuple(target)] = stored[tuple(source)]
    batch["label"][row][tuple(target)] = labels[tuple(source)]
    batch["window"][row] = case.stored_window


def train_batches(
    cases: Sequence[StoredCase],
    network: str,
    config: Config,
    *,
    first_step: int,
    last_step: int,
    process: int,
    processes: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Returns this process's rows of the batches of a network's steps ``first_step`` to ``last_step - 1``.

    Process p of P takes the contiguous rows [p B / P, (p + 1) B / P) of the global batch of size B.

    Yields:
      B / P rows of "image", "window" and "label", as `blank_batch` says.
    """
    size = config.batch.size
    rows = range(process * size // processes, (process + 1) * size // processes)
    source = _Batches(cases, network, config, rows, last_step)
    dataset = grain.MapDataset.source(source)[first_step:]
    options = grain.ReadOptions(num_threads=config.batch.threads, prefetch_buffer_size=config.batch.prefetch)
    dataset = dataset.to_iter_dataset(options)
    if config.batch.workers:
        if not flags.FLAGS.is_parsed():  # Grain asks flags of absl, which only a program of absl parses.
            flags.FLAGS.mark_as_parsed()
        workers = grain.MultiprocessingOptions(num_workers=config.batch.workers)
        dataset = dataset.mp_prefetch(workers, _prepare_worker)
    return _closing(iter(dataset))


def _closing(batches: grain.DatasetIterator) -> Iterator[dict[str, np.ndarray]]:
    """Yields all batches; ends the threads or workers after the last, or when the caller closes the generator."""
    try:
        yield from batches
    except RuntimeError as error:
        if "terminated unexpectedly" not in str(error):  # Grain's words for a worker that is gone.
            raise
        reason = str(error).partition(". ")[0]
        cause = unguarded_main() or (
            "perhaps for lack of memory; the last checkpoint is kept, and the same command goes on. Fewer "
            "batch.workers take less memory"
        )
        raise TrainingError(f"reading batches failed: {reason}, {cause}") from error
    finally:
        batches.close()


def _prepare_worker(_index: int, _count: int) -> None:
    """Runs in each worker process: it ignores the signals of a terminal or scheduler, which the run handles.

    The run saves and then ends its workers. If it is killed and cannot, they end by themselves.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def validation_batches(
    cases: Sequence[StoredCase], network: str, config: Config
) -> list[dict[str, np.ndarray]]:
    """Returns the batches of a network's validation proxy: whole slices, half of them with liver if there are enough.

    The slices are spread evenly over each group, so that every evaluation uses the same ones. The last batch is
    filled up with rows of weight 0.

    Returns:
      Batches of B rows, as `blank_batch` says, with "weight" (B,) float32 beside; H and W hold the largest slice.
    """
    views = config.views_of(network)
    chosen = _spread_slices(cases, views, config.train.validation_slices)
    multiple = 2 ** (len(config.model.features) - 1)
    # The patch at least, so that all views share one program where no slice is larger.
    slices = [case.shapes[view][1:] for view in views for case in cases]
    largest = np.max([config.batch.patch, *slices], axis=0)
    height, width = (int(-(-size // multiple) * multiple) for size in largest)
    size = config.batch.size
    batches = []
    for start in range(0, len(chosen), size):
        batch = blank_batch(size, (height, width))
        rows = chosen[start : start + size]
        for row, (case, view, index) in enumerate(rows):
            place_slice(batch, row, case, view, index)
        label = merge_labels(batch["label"], "tumor" in config.labels)
        batches.append({**batch, "label": label, "weight": np.float32(np.arange(size) < len(rows))})
    return batches


def _spread_slices(
    cases: Sequence[StoredCase], views: Sequence[str], number: int
) -> list[tuple[StoredCase, str, int]]:
    counts = [(case, view, case.counts[view][:, 0]) for view in views for case in cases]
    with_liver = [(case, view, int(i)) for case, view, count in counts for i in np.flatnonzero(count)]
    without = [(case, view, int(i)) for case, view, count in counts for i in np.flatnonzero(count == 0)]
    share = min(len(with_liver), max(number // 2, number - len(without)))

    def spread(group: list, wanted: int) -> list:
        wanted = min(wanted, len(group))
        return [group[int((index + 0.5) * len(group) / wanted)] for index in range(wanted)]

    return spread(with_liver, share) + spread(without, number - share)
