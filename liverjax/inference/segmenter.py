"""A trained model in memory: from a scan to the mask in the scan's own grid."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from liverjax import scans
from liverjax.config import differences, override, resolve, to_dict
from liverjax.errors import ConfigError
from liverjax.inference import memory, postprocess
from liverjax.inference.calibration import UNCALIBRATED, Calibration
from liverjax.inference.ensemble import stack, unstack
from liverjax.inference.fuse import Fused, orthomean
from liverjax.inference.network import fold
from liverjax.inference.uncertainty import Uncertainty, slice_quality, uncertainty_maps
from liverjax.models import build_unet
from liverjax.options import Config
from liverjax.scans import intensity
from liverjax.scans.grid import Grid, labels_on_scan, probabilities_on_scan, to_grid, working_grid
from liverjax.volume import Volume


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of one scan.

    Attributes:
      labels: uint8 mask (0 background, 1 liver, 2 tumour), voxel on voxel with the scan.
      scan: the scan as it was read.
      grid_probabilities: (X, Y, Z, C) float32, fused softmax of the views on the working grid ``grid``.
      grid: the working grid.
      uncertainty: maps on the working grid, if they were asked for.
      seconds: wall time of the parts "read", "resample", "network", "back".
    """

    labels: Volume
    scan: Volume
    grid_probabilities: np.ndarray
    grid: Grid
    uncertainty: Uncertainty | None = None
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def probabilities(self) -> np.ndarray:
        """Returns the class probabilities (x, y, z, C) float32, voxel on voxel with the scan."""
        return probabilities_on_scan(self.grid_probabilities, self.grid, self.scan)

    def on_scan(self, values: np.ndarray) -> Volume:
        """Returns a map (X, Y, Z) on the working grid, such as one of `uncertainty`, voxel on voxel with the scan."""
        return self.scan.with_voxels(probabilities_on_scan(values[..., None], self.grid, self.scan)[..., 0])

    def slice_quality(self) -> np.ndarray:
        """Returns a score in [0, 1] of each axial slice of the scan, by which to rank slices for review."""
        return slice_quality(self.grid_probabilities, self.grid, self.scan)


class Devices:
    """Devices that threads share: each is with one thread at a time."""

    def __init__(self, devices: Sequence[jax.Device]):
        self._free: queue.SimpleQueue[jax.Device] = queue.SimpleQueue()
        for device in devices:
            self._free.put(device)

    @contextlib.contextmanager
    def one(self) -> Iterator[jax.Device]:
        """Lends a device, as soon as one is free."""
        device = self._free.get()
        try:
            yield device
        finally:
            self._free.put(device)


