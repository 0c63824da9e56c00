"""Values of outside tools for a fixed set of mask pairs, stored in `oracle_values.json` for every machine.

The tools are heavy (torch among them); their values are computed once and compared with ours by
`test_oracles.py`, which also computes them anew for each tool that is installed. To renew the file, in an
environment with medpy, monai, panoptica, SimpleITK and surface-distance:

  python tests/scoring/oracle_values.py [FOLDER_OF_REAL_SCANS]

Each tool's function returns values under OUR names, which show the definition that it shares.
"""

import importlib.metadata
import json
import os
import pathlib
import random
import sys
import warnings
import zlib

import numpy as np

STORED = pathlib.Path(__file__).parent / "oracle_values.json"
PAIRS = 240
TOLERANCES = (1.0, 2.5)
SPACINGS = (0.6, 0.75, 0.9, 1.0, 1.25, 2.0, 5.0)

#: Masks of real cases: folder, file, and the label ids of the region.
REAL_MASKS = (
    ("lits", "segmentation-0.nii.gz", (1, 2)),
    ("lits", "segmentation-1.nii.gz", (2,)),
    ("lits", "segmentation-117.nii.gz", (1, 2)),
    ("lits", "segmentation-117.nii.gz", (2,)),
    ("chaos_mr/labelsTr", "mr01.nii.gz", (1,)),
    ("chaos_mr/labelsTr", "mr19.nii.gz", (1,)),
)


def mask_pair(index):
    """Returns prediction, reference and spacing; integers alone decide, so that any machine agrees.

    Among them are single slices, single voxels, holes, several components, masks that touch the border.
    """
    draw = random.Random(index)
    shape = [draw.randint(3, 22) for _ in range(3)]
    if index % 8 == 0:
        shape[draw.randrange(3)] = 1
    spacing = [draw.choice(SPACINGS) for _ in range(3)]
    reference, prediction = np.zeros(shape, bool), np.zeros(shape, bool)
    for _ in range(draw.randint(1, 4)):
        blob = _blob(draw, shape)
        reference |= blob
        if draw.random() < 0.85:
            prediction |= _shifted(blob, [draw.randint(-1, 1) for _ in range(3)])
    if draw.random() < 0.5:
        prediction |= _blob(draw, shape)
    if draw.random() < 0.3:
        hole = _blob(draw, shape)
        (reference if draw.random() < 0.5 else prediction)[hole] = False
    for mask in (reference, prediction):
        if index % 5 == 0:
            for _ in range(draw.randint(1, 12)):
                voxel = tuple(draw.randrange(size) for size in shape)
                mask[voxel] ^= True
        if not mask.any() or index % 24 == 1:
            mask[tuple(draw.randrange(size) for size in shape)] = True
    return prediction, reference, spacing


