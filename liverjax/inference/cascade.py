"""Liver first, then tumours in the box around it: two models, and if given a lesion filter, as one `Predictor`.

1. The liver model segments the whole scan. Tumours that it knows itself count as liver.
2. The tumour model sees the box around that liver with the margin and on the grid of its training
   (`scans.liver_box`), there around the reference's liver. Its probability of tumour counts within the liver, dilated
   by ``target.dilation_mm`` of its config, and is 0 elsewhere.
3. Tumour is what the tumour model decides to be so or, with a lesion filter, what of that lies in candidates that
   the filter keeps; of a candidate that is kept although the decision finds nothing in it, all of it.
4. The mask: the liver is that of the liver model, united with these tumours. Clean-up by the tumour model's
   ``predict``: small tumours, tumours that touch no liver, holes. The liver model's own steps have cleaned the liver.

Probabilities: tumour is t, by the tumour model; liver with tumours is max(f, t), with f that of the liver model.
Uncertainty: at each voxel the larger of both models', the tumour model's within the dilated liver.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from liverjax.errors import ConfigError, InputError
from liverjax.inference import memory
from liverjax.inference.devices import Devices, timed, warned
from liverjax.inference.lesions import accepted, filtered
from liverjax.inference.plan import Fused
from liverjax.inference.segmenter import Segmenter
from liverjax.labels import BACKGROUND, NAMES, TUMOR
from liverjax.objects.filter import LesionFilter
from liverjax.options import Config
from liverjax.prediction import Prediction, Tumors, Uncertainty, rounded
from liverjax.scans import AS_STORED, Reading
from liverjax.scans.grid import Grid, labels_on_scan, probabilities_on_scan
from liverjax.scans.images import Scan
from liverjax.scans.intensity import doubts, for_scan
from liverjax.scans.liver_box import liver_distance
from liverjax.volume import Volume

#: The two stages; with a dot behind it, the name begins an override of that stage alone (`Cascade.with_options`).
STAGES = ("liver", "tumor")
# Bytes of a scan's voxel on the host beside those of the liver model: the tumour probability, labels, and of the filter
# the rounded probability, and of each view another.
_BYTES, _FILTER_BYTES, _VIEW_BYTES = 8, 12, 4


class Cascade:
    """A model of the liver and one of tumours in the box around it. A `prediction.Predictor`.

    Attributes:
      liver: segments whole scans.
      tumor: knows tumours.
      lesion_filter: drops candidates; None keeps what the tumour model decides.
    """

    def __init__(self, liver: Segmenter, tumor: Segmenter, lesion_filter: LesionFilter | None = None):
        """See `load_model`.

        Raises:
          ConfigError: they do not go together.
        """
        _require_fitting(liver.config, tumor.config)
        for view in lesion_filter.views if lesion_filter else ():
            if view not in tumor.config.views:
                raise ConfigError(
                    f"the lesion filter needs the tumour probability of the {view} view, but the tumour model has only "
                    f"{', '.join(tumor.config.views)}; give a filter that was trained with --noviews"
                )
        self.liver, self.tumor, self.lesion_filter = liver, tumor, lesion_filter

    def __repr__(self) -> str:
        kept = self.lesion_filter
        lesions = "no lesion filter" if kept is None else f"lesions of {kept.lesion_probability:g} or more"
        return f"Cascade({self.liver!r},\n  {self.tumor!r}, {lesions})"

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes of a prediction, in order of their ids."""
        return NAMES

    def facts(self) -> dict[str, Any]:
        """Returns what a manifest says of the model, as JSON takes it: each fact of both stages."""
        liver, tumor = self.liver.facts(), self.tumor.facts()
        facts = {name: dict(zip(STAGES, (liver[name], tumor[name]), strict=True)) for name in liver}
        kept = self.lesion_filter
        return {**facts, "lesion_probability": kept.lesion_probability if kept else None}

    def predict(
        self,
        scan: Scan,
        affine: Any = None,
        *,
        reading: Reading = AS_STORED,
        uncertainty: bool = False,
        mc_samples: int = 0,
        views: bool = False,
        devices: Devices | None = None,
    ) -> Prediction:
        """Segments liver and tumours of one scan. Several threads may call this at once.

        Where no liver is found, no tumours are sought: the mask is empty, and the prediction's doubts say so.

        Args:
          scan: as of `Segmenter.predict`, and so all others but ``views``.
          affine: of an array.
          reading: phase, series and spacing of the scan, where its files leave them open.
          uncertainty: also make the maps of uncertainty.
          mc_samples: number of draws of dropout that the maps rest on.
          views: also keep the tumour probability of each view, if there are several.
          devices: one of these computes, when it is free; by default jax's first.

        Raises:
          InputError: the scan cannot be used, or as `liverjax.scans.as_volume`.
          ConfigError: as `Segmenter.plan`.
        """
        self.check(uncertainty=uncertainty, samples=mc_samples)
        devices = devices or Devices(jax.local_devices()[:1])
        asked: dict[str, Any] = {"uncertainty": uncertainty, "mc_samples": mc_samples}
        found = self.liver.predict(scan, affine, reading=reading, devices=devices, **asked)
        volume, seconds = found.scan, dict(found.seconds)
        liver = found.labels.with_voxels((found.labels.voxels != BACKGROUND).astype(np.uint8))
        if not liver.voxels.any():
            nothing = np.zeros(found.grid_probabilities.shape[:3], np.float32)
            return _combined(found, liver, nothing, None)
        options = self.tumor.config
        modality = for_scan(options.preprocess, volume.voxels).modality
        unusual = list(found.doubts)
        if modality != for_scan(self.liver.config.preprocess, volume.voxels).modality:
            unusual += warned(doubts(volume.voxels, modality), volume)
        own: dict[str, float] = {}
        with timed(own, "resample"):
            voxels, grid = self.tumor.network_input(volume, liver)
            within = liver_distance(liver, grid) <= options.target.dilation_mm
        needed = len(options.views) > 1 and (views or bool(self.lesion_filter and self.lesion_filter.views))
        with devices.one() as device, timed(own, "network"):
            fused, sampled = self.tumor.fused(voxels, device, **asked)
            each = self.tumor.each_view(voxels, device) if needed else {}
        with timed(own, "back"):
            place = options.labels.index(NAMES[TUMOR])
            tumor = fused.probabilities[..., place] * within
            maps = {view: values[..., place] * within for view, values in each.items()}
            plain = None if fused.other_mean is None else fused.other_mean[..., place] * within
            decided = self._decided(fused, within, grid, volume)
            if self.lesion_filter is None:
                labels, lesions = accepted(liver, decided, options.predict)
            else:
                unfiltered, _ = accepted(liver, decided, options.predict)
                on_scan = {view: _map_on_scan(values, grid, volume) for view, values in maps.items()}
                kept = self.lesion_filter.apply(
                    volume.voxels,
                    unfiltered.voxels,
                    _map_on_scan(tumor, grid, volume),
                    volume.affine,
                    views=on_scan,
                )
                labels, lesions = filtered(liver, decided, kept, options.predict)
            on_grid = _on_grid(tumor, grid, found.grid)
            mean = None if plain is None else _on_grid(plain, grid, found.grid)
            combined = _combined(found, labels, on_grid, mean)
            both = found.uncertainty
            if sampled and both:
                here = sampled.uncertainty()
                both = Uncertainty(
                    np.maximum(both.entropy, _on_grid(here.entropy * within, grid, found.grid)),
                    np.maximum(
                        both.mutual_information, _on_grid(here.mutual_information * within, grid, found.grid)
                    ),
                )
        for stage, spent in own.items():
            seconds[stage] += spent
        return dataclasses.replace(
            combined,
            uncertainty=both,
            seconds=seconds,
            doubts=tuple(unusual),
            tumors=Tumors(tumor, grid, maps if views else {}, tuple(lesions)),
        )

    def _decided(self, fused: Fused, within: np.ndarray, grid: Grid, scan: Volume) -> np.ndarray:
        """Returns (x, y, z) bool, voxel on voxel with the scan: what the tumour model decides to be tumour."""
        place = self.tumor.config.labels.index(NAMES[TUMOR])
        inside = fused.probabilities.copy()
        inside[..., BACKGROUND] += np.where(within, 0, inside[..., place])
        inside[..., place] *= within
        labels = labels_on_scan(inside, grid, scan, decision=self.tumor.config.predict.decision)
        return labels.voxels == place

    def check(self, *, uncertainty: bool = False, samples: int = 0) -> None:
        """Refuses, before a scan is read, what no scan can be predicted with.

        Raises:
          ConfigError: as `Segmenter.plan`.
        """
        self.liver.check(uncertainty=uncertainty, samples=samples)
        self.tumor.plan(member_entropy=uncertainty, samples=samples)

    def memory(self, shape: Sequence[int], affine: np.ndarray, *, uncertainty: bool = False) -> memory.Memory:
        """Returns an estimate of what the prediction of a scan of this geometry takes, for a large liver.

        Args:
          shape: voxels of the scan.
          affine: its affine.
          uncertainty: the maps of uncertainty are made too.
        """
        one, two = (
            model.memory(shape, affine, uncertainty=uncertainty) for model in (self.liver, self.tumor)
        )
        most = memory.Memory(*(max(pair) for pair in zip(one, two, strict=True)))
        kept = self.lesion_filter
        each = _BYTES + (_FILTER_BYTES + _VIEW_BYTES * len(kept.views) if kept else 0)
        return most._replace(scan=most.scan + int(np.prod(shape)) * each)

    @property
    def subsets(self) -> Mapping[str, Sequence[str]]:
        """Ids of the cases of each subset of the tumour model's split, by which it is told what was held out."""
        return self.tumor.subsets

    def subset(self, name: str) -> Sequence[str]:
        """Returns the ids of the cases of a subset of the tumour model's split.

        Of "test" those that the liver model did not see either, as far as it lists its cases.

        Raises:
          InputError: the tumour model is from a bundle, which names no cases; or none is left.
        """
        ids = self.tumor.subset(name)
        if name != "test":
            return ids
        seen = {id for subset in ("train", "validation") for id in self.liver.subsets.get(subset, ())}
        left = [id for id in ids if id not in seen]
        if ids and not left:
            raise InputError(
                f"all {len(ids)} test cases of the tumour model trained the liver model, expected some that neither "
                "has seen; give a liver model of the same split (split.test_cases)"
            )
        return left

    def with_options(
        self, views: Sequence[str] | None = None, overrides: Sequence[str] = (), **changes: Any
    ) -> Cascade:
        """Returns the same networks, otherwise used.

        Args:
          views: as of `Segmenter.with_options`, of both models, and so all others.
          overrides: of both models, or of one if ``liver.`` or ``tumor.`` stands before, as in
            ``tumor.predict.min_tumor_mm3=30``.
          changes: fields of `options.Predict` by name; those that are None stay.

        Raises:
          ConfigError: as `Segmenter.with_options`.
        """

        def own(stage: str) -> list[str]:
            others = tuple(f"{name}." for name in STAGES if name != stage)
            return [text.removeprefix(f"{stage}.") for text in overrides if not text.startswith(others)]

        liver, tumor = STAGES
        return Cascade(
            self.liver.with_options(views, own(liver), **changes),
            self.tumor.with_options(views, own(tumor), **changes),
            self.lesion_filter,
        )


