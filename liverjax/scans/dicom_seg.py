"""Masks as DICOM segmentations (SEG). Needs highdicom.

One binary segment a region, of frames that are as large as the slices and lie on them; frames without a voxel of the
segment are left out. Binary frames, one bit a pixel and not compressed, are what every reader of SEG takes; label maps
(2024) are not: dcmqi, with which 3D Slicer reads, had none yet when this was written. The segments are nested, so that
the liver has its tumours in it, and its volume is the liver's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from liverjax import __version__
from liverjax.scans import dicom_files
from liverjax.scans.dicom_source import USE, code, headers, new_uid, require_package, require_series, segments
from liverjax.volume import Volume

WHAT = "a DICOM SEG"


def segmentation(mask: Volume, *, classes: int, algorithm: str) -> Any:
    """Returns a mask as a DICOM segmentation, a pydicom data set.

    It refers to every slice of the series, has a series of its own in the scan's study, and states what made it.

    Args:
      mask: label ids (x, y, z), voxel on voxel with the DICOM series that is its source.
      classes: number of labels that whoever made the mask knows; each but the background becomes a segment, also an
        empty one.
      algorithm: what made the mask, such as "liverjax ct_liver".

    Raises:
      InputError: as `dicom_source.headers`, or highdicom is not installed.
    """
    seg = require_package("highdicom.seg", WHAT)
    source = headers(mask, WHAT)
    made_by = require_package("highdicom", WHAT).AlgorithmIdentificationSequence(
        name=algorithm[:64], family=code("123110", "Artificial Intelligence", "DCM"), version=__version__
    )
    color = require_package("highdicom.color", WHAT).CIELabColor
    regions = segments(classes)
    described = [
        seg.SegmentDescription(
            segment_number=number,
            segment_label=region.label,
            segmented_property_category=code(*region.category),
            segmented_property_type=code(*region.kind),
            algorithm_type="AUTOMATIC",
            algorithm_identification=made_by,
            tracking_uid=new_uid(),
            tracking_id=region.label,
            anatomic_regions=[code("10200004", "Liver")] if region.name != "liver" else None,
            display_color=color.from_rgb(*region.rgb),
        )
        for number, region in enumerate(regions, start=1)
    ]
    for description, region in zip(described, regions, strict=True):
        description.SegmentDescription = region.description
    # Frames are (rows, columns): y, then x.
    frames = np.stack([region.mask(mask.voxels).transpose(2, 1, 0) for region in regions], axis=-1)
    with dicom_files.errors_named(
        require_series(mask, WHAT).files[0], f"{WHAT} cannot be made of its header"
    ):
        return seg.Segmentation(
            source_images=source,
            pixel_array=frames.view(np.uint8),
            segmentation_type="BINARY",
            segment_descriptions=described,
            series_instance_uid=new_uid(),
            series_number=1001,
            sop_instance_uid=new_uid(),
            instance_number=1,
            manufacturer="liverjax",
            manufacturer_model_name=algorithm[:64],
            software_versions=__version__,
            device_serial_number="0",
            omit_empty_frames=bool(frames.any()),  # An object has one frame at least.
            content_creator_name="liverjax^",
            content_label="LIVER",
            content_description=USE,
            series_description=f"{algorithm[:16]}, {USE}"[:64],
        )
