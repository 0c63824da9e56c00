"""Enhanced DICOM files, which hold several slices: each frame as a header of its own.

What a slice's header states stands in functional groups here (PS3.3 C.7.6.16): of each frame, or shared by all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from liverjax.errors import InputError

_PER_FRAME, _SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"
#: Functional group -> what it states, and what that is called in the header of a slice.
_GROUPS = {
    "PixelMeasuresSequence": {
        name: name for name in ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices")
    },
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelValueTransformationSequence": {name: name for name in ("RescaleSlope", "RescaleIntercept")},
    "MREchoSequence": {"EffectiveEchoTime": "EchoTime"},
    "FrameContentSequence": {
        "TemporalPositionIndex": "TemporalPositionIdentifier",
        "FrameAcquisitionDateTime": "AcquisitionDateTime",
        "FrameAcquisitionNumber": "AcquisitionNumber",
    },
}


class Frame:
    """The header of a frame: what its functional groups state, and else what the file does."""

    def __init__(self, whole: Any, stated: dict[str, Any]):
        self._whole, self._stated = whole, stated

    def get(self, name: str, default: Any = None) -> Any:
        """Returns the value of an attribute, or the default."""
        return self._stated[name] if name in self._stated else self._whole.get(name, default)


def is_enhanced(data: Any) -> bool:
    """Whether a header states the places of its slices in functional groups."""
    return _PER_FRAME in data


def frames(data: Any, path: Path) -> list[Frame]:
    """Returns the headers of all frames of an enhanced file, in their order there.

    Raises:
      InputError: their number is not that of the functional groups.
    """
    groups = data.get(_PER_FRAME)
    count = int(data.get("NumberOfFrames") or 1)
    if len(groups) != count:
        raise InputError(
            f"{path}: NumberOfFrames is {count}, but {len(groups)} frames have functional groups, expected as many; "
            "the file may be cut: copy it again from its source"
        )
    shared = _stated(data.get(_SHARED) or ())
    return [Frame(data, {**shared, **_stated([group])}) for group in groups]


def _stated(items: Any) -> dict[str, Any]:
    found = {}
    for item in items:
        for group, names in _GROUPS.items():
            for content in item.get(group) or ():
                found.update({there: content.get(here) for here, there in names.items() if here in content})
    return found
