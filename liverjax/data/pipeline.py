"""Batches of slices: read from the store ahead of the step by Grain, as NumPy arrays."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Sequence

import grain
import numpy as np
from absl import flags

from liverjax import labels as label_ids
from liverjax.data.sampling import MinedSlice, Sampler
from liverjax.data.store import OUTSIDE, StoredCase
from liverjax.errors import InputError, TrainingError, unguarded_main
from liverjax.options import Config


class _Batches:
    """Grain's random-access source whose record k is this process's rows of the global batch of step k.

    The whole batch is one record, so that its content and order depend on no number of threads or workers, and
    all there is to save of the pipeline is the step.
    """

    def __init__(
        self,
        cases: Sequence[StoredCase],
        network: str,
        config: Config,
        rows: range,
        steps: int,
        mined: Sequence[MinedSlice],
    ):
        self._cases = cases
        self._patch = config.batch.patch
        self._labels = config.labels
        self._weights = pixel_weights(cases, config)
        self._sampler = Sampler(cases, config.views_of(network), config.batch, config.seed, mined)
        self._rows = rows
        self._steps = steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        batch = blank_batch(len(self._rows), self._patch, weighted=self._weights is not None)
        for place, row in enumerate(self._rows):
            draw = self._sampler.draw(index, row)
            case = self._cases[draw.case]
            weights = None if self._weights is None else self._weights[draw.case]
            try:
                place_slice(
                    batch, place, case, draw.view, draw.slice, (draw.row, draw.column), draw.tumor, weights
                )
            except Exception as error:
                raise InputError(f"case {case.id}, {draw.view} slice {draw.slice}: {error}") from error
        return {**batch, "label": merge_labels(batch["label"], self._labels)}


def merge_labels(label: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Returns the mask's labels as classes of the network.

    Without a class for tumours, they are liver; without one for the liver, it is background.
    """
    if "tumor" not in classes:
        return np.minimum(label, label_ids.LIVER)
    return label if "liver" in classes else (label == label_ids.TUMOR).astype(label.dtype)


@dataclasses.dataclass(frozen=True)
class PixelWeights:
    """What the pixels of a case in a store of boxes count.

    Attributes:
      dilation_mm: the liver, dilated by this, counts; what is beyond has weight 0.
      lesions: (lesions + 1,) float32, the weight of each lesion's pixels by its id; of other pixels, id 0, it is 1.
    """

    dilation_mm: float
    lesions: np.ndarray

    def of(self, distance: np.ndarray, lesions: np.ndarray) -> np.ndarray:
        """Returns the weights, float32, of pixels of which distance from the liver and lesion are known."""
        return self.lesions[lesions] * (distance <= self.dilation_mm)


def pixel_weights(cases: Sequence[StoredCase], config: Config) -> list[PixelWeights] | None:
    """Returns what the pixels of each training case count; None of a store of whole scans, where all count alike.

    Pixels of a lesion of V mm3 weigh ``max(V, V0) ** -p / m``, with p and V0 of `liverjax.options.Loss` and m such that
    the mean over all voxels of all lesions of the cases is 1: ``m = sum(V max(V, V0) ** -p) / sum(V)``.
    """
    if config.target.region == "scan":
        return None
    power, floor = config.loss.lesion_power, config.loss.lesion_floor_mm3
    volumes = [np.array(case.lesions_mm3 or (), np.float64) for case in cases]
    raw = [np.maximum(volume, floor) ** -power for volume in volumes]
    total = sum(volume.sum() for volume in volumes)
    mean = sum((volume * weight).sum() for volume, weight in zip(volumes, raw, strict=True)) / (total or 1)
    tables = [np.array([1, *(weight / (mean or 1))], np.float32) for weight in raw]
    return [PixelWeights(config.target.dilation_mm, table) for table in tables]


