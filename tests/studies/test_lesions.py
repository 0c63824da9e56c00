"""Training a lesion filter from folders of predictions: what is read, checked, written and refused."""

import csv
import importlib.util
import json
import pathlib
import shutil

import nibabel as nib
import numpy as np
import pytest

from liverjax import objects
from liverjax.commands.dispatch import main
from liverjax.datasets.phantom import write_dataset
from liverjax.errors import ConfigError, InputError
from liverjax.objects.candidates import Truth
from liverjax.scans import nifti
from liverjax.scoring import froc
from liverjax.studies import lesions
from liverjax.studies.forest_fit import fit_filter
from liverjax.volume import Volume

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra 'lesions')")

_SPEC = importlib.util.spec_from_file_location(
    "simulated", pathlib.Path(__file__).parent.parent / "objects" / "simulated.py"
)
assert _SPEC and _SPEC.loader
simulated = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(simulated)

IDS = [f"case_{number}" for number in range(6)]


def _write(folder, one, kind, id, voxels):
    nifti.write(folder / kind / id, Volume(voxels, one.affine))


@pytest.fixture(scope="module")
def written(made_once):
    """A data set and two folders of predictions of it, with the views' maps, of simulated networks."""

    def make(folder):
        for number, id in enumerate(IDS):
            one = simulated.simulate(8000 + number, (64, 52, 28), (5.0, 5.0, 8.0))
            fold = folder / f"fold{number % 2}"
            labels = one.liver.astype(np.uint8) + one.reference
            predicted = one.liver.astype(np.uint8) + (one.liver & (one.probability > 0.5))
            _write(folder / "data", one, "imagesTr", f"{id}_0000.nii.gz", one.scan)
            _write(folder / "data", one, "labelsTr", f"{id}.nii.gz", labels)
            _write(folder, one, fold.name, f"{id}.nii.gz", predicted)
            _write(fold, one, "probabilities", f"{id}_tumor.nii.gz", one.probability)
            for view, map in one.views.items():
                _write(fold, one, "probabilities", f"{id}_tumor_{view}.nii.gz", map.astype(np.float32))
        facts = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "tumor": 2}}
        (folder / "data" / "dataset.json").write_text(json.dumps({**facts, "file_ending": ".nii.gz"}))

    return made_once("lesion_predictions", make)


@pytest.fixture
def folders(written, tmp_path):
    """A copy: the data set, and the two folders of predictions."""
    for name in ("data", "fold0", "fold1"):
        shutil.copytree(written / name, tmp_path / name)
    return tmp_path / "data", [tmp_path / "fold0", tmp_path / "fold1"]


def _words(data, predictions, output):
    return [f"--predictions={','.join(map(str, predictions))}", f"--references={data}", f"-o={output}"]


def test_the_command_writes_filter_table_and_report(written, tmp_path, capsys):
    words = _words(written / "data", [written / "fold0", written / "fold1"], tmp_path / "out")
    assert main(["train-filter", *words, "--threshold=0.35"]) == 0
    printed = capsys.readouterr().out
    assert "false candidates that are removed, of all" in printed and "6 cases of 6 patients" in printed
    trained = objects.read_filter(tmp_path / "out" / lesions.FILTER)
    assert trained.views == ("axial", "coronal", "sagittal") and trained.candidates.threshold == 0.35
    with open(tmp_path / "out" / lesions.TABLE, newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows} <= set(IDS) and len(rows) == trained.facts["true_candidates"] + (
        trained.facts["false_candidates"]
    )
    report = (tmp_path / "out" / "filter.html").read_text()
    assert all(text in report for text in ("FROC curve", "Importance of the features", "was not checked"))
    # The file is what `train_filter` found, and it does on a scan what the table says of its candidates.
    one = simulated.simulate(8000, (64, 52, 28), (5.0, 5.0, 8.0))
    found = trained.apply(one.scan, one.liver, one.probability, one.affine, views=one.views)
    own = [row for row in rows if row["case"] == IDS[0]]
    assert len(own) == found.candidates.count
    assert [float(row["volume_ml"]) for row in own] == pytest.approx(
        (np.bincount(found.candidates.ids.ravel())[1:] * 0.2).tolist()
    )
    assert not any(name in (tmp_path / "out" / lesions.FILTER).read_bytes().decode("latin1") for name in IDS)


def test_the_maps_of_the_views_can_be_left_out(folders, tmp_path, caplog):
    data, predictions = folders
    words = _words(data, predictions, tmp_path / "out")
    assert main(["train-filter", *words, "--quiet", "--noviews"]) == 0
    assert objects.read_filter(tmp_path / "out" / lesions.FILTER).views == ()
    (predictions[0] / "probabilities" / f"{IDS[0]}_tumor_axial.nii.gz").unlink()
    fit, _ = lesions.train_filter(predictions, data, tmp_path / "out", quiet=True)
    assert fit.lesion_filter.views == () and "not all cases have the maps of the same views" in caplog.text


