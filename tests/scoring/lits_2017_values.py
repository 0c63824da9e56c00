"""What the LiTS scorer of 2017 says of the mask pairs of `oracle_values.py`, stored in `lits_2017_values.json`.

To renew the file: take `program/helpers/calc_metric.py` of github.com/PatrickChrist/lits-challenge-scoring,
make its function `detect_lesions` run on present NumPy (lists as indices become tuples, `np.bool` becomes
`bool`), and

  python tests/scoring/lits_2017_values.py THAT_FILE.py
"""

import importlib.util
import json
import pathlib
import sys

from scipy import ndimage

STORED = pathlib.Path(__file__).with_suffix(".json")


def _load(path):
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(scorer):
    """Writes true positives, false positives and false negatives at both overlaps, and the kept pairs' Dice."""
    detect_lesions = _load(scorer).detect_lesions
    oracle = _load(pathlib.Path(__file__).with_name("oracle_values.py"))
    lines = []
    for index in range(oracle.PAIRS):
        (predicted, n), (referenced, m) = map(ndimage.label, oracle.mask_pair(index)[:2])
        counts = []
        for overlap in (0, 0.5):
            kept, merged, detected = detect_lesions(predicted, referenced, overlap)
            counts.append([int(detected), int(n - detected), int(m - detected)])
        masks = [(kept == id, merged == id) for id in range(1, kept.max() + 1) if (kept == id).any()]
        dice = [round(float(2 * (a & b).sum() / (a.sum() + b.sum())), 10) for a, b in masks]
        lines.append(f' "{index}": {json.dumps({"counts": counts, "dice": dice})}')
    STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1])
