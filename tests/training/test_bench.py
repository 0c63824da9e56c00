"""`liverjax bench`: its figures agree with each other, and it leaves nothing behind."""

import json
import subprocess
import sys
import tempfile

import pytest

from liverjax.commands.dispatch import main
from liverjax.training.bench import bench, table


@pytest.fixture(scope="module")
def facts(tiny_config):
    return bench(tiny_config, store=tiny_config.store, steps=3)


def test_figures_are_of_the_config_and_within_their_bounds(facts):
    for measured in (facts["step"], facts["fed"]):
        assert measured["cpu_seconds_per_slice"] > 0 and 0 <= measured["data_wait_share"] < 1
    assert facts["step"]["compile_seconds"] > 0
    assert facts["batch"] == [4, 48, 48] and facts["view"] == "axial" and facts["steps"] == 3
    assert set(facts["pipeline"]) == {"cold", "warm"}
    assert min(found["slices_per_second"] for found in facts["pipeline"].values()) > 0


def test_the_table_shows_each_part_and_no_column_of_what_is_not_known(facts):
    rows = table(facts).splitlines()[2:]
    assert [row[:15].strip() for row in rows] == [
        "",
        "step alone",
        "step, fed",
        "pipeline, cold",
        "pipeline, warm",
    ]
    assert (
        rows[1].endswith("%")
        and rows[3].split()[2] == f"{facts['pipeline']['cold']['slices_per_second']:.1f}"
    )


def test_the_command_makes_its_own_phantoms_and_leaves_only_the_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    words = ["bench", "--config=demo", "--steps=2", "--view=coronal", "-o", str(tmp_path / "bench.json")]
    words += ["--config.model.features=4,8", "--config.batch.patch=32,48", "--config.batch.size=2"]
    assert main(words) == 0
    facts = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert facts["view"] == "coronal" and facts["batch"] == [2, 32, 48]
    assert facts["fed"]["slices_per_second"] > 0 and facts["pipeline"]["warm"]["slices_per_second"] > 0
    assert "coronal, 2 slices of 32 x 48" in capsys.readouterr().out
    assert not list((tmp_path / "temporary").iterdir())


def test_a_machine_without_grain_and_nibabel_measures_the_step_alone(tiny_config, tmp_path):
    words = ["bench", "--config=demo", "--steps=2", "-o", str(tmp_path / "bench.json")]
    words += ["--config.model.features=4,8", "--config.batch.patch=32,48", "--config.batch.size=2"]
    code = (
        "import sys; sys.modules.update(grain=None, nibabel=None, tensorboardX=None);"
        "from liverjax.commands.dispatch import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("the pipeline was not measured: it needs a store, grain and nibabel\n")
    facts = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert facts["step"]["slices_per_second"] > 0 and facts["fed"] is None and facts["pipeline"] is None
    done = subprocess.run(
        [sys.executable, "-c", code, *words, f"--store={tiny_config.store}"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"liverjax: error: {tiny_config.store}: cannot be read without grain and nibabel; leave --store out\n"
    )
