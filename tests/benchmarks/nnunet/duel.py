"""Our networks beside nnU-Net's 2d, trained for the same minutes on the same cores and patients: Dice per case of both.

  python tests/benchmarks/nnunet/duel.py --nnunet=ENVIRONMENT --dataset=DATASET --run=RUN --minutes=50 -o FOLDER

`RUN` is a finished run of ours, whose `run.json` says which cases trained and which are held out; `ENVIRONMENT` holds
nnU-Net 2.8 and torch; `DATASET` is in the layout of nnU-Net. nnU-Net gets the cases that trained and those that chose
our checkpoint; it plans and preprocesses by its defaults, trains `fold all`, and predicts with its mirroring. Minutes
of its planning and of its predictions are printed, and not counted; nor is our `prepare`.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import time

import nibabel as nib
import numpy as np

DATASET = "Dataset001_Liver"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    for name in ("--nnunet", "--dataset", "--run", "-o"):
        parser.add_argument(name, required=True, type=pathlib.Path)
    parser.add_argument("--minutes", required=True, type=float)
    args = parser.parse_args()
    data = json.loads((args.run / "run.json").read_text())["data"]
    raw = _write_raw(args.dataset, args.o / "raw" / DATASET, data["train"] + data["validation"])
    held_out = args.o / "held_out"
    _copy_scans(args.dataset, held_out, data["test"])
    environment = {
        **os.environ,
        "nnUNet_raw": str(raw.parent),
        "nnUNet_preprocessed": str(args.o / "preprocessed"),
        "nnUNet_results": str(args.o / "results"),
        "nnUNet_extTrainer": str(pathlib.Path(__file__).resolve().parent),
        "nnUNet_compile": "f",
        "nnUNet_n_proc_DA": "1",
        "MINUTES": str(args.minutes),
    }

    def nnunet(command: str, *words: str) -> None:
        start = time.monotonic()
        subprocess.run([args.nnunet / "bin" / command, *words], env=environment, check=True)
        print(f"{command}: {(time.monotonic() - start) / 60:.1f} minutes", flush=True)

    nnunet("nnUNetv2_plan_and_preprocess", "-d", "1", "-c", "2d", "-np", "2", "--verify_dataset_integrity")
    nnunet("nnUNetv2_train", "1", "2d", "all", "-tr", "LimitedTrainer", "-device", "cpu")
    predict = (
        "-d",
        "1",
        "-c",
        "2d",
        "-f",
        "all",
        "-tr",
        "LimitedTrainer",
        "-device",
        "cpu",
        "-npp",
        "1",
        "-nps",
        "1",
    )
    nnunet("nnUNetv2_predict", "-i", str(held_out), "-o", str(args.o / "masks_nnunet"), *predict)
    ours = args.o / "masks_liverjax"
    liverjax = shutil.which("liverjax")
    subprocess.run(
        [liverjax, "predict", f"--model={args.run}", "-i", held_out, "-o", ours, "--quiet"], check=True
    )
    print("case", "nnU-Net 2d", "liverjax", sep="\t")
    for case in data["test"]:
        reference = np.asarray(nib.load(args.dataset / "labelsTr" / f"{case}.nii.gz").dataobj) > 0
        scores = []
        for folder in (args.o / "masks_nnunet", ours):
            mask = np.asarray(nib.load(folder / f"{case}.nii.gz").dataobj) > 0
            scores.append(2 * (mask & reference).sum() / (mask.sum() + reference.sum()))
        print(case, *(f"{score:.3f}" for score in scores), sep="\t")


def _write_raw(dataset: pathlib.Path, raw: pathlib.Path, cases: list[str]) -> pathlib.Path:
    """Writes the training cases in nnU-Net's layout, liver and tumour as one label, and returns the folder."""
    _copy_scans(dataset, raw / "imagesTr", cases)
    (raw / "labelsTr").mkdir(parents=True, exist_ok=True)
    for case in cases:
        mask = nib.load(dataset / "labelsTr" / f"{case}.nii.gz")
        liver = (np.asarray(mask.dataobj) > 0).astype(np.uint8)
        nib.save(nib.Nifti1Image(liver, mask.affine), raw / "labelsTr" / f"{case}.nii.gz")
    about = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(about))
    return raw


def _copy_scans(dataset: pathlib.Path, folder: pathlib.Path, cases: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        name = f"{case}_0000.nii.gz"
        shutil.copy(dataset / "imagesTr" / name, folder / name)


if __name__ == "__main__":
    main()
