"""A trained model in memory: from a scan to the mask in the scan's own grid."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from liverjax.checkpoint.manifest import read_manifest
from liverjax.checkpoint.runs import restore_parameters
from liverjax.config import resolve
from liverjax.inference.fuse import orthomean
from liverjax.inference.postprocess import largest_liver_component
from liverjax.models import UNet, build_unet
from liverjax.options import Config
from liverjax.scans import nifti, preprocess
from liverjax.scans.volume import Volume


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of one scan.

    Attributes:
      labels: uint8 mask (0 background, 1 liver, 2 tumour), voxel on voxel with the scan.
      scan: the scan as it was read.
      grid_probabilities: (X, Y, Z, C) float32, mean softmax of the views on the working grid ``grid``.
      grid: the working grid.
    """

    labels: Volume
    scan: Volume
    grid_probabilities: np.ndarray
    grid: preprocess.Grid

    def probabilities(self) -> np.ndarray:
        """Returns the class probabilities (x, y, z, C) float32, voxel on voxel with the scan."""
        return preprocess.probabilities_on_scan(self.grid_probabilities, self.grid, self.scan)


class Segmenter:
    """The networks of all views, with the preprocessing that they were trained with."""

    def __init__(self, config: Config, variables: dict[str, dict], parts: dict[str, list[str]]):
        """See `load_model`.

        Args:
          config: the config of the run.
          variables: for each view the parameters and statistics of its network.
          parts: ids of the cases that trained, chose the checkpoint ("validation") and were held out ("test").
        """
        self.config = config
        self.parts = parts
        self._variables = variables
        self._network = _network(config)

    def predict(self, scan: str | os.PathLike | Volume, *, phase: int | str | None = None) -> Prediction:
        """Segments one scan.

        Args:
          scan: a NIfTI file, or a `Volume` (voxels in HU for CT, and the affine).
          phase: of a 4D file, the phase to segment: an index from 0, or "last".

        Raises:
          InputError: the file cannot be used.
        """
        volume = scan if isinstance(scan, Volume) else nifti.read(scan, phase=phase)
        options = self.config.preprocess
        on_grid = preprocess.to_grid(volume, options.spacing)
        window = preprocess.intensity_window(on_grid.voxels, options)
        voxels = preprocess.normalise(on_grid.voxels, *window)
        probabilities = orthomean(self._variables, voxels, self._network, self.config.predict)
        grid = preprocess.Grid(on_grid.shape, on_grid.affine)
        labels = preprocess.labels_on_scan(probabilities, grid, volume)
        if self.config.predict.largest_component:
            labels = labels.with_voxels(largest_liver_component(labels.voxels))
        return Prediction(labels, volume, probabilities, grid)


def load_model(path: str | os.PathLike) -> Segmenter:
    """Returns the model in the folder of a training run: of each view the best checkpoint by validation.

    Raises:
      CheckpointError: the folder is no run, or a view has no sound checkpoint.
    """
    path = pathlib.Path(path)
    facts = read_manifest(path / "run.json")
    config = resolve(facts["config"])
    template = _template(config)
    variables = {view: restore_parameters(path / view / "best", template)[1] for view in config.views}
    parts = {part: facts["data"][part] for part in ("train", "validation", "test")}
    return Segmenter(config, variables, parts)


def _network(config: Config) -> UNet:
    return build_unet(config.model, len(config.labels), accelerator=jax.default_backend() != "cpu")


def _template(config: Config) -> dict:
    """Returns shapes, types and placement (one device) of a view's parameters and statistics."""
    slices = jnp.zeros((1, *config.batch.patch, 1))
    variables = jax.eval_shape(_network(config).init, jax.random.key(0), slices)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    arrays = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), variables)
    return {"params": arrays["params"], "batch_stats": arrays.get("batch_stats", {})}
