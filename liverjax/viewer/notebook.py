"""The same volumes as a widget in notebooks, by ipyniivue."""

from __future__ import annotations

import importlib
from typing import Any

from liverjax.viewer.server import niivue
from liverjax.viewer.study import Study, file_bytes, shown_volume, window

# Colours of the values of `study.SHOWN`, red, green, blue and opacity, the background first: outlines alone are drawn.
_INSIDE = [0, 0, 0, 0] * 3
MASK_LUT = [*_INSIDE, 86, 180, 233, 255, 230, 159, 0, 255]
REFERENCE_LUT = [*_INSIDE, 0, 158, 115, 255, 240, 228, 66, 255]


def widget(study: Study, height: int = 480) -> Any:
    """Returns a widget with three planes and a rendering of a case, for a notebook to display.

    Args:
      study: the case.
      height: in pixels.

    Raises:
      InputError: ipyniivue is not installed, or a file cannot be used.
    """
    niivue()
    package = importlib.import_module("ipyniivue")
    scan = study.read_scan()
    low, high = window(scan)
    shown = package.NiiVue(height=height, is_radiological_convention=True, back_color=(0, 0, 0, 1))
    volumes = [_volume(package, "scan.nii", shown_volume(scan, "scan"), cal_min=low, cal_max=high)]
    for name in study.layers():
        kind = "doubt" if name == "doubt" else "mask"
        layer = shown_volume(study.read_layer(name, scan), kind)
        if kind == "doubt":
            how = {"colormap": "inferno", "opacity": 0.0, "cal_min": 51.0, "cal_max": 255.0}
        else:
            how = {"opacity": 1.0, "cal_min": 0.0, "cal_max": 4.0}
        volumes.append(_volume(package, f"{name}.nii", layer, **how))
        if kind == "mask":
            lut = REFERENCE_LUT if name == "reference" else MASK_LUT
            volumes[-1].colormap_label = package.traits.LUT(lut=lut, min=0, max=4)
    shown.volumes = volumes
    return shown


def _volume(package: Any, name: str, volume: Any, **settings: Any) -> Any:
    header, voxels = file_bytes(volume)
    return package.Volume(name=name, data=header + voxels.tobytes(), colorbar_visible=False, **settings)
