"""What the classes of a data set mean here: background, liver or tumour, by their names in `dataset.json`."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from liverjax.errors import InputError, did_you_mean
from liverjax.labels import BACKGROUND, LIVER, NAMES, TUMOR

OWN_LABELS = ((BACKGROUND, BACKGROUND), (LIVER, LIVER), (TUMOR, TUMOR))

# A class is a tumour if its name has one of these words (without the s of plurals) and else only words that say where
# or of what kind. "Kidney tumor" is none of ours, and a word that is not known here is no reason to guess.
_TUMOR_WORDS = {
    "tumor", "tumour", "cancer", "carcinoma", "hcc", "icc", "cholangiocarcinoma", "hepatoblastoma", "metastasi",
    "metastase", "met", "crlm", "lesion", "neoplasm", "neoplasia", "malignancy", "malignancie", "mass", "masse",
}  # fmt: skip
_LIVER_WORDS = {"liver", "hepatic", "hepatocellular", "intrahepatic"}
_KINDS_OF_TUMOR = {
    "primary", "secondary", "malignant", "metastatic", "colorectal", "focal", "viable", "in", "within", "of",
    "the",
}  # fmt: skip
# Cysts of the liver are no tumours, and lie within it.
_KINDS_OF_LIVER = {
    "parenchyma", "whole", "entire", "healthy", "normal", "organ", "tissue", "segment", "lobe", "left", "right",
    "caudate", "cyst", "mask", "rest", "remaining", "of", "the",
}  # fmt: skip
_BOTH = {"and", "with", "without", "plus", "minus", "including", "excluding", "incl", "excl"}
#: Names that need no mention where they mean what their value means here.
_PLAIN = {
    "background", "liver", "tumor", "tumour", "cancer", "lesion", "liver tumor", "liver tumour", "liver cancer",
    "liver lesion",
}  # fmt: skip
_STATED_NAMES = {"background": BACKGROUND, "liver": LIVER, "tumor": TUMOR, "tumour": TUMOR}


@dataclasses.dataclass(frozen=True)
class Labels:
    """How the values of masks are read.

    Attributes:
      map: pairs of a value in the files and the label id that it means, as `Case.label_map`.
      unknown: value and name of each class that is taken as background because its name is not known.
      text: those values of which the meaning is not plain, as "2 HCC -> tumor, 3 spleen -> background"; or empty.
      where: the file that says so, or empty.
    """

    map: tuple[tuple[int, int], ...] = OWN_LABELS
    unknown: tuple[tuple[int, str], ...] = ()
    text: str = ""
    where: str = ""

    @property
    def line(self) -> str:
        """What a command prints, or the empty string where there is nothing to say."""
        return f"{self.where}: {self.text}" if self.text else ""


OWN = Labels()


def meaning(name: str) -> int | None:
    """Returns the label id that a class's name means, or None if the name is not known."""
    words = _words(name)
    if words == ["background"]:
        return BACKGROUND
    found = {word for word in words if not word.isdecimal()}
    if found & _BOTH and "liver" in found and found <= _LIVER_WORDS | _TUMOR_WORDS | _BOTH | _KINDS_OF_LIVER:
        return LIVER  # "liver and tumor" is the whole liver, "liver without tumor" the rest of it
    if found & _TUMOR_WORDS and found <= _TUMOR_WORDS | _LIVER_WORDS | _KINDS_OF_TUMOR:
        return TUMOR
    if found & {"liver", "hepatic"} and found <= _LIVER_WORDS | _KINDS_OF_LIVER and found != {"hepatic"}:
        return LIVER
    return None


def _words(name: str) -> list[str]:
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # LiverTumor
    name = re.sub(r"[+&/,]", " and ", name)
    words = re.split(r"[\s_.:;()-]+", name.strip().lower())
    return [word if len(word) < 4 else re.sub("(?<!s)s$", "", word) for word in words if word]


