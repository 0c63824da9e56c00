"""A trained model in memory: from a scan to the mask in the scan's own grid."""

from __future__ import annotations

import contextlib
import copy
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
from liverjax.inference.fuse import Backend, Fused, orthomean
from liverjax.inference.network import Networks
from liverjax.inference.uncertainty import uncertainty_maps
from liverjax.models import UNet, build_unet
from liverjax.options import Config
from liverjax.prediction import Prediction
from liverjax.scans import intensity
from liverjax.scans.grid import Grid, labels_on_scan, to_grid, working_grid
from liverjax.volume import Volume


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
      config: the config of the run; of its fields, `with_options` changes ``views`` and those of ``predict``.
      networks: as trained, those that the config asks for: of its views, all members or, if ``predict.ensemble`` is
        "best", the first.
      network: the architecture of ``folded``.
      folded: ``networks`` as prediction runs them.
      subsets: ids of the cases that trained ("train"), chose the checkpoint ("validation") and were held out ("test").
      calibration: temperatures and fusion weights; none if they were fitted to another number of members.
      about: what else is known of it: versions, training data, licence, scores.
    """

    def __init__(
        self,
        config: Config,
        networks: Networks,
        subsets: dict[str, list[str]] | None = None,
        calibration: Calibration = UNCALIBRATED,
        about: dict | None = None,
    ):
        """See `load_model`; ``networks`` are all that were trained."""
        self.subsets = subsets or {}
        self.about = about or {}
        self._architecture = build_unet(
            config.model, len(config.labels), accelerator=jax.default_backend() != "cpu"
        )
        self.network, folded = networks.fold(self._architecture)
        self._all = networks, folded, calibration
        self._backend: Backend | None = None
        self._lock = threading.Lock()
        self._configure(config)

    def _configure(self, config: Config) -> None:
        for view in config.views:
            if view not in self._all[0].views:
                raise ConfigError(
                    f"views names {view!r}, but the model has only {', '.join(self._all[0].views)}"
                )
        networks, folded = (
            all_networks.select(config.views).best()
            if config.predict.ensemble == "best"
            else all_networks.select(config.views)
            for all_networks in self._all[:2]
        )
        self.config = config
        self.networks = networks
        self.folded = folded
        self.calibration = self._all[2].for_members(networks.members)
        self._on_device: dict[jax.Device, Networks] = {}

    def trained(self, view: str) -> tuple[UNet, dict]:
        """Returns the architecture as it was trained, and the variables of a view's best member."""
        return self._architecture, self.networks.member(view)

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
          mc_samples: number of draws of dropout that the maps rest on, as well as on views and members; 0: on those
            alone.
          devices: one of these computes, when it is free; by default jax's first.

        Raises:
          InputError: the file cannot be used.
        """
        if mc_samples and self._backend:
            raise ConfigError(f"{mc_samples} samples of dropout need jax, not another backend")
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
        alone: dict[str, list[np.ndarray]] = {view: [] for view in self.folded.views}
        for view, _, variables in self.folded.each():
            network = Networks.stack({view: [variables]})
            alone[view].append(orthomean(network, voxels, self.network, options).probabilities)
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
            shape,
            grid.shape,
            self.network,
            self.config.predict,
            channels=channels,
            members=self.folded.members,
        )

    def with_options(
        self, views: Sequence[str] | None = None, overrides: Sequence[str] = (), **changes: object
    ) -> Segmenter:
        """Returns the same networks, otherwise used.

        Args:
          views: those of the trained ones that are fused; None leaves them.
          overrides: other values of fields as text, such as ``predict.fill_holes=false``.
          changes: fields of `options.Predict` by name; those that are None stay.

        Raises:
          ConfigError: a value that does not fit, a view that was not trained, or a field that training has fixed; or
            other members than those that `with_backend` was given.
        """
        config = self.config
        if overrides:
            config = resolve(override(ConfigDict(to_dict(config)), overrides))
        given = {name: value for name, value in changes.items() if value is not None}
        config = dataclasses.replace(
            config,
            views=config.views if views is None else tuple(views),
            predict=dataclasses.replace(config.predict, **given),
        )
        for field, change in differences(self.config, config).items():
            if field != "views" and not field.startswith("predict."):
                raise ConfigError(f"{change}: fixed by training; a prediction can change predict.* and views")
        if self._backend and config.predict.ensemble != self.config.predict.ensemble:
            raise ConfigError("predict.ensemble cannot change behind a backend; choose it before")
        other = copy.copy(self)
        other._configure(config)
        return other

    def with_backend(self, backend: Backend) -> Segmenter:
        """Returns the same model with networks that something else than jax computes, without draws of dropout."""
        other = copy.copy(self)
        other._backend = backend
        return other

    def _fuse(self, voxels: np.ndarray, device: jax.Device, **settings) -> Fused:
        with self._lock:
            if device not in self._on_device and not self._backend:
                self._on_device[device] = jax.device_put(self.folded, device)
        return orthomean(
            self._on_device.get(device, self.folded),
            voxels,
            self.network,
            self.config.predict,
            calibration=self.calibration,
            device=device,
            backend=self._backend,
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