def _require_fitting(liver: Config, tumor: Config) -> None:
    expected = "expected a model of whole scans as --model, and one of tumours as --tumor_model"
    if liver.target.region != "scan":
        raise ConfigError(
            f"the liver model knows only the box around a liver (target.region {liver.target.region!r}), {expected}; "
            "are the two swapped?"
        )
    if NAMES[TUMOR] not in tumor.labels:
        raise ConfigError(f"the tumour model knows only {', '.join(tumor.labels)}, no tumour; {expected}")
    kinds = {liver.preprocess.modality, tumor.preprocess.modality} - {"any"}
    if len(kinds) > 1:
        raise ConfigError(
            f"the liver model is for {liver.preprocess.modality.upper()}, the tumour model for "
            f"{tumor.preprocess.modality.upper()}; expected both for one modality, or one for any"
        )


def _combined(found: Prediction, labels: Volume, tumor: np.ndarray, plain: np.ndarray | None) -> Prediction:
    """Returns a liver model's prediction with other labels, and with tumours in its probabilities.

    Args:
      found: by the liver model.
      labels: of liver and tumours.
      tumor: (X, Y, Z) its probability by the fusion of the tumour model, on the liver model's working grid.
      plain: likewise by the plain mean of the softmax maps, if that is another.
    """
    other = found.other_mean
    if other is not None or plain is not None:
        other = _nested(
            found.grid_probabilities if other is None else other, tumor if plain is None else plain
        )
    probabilities = _nested(found.grid_probabilities, tumor)
    return dataclasses.replace(found, labels=labels, grid_probabilities=probabilities, other_mean=other)


def _nested(liver: np.ndarray, tumor: np.ndarray) -> np.ndarray:
    """Returns (X, Y, Z, 3): tumour t, liver max(f, t) - t, background; f is all but that of ``liver``."""
    foreground = np.maximum(1 - liver[..., BACKGROUND], tumor)
    return np.stack([1 - foreground, foreground - tumor, tumor], -1)


def _on_grid(values: np.ndarray, source: Grid, grid: Grid) -> np.ndarray:
    """Returns a map (X, Y, Z) on one working grid of a scan, or a box of it, on another."""
    place = Volume(np.broadcast_to(np.int16(0), grid.shape), grid.affine)
    return probabilities_on_scan(values[..., None], source, place)[..., 0]


def _map_on_scan(values: np.ndarray, grid: Grid, scan: Volume) -> np.ndarray:
    """Returns a map on the scan's voxels, rounded as those that a lesion filter is trained on."""
    return rounded(probabilities_on_scan(values[..., None], grid, scan)[..., 0])
