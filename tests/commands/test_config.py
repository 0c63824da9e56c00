"""Printing a config."""

import pytest

from liverjax.commands.dispatch import main


@pytest.mark.parametrize("words", [["demo"], ["--config=demo"]])
def test_a_config_is_printed_with_its_overrides(words, capsys):
    assert main(["config", *words, "--config.train.steps=7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "* train.steps = 7  (default: 20000)" in lines
    assert "* preprocess.spacing = 4.0,4.0,4.0  (default: 2.0,2.0,2.0)" in lines
    place = lines.index("  train.optimizer = adam")
    assert lines[place + 1].strip().startswith('"adam", "adamw"')
    assert "loss: Weights of the terms of the objective; 0 leaves a term out." in lines


def test_a_mistake_in_a_file_is_one_line(tmp_path, capsys):
    text = "from liverjax.config import default_config\n\ndef get_config(arg):\n"
    (tmp_path / "my.py").write_text(f"{text}    default_config().model.dropuot = 1\n", encoding="utf-8")
    assert main(["config", str(tmp_path / "my.py")]) == 1
    error = capsys.readouterr().err
    place = f"liverjax: error: {tmp_path / 'my.py'}:4: the config has no field 'dropuot' there; did you mean"
    assert error == f"{place} 'model.dropout'?\n"


def test_help_names_the_word_that_is_no_flag(capsys):
    assert main(["config", "--help"]) == 0
    assert capsys.readouterr().out.startswith("liverjax config CONFIG --flags\n")