def _blob(draw, shape):
    """Returns an ellipsoid or box at a random place, cut off at the border of the array."""
    offsets = np.ogrid[tuple(slice(0, size) for size in shape)]
    radii = [draw.randint(1, max(1, size // 2)) for size in shape]
    offsets = [grid - draw.randrange(size) for grid, size in zip(offsets, shape, strict=True)]
    if draw.random() < 0.3:
        return np.logical_and.reduce(
            np.broadcast_arrays(*(abs(o) <= r for o, r in zip(offsets, radii, strict=True)))
        )
    product = radii[0] * radii[1] * radii[2]
    return sum((o * (product // r)) ** 2 for o, r in zip(offsets, radii, strict=True)) <= product**2


def _shifted(mask, steps):
    """Returns the mask moved by whole voxels; nothing enters from the other side."""
    moved = np.zeros_like(mask)
    target, source = [], []
    for step, size in zip(steps, mask.shape, strict=True):
        target.append(slice(max(step, 0), size + min(step, 0)))
        source.append(slice(max(-step, 0), size + min(-step, 0)))
    moved[tuple(target)] = mask[tuple(source)]
    return moved


def real_pair(folder, index):
    """Returns a real mask and a changed copy: moved, eroded, or smoothed and thresholded again."""
    import nibabel as nib
    from scipy import ndimage

    place, name, ids = REAL_MASKS[index]
    image = nib.load(pathlib.Path(folder) / place / name)
    reference = np.isin(np.asanyarray(image.dataobj), ids)
    filled = np.argwhere(reference)
    margin = 4
    box = tuple(
        slice(max(0, low - margin), high + margin + 1)
        for low, high in zip(filled.min(0), filled.max(0), strict=True)
    )
    reference = reference[box]
    if index % 3 == 0:
        prediction = _shifted(reference, (2, -1, 1))
    elif index % 3 == 1:
        prediction = ndimage.binary_erosion(reference)
    else:
        # Integers, so that a sum of 13 or 14 of 27 voxels is decided alike everywhere.
        prediction = (
            ndimage.convolve(reference.astype(np.int16), np.ones((3, 3, 3), np.int16), mode="constant") >= 14
        )
    return prediction, reference, [float(size) for size in image.header.get_zooms()[:3]]


def checksum(prediction, reference):
    """Returns a number by which two machines can check that their masks are equal."""
    return zlib.crc32(np.packbits(np.stack([prediction, reference])).tobytes())


def simpleitk(prediction, reference, spacing):
    """Overlap measures of SimpleITK; its Hausdorff distance is from set to set, hence its own name."""
    import SimpleITK as sitk

    images = []
    for mask in (reference, prediction):
        image = sitk.GetImageFromArray(mask.astype(np.uint8).transpose())
        image.SetSpacing(spacing)
        images.append(image)
    measures, distance = sitk.LabelOverlapMeasuresImageFilter(), sitk.HausdorffDistanceImageFilter()
    measures.Execute(*images)
    distance.Execute(*images)
    return {
        "dice": measures.GetDiceCoefficient(),
        "iou": measures.GetJaccardCoefficient(),
        "set_to_set_hausdorff": distance.GetHausdorffDistance(),
    }


def medpy(prediction, reference, spacing):
    """Overlap and surface distances of medpy, whose surfaces have 6 neighbours."""
    from medpy.metric import binary

    return {
        "dice": binary.dc(prediction, reference),
        "iou": binary.jc(prediction, reference),
        "rvd": 100 * binary.ravd(prediction, reference),
        "assd": binary.assd(prediction, reference, spacing),
        "hausdorff": binary.hd(prediction, reference, spacing),
        "hd95": binary.hd95(prediction, reference, spacing),
    }


def surface_distance(prediction, reference, spacing):
    """Area-weighted values of DeepMind's surface-distance."""
    import surface_distance as tool

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It names parts of scipy that have moved.
        distances = tool.compute_surface_distances(reference, prediction, spacing)
    return {
        "hd95_area_weighted": tool.compute_robust_hausdorff(distances, 95),
        **{f"nsd_{t:g}mm": tool.compute_surface_dice_at_tolerance(distances, t) for t in TOLERANCES},
        "prediction_area": distances["surfel_areas_pred"].sum(),
        "reference_area": distances["surfel_areas_gt"].sum(),
    }


def monai(prediction, reference, spacing):
    """Dice and surface distances of MONAI: 6 neighbours; its NSD by area, as in surface-distance."""
    import monai.metrics as tool
    import torch

    masks = [torch.as_tensor(mask)[None, None].float() for mask in (prediction, reference)]
    common = {"include_background": True, "spacing": spacing}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "dice": tool.compute_dice(*masks).item(),
            "assd": tool.compute_average_surface_distance(*masks, symmetric=True, **common).item(),
            "hausdorff": tool.compute_hausdorff_distance(*masks, **common).item(),
            "hd95_max_of_directed": tool.compute_hausdorff_distance(*masks, percentile=95, **common).item(),
            **{
                f"nsd_{t:g}mm": tool.compute_surface_dice(*masks, [t], use_subvoxels=True, **common).item()
                for t in TOLERANCES
            },
        }


def panoptica(prediction, reference, spacing):
    """Lesions found one to one at an IoU above 0.5, and the mean Dice of these."""
    import panoptica as tool
    from panoptica.utils.constants import CCABackend

    evaluator = tool.Panoptica_Evaluator(
        expected_input=tool.InputType.SEMANTIC,
        instance_approximator=tool.ConnectedComponentsInstanceApproximator(CCABackend.scipy),
        instance_matcher=tool.NaiveThresholdMatching(matching_threshold=0.5, strict_threshold=True),
        instance_metrics=[tool.Metric.DSC, tool.Metric.IOU],
        global_metrics=[tool.Metric.DSC],
    )
    (result,) = evaluator.evaluate(
        *(m.astype(np.uint8) for m in (prediction, reference)), verbose=False
    ).values()
    return {
        "references": result.n_ref_instances,
        "predictions": result.n_pred_instances,
        "found": result.tp,
        "dice_of_found": result.sq_dsc if result.tp else 0.0,
    }


#: Each tool's function, and the package that it comes from.
TOOLS = {
    "simpleitk": (simpleitk, "SimpleITK"),
    "medpy": (medpy, "medpy"),
    "surface_distance": (surface_distance, "surface-distance"),
    "monai": (monai, "monai"),
    "panoptica": (panoptica, "panoptica"),
}


def main(real_data=None):
    """Computes every tool's values of every pair and writes the file."""
    os.environ["PANOPTICA_CITATION_REMINDER"] = "false"
    pairs = {str(i): mask_pair(i) for i in range(PAIRS)}
    if real_data:
        pairs |= {f"real {i}": real_pair(real_data, i) for i in range(len(REAL_MASKS))}
    stored = {
        "versions": {package: importlib.metadata.version(package) for _, package in TOOLS.values()},
        "pairs": {
            name: {"checksum": checksum(*pair[:2])}
            | {
                tool: {key: float(f"{float(value):.10g}") for key, value in compute(*pair).items()}
                for tool, (compute, _) in TOOLS.items()
            }
            for name, pair in pairs.items()
        },
    }
    lines = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in stored["pairs"].items()
    )
    STORED.write_text(f'{{"versions": {json.dumps(stored["versions"])},\n "pairs": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main(*sys.argv[1:])
