"""Values of outside tools for the agreement of observers, stored in `agreement_values.json` for every machine.

pingouin (ICC), statsmodels (Fleiss' kappa), krippendorff (alpha) and SimpleITK (STAPLE). To renew the file, in an
environment with these four:

  python tests/scoring/agreement_values.py [FOLDER_OF_REAL_SCANS]
"""

import importlib.metadata
import json
import pathlib
import random
import sys

import numpy as np

STORED = pathlib.Path(__file__).parent / "agreement_values.json"
READERS = ("rad1", "rad2", "rad3")


def table(index):
    """Returns (cases, raters) values; integers alone decide, so that any machine agrees."""
    draw = random.Random(index)
    cases, raters = draw.randint(3, 25), draw.randint(2, 5)
    noise, bias = draw.choice((5, 40, 300)), [draw.randint(-100, 100) for _ in range(raters)]
    truth = [draw.randint(0, 1000) for _ in range(cases)]
    return np.array([[one + own + draw.randint(-noise, noise) for own in bias] for one in truth], float)


def classes(index):
    """Returns (units, raters) classes of 0 to 3, some of them missing (-1)."""
    draw = random.Random(1000 + index)
    units, raters = draw.randint(4, 30), draw.randint(2, 6)
    truth = [draw.randint(0, 3) for _ in range(units)]
    found = [[one if draw.random() < 0.6 else draw.randint(0, 3) for _ in range(raters)] for one in truth]
    return np.array([[one if draw.random() < 0.9 else -1 for one in row] for row in found])


def counts(ratings):
    """Returns (units, 4) how many raters gave each class; of `classes`."""
    return np.stack([(ratings == one).sum(1) for one in range(4)], axis=1)


def masks(index):
    """Returns the masks of three to five readers: a box that each has shifted, with voxels that are wrong by chance."""
    draw = random.Random(2000 + index)
    found = []
    for _ in range(draw.randint(3, 5)):
        mask = np.zeros((11, 10, 9), np.uint8)
        low = [draw.randint(2, 4) for _ in range(3)]
        mask[low[0] : low[0] + 5, low[1] : low[1] + 5, low[2] : low[2] + 4] = 1
        for _ in range(draw.randint(0, 60)):
            voxel = tuple(draw.randrange(size) for size in mask.shape)
            mask[voxel] = 1 - mask[voxel]
        found.append(mask)
    return found


def real_masks(folder):
    """Returns the masks of one tumour by three radiologists, cut to a box around it."""
    import nibabel as nib

    read = [
        np.asarray(nib.load(pathlib.Path(folder) / "observers" / name / "obs01.nii.gz").dataobj) != 0
        for name in READERS
    ]
    low, high = np.argwhere(sum(read)).min(0) - 3, np.argwhere(sum(read)).max(0) + 4
    return [mask[tuple(map(slice, low, high))].astype(np.uint8) for mask in read]


def _icc(values):
    import pandas
    import pingouin

    cases, raters = np.indices(values.shape)
    frame = pandas.DataFrame({"case": cases.ravel(), "rater": raters.ravel(), "value": values.ravel()})
    with np.errstate(all="ignore"):
        pingouin.options["round.column.CI95"] = None
        found = pingouin.intraclass_corr(frame, "case", "rater", "value").set_index("Type")
    names = {"ICC(2,1)": "ICC(A,1)", "ICC(3,1)": "ICC(C,1)"}
    return {
        own: [float(found.loc[name, "ICC"]), *map(float, found.loc[name, "CI95"])]
        for own, name in names.items()
    }


def _fleiss(found):
    from statsmodels.stats.inter_rater import fleiss_kappa

    return float(fleiss_kappa(found))


def _alpha(ratings):
    import krippendorff

    data = np.where(ratings < 0, np.nan, ratings).T
    return float(krippendorff.alpha(reliability_data=data, level_of_measurement="nominal"))


def _staple(found):
    import SimpleITK

    step = SimpleITK.STAPLEImageFilter()
    step.SetForegroundValue(1)
    result = step.Execute([SimpleITK.GetImageFromArray(mask) for mask in found])
    probability = SimpleITK.GetArrayFromImage(result)
    pattern = sum(mask.astype(int) << bit for bit, mask in enumerate(found))
    first = {int(one): np.flatnonzero(pattern == one)[0] for one in np.unique(pattern)}
    return {
        "sensitivity": list(step.GetSensitivity()),
        "specificity": list(step.GetSpecificity()),
        "probability": {one: float(probability.ravel()[place]) for one, place in first.items()},
    }


def _voxels(found):
    inside = sum(mask.astype(int) for mask in found).ravel()
    ratings = np.stack([mask.ravel() for mask in found], axis=1)
    return {"kappa": _fleiss(np.stack([len(found) - inside, inside], axis=1)), "alpha": _alpha(ratings)}


def main(folder=None):
    values = {
        "tools": {
            name: importlib.metadata.version(name)
            for name in ("pingouin", "statsmodels", "krippendorff", "SimpleITK")
        },
        "icc": [_icc(table(index)) for index in range(30)],
        "alpha": [_alpha(classes(index)) for index in range(30)],
        "fleiss": [_fleiss(counts(np.abs(classes(index)))) for index in range(30)],
        "staple": [_staple(masks(index)) for index in range(20)],
        "voxels": [_voxels(masks(index)) for index in range(20)],
    }
    if folder:
        values["real"] = {"staple": _staple(real_masks(folder)), "voxels": _voxels(real_masks(folder))}
    STORED.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