def _manifest(folder, model, ids, **more):
    cases = [{"id": id, "mask": str(folder / f"{id}.nii.gz"), "status": "done"} for id in ids]
    (folder / "manifest.json").write_text(json.dumps({"model": str(model), "cases": cases, **more}))


def test_cases_that_trained_their_network_are_refused(folders, tiny_run, tmp_path):
    """`run.json` of a real run, edited to name these cases."""
    data, predictions = folders
    run = tmp_path / "run"
    run.mkdir()
    facts = json.loads((tiny_run / "run.json").read_text())
    facts["data"] |= {"train": [IDS[0], IDS[1]], "validation": [IDS[3]], "test": [IDS[2], IDS[4]]}
    (run / "run.json").write_text(json.dumps(facts))
    _manifest(predictions[0], run, IDS[::2])
    expected = (
        r"1 of 6 cases were predicted by a network that trained on their patients \(the first: 'case_0'"
    )
    with pytest.raises(InputError, match=expected):
        lesions.train_filter(predictions, data, tmp_path / "out", quiet=True)
    # The remedy: a folder of held-out cases alone; those of the other folder have no manifest, which is noted.
    (predictions[0] / f"{IDS[0]}.nii.gz").unlink()
    _, notes = lesions.train_filter(predictions, data, tmp_path / "out", quiet=True)
    assert len(notes) == 1 and notes[0].startswith("3 of 5 cases (the first: 'case_1')")
    # The tumour model of a cascade, whose liver model is unknown.
    _manifest(predictions[0], tmp_path / "a.safetensors", IDS[:3:2], tumor_model=str(run))
    assert lesions.find_predicted(predictions, data)[1].tumor_model == str(run)
    away = (predictions[0] / f"{IDS[2]}.nii.gz").read_bytes()
    (predictions[0] / f"{IDS[0]}.nii.gz").write_bytes(away)
    with pytest.raises(InputError, match=r"1 of 6 cases .* \(the first: 'case_0' by .*run\)"):
        lesions.train_filter(predictions, data, tmp_path / "out", quiet=True)
    (predictions[0] / f"{IDS[0]}.nii.gz").unlink()
    _manifest(predictions[0], run, IDS[::2])
    # Another case of a patient that trained.
    (data / "cases.json").write_text(json.dumps({"patients": {IDS[0]: "p", IDS[2]: "p"}}))
    with pytest.raises(InputError, match=r"1 of 5 cases .* \(the first: 'case_2' by "):
        lesions.train_filter(predictions, data, tmp_path / "out", quiet=True)


def test_what_an_earlier_run_wrote_is_asked_too(folders, tmp_path):
    data, predictions = folders
    _manifest(predictions[0], tmp_path / "a.safetensors", IDS[:1])
    earlier = json.loads((predictions[0] / "manifest.json").read_text())
    _manifest(predictions[0], "b", IDS[2:3], earlier=[earlier])
    models = {one.case.id: one.model for one in lesions.find_predicted(predictions[:1], data)}
    assert models == {IDS[0]: str(tmp_path / "a.safetensors"), IDS[2]: "b", IDS[4]: ""}
    for broken in ("{", "[]", json.dumps({"cases": 3, "earlier": [1, {"cases": [2]}]})):
        (predictions[0] / "manifest.json").write_text(broken)
        assert {one.model for one in lesions.find_predicted(predictions[:1], data)} == {""}


def test_folders_that_cannot_be_used_are_refused(folders, tmp_path):
    data, predictions = folders

    def refused(message, given=predictions, references=data):
        with pytest.raises(InputError, match=message) as caught:
            lesions.train_filter(given, references, tmp_path / "out", quiet=True)
        assert "\n" not in str(caught.value)

    refused("case 'case_0' is in .*fold0 and in .*fold0, expected each case once", predictions[:1] * 2)
    refused("no folder, expected one of", [tmp_path / "absent"])
    refused("is an address", ["gs://bucket/fold"])
    with pytest.raises(ConfigError, match="recall_share is 2, expected"):  # Before any case is read.
        lesions.train_filter([], data, tmp_path / "out", recall_share=2)
    refused("holds no scan of case 'case_0'", references=data / "labelsTr/../../fold0", given=predictions[:1])
    file = predictions[1] / "probabilities" / f"{IDS[1]}_tumor.nii.gz"
    away = file.rename(tmp_path / "away.nii.gz")
    refused(rf"{IDS[1]}_tumor.nii.gz does not exist, .*predict with --save_probabilities")
    volume = nifti.read(away)
    nib.Nifti1Image(np.full(volume.shape, np.nan, np.float32), volume.affine).to_filename(file)
    refused("case_1.*finite")
    moved = volume.affine.copy()
    moved[0, 3] += 20
    nifti.write(file, Volume(volume.voxels, moved))
    refused("case_1")