def blank_batch(rows: int, patch: Sequence[int], *, weighted: bool = False) -> dict[str, np.ndarray]:
    """Returns a batch of air without labels; with ``weighted``, of pixels that do not count.

    Returns:
      - "image" (rows, H, W) int16, voxels as stored: `augment.normalise` scales them on the device, so that half as
        much has to be copied there;
      - "window" (rows, 3) float32, the stored voxels that become -1 and 1, and gamma (`scans.intensity.Window`);
      - "label" (rows, H, W) uint8;
      - with ``weighted``, "pixel_weight" (rows, H, W) float32: what each pixel counts in the loss.
    """
    batch = {
        "image": np.full((rows, *patch), OUTSIDE, np.int16),
        "window": np.tile(np.array([0, 0, 1], np.float32), (rows, 1)),
        "label": np.zeros((rows, *patch), np.uint8),
    }
    return {**batch, "pixel_weight": np.zeros((rows, *patch), np.float32)} if weighted else batch


def place_slice(
    batch: dict[str, np.ndarray],
    row: int,
    case: StoredCase,
    view: str,
    index: int,
    place: tuple[float, float] = (0.5, 0.5),
    tumor: float | None = None,
    weights: PixelWeights | None = None,
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Writes a slice into a row of a `blank_batch`: centred in a larger patch, else cropped at ``place``.

    Args:
      case: the case, and ``view`` and ``index`` its slice.
      place: for rows and columns, where the crop lies: 0 is the first possible place, 1 the last.
      tumor: in [0, 1), which of the tumours' pixels the crop has to hold; ``place`` is then one of these crops. None
        asks for no pixel.
      weights: what the pixels count, for a batch with "pixel_weight".

    Returns:
      The rows and columns of the slice that were written, and those of the batch to which.
    """
    stored, labels = case.slice(view, index)
    weight = None if weights is None else weights.of(case.distance(view)[index], case.lesions(view)[index])
    pixel = None if tumor is None else _tumor_pixel(labels, weight, tumor)
    source, target = [], []
    patch_shape = batch["image"].shape[1:]
    for axis, (size, patch, share) in enumerate(zip(labels.shape, patch_shape, place, strict=True)):
        first, last = 0, max(size - patch, 0)
        if pixel is not None:
            first, last = max(pixel[axis] - patch + 1, first), min(pixel[axis], last)
        start = first + int(share * (last - first + 1)) if size > patch else 0
        margin = max(patch - size, 0) // 2
        length = min(size, patch)
        source.append(slice(start, start + length))
        target.append(slice(margin, margin + length))
    source, target = tuple(source), tuple(target)
    batch["image"][row][target] = stored[source]
    batch["label"][row][target] = labels[source]
    batch["window"][row] = case.stored_window
    if weight is not None:
        batch["pixel_weight"][row][target] = weight[source]
    return source, target


def _tumor_pixel(labels: np.ndarray, weight: np.ndarray | None, place: float) -> tuple[int, int] | None:
    """Returns one of a slice's tumour pixels, one that counts if there are any; None of a slice without tumour."""
    tumor = np.asarray(labels) == label_ids.TUMOR
    counting = tumor if weight is None else tumor & (weight > 0)
    rows, columns = np.nonzero(counting if counting.any() else tumor)
    if not rows.size:
        return None
    chosen = int(place * rows.size)
    return int(rows[chosen]), int(columns[chosen])


def train_batches(
    cases: Sequence[StoredCase],
    network: str,
    config: Config,
    *,
    first_step: int,
    last_step: int,
    process: int,
    processes: int,
    mined: Sequence[MinedSlice] = (),
) -> Generator[dict[str, np.ndarray]]:
    """Returns this process's rows of the batches of a network's steps ``first_step`` to ``last_step - 1``.

    Process p of P takes the contiguous rows [p B / P, (p + 1) B / P) of the global batch of size B. ``mined`` are the
    slices of which ``batch.mined_share`` is drawn.

    Yields:
      B / P rows of "image", "window" and "label", of boxes "pixel_weight" as well, as `blank_batch` says.
    """
    size = config.batch.size
    rows = range(process * size // processes, (process + 1) * size // processes)
    source = _Batches(cases, network, config, rows, last_step, mined)
    dataset = grain.MapDataset.source(source)[first_step:]
    options = grain.ReadOptions(num_threads=config.batch.threads, prefetch_buffer_size=config.batch.prefetch)
    dataset = dataset.to_iter_dataset(options)
    if config.batch.workers:
        if not flags.FLAGS.is_parsed():  # Grain asks flags of absl, which only a program of absl parses.
            flags.FLAGS.mark_as_parsed()
        workers = grain.MultiprocessingOptions(num_workers=config.batch.workers)
        dataset = dataset.mp_prefetch(workers, _prepare_worker)
    return _closing(iter(dataset))


def _closing(batches: grain.DatasetIterator) -> Generator[dict[str, np.ndarray]]:
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
    filled up with rows of weight 0. For tumours in boxes, half of the slices are those with tumour.

    Returns:
      Batches of B rows, as `blank_batch` says, with "weight" (B,) float32 beside; H and W hold the largest slice. For
      tumours in boxes, "pixel_weight" is 1 within the dilated liver and 0 elsewhere, and beside are "case" (B,) int32,
      the number of the row's case, and "lesion" (B, H, W) int32, for each pixel 0 or the number of its lesion, from 1
      over all cases.
    """
    views = config.views_of(network)
    tumors = config.finds_lesions
    return slice_batches(
        cases, _spread_slices(cases, views, config.train.validation_slices, tumors=tumors), views, config
    )


def slice_batches(
    cases: Sequence[StoredCase], chosen: Sequence[tuple[int, str, int]], views: Sequence[str], config: Config
) -> list[dict[str, np.ndarray]]:
    """Returns whole slices as batches of one shape, as `validation_batches` does.

    Args:
      cases: the cases.
      chosen: for each slice the number of its case, its view and its number.
      views: of which the batches hold the largest slice.
      config: classes, region, and the size of a batch.
    """
    lesions = config.finds_lesions
    counted = [
        PixelWeights(config.target.dilation_mm, np.ones(len(case.lesions_mm3 or ()) + 1)) for case in cases
    ]
    before = np.cumsum([0, *(len(case.lesions_mm3 or ()) for case in cases)])
    multiple = 2 ** (len(config.model.features) - 1)
    # The patch at least, so that all views share one program where no slice is larger.
    slices = [case.shapes[view][1:] for view in views for case in cases]
    largest = np.max([config.batch.patch, *slices], axis=0)
    height, width = (int(-(-size // multiple) * multiple) for size in largest)
    size = config.batch.size
    batches = []
    for start in range(0, len(chosen), size):
        batch = blank_batch(size, (height, width), weighted=config.target.region != "scan")
        if lesions:
            batch |= {"case": np.zeros(size, np.int32), "lesion": np.zeros((size, height, width), np.int32)}
        rows = chosen[start : start + size]
        for row, (number, view, index) in enumerate(rows):
            weights = counted[number] if "pixel_weight" in batch else None
            whole, padded = place_slice(batch, row, cases[number], view, index, weights=weights)
            if lesions:
                batch["case"][row] = number
                ids = cases[number].lesions(view)[index][whole].astype(np.int32)
                batch["lesion"][row][padded] = np.where(ids, ids + before[number], 0)
        label = merge_labels(batch["label"], config.labels)
        batches.append({**batch, "label": label, "weight": np.float32(np.arange(size) < len(rows))})
    return batches


def _spread_slices(
    cases: Sequence[StoredCase], views: Sequence[str], number: int, *, tumors: bool
) -> list[tuple[int, str, int]]:
    """Returns number of the case, view and number of each slice; half of them with liver, or with tumour."""
    kind = 1 if tumors else 0
    counts = [(place, view, case.counts[view][:, kind]) for view in views for place, case in enumerate(cases)]
    with_liver = [(place, view, int(i)) for place, view, count in counts for i in np.flatnonzero(count)]
    without = [(place, view, int(i)) for place, view, count in counts for i in np.flatnonzero(count == 0)]
    share = min(len(with_liver), max(number // 2, number - len(without)))

    def spread(group: list, wanted: int) -> list:
        wanted = min(wanted, len(group))
        return [group[int((index + 0.5) * len(group) / wanted)] for index in range(wanted)]

    return spread(with_liver, share) + spread(without, number - share)
