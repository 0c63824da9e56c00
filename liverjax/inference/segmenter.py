"""A trained model in memory: from a scan to the mask in the scan's own grid."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from liverjax.config import differences, override, to_dict
from liverjax.errors import ConfigError, InputError
from liverjax.inference import memory, plausible
from liverjax.inference.calibration import UNCALIBRATED, Calibration
from liverjax.inference.devices import Devices, timed, warned
from liverjax.inference.fuse import Backend, orthomean
from liverjax.inference.network import Networks
from liverjax.inference.plan import Fused, FusionPlan
from liverjax.inference.postprocess import clean
from liverjax.models import UNet, build_unet
from liverjax.options import Config
from liverjax.prediction import Prediction
from liverjax.scans import AS_STORED, Reading
from liverjax.scans.grid import Grid, labels_on_scan, to_grid, working_grid
from liverjax.scans.images import Scan, as_volume
from liverjax.scans.intensity import doubts, for_scan, intensity_window, normalise
from liverjax.scans.liver_box import liver_grid
from liverjax.volume import Volume, require_volume

# Boxes around livers differ more in size than scans do: they are padded to multiples of at least this. For 161 livers
# at 1 x 1 x 2 mm 34 programs do instead of 83, with 7 % more axial pixels (docs/cascade.md).
_BOX_RASTER = 32
#: The most draws of dropout: the maps no longer change, and each takes the time of a prediction.
MOST_SAMPLES = 1000


class Segmenter:
    """The networks of all views, with the preprocessing that they were trained with. A `prediction.Predictor`.

    Attributes:
      config: the config of the run; `with_options` changes ``views`` and the fields of ``predict``.
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
        subsets: Mapping[str, Sequence[str]] | None = None,
        calibration: Calibration = UNCALIBRATED,
        about: Mapping[str, Any] | None = None,
    ):
        """See `load_model`; ``networks`` are all that were trained."""
        self.subsets = dict(subsets or {})
        self.about = dict(about or {})
        self._architecture = build_unet(
            config.model, len(config.labels), accelerator=jax.default_backend() != "cpu"
        )
        self.network, folded = networks.fold(self._architecture)
        self._all = networks, folded, calibration
        self._backend: Backend | None = None
        self._lock = threading.Lock()
        self._configure(config)

    def _configure(self, config: Config) -> None:
        """Chooses the networks that a config asks for, of all that there are."""
        networks, folded, calibration = self._all
        for view in config.views:
            if view not in networks.views:
                raise ConfigError(f"views names {view!r}, but the model has only {', '.join(networks.views)}")
        networks, folded = networks.select(config.views), folded.select(config.views)
        if config.predict.ensemble == "best":
            networks, folded = networks.best(), folded.best()
        self.config = config
        self.networks = networks
        self.folded = folded
        self.calibration = calibration.for_members(networks.members)
        self._on_device: dict[jax.Device, Networks] = {}

    def __repr__(self) -> str:
        each = f"{self.networks.members} network{'s' * (self.networks.members > 1)} each"
        each += f" from {self.networks.runs} runs" if self.networks.runs > 1 else ""
        return f"Segmenter({self.config.summary()}; {', '.join(self.config.views)}, {each})"

    def trained(self, view: str) -> tuple[UNet, dict]:
        """Returns the architecture as it was trained, and the variables of a view's best member."""
        return self._architecture, self.networks.member(view)

    def predict(
        self,
        scan: Scan,
        affine: Any = None,
        *,
        reading: Reading = AS_STORED,
        uncertainty: bool = False,
        mc_samples: int = 0,
        devices: Devices | None = None,
    ) -> Prediction:
        """Segments one scan. Several threads may call this at once.

        Intensities that the modality does not have, and a liver that no patient has, are warned of, and stand in the
        result's ``doubts``.

        Args:
          scan: a NIfTI file or a folder with a DICOM series; a `Volume`; an image of nibabel or SimpleITK; or an array
            (x, y, z) of NumPy. Of CT in HU.
          affine: (4, 4), of an array: from voxel indices to RAS+ world coordinates in mm.
          reading: phase, series and spacing of the scan, where its files leave them open.
          uncertainty: also make the maps of uncertainty. Labels and probabilities are the same with and without.
          mc_samples: number of draws of dropout of each network that the maps rest on; 0: they rest on the networks
            without dropout.
          devices: one of these computes, when it is free; by default jax's first.

        Raises:
          InputError: the scan cannot be used, or as `liverjax.scans.as_volume`.
          ConfigError: as `plan`.
        """
        self.check(uncertainty=uncertainty, samples=mc_samples)
        seconds: dict[str, float] = {}
        with timed(seconds, "read"):
            volume = as_volume(scan, affine, reading)
        with timed(seconds, "resample"):
            voxels, grid = self.network_input(volume)
        modality = for_scan(self.config.preprocess, volume.voxels).modality
        unusual = warned(doubts(volume.voxels, modality), volume)
        with (devices or Devices(jax.local_devices()[:1])).one() as device, timed(seconds, "network"):
            fused, sampled = self.fused(voxels, device, uncertainty=uncertainty, mc_samples=mc_samples)
        with timed(seconds, "back"):
            options = self.config.predict
            labels = labels_on_scan(fused.probabilities, grid, volume, decision=options.decision)
            found = labels.voxels
            labels = labels.with_voxels(clean(found, labels.spacing.tolist(), options))
            maps = sampled.uncertainty() if sampled else None
            prediction = Prediction(
                labels, volume, fused.probabilities, grid, maps, fused.other_mean, seconds, tuple(unusual)
            )
            # What lies above the window's lower end: of a CT all but air and lung, of MR what counts as the body.
            seen = plausible.evidence(labels, found, voxels > -1, grid.affine, prediction.expected_dice())
            unusual += warned(plausible.doubts(seen), volume)
        return dataclasses.replace(prediction, doubts=tuple(unusual))

    def network_input(self, volume: Volume, liver: Volume | None = None) -> tuple[np.ndarray, Grid]:
        """Returns what the networks see: (X, Y, Z) float32 in [-1, 1], and the grid it lies on.

        That is the working grid of the scan or, of networks that know only the box around the liver, this box, as the
        store of their training had it.

        Args:
          volume: the scan.
          liver: its liver, any value but 0, voxel on voxel; not used by networks of whole scans.

        Raises:
          InputError: as `liverjax.scans.to_grid`.
          ConfigError: the networks know only the box around the liver, and none is given.
          ValueError: the liver is empty.
        """
        options, target = self.config.preprocess, self.config.target
        if target.region == "scan":
            whole = on_grid = to_grid(volume, options.spacing)
        else:
            if liver is None:
                self._require_whole_scans()
            assert liver is not None
            box = liver_grid(require_volume(volume), require_volume(liver), options.spacing, target.margin_mm)
            whole = on_grid = to_grid(volume, box)
        told = for_scan(options, volume.voxels)
        if target.region != "scan" and told.modality != "ct":
            # The window of MR is one of the whole scan, also where the networks see only a box.
            whole = to_grid(volume, options.spacing)
        window = intensity_window(whole.voxels, told)
        return normalise(on_grid.voxels, *window), Grid(on_grid.shape, on_grid.affine)

    def _require_whole_scans(self) -> None:
        if self.config.target.region != "scan":
            raise ConfigError(
                f"target.region is {self.config.target.region!r}: this model knows only the box around the liver, and "
                "cannot segment a whole scan; expected a model with target.region 'scan', and this one beside it "
                "(--model=LIVER --tumor_model=THIS)"
            )

    def view_probabilities(self, volume: Volume) -> tuple[dict[str, list[np.ndarray]], Grid]:
        """Returns the softmax (X, Y, Z, C) of each view's networks, without calibration, and the working grid."""
        voxels, grid = self.network_input(volume)
        options = dataclasses.replace(self.config.predict, fusion="mean", flips=False)
        plan = FusionPlan.of(self.network, options)
        alone: dict[str, list[np.ndarray]] = {view: [] for view in self.folded.views}
        for view, _, variables in self.folded.each():
            alone[view].append(orthomean(Networks.stack({view: [variables]}), voxels, plan).probabilities)
        return alone, grid

    def plan(self, *, member_entropy: bool = False, samples: int = 0) -> FusionPlan:
        """Returns how the networks are fused, with the options of the config.

        Args:
          member_entropy: as of `FusionPlan`; needed for uncertainty.
          samples: number of draws of dropout.

        Raises:
          ConfigError: the weights of the fusion "weighted" were not fitted, samples are asked of another backend, or
            their number is out of bounds.
        """
        if not 0 <= samples <= MOST_SAMPLES:
            raise ConfigError(f"mc_samples is {samples}, expected 0 to {MOST_SAMPLES} draws of dropout")
        if self.config.predict.fusion == "weighted":
            if self.networks.runs > 1:
                raise ConfigError(
                    "predict.fusion is 'weighted', but weights are fitted to the networks of one run, not of "
                    f"{self.networks.runs}; choose 'mean'"
                )
            self.calibration.require_weights(self.config.views)
        if samples and self._backend:
            raise ConfigError(
                f"{samples} samples of dropout need jax, not another backend; leave --runtime=onnx out"
            )
        options = self.config.predict
        if self.config.target.region != "scan":
            bucket = -(-_BOX_RASTER // options.bucket) * options.bucket
            options = dataclasses.replace(options, bucket=max(options.bucket, bucket))
        return FusionPlan.of(
            self.network,
            options,
            members=self.folded.members,
            samples=samples,
            member_entropy=member_entropy,
        )

    def check(self, *, uncertainty: bool = False, samples: int = 0) -> None:
        """Refuses, before a scan is read, what no scan can be predicted with.

        Raises:
          ConfigError: the networks know only the box around the liver, or as `plan`.
        """
        self._require_whole_scans()
        self.plan(member_entropy=uncertainty, samples=samples)

    def memory(self, shape: Sequence[int], affine: np.ndarray, *, uncertainty: bool = False) -> memory.Memory:
        """Returns an estimate of what the prediction of a scan of this geometry takes.

        Args:
          shape: voxels of the scan.
          affine: its affine.
          uncertainty: the maps of uncertainty are made too.
        """
        nothing = Volume(np.broadcast_to(np.int16(0), shape), affine)
        grid, options = working_grid(nothing, self.config.preprocess.spacing), self.config
        on_grid = grid.shape
        if options.target.region != "scan":
            box = memory.largest_box(options.preprocess.spacing, options.target.margin_mm)
            on_grid = [min(size, most) for size, most in zip(grid.shape, box, strict=True)]
        return memory.estimate(shape, on_grid, self.plan(member_entropy=uncertainty))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes of a prediction, in order of their ids."""
        return self.config.labels

    def facts(self) -> dict[str, Any]:
        """Returns what a manifest says of the model, as JSON takes it."""
        return {
            "config": to_dict(self.config),
            "members": self.networks.members,
            "calibration": dataclasses.asdict(self.calibration),
        }

    def subset(self, name: str) -> Sequence[str]:
        """Returns the ids of the cases that trained, chose the checkpoint ("validation"), or were held out ("test").

        Raises:
          InputError: the model is from a bundle, which names no cases.
        """
        if name not in self.subsets:
            raise InputError(
                f"the model does not list its {name} cases, as none of a bundle does; expected the folder of its run"
            )
        if self.networks.runs > 1 and name == "test" and not self.subsets[name]:
            raise InputError(
                f"no case was held out of all {self.networks.runs} runs: each trained or validated one of them, as "
                "in a cross-validation; predict the test cases of each run with that run alone"
            )
        return self.subsets[name]

    def with_options(
        self, views: Sequence[str] | None = None, overrides: Sequence[str] = (), **changes: Any
    ) -> Segmenter:
        """Returns the same networks, otherwise used; nothing is folded again.

        Args:
          views: those of the trained ones that are fused; None leaves them.
          overrides: other values of fields as text, such as ``predict.fill_holes=false``.
          changes: fields of `options.Predict` by name; those that are None stay.

        Raises:
          ConfigError: a value that does not fit, a view that was not trained, or a field that training has fixed; or
            other members than those that the backend of `with_backend` computes.
        """
        given = self.config
        if overrides:
            given = override(given, overrides)
            trained = dataclasses.replace(given, views=self.config.views, predict=self.config.predict)
            for change in differences(self.config, trained).values():
                raise ConfigError(f"{change}: fixed by training; a prediction can change predict.* and views")
        fields = {name: value for name, value in changes.items() if value is not None}
        config = dataclasses.replace(
            given,
            views=given.views if views is None else tuple(views),
            predict=dataclasses.replace(given.predict, **fields),
        )
        if self._backend and config.predict.ensemble != self.config.predict.ensemble:
            raise ConfigError("predict.ensemble cannot change behind a backend; choose it before")
        if config == self.config:
            return self
        other = copy.copy(self)
        other._configure(config)
        return other

    def with_backend(self, backend: Backend) -> Segmenter:
        """Returns the same model with networks that another library computes, without draws of dropout."""
        other = copy.copy(self)
        other._backend = backend
        return other

    def fused(
        self,
        voxels: np.ndarray,
        device: jax.Device,
        *,
        uncertainty: bool = False,
        mc_samples: int = 0,
    ) -> tuple[Fused, Fused | None]:
        """Returns the fusion of all networks on what they see, and the one that its uncertainty rests on, if asked for.

        Args:
          voxels: of `network_input`.
          device: where to compute.
          uncertainty: as of `predict`.
          mc_samples: likewise.
        """
        fused = self._run(self.folded, voxels, self.plan(member_entropy=uncertainty), device)
        if not uncertainty:
            return fused, None
        if not mc_samples:
            return fused, fused
        return fused, self._run(
            self.folded, voxels, self.plan(member_entropy=True, samples=mc_samples), device
        )

    def each_view(self, voxels: np.ndarray, device: jax.Device) -> dict[str, np.ndarray]:
        """Returns for each view the plain mean (X, Y, Z, C) of the calibrated softmax maps of its members."""
        plan = dataclasses.replace(self.plan(), fusion="mean")
        views = {view: self.folded.select([view]) for view in self.config.views}
        return {view: self._run(own, voxels, plan, device).probabilities for view, own in views.items()}

    def _run(self, networks: Networks, voxels: np.ndarray, plan: FusionPlan, device: jax.Device) -> Fused:
        if not self._backend:
            with self._lock:
                if device not in self._on_device:
                    self._on_device[device] = jax.device_put(self.folded, device)
                networks = self._on_device[device].select(networks.views)
        return orthomean(
            networks, voxels, plan, calibration=self.calibration, device=device, backend=self._backend
        )