def labels(stated: object, explicit: object, folder: Path) -> Labels:
    """Returns how masks are read, by the `labels` of a `dataset.json` and of a `cases.json`.

    The first are name to value, or name to values for nnU-Net's regions, or value to name as in MSD. The second are
    value to "background", "liver" or "tumor", and go before the first.

    Args:
      stated: of `dataset.json`, or None.
      explicit: of `cases.json`, or None.
      folder: where these files are.

    Raises:
      InputError: they are of another kind, or no value means liver.
    """
    if stated is None and explicit is None:
        return OWN
    named = {value: NAMES[value] for value, _ in OWN_LABELS}
    meanings = dict(OWN_LABELS)
    unknown = {}
    if stated is not None:
        named, meanings, unknown = _of_dataset(stated, folder / "dataset.json")
    if explicit is not None:
        chosen = _of_cases(explicit, folder / "cases.json")
        meanings |= chosen
        unknown = {value: name for value, name in unknown.items() if value not in chosen}
    if LIVER not in meanings.values():
        shown = ", ".join(f"{value} {name}" for value, name in sorted(named.items()))
        raise InputError(
            f"{folder / 'dataset.json'}: labels are {shown}, expected one that is called liver; or cases.json beside "
            'it that says which is, as {"labels": {"1": "liver"}}'
        )
    told = ", ".join(
        f"{value} {named.get(value, '')}".strip() + f" -> {NAMES[label]}"
        for value, label in sorted(meanings.items())
        if value != label or not _is_plain(named.get(value, ""), value)
    )
    files = [name for name, part in (("dataset.json", stated), ("cases.json", explicit)) if part is not None]
    return Labels(tuple(sorted(meanings.items())), tuple(unknown.items()), told, " and ".join(files))


def _is_plain(name: str, value: int) -> bool:
    return " ".join(_words(name)) in _PLAIN and meaning(name) == value


def _of_dataset(stated: object, path: Path) -> tuple[dict[int, str], dict[int, int], dict[int, str]]:
    """Returns the name and the meaning of each value, and the names that are not known."""
    if not (isinstance(stated, dict) and all(isinstance(v, str) == n.isdecimal() for n, v in stated.items())):
        raise InputError(f"{path}: 'labels' is {_short(stated)}, expected {{name: value}}")
    named, meanings, unknown = {0: "background"}, {0: BACKGROUND}, {}
    for name, values in stated.items():
        if name.isdecimal():
            name, values = values, int(name) if len(name) < 4 else 256
        if _words(name) == ["ignore"]:
            raise InputError(
                f"{path}: a label is to be ignored, which training cannot do; relabel its voxels"
            )
        for value in values if isinstance(values, list) else [values]:
            if not (isinstance(value, int) and 0 <= value <= 255):
                raise InputError(
                    f"{path}: label {name!r} is {_short(value)}, expected a whole number of 0 to 255"
                )
            label = meaning(name)
            if label is None:
                unknown.setdefault(value, name)
            if (
                value not in meanings or (label or BACKGROUND) > meanings[value]
            ):  # tumours lie within the liver
                named[value], meanings[value] = name, label or BACKGROUND
    unknown = {value: name for value, name in unknown.items() if meanings[value] == BACKGROUND and value}
    return named, meanings, unknown


def _of_cases(explicit: object, path: Path) -> dict[int, int]:
    form = 'expected {"labels": {value: "background", "liver" or "tumor"}}'
    if not (isinstance(explicit, dict) and all(isinstance(name, str) for name in explicit.values())):
        raise InputError(f"{path}: 'labels' is {_short(explicit)}, {form}")
    chosen = {}
    for value, name in explicit.items():
        if not (value.isdecimal() and len(value) < 4 and int(value) <= 255):
            raise InputError(f"{path}: 'labels' has the value {_short(value)}, expected one of 0 to 255")
        if name.lower() not in _STATED_NAMES:
            raise InputError(
                f"{path}: label {value} is {name!r}{did_you_mean(name, ('background', 'liver', 'tumor'))}"
            )
        chosen[int(value)] = _STATED_NAMES[name.lower()]
    return chosen


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:200]}..."