class Segmenter:
    """The networks of all views, with the preprocessing that they were trained with.

    Attributes:
      config: the config of the run.
      parts: ids of the cases that trained, chose the checkpoint ("validation") and were held out ("test").
      starts: number of networks of each view that are fused: all that were kept, or with the option
        ``predict.ensemble`` "best" one.
      variables: for each view the parameters and statistics of its network, as trained; of several starts stacked
        along a first axis, the best first.
      network: of every view, with batch norms folded.
      folded_variables: for each view those that `network` is applied with, stacked likewise.
      calibration: temperatures and fusion weights; none where they were fitted to another number of starts.
      about: what else is known of it: versions, training data, licence, scores.
      runtime: what computes the networks, "jax" or "onnx" (on CPUs only, and without dropout).
    """

    def __init__(
        self,
        config: Config,
        variables: dict[str, dict],
        parts: dict[str, list[str]],
        calibration: Calibration = UNCALIBRATED,
        about: dict | None = None,
        runtime: str = "jax",
        starts: int = 1,
    ):
        """See `load_model`; the arguments are attributes, but for all starts that there are."""
        self._whole = variables, calibration, starts
        if config.predict.ensemble == "best":
            variables, starts = {view: unstack(stacked, starts)[0] for view, stacked in variables.items()}, 1
        self.config = config
        self.parts = parts
        self.starts = starts
        self.variables = variables
        self.calibration = calibration.for_members(starts)
        self.about = about or {}
        self.runtime = runtime
        network = build_unet(config.model, len(config.labels), accelerator=jax.default_backend() != "cpu")
        self.folded_variables = {}
        for view in config.views:
            folded = [fold(network, one) for one in unstack(variables[view], starts)]
            self.network = folded[0][0]
            self.folded_variables[view] = stack([parameters for _, parameters in folded])
        self._elsewhere = None
        if runtime == "onnx":
            from liverjax.pretrained.onnx import OnnxNetworks

            temperature = self.calibration.temperature
            self._elsewhere = OnnxNetworks(self.network, self.folded_variables, temperature, starts)
        self._on_device: dict[jax.Device, dict] = {}
        self._lock = threading.Lock()

    def predict(
        self,
        scan: str | os.PathLike | Volume,
        *,
        phase: int | str | None = None,
        uncertainty: bool = False,
        mc_samples: int = 0,
        devices: Devices | None = None,
    ) -> Prediction:
        """Segments one scan. Several threads may call this at once.

        Args:
          scan: a NIfTI file or a folder with a DICOM series, or a `Volume` (voxels in HU for CT, and the affine).
          phase: of a 4D file, the phase to segment: an index from 0, or "last".
          uncertainty: also make the maps of uncertainty. Labels and probabilities are the same with and without.
          mc_samples: number of draws of dropout that the maps rest on, as well as on views and starts; 0: on those
            alone.
          devices: one of these computes, when it is free; by default jax's first.

        Raises:
          InputError: the file cannot be used.
        """
        if mc_samples and self.runtime != "jax":
            raise ConfigError(f"{mc_samples} samples of dropout need the runtime 'jax', not {self.runtime!r}")
        clock = _Clock()
        with clock("read"):
            volume = scan if isinstance(scan, Volume) else scans.read(scan, phase=phase)
        with clock("resample"):
            voxels, grid = self.network_input(volume)
        with (devices or Devices(jax.local_devices()[:1])).one() as device, clock("network"):
            fused = self._fuse(voxels, device, spread=uncertainty)
            doubted = fused
            if uncertainty and mc_samples:
                doubted = self._fuse(voxels, device, spread=True, samples=mc_samples)
        with clock("back"):
            labels = labels_on_scan(fused.probabilities, grid, volume, decision=self.config.predict.decision)
            labels = labels.with_voxels(postprocess.clean(labels.voxels, labels.spacing, self.config.predict))
            maps = uncertainty_maps(doubted) if uncertainty else None
        return Prediction(labels, volume, fused.probabilities, grid, maps, clock.seconds)

    def network_input(self, volume: Volume) -> tuple[np.ndarray, Grid]:
        """Returns what the networks see: (X, Y, Z) float32 in [-1, 1], and the working grid it lies on."""
        options = self.config.preprocess
        on_grid = to_grid(volume, options.spacing)
        window = intensity.intensity_window(on_grid.voxels, options)
        return intensity.normalise(on_grid.voxels, *window), Grid(on_grid.shape, on_grid.affine)

    def view_probabilities(self, volume: Volume) -> tuple[dict[str, list[np.ndarray]], Grid]:
        """Returns the softmax (X, Y, Z, C) of each view's networks, without calibration, and the working grid."""
        voxels, grid = self.network_input(volume)
        options = dataclasses.replace(self.config.predict, fusion="mean", flips=False)
        alone = {
            view: [
                orthomean({view: parameters}, voxels, self.network, options).probabilities
                for parameters in unstack(stacked, self.starts)
            ]
            for view, stacked in self.folded_variables.items()
        }
        return alone, grid

    def memory(self, shape: Sequence[int], affine: np.ndarray, *, spread: bool = False) -> memory.Memory:
        """Returns an estimate of what the prediction of a scan of this geometry takes.

        Args:
          shape: voxels of the scan.
          affine: its affine.
          spread: the maps of uncertainty are made too.
        """
        nothing = Volume(np.broadcast_to(np.int16(0), shape), affine)
        grid = working_grid(nothing, self.config.preprocess.spacing)
        channels = self.network.classes + spread
        return memory.estimate(
            shape, grid.shape, self.network, self.config.predict, channels=channels, starts=self.starts
        )

    def with_options(
        self,
        runtime: str | None = None,
        views: Sequence[str] | None = None,
        overrides: Sequence[str] = (),
        **changes: object,
    ) -> Segmenter:
        """Returns the same networks, otherwise used.

        Args:
          runtime: what computes; None leaves it.
          views: those of the trained ones that are fused; None leaves them.
          overrides: other values of fields as text, such as ``predict.fill_holes=false``.
          changes: fields of `options.Predict` by name; those that are None stay.

        Raises:
          ConfigError: a value that does not fit, a view that was not trained, or a field that training has fixed.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        config = resolve(override(ConfigDict(to_dict(self.config)), overrides))
        config = dataclasses.replace(
            config,
            views=config.views if views is None else tuple(views),
            predict=dataclasses.replace(config.predict, **given),
        )
        for field, change in differences(self.config, config).items():
            if field != "views" and not field.startswith("predict."):
                raise ConfigError(f"{change}: fixed by training; a prediction can change predict.* and views")
        for view in config.views:
            if view not in self.variables:
                raise ConfigError(f"views names {view!r}, but the model has only {', '.join(self.variables)}")
        variables, calibration, starts = self._whole
        return Segmenter(
            config, variables, self.parts, calibration, self.about, runtime or self.runtime, starts
        )

    def _fuse(self, voxels: np.ndarray, device: jax.Device, **settings) -> Fused:
        with self._lock:
            if device not in self._on_device and not self._elsewhere:
                self._on_device[device] = jax.device_put(self.folded_variables, device)
        return orthomean(
            self._on_device.get(device, self.folded_variables),
            voxels,
            self.network,
            self.config.predict,
            calibration=self.calibration,
            starts=self.starts,
            device=device,
            elsewhere=self._elsewhere,
            **settings,
        )


class _Clock:
    """Wall time of named parts."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - start
