"""The check of what data sets are in practice: modality, classes, odd files and names; each remedy is followed."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from liverjax.commands.dispatch import main
from liverjax.datasets.case import Case
from liverjax.datasets.case_check import check_case
from liverjax.datasets.check import check_data_set
from liverjax.datasets.findings import KINDS
from liverjax.datasets.layouts import find_cases
from liverjax.errors import InputError
from liverjax.scans import Reading
from tests.datasets.test_check import AFFINE, found, make_case, save


def put(root, *names, scan=None, mask=None, folders=("imagesTr", "labelsTr")):
    for number, name in enumerate(names):
        sound = make_case(number)
        for folder, given, made in zip(folders, (scan, mask), sound, strict=True):
            save(root / folder / f"{name}.nii.gz", made if given is None else given(made))
    return root


def kinds(path, **settings):
    return {finding.kind for finding in check_data_set(path, **settings).findings}


# --- modality -----------------------------------------------------------------------------------------------


def with_offset(scan):
    return np.clip(scan.astype(np.int32) + 1024, 0, None).astype(np.uint16)


def test_ct_with_an_offset_is_doubted_and_the_answers_help(tmp_path):
    root = put(tmp_path, *"abc", scan=with_offset)
    report = check_data_set(root)
    assert (report.modality, found(report)) == ("mr", {("intensities", ("a", "b", "c"))})
    assert "have air near 0 and tissue some 1000 above it" in report.findings[0].message
    # The three answers: they are MR; they are CT; what dataset.json says.
    assert kinds(root, modality="mr") == set()
    assert found(check_data_set(root, modality="ct")) == {("intensities", (id,)) for id in "abc"}
    (root / "dataset.json").write_text('{"channel_names": {"0": "CT"}}')
    assert check_data_set(root).modality == "ct"
    assert kinds(root) == {"intensities"}
    put(root, *"abc")  # subtracted
    assert kinds(root) == set()


@pytest.mark.parametrize(
    ("facts", "modality"),
    [
        ({"channel_names": {"0": "T1"}}, "mr"),
        ({"channel_names": {"0": "T2-SPIR"}}, "mr"),
        ({"modality": {"0": "MRI"}}, "mr"),
        ({"modality": "MR"}, "mr"),
        ({"channel_names": {"0": "CT"}}, "ct"),
        ({"modality": {"0": "CT_portal"}}, "ct"),
        ({"modality": ["CTA"]}, "ct"),
        ({"channel_names": {"0": "noNorm"}}, "ct"),  # by its values
        ({"channel_names": {"0": "CT MR"}}, "ct"),
        ({"channel_names": [], "modality": 5}, "ct"),
        ({}, "ct"),
    ],
)
def test_the_modality_is_what_dataset_json_says(tmp_path, facts, modality):
    root = put(tmp_path, "a")
    (root / "dataset.json").write_text(json.dumps(facts))
    report = check_data_set(root)
    assert report.modality == modality
    # Hounsfield units in a data set that is said to be MR are doubted, and the flag goes before the file.
    assert found(report) == ({("intensities", ("a",))} if modality == "mr" else set())
    assert check_data_set(root, modality="ct").findings == ()


def test_mr_with_negative_values_is_no_ct(tmp_path):
    for number in range(2):
        scan, mask = make_case(number, "mr")
        save(tmp_path / f"images/{number}.nii.gz", (scan - 60).astype(np.int16))
        save(tmp_path / f"labels/{number}.nii.gz", mask)
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "T1"}}')
    report = check_data_set(tmp_path)
    assert (report.modality, report.findings) == ("mr", ())


def test_a_mask_in_the_place_of_a_scan(tmp_path):
    root = put(tmp_path, "a", "b", "c")
    shutil.copy(root / "labelsTr/c.nii.gz", root / "imagesTr/c.nii.gz")
    (finding,) = check_data_set(root).findings
    assert (finding.kind, finding.cases) == ("intensities", ("c",))
    assert "as in a mask" in finding.message


def test_clipped_ct_is_a_mild_finding(tmp_path):
    root = put(tmp_path, *"ab", scan=lambda scan: np.clip(scan, -160, 240))
    assert found(check_data_set(root)) == {("hu_clipped", ("a",)), ("hu_clipped", ("b",))}


# --- classes ------------------------------------------------------------------------------------------------


def test_a_class_within_the_liver_is_named_and_can_be_stated(tmp_path, capsys):
    root = put(tmp_path, *"ab", mask=lambda mask: np.where(mask == 2, 3, mask).astype(np.uint8))
    (root / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1, "haemangioma": 3}}')
    report = check_data_set(root)
    (finding,) = report.findings
    assert (finding.kind, finding.cases) == ("class_in_liver", ("a", "b"))
    assert (
        "value 3, which dataset.json calls 'haemangioma', is taken as background, but 100%" in finding.message
    )
    assert report.labels == "dataset.json: 3 haemangioma -> background"
    assert main(["check", "-i", str(root), "--quiet"]) == 0
    assert "masks are read by dataset.json: 3 haemangioma -> background\n" in capsys.readouterr().out
    # As the remedy says.
    stated = finding.remedy[finding.remedy.index("{") : finding.remedy.index("}}") + 2]
    (root / "cases.json").write_text(stated)
    assert check_data_set(root).findings == ()
    assert set(np.unique(find_cases(root)[0].read_mask().voxels)) == {0, 1, 2}
    (root / "cases.json").write_text('{"labels": {"3": "background"}}')
    assert check_data_set(root).findings == ()


def test_an_organ_beside_the_liver_is_no_finding(tmp_path):
    def spleen(mask):
        mask = mask.copy()
        mask[30:34, 12:18, 8:14] = 3
        return mask

    def beside(mask):  # such as a gallbladder: one side of it touches the liver
        mask = mask.copy()
        outside = np.argwhere(mask[:, 15, 12] == 0)
        first = int(outside[outside > 12][0])
        part = mask[first : first + 3, 13:18, 10:15]
        part[part == 0] = 3
        return mask

    for name, change in (("spleen", spleen), ("gallbladder", beside)):
        root = put(tmp_path / name, "a", mask=change)
        (root / "dataset.json").write_text(
            json.dumps({"labels": {"background": 0, "liver": 1, "tumor": 2, name: 3}})
        )
        report = check_data_set(root)
        assert report.findings == ()
        assert report.labels == f"dataset.json: 3 {name} -> background"


def test_the_remedy_of_unknown_values_helps(tmp_path):
    root = put(
        tmp_path,
        "a",
        mask=lambda mask: np.where(mask == 2, 3, mask).astype(np.uint8),
        folders=("images", "labels"),
    )
    (finding,) = check_data_set(root).findings
    assert finding.kind == "label_values"
    (root / "cases.json").write_text(finding.remedy[finding.remedy.index("{") :])
    assert check_data_set(root).findings == ()


# --- what lies in folders -----------------------------------------------------------------------------------


def test_a_single_scan(tmp_path, capsys):
    root = put(tmp_path, "a")
    assert main(["check", "-i", str(root / "imagesTr/a.nii.gz"), "--quiet"]) == 0
    assert capsys.readouterr().out.endswith("a.nii.gz: 1 cases (ct), 0 errors and 0 warnings\n")
    (finding,) = check_data_set(root / "none.nii.gz").findings
    assert finding.message.endswith("none.nii.gz: no such file or folder")


@pytest.mark.parametrize("layout", ["lits", "plain"])
def test_of_two_data_sets_in_a_folder_the_other_is_named(tmp_path, layout, caplog):
    put(tmp_path / "mr", *"ab")
    if layout == "lits":
        put(tmp_path, "volume-0", folders=("lits", "."))
        (tmp_path / "volume-0.nii.gz").rename(tmp_path / "lits/segmentation-0.nii.gz")
    else:
        put(tmp_path, "volume-0", folders=("images", "labels"))
    (finding,) = check_data_set(tmp_path).findings
    assert finding.kind == "left_out"
    assert (
        f"read as {layout}, 1 scans; left out: mr/ (msd, 2 scans); give the folder of one" in finding.message
    )
    find_cases(tmp_path, labelled=True)
    assert "left out: mr/ (msd, 2 scans)" in caplog.text
    # As the message says; and the folder of masks that `predict` wrote is no data set beside.
    assert check_data_set(tmp_path / "mr").findings == ()
    shutil.copytree(tmp_path / "mr/labelsTr", tmp_path / "mr/predicted")
    assert check_data_set(tmp_path / "mr").findings == ()


@pytest.mark.parametrize("kind", ["named pipe", "socket", "folder"])
def test_what_is_no_file_is_passed_over_and_named(tmp_path, kind, monkeypatch, caplog):
    root = put(tmp_path, "a", folders=("images", "labels"))
    monkeypatch.chdir(root / "images")  # the name of a socket may not be long
    if kind == "socket":
        socket.socket(socket.AF_UNIX).bind("b.nii.gz")
    else:
        (os.mkfifo if kind == "named pipe" else os.mkdir)("b.nii.gz")
    (finding,) = check_data_set(root).findings
    assert finding.kind == "notice"
    assert f"b.nii.gz is a {kind} and not read" in finding.message
    assert [case.id for case in find_cases(root, labelled=True)] == ["a"]
    assert f"is a {kind} and not read" in caplog.text
    if kind == "named pipe":
        with pytest.raises(InputError, match=r"b\.nii\.gz: is a named pipe, expected a folder or a file"):
            find_cases("b.nii.gz")
        pair = {"image": "images/b.nii.gz", "label": "labels/a.nii.gz"}
        (root / "dataset.json").write_text(json.dumps({"training": [pair]}))
        with pytest.raises(InputError, match=r"images/b\.nii\.gz cannot be opened, .* no pipes"):
            find_cases(root)


def test_a_folder_called_as_its_file(tmp_path):
    """As some archives unpack."""
    put(tmp_path, "x", folders=("i", "l"))
    for name, file, kind in (("volume-0", "i/x", "images"), ("segmentation-0", "l/x", "labels")):
        for folder in (tmp_path / "lits", tmp_path / "plain" / kind):
            (folder / f"{name}.nii.gz").mkdir(parents=True)
            shutil.copy(tmp_path / f"{file}.nii.gz", folder / f"{name}.nii.gz" / f"{name}.nii.gz")
    for layout in ("lits", "plain"):
        assert check_data_set(tmp_path / layout).findings == ()
        (case,) = find_cases(tmp_path / layout, layout, labelled=True)
        assert (case.id, case.image.name) == ("volume-0", "volume-0.nii.gz")


def test_names_that_terminals_do_not_take(tmp_path, capsys):
    root = put(tmp_path, "a", folders=("images", "labels"))
    for folder in ("images", "labels"):
        for name in (b"b\xff.nii.gz", b"c\nd.nii.gz", b"e\x1b[31m.nii.gz"):
            shutil.copy(root / folder / "a.nii.gz", os.path.join(os.fsencode(root / folder), name))
    report = check_data_set(root)
    assert {finding.kind for finding in report.findings} == {"case_id", "duplicate_scan"}
    for finding in report.findings:
        assert all(text.isprintable() for text in (finding.message, *finding.cases, *finding.files))
    assert main(["check", "-i", str(root), "--quiet", "--json"]) == 1
    out = capsys.readouterr().out
    assert out.isascii() or out.encode()
    files = [pathlib.Path(file).name for finding in json.loads(out)["findings"] for file in finding["files"]]
    assert {"b\\udcff.nii.gz", "c\\nd.nii.gz", "e\\x1b[31m.nii.gz"} <= set(files)
    assert main(["check", "-i", str(root), "--quiet"]) == 1
    assert "\x1b" not in capsys.readouterr().out


def test_a_missing_spacing_can_be_stated(tmp_path):
    root = put(tmp_path, "a", folders=("images", "labels"))
    for folder in ("images", "labels"):
        image = nib.load(root / folder / "a.nii.gz")
        bare = nib.Nifti1Image(np.asarray(image.dataobj), None)
        nib.save(bare, root / folder / "a.nii.gz")
    assert "no_geometry" in kinds(root)
    assert "--spacing=X,Y,Z" in KINDS["no_geometry"][1]
    assert "no_geometry" not in kinds(root, reading=Reading(spacing=(5, 5, 6)))


# --- lists --------------------------------------------------------------------------------------------------


def listed(*names, separator="/"):
    def place(folder, name):
        return separator.join((".", folder, f"{name}.nii.gz"))

    return [{"image": place("imagesTr", name), "label": place("labelsTr", name)} for name in names]


def test_lists_and_folders_that_differ(tmp_path, caplog):
    root = put(tmp_path, *"abc")
    save(root / "imagesTs/d.nii.gz", make_case(9)[0])
    facts = {"training": listed("a", "b"), "test": ["./imagesTs/d.nii.gz"], "numTraining": 2}
    (root / "dataset.json").write_text(json.dumps(facts))
    (finding,) = (finding for finding in check_data_set(root).findings if finding.kind == "unlisted")
    assert "dataset.json does not list 1 files, which are left out (such as" in finding.message
    assert finding.message.endswith("imagesTr/c.nii.gz)")
    assert [case.id for case in find_cases(root, labelled=True)] == ["a", "b"]
    assert "does not list 1 files" in caplog.text
    facts |= {"test": ["./imagesTs/d.nii.gz", {"image": "imagesTs/e.nii.gz"}], "numTraining": 5}
    (root / "dataset.json").write_text(json.dumps(facts | {"training": listed(*"abc")}))
    first, second = check_data_set(root).findings
    assert "numTraining is 5, but there are 3 training cases" in first.message
    assert "lists 1 test scans that are not there (such as" in second.message
    # Corrected, as the remedy says.
    facts = {"training": listed(*"abc"), "test": ["imagesTs/d.nii.gz"], "numTraining": 3}
    (root / "dataset.json").write_text(json.dumps(facts))
    assert check_data_set(root).findings == ()


def test_lists_as_windows_and_nnunets_first_version_write_them(tmp_path):
    root = put(tmp_path, "a", "b")
    (root / "dataset.json").write_text(json.dumps({"training": listed("a", "b", separator="\\")}))
    assert [case.id for case in find_cases(root, labelled=True)] == ["a", "b"]
    for id in "ab":
        (root / f"imagesTr/{id}.nii.gz").rename(root / f"imagesTr/{id}_0000.nii.gz")
    shutil.copy(root / "imagesTr/a_0000.nii.gz", root / "imagesTr/a_0001.nii.gz")
    cases = find_cases(root, labelled=True)
    assert [(case.id, case.image.name) for case in cases] == [("a", "a_0000.nii.gz"), ("b", "b_0000.nii.gz")]
    assert [finding.message[:46] for finding in check_data_set(root).findings] == [
        "1 files of further channels are not used (such"
    ]
    listing = [{"image": ["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz"], "label": "labelsTr/b.nii.gz"}]
    (root / "dataset.json").write_text(json.dumps({"training": listing}))
    (case,) = find_cases(root, labelled=True)
    assert (case.id, case.label.name) == ("a_0000", "b.nii.gz")  # paired as the list says
    for hostile in ("C:\\data\\a.nii.gz", "..\\a.nii.gz", "\\\\server\\share\\a.nii.gz", "/a.nii.gz"):
        listing = [{"image": hostile, "label": "labelsTr/a.nii.gz"}]
        (root / "dataset.json").write_text(json.dumps({"training": listing}))
        with pytest.raises(InputError, match="leads out of the folder"):
            find_cases(root)


@pytest.mark.parametrize("file", ["dataset.json", "cases.json"])
@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"labels": {"liver": ' + b"1" * 5000 + b"}}",
        b'{"labels": {"liver": NaN}}',
        b'{"a": 1, "a": 2}',
        '{"labels": {"Münster": 1}}'.encode("latin-1"),
        b'{"labels": {"liver": 1',
        b"[]",
        b"",
    ],
)
def test_damaged_json_is_a_finding_of_that_file(tmp_path, file, data):
    root = put(tmp_path, "a")
    (root / file).write_bytes(data)
    (finding,) = [found for found in check_data_set(root).findings if found.severity == "error"]
    assert finding.kind == file.replace(".", "_")
    assert finding.message.startswith(str(root / file)) and len(finding.message) < 600
    with pytest.raises(InputError, match=file):
        find_cases(root)


# --- errors of one case -------------------------------------------------------------------------------------


class _Breaking(Case):
    """A case of which reading breaks a library."""

    def read_image(self):
        raise RuntimeError(f"internal state of {self.image.name}\nis odd")


def test_an_unexpected_error_is_a_finding_of_the_case(tmp_path):
    findings, facts = check_case(_Breaking("a", tmp_path / "a.nii.gz", None, "a"), {})
    assert (facts, [finding.kind for finding in findings]) == (None, ["unexpected"])
    assert (
        "a.nii.gz: cannot be checked (RuntimeError: internal state of a.nii.gz\\nis odd)"
        in findings[0].message
    )


def test_a_scan_beyond_the_memory_is_a_finding_and_the_others_are_checked(tmp_path):
    root = put(tmp_path, "a", "c", folders=("images", "labels"))
    (root / "labels").rename(root / "elsewhere")
    header = nib.Nifti1Header()
    header.set_data_shape((1024, 1024, 1500))
    header.set_data_dtype(np.int16)
    header.set_sform(AFFINE, 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with open(root / "images/b.nii", "wb") as file:  # of holes, which take no space
        file.write(header.binaryblock + bytes(4))
        file.truncate(352 + 2 * 1024 * 1024 * 1500)
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)); "
        "from liverjax.commands.dispatch import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["check", "-i", str(root / "images"), "--quiet", "--json"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert [(finding["kind"], finding["cases"]) for finding in report["findings"]] == [("memory", ["b"])], (
        done.stderr
    )
    assert report["cases"] == 3
