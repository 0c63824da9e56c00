"""Cards of models: words from a file, scores from an evaluation, both in the bundle, and nothing else."""

import copy
import json
import re

import pytest
import safetensors.numpy

import liverjax
from liverjax import sealed
from liverjax.commands.dispatch import main
from liverjax.errors import CheckpointError, InputError
from liverjax.pretrained import bundle as bundles
from liverjax.pretrained import card as cards

WORDS = {
    "about": "Livers of phantoms.",
    "data": ["4 phantoms"],
    "held_out": {
        "near": {"scans": "phantoms", "modality": "ct", "trained": True},
        "far": {"scans": "phantoms in MR", "modality": "mr", "trained": False},
    },
    "never_tried": ["patients"],
    "commands": ["liverjax demo"],
}


def _scores(*dice):
    """What `evaluate` writes of cases with these values."""
    per_case = {"mean": sum(dice) / len(dice), "median": sorted(dice)[len(dice) // 2], "min": min(dice)}
    per_case |= {"max": max(dice), "n": len(dice)}
    return {"scores": {"liver": {"cases": len(dice), "dice_per_case": 0.5, "per_case": {"dice": per_case}}}}


def _facts(path):
    """The metadata of a bundle but its checksum."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    return {name: json.loads(text) for name, text in header.items() if name != "sha256"}


@pytest.fixture
def files(tmp_path):
    """A card's words and two summaries, as files."""
    (tmp_path / "card.json").write_text(json.dumps(WORDS), encoding="utf-8")
    for name, dice in (("near", (0.9, 0.96, 0.93)), ("far", (0.25,))):
        summary = {"metric_per_case": [{"case": "patient-4711"}], **_scores(*dice)}
        (tmp_path / f"{name}.json").write_text(json.dumps(summary), encoding="utf-8")
    return tmp_path


def test_words_and_scores_become_one_card(files, tiny_run, capsys):
    path = files / "model.safetensors"
    words = ["bundle", f"--workdir={tiny_run}", "-o", str(path), "--licence=CC0-1.0"]
    words.append(f"--card={files / 'card.json'}")
    scores = [f"--held_out={name}={files / name}.json" for name in ("near", "far")]
    assert main([*words, *scores]) == 0
    described = capsys.readouterr().out.splitlines()
    assert "held out, Dice: phantoms: 0.930 (0.900 to 0.960, 3)" in described
    assert "held out, Dice: phantoms in MR: 0.250 (0.250 to 0.250, 1)" in described
    card = liverjax.load_model(path).about["card"]
    near = {"cases": 3, "dice": {"mean": 0.93, "median": 0.93, "min": 0.9, "max": 0.96}}
    assert card["held_out"]["near"] == {**WORDS["held_out"]["near"], **near}
    assert {**card, "held_out": None} == {**WORDS, "held_out": None}
    assert b"471" not in path.read_bytes()
    text = cards.text("tiny", bundles.read_facts(path), path.stat().st_size)
    assert "| phantoms | yes | 3 | 0.930 | 0.930 | 0.900 | 0.960 |" in text.splitlines()
    assert "| phantoms in MR | no | 1 | 0.250 | 0.250 | 0.250 | 0.250 |" in text.splitlines()
    for said in ("- 4 phantoms", "- patients", "    liverjax demo", "| licence | CC0-1.0 |"):
        assert said in text.splitlines()

    # Each remedy leads to the same file.
    written = path.read_bytes()
    for wrong, message in (
        (scores[:1], f"has no scores; add --held_out=far={'SCORES/summary.json'}"),
        (
            [*scores, f"--held_out=fra={files / 'far'}.json"],
            "has no held-out group 'fra'; did you mean 'far'?",
        ),
        ([scores[0], "--held_out=far"], "--held_out is '.*', 'far', expected NAME=SCORES/summary.json each"),
    ):
        assert main([*words, *wrong]) == 1
        assert re.search(message, capsys.readouterr().err)
    assert main([*words[:-1], *scores]) == 1
    assert "' without --card, expected --card=FILE, whose groups it scores" in capsys.readouterr().err
    path.unlink()
    assert main([*words, *scores]) == 0 and path.read_bytes() == written
    assert main([*words, *scores, "--ensemble=best", "--quiet"]) == 0
    assert liverjax.load_model(path).config.predict.ensemble == "best"


def test_summaries_without_dice_are_evaluated_again(files):
    near = _scores(0.9)
    for broken in ({"scores": {}}, {"scores": {"liver": {"per_case": {}}}}, {"scores": {"liver": {}}}):
        with pytest.raises(InputError, match="holds no Dice per case .*; evaluate again with --metrics=dice"):
            cards.read_card(files / "card.json", {"near": near, "far": broken})
    assert cards.read_card(files / "card.json", {"near": near, "far": near})["held_out"]["far"]["cases"] == 1


def test_a_scored_card_is_of_an_evaluation(files, phantom_scans):
    masks, out = str(phantom_scans / "labelsTr"), str(files / "scores")
    words = [
        f"--predictions={masks}",
        f"--references={masks}",
        "-o",
        out,
        "--metrics=dice",
        "--regions=liver",
    ]
    assert main(["evaluate", *words, "--quiet"]) == 0
    scores = bundles.read_scores(files / "scores" / "summary.json")
    far = cards.read_card(files / "card.json", {"near": _scores(0.9), "far": scores})["held_out"]["far"]
    assert far["cases"] == 8 and set(far["dice"].values()) == {1.0}


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("about",), 3, "about is 3, expected str"),
        (("data",), [1], r"data is \[1\], expected lines of text"),
        (("novelty",), "", "'novelty' is unknown"),
        (("held_out", "near"), [], "held_out 'near' is .*, expected a group of fields"),
        (("held_out", "near", "modality"), "pet", "modality is 'pet', expected ct or mr"),
        (("held_out", "near", "trained"), 1, "trained is 1, expected bool"),
        (("held_out", "near", "cases"), 0, "is no mean, median, min and max of 0 to 1 of one case or more"),
        (("held_out", "near", "dice"), {"mean": 0.9}, "is no mean"),
        (("held_out", "near", "dice", "mean"), 1.5, "is no mean"),
        (("held_out", "near", "dice", "max"), "0.9", "is no mean"),
    ],
)
def test_what_is_no_card_is_refused(files, tiny_run, place, value, message):
    card = cards.read_card(files / "card.json", {"near": _scores(0.9), "far": _scores(0.9)})
    changed = copy.deepcopy(card)
    group = changed
    for name in place[:-1]:
        group = group[name]
    group[place[-1]] = value
    path, model = files / "model.safetensors", liverjax.load_model(tiny_run)
    with pytest.raises(CheckpointError, match=message):
        bundles.write_bundle(path, model, licence="CC0-1.0", card=changed)
    bundles.write_bundle(path, model, licence="CC0-1.0", card=card)
    path.write_bytes(sealed.serialised(safetensors.numpy.load_file(path), {**_facts(path), "card": changed}))
    with pytest.raises(CheckpointError, match=message):
        bundles.read_facts(path)
    if place[-1] not in ("cases", "dice", "mean", "max"):  # These are not written by hand.
        for scored in changed["held_out"].values():
            if isinstance(scored, dict):
                del scored["cases"], scored["dice"]
        (files / "card.json").write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            cards.read_card(files / "card.json", {"near": _scores(0.9), "far": _scores(0.9)})


def test_a_bundle_of_the_first_version_has_no_card_and_is_still_read(tiny_run, tmp_path):
    new, old = tmp_path / "new.safetensors", tmp_path / "old.safetensors"
    bundles.write_bundle(new, liverjax.load_model(tiny_run), licence="CC0-1.0")
    facts = _facts(new)
    del facts["card"]
    old.write_bytes(sealed.serialised(safetensors.numpy.load_file(new), {**facts, "version": 1}))
    read = liverjax.load_model(old)
    assert read.about["card"] is None and read.config == liverjax.load_model(new).config
    old.write_bytes(sealed.serialised(safetensors.numpy.load_file(new), {**facts, "version": 2}))
    with pytest.raises(CheckpointError, match="field 'card' of its metadata is missing"):
        liverjax.load_model(old)