def test_references_without_tumours_are_taken_out_and_the_threshold_lowered(folders, tmp_path, capsys):
    data, predictions = folders
    shutil.copytree(data, tmp_path / "other")
    (tmp_path / "other" / "cases.json").write_text(json.dumps({"liver_only": [IDS[0]]}))
    with pytest.raises(
        InputError, match=rf"does not distinguish tumours .* take {IDS[0]}.nii.gz out of .*fold0"
    ):
        lesions.train_filter(predictions, tmp_path / "other", tmp_path / "out", quiet=True)
    (predictions[0] / f"{IDS[0]}.nii.gz").unlink()
    words = _words(tmp_path / "other", predictions, tmp_path / "out")
    assert main(["train-filter", *words, "--quiet", "--threshold=0.9999"]) == 1
    assert "lower --threshold" in capsys.readouterr().err
    assert main(["train-filter", *words, "--quiet", "--threshold=0.3"]) == 0


def test_predictions_of_a_real_run(tiny_run, phantom_scans, tmp_path, capsys):
    """What `liverjax predict` writes is what is read; a network of four steps finds nothing, and that is said."""
    words = [f"--model={tiny_run}", f"-i={phantom_scans}", "--quiet"]
    assert main(["predict", *words, f"-o={tmp_path / 'bare'}", "--subset=test"]) == 0
    with pytest.raises(InputError, match="does not exist, .*predict with --save_probabilities"):
        lesions.find_predicted([tmp_path / "bare"], phantom_scans)
    for subset in ("test", "train"):
        more = [f"-o={tmp_path / subset}", f"--subset={subset}", "--save_probabilities"]
        assert main(["predict", *words, *more]) == 0
    cases = lesions.find_cases(phantom_scans)
    found = lesions.find_predicted([tmp_path / "test"], phantom_scans)
    assert len(found) == 2 and lesions.check_held_out(found, cases) == []
    with pytest.raises(
        InputError, match="4 of 4 cases were predicted by a network that trained on their patients"
    ):
        lesions.check_held_out(lesions.find_predicted([tmp_path / "train"], phantom_scans), cases)
    status = main(
        ["train-filter", *_words(phantom_scans, [tmp_path / "test"], tmp_path / "out"), "--threshold=0.99"]
    )
    assert status == 1 and "lower --threshold" in capsys.readouterr().err


def _cohort(kinds, lesions_each=1):
    """A cohort of one case a patient; ``kinds`` says for each case of each candidate whether it is true."""
    truths = []
    for kind in kinds:
        true = np.array(kind, bool)
        hits = np.stack([np.flatnonzero(true)] * 2, axis=1) * [1, 0]
        truths.append(Truth(true, hits, lesions_each))
    ids = [str(number) for number in range(len(kinds))]
    return froc.gather(truths, ids, ids)


@pytest.mark.parametrize(
    ("cohort", "message"),
    [
        (_cohort([[], []], 0), "no tumour in the references of 2 cases"),
        (_cohort([[], []]), "no tumour candidate in 2 cases: .*; lower --threshold"),
        (_cohort([[0, 0], [0]]), "0 true candidates of 0 patients in 2 cases, expected two patients or more"),
        (_cohort([[1], [1, 1]]), "0 false candidates of 0 patients in 2 cases"),
        (_cohort([[1, 0], [0, 0]]), "1 true candidates of 1 patients"),
    ],
)
def test_cohorts_that_teach_nothing_are_refused(cohort, message):
    with pytest.raises(InputError, match=message):
        fit_filter(np.zeros((len(cohort.true), 40)), cohort)


def test_candidates_of_a_patient_are_judged_by_forests_that_did_not_see_it():
    """A feature that numbers the patients tells true from false within each of them, and nothing beyond."""
    rng = np.random.default_rng(0)
    kinds = [[1] * 5 if rng.random() < 0.5 else [0] * 5 for _ in range(12)]
    cohort = _cohort(kinds)
    features = np.zeros((60, 40))
    features[:, 0] = cohort.case
    fit = fit_filter(features, cohort, trees=16)
    # In sample it would be 1.
    assert fit.auroc < 0.8
    assert np.mean(fit.lesion_filter.forest.probabilities(features) >= 0.5) == np.mean(cohort.true)
    with pytest.raises(ConfigError, match="recall_share is 0, expected"):
        fit_filter(features, cohort, recall_share=0)
    features[7, 3] = np.nan
    with pytest.raises(InputError, match="feature z_median of candidate .* is nan"):
        fit_filter(features, cohort, trees=16)


def test_an_empty_reference_is_said(tmp_path):
    write_dataset(tmp_path / "data", [3, 5], shape=(24, 20, 18), spacing=(16.0, 16.0, 16.0))
    for id in ("phantom_003", "phantom_005"):
        file = tmp_path / "data" / "labelsTr" / f"{id}.nii.gz"
        mask = nifti.read_mask(file)
        nifti.write(file, mask.with_voxels(np.minimum(mask.voxels, 1)))
        nifti.write(tmp_path / "p" / f"{id}.nii.gz", mask)
        chance = mask.with_voxels((mask.voxels > 0).astype(np.float32))
        nifti.write(tmp_path / "p" / "probabilities" / f"{id}_tumor.nii.gz", chance)
    with pytest.raises(InputError, match="no tumour in the references of 2 cases"):
        lesions.train_filter([tmp_path / "p"], tmp_path / "data", tmp_path / "out", quiet=True)
