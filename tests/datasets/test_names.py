"""Case ids of files: what is an id and what is a channel, in each layout; nothing is lost."""

import json
import logging
import unicodedata

import hypothesis
import pytest
from hypothesis import strategies as st

from liverjax.datasets import layouts, names
from liverjax.datasets.layouts import find_cases
from liverjax.errors import InputError
from liverjax.scoring import pairing

FOUR = [f"liver_{number:04d}" for number in range(4)]
RAW = {"channel_names": {"0": "CT"}}
TWO_CHANNELS = {"channel_names": {"0": "CT", "1": "PET"}}


def put(root, *files, facts=None):
    """Makes empty files, which is all that listing needs."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    if facts is not None:
        (root / "dataset.json").write_text(json.dumps(facts))
    return root


def under(folder, stems, ending=".nii.gz"):
    return [f"{folder}/{stem}{ending}" for stem in stems]


def found(path, **settings):
    """Ids, each with the stems of its scan and its mask."""
    return {
        case.id: (names.stem(case.image), names.stem(case.label) if case.label else None)
        for case in find_cases(path, **settings)
    }


def alike(stems):
    return {stem: (stem, stem) for stem in stems}


@pytest.mark.parametrize("folders", [("images", "labels"), ("imagesTr", "labelsTr")])
@pytest.mark.parametrize("facts", [None, RAW])
def test_ids_that_end_in_four_digits_stay_what_they_are(tmp_path, folders, facts, caplog):
    put(tmp_path, *under(folders[0], FOUR), *under(folders[1], FOUR), facts=facts)
    assert found(tmp_path, labelled=True) == alike(FOUR)
    assert found(tmp_path / folders[0]) == {stem: (stem, None) for stem in FOUR}
    assert caplog.text == ""


def test_the_list_of_a_data_set_goes_before_a_guess(tmp_path):
    listed = [{"image": f"./imagesTr/{stem}.nii.gz", "label": f"./labelsTr/{stem}.nii.gz"} for stem in FOUR]
    put(tmp_path, *under("imagesTr", FOUR), *under("labelsTr", FOUR), facts={"training": listed})
    assert found(tmp_path, labelled=True) == alike(FOUR)


def test_channels_beside_ids_that_end_in_four_digits(tmp_path):
    scans = [f"{stem}_0000" for stem in FOUR]
    put(tmp_path, *under("imagesTr", scans), *under("labelsTr", FOUR), facts=RAW)
    expected = {stem: (f"{stem}_0000", stem) for stem in FOUR}
    assert found(tmp_path, labelled=True) == expected
    assert found(tmp_path / "imagesTr").keys() == expected.keys()


def test_masks_say_which_of_two_readings_is_meant(tmp_path, caplog):
    # liver_0000 is a channel of liver, and liver_0000_0000 one of liver_0000.
    put(tmp_path / "a", *under("imagesTr", ["liver_0000", "liver_0000_0000"]))
    put(tmp_path / "a", *under("labelsTr", ["liver", "liver_0000"]))
    assert found(tmp_path / "a", labelled=True) == {
        "liver": ("liver_0000", "liver"),
        "liver_0000": ("liver_0000_0000", "liver_0000"),
    }
    # The same names as whole ids.
    put(tmp_path / "b", *under("imagesTr", ["liver", "liver_0000"]))
    put(tmp_path / "b", *under("labelsTr", ["liver", "liver_0000"]))
    assert found(tmp_path / "b", labelled=True) == alike(["liver", "liver_0000"])
    # One mask: four channels of one case.
    put(tmp_path / "c", *under("imagesTr", FOUR), "labelsTr/liver.nii.gz")
    with caplog.at_level(logging.WARNING, "liverjax"):
        assert found(tmp_path / "c", labelled=True) == {"liver": ("liver_0000", "liver")}
    assert "3 files of further channels are not used (such as" in caplog.text
    assert "liver_0001.nii.gz)" in caplog.text
    # Both ways of naming in one folder.
    put(tmp_path / "d", *under("imagesTr", ["a_0000", "b", "c"]), *under("labelsTr", ["a", "b", "c"]))
    assert found(tmp_path / "d", labelled=True) == {"a": ("a_0000", "a"), **alike(["b", "c"])}


@pytest.mark.parametrize(
    ("stems", "facts", "expected"),
    [
        (FOUR, None, FOUR),
        (FOUR, RAW, FOUR),
        (["a_0000", "b_0000"], None, ["a", "b"]),
        (["a_0000", "b"], None, ["a_0000", "b"]),
        (["liver_0001", "liver_0002"], RAW, ["liver_0001", "liver_0002"]),
        (["a_0000", "a_0001", "b_0000", "b_0001"], TWO_CHANNELS, ["a", "b"]),
        (["a_0000", "b_0000"], TWO_CHANNELS, ["a", "b"]),
        (["a_0000", "a_0001", "a_0002"], TWO_CHANNELS, ["a_0000", "a_0001", "a_0002"]),
        (["a_0000", "a_0001"], None, ["a_0000", "a_0001"]),
        (["volume-3", "volume-12_0000"], None, ["volume-3", "volume-12_0000"]),
    ],
)
def test_scans_without_masks(tmp_path, stems, facts, expected):
    put(tmp_path, *under("imagesTs", stems), facts=facts)
    assert list(found(tmp_path)) == list(found(tmp_path / "imagesTs")) == expected
    # A single file has the id that it has in its folder, unless it is a further channel.
    for case in find_cases(tmp_path):
        assert list(found(case.image)) == [case.id]
    if facts is None:
        put(tmp_path / "scans", *under(".", stems))
        assert list(found(tmp_path / "scans")) == expected


def test_the_training_scans_tell_how_test_scans_are_named(tmp_path):
    put(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz")
    put(tmp_path, *under("imagesTs", ["b_0000", "b_0001"]))
    assert list(found(tmp_path)) == ["a", "b"]
    put(tmp_path, *under("imagesTs", ["b_0002"]))
    assert list(found(tmp_path)) == ["a", "b_0000", "b_0001", "b_0002"]


def test_a_further_channel_by_itself(tmp_path):
    put(tmp_path, *under("imagesTs", ["a_0000", "a_0001", "b_0000", "b_0001"]), facts=TWO_CHANNELS)
    assert list(found(tmp_path / "imagesTs/a_0001.nii.gz")) == ["a_0001"]


def test_a_layout_that_is_named_is_obeyed(tmp_path):
    put(tmp_path, *under("imagesTr", FOUR), *under("labelsTr", FOUR))
    with pytest.raises(InputError, match="no mask for liver; no scan for liver_0000, liver_0001"):
        find_cases(tmp_path, "nnunet", labelled=True)
    assert found(tmp_path, layout="msd", labelled=True) == alike(FOUR)
    put(tmp_path / "raw", *under("imagesTr", ["a_0000"]), *under("labelsTr", ["a_0000", "a"]))
    assert found(tmp_path / "raw", layout="nnunet")["a"] == ("a_0000", "a")
    assert found(tmp_path / "raw", layout="msd")["a_0000"] == ("a_0000", "a_0000")


@pytest.mark.parametrize(
    ("name", "stem", "id"),
    [
        ("mr01_0000.nii.gz", "mr01_0000", "mr01_0000"),
        ("mr01.NII.GZ", "mr01", "mr01"),
        ("segmentation-7.nii.gz", "segmentation-7", "volume-7"),
        ("segmentation-of-a.nii", "segmentation-of-a", "segmentation-of-a"),
        ("x.y.nii.gz", "x.y", "x.y"),
        (unicodedata.normalize("NFD", "Bärbel.nii"), unicodedata.normalize("NFC", "Bärbel"), "Bärbel"),
    ],
)
def test_stems_and_masks(tmp_path, name, stem, id):
    assert names.stem(name) == names.stem(tmp_path / name) == stem
    assert names.mask_id(tmp_path / name) == unicodedata.normalize("NFC", id)


def test_accents_may_be_stored_in_two_ways(tmp_path):
    composed, divided = (unicodedata.normalize(form, "Bärbel") for form in ("NFC", "NFD"))
    put(tmp_path, f"images/{divided}.nii.gz", f"labels/{composed}.nii.gz")
    (tmp_path / "cases.json").write_text(json.dumps({"patients": {divided: "p"}}))
    (case,) = find_cases(tmp_path, labelled=True)
    assert (case.id, case.patient, case.image.name) == (composed, "p", f"{divided}.nii.gz")
    put(tmp_path, f"images/{composed}.nii.gz")
    with pytest.raises(InputError, match="the same case id"):
        find_cases(tmp_path)


# Ids as hospitals and challenges have them, and such as look like channels, LiTS's names or endings.
_PIECES = st.sampled_from(
    [
        "liver",
        "a",
        "B",
        "ü",
        "肝",
        "volume-",
        "segmentation-",
        "é",
        "0",
        "7",
        "0000",
        "0001",
        "_",
        ".",
        "-",
        " ",
        "nii",
    ]
)
IDS = st.one_of(
    st.lists(_PIECES, min_size=1, max_size=5).map("".join),
    st.sampled_from([*FOUR, *(f"{stem}_0000" for stem in FOUR), "liver", "volume-3", "3"]),
).map(lambda id: unicodedata.normalize("NFC", id)).filter(
    lambda id: id.strip() and not id.startswith(".") and id.casefold() == id.casefold().rstrip()
    and not id.endswith(".nii")
)  # fmt: skip
#: Scan and mask of a case in each layout.
PATTERNS = {
    "plain": ("images/{}.nii.gz", "labels/{}.nii.gz"),
    "msd": ("imagesTr/{}.nii.gz", "labelsTr/{}.nii"),
    "nnunet": ("imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz"),
}


@pytest.mark.parametrize("layout", PATTERNS)
@hypothesis.given(ids=st.sets(IDS, min_size=1, max_size=6), named=st.booleans())
@hypothesis.settings(max_examples=60, deadline=None)
def test_every_id_is_found_with_its_own_mask_and_none_is_lost(tmp_path_factory, layout, ids, named):
    root = tmp_path_factory.mktemp("set")
    patterns = PATTERNS[layout]
    put(root, *(pattern.format(id) for id in ids for pattern in patterns))
    expected = {id: tuple(root / pattern.format(id) for pattern in patterns) for id in ids}
    cases = find_cases(root, layout if named else "auto", labelled=True)
    assert {case.id: (case.image, case.label) for case in cases} == expected
    if not any(map(names.is_lits_mask, ids)):  # among scans they would be masks
        alone = find_cases(root / patterns[0].split("/")[0])
        assert {case.image for case in alone} == {image for image, _ in expected.values()}
    # The masks pair with themselves, in the data set and as a mere folder, each with itself.
    put(root / "copy", *(f"{id}.nii.gz" for id in ids))
    for references in (root, root / patterns[1].split("/")[0], root / "copy"):
        pairs = pairing.pair(root / patterns[1].split("/")[0], references)
        assert {names.stem(pair.prediction) for pair in pairs} == ids
        assert all(names.stem(pair.prediction) == names.stem(pair.reference.label) for pair in pairs)


@hypothesis.given(numbers=st.sets(st.integers(0, 99999), min_size=1, max_size=6), below=st.booleans())
@hypothesis.settings(max_examples=30, deadline=None)
def test_every_number_of_lits_is_found(tmp_path_factory, numbers, below):
    root = tmp_path_factory.mktemp("lits")
    folder = "batch 1/" if below else ""
    put(root, *(f"{folder}{kind}-{number}.nii" for number in numbers for kind in ("volume", "segmentation")))
    expected = {f"volume-{number}": (f"volume-{number}", f"segmentation-{number}") for number in numbers}
    assert found(root, labelled=True) == expected


@hypothesis.given(st.lists(st.text(), min_size=2))
def test_natural_order_is_total_and_counts(texts):
    assert sorted(sorted(texts, reverse=True), key=names.natural_key) == sorted(texts, key=names.natural_key)
    assert names.natural_key("case 9b") < names.natural_key("case 10a") < names.natural_key("case 010b")


@hypothesis.given(st.text())
def test_what_is_printed_is_one_line_of_characters(text):
    shown = names.printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


def test_ids_that_are_no_file_names(tmp_path):
    put(tmp_path / "a", "x\ny.nii")
    with pytest.raises(InputError, match=r"a/x\\ny\.nii: case id 'x\\ny', expected a plain file name"):
        find_cases(tmp_path / "a")
    put(tmp_path / "b", "imagesTr/x\\y.nii")
    with pytest.raises(InputError, match="expected a plain file name"):
        find_cases(tmp_path / "b")
    assert layouts.list_files(tmp_path / "b").scans[0][0] == "x\\y"
