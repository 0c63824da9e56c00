"""What a release and its surroundings must be: one version, bounds that are tried, pins, workflows, cards, contents."""

import importlib.metadata
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml
from packaging.requirements import Requirement

import liverjax
from liverjax.pretrained import registry

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def _module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def release():
    """The program of `make release-check`."""
    return _module(ROOT / ".ci" / "release_check.py")


@pytest.fixture(scope="module")
def bench():
    """The program of `make bench`."""
    return _module(ROOT / "tests" / "benchmarks" / "run.py")


# --- version, citation, address -------------------------------------------------------------------------------


def test_version_stands_in_one_place(release):
    assert "version" not in PROJECT and "version" in PROJECT["dynamic"]
    release.check_changelog((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), liverjax.__version__)
    with pytest.raises(release.Refused, match=r"begins with 0\.1\.0, expected ## 0\.2\.0"):
        release.check_changelog("# Changelog\n\n## 0.1.0 (unreleased)\n\n- x\n\n## 0.2.0\n", "0.2.0")
    words = [sys.executable, "-m", "liverjax", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == f"liverjax {liverjax.__version__}\n"


def test_citation_is_of_this_version_and_address():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == liverjax.__version__ and citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert all(address.startswith(citation["repository-code"]) for address in PROJECT["urls"].values())


# --- bounds and pins ------------------------------------------------------------------------------------------


def test_lower_bounds_are_what_make_lowest_installs():
    pins = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", _read("lowest.txt"), re.MULTILINE):
        # A package with markers has a line for each: the first is that of the oldest Python.
        pins.setdefault(_key(name), version)
    needed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    for name in ("dicom", "lesions", "viewer", "onnx"):
        needed += PROJECT["optional-dependencies"][name]
    for requirement in map(Requirement, needed):
        (bound,) = requirement.specifier
        assert bound.operator == ">="
        assert _same(pins[_key(requirement.name)], bound.version), f"{requirement}: run `make lock`"


#: Colab's own versions, of the newest published list known (GPU, Python 3.12), which has the CUDA plugin of jax 0.7.2.
#: connected-components-3d, edt, ml_collections and tensorboardX it has not.
COLAB = {
    "absl-py": "1.4.0",
    "flax": "0.11.2",
    "grain": "0.2.15",
    "jax": "0.7.2",
    "matplotlib": "3.10.0",
    "nibabel": "5.3.3",
    "numpy": "2.0.2",
    "optax": "0.2.7",
    "orbax-checkpoint": "0.11.33",
    "safetensors": "0.7.0",
    "scipy": "1.16.3",
    "tqdm": "4.67.3",
}


def test_an_installation_on_colab_keeps_its_jax():
    needed = {_key(found.name): found.specifier for found in map(Requirement, PROJECT["dependencies"])}
    assert COLAB.keys() <= needed.keys()
    # One package that is too old would bring its newest version, and with it a jax that Colab's GPU plugin is not for.
    assert {name for name, version in COLAB.items() if version not in needed[name]} == set()


@pytest.mark.parametrize("name", ["run.txt", "test.txt", "build.txt", "docs.txt", "lowest.txt"])
def test_pins_have_hashes_and_no_addresses(name):
    text = _read(name)
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert blocks and all("--hash=sha256:" in block for block in blocks)


def _read(name):
    return (ROOT / "requirements" / name).read_text(encoding="utf-8")


def _key(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def _same(found, expected):
    """Whether two versions are equal but for zeros at the end."""
    return re.sub(r"(\.0)+$", "", found) == re.sub(r"(\.0)+$", "", expected)


# --- continuous integration -----------------------------------------------------------------------------------


def test_workflows_run_targets_of_the_makefile_and_pinned_actions():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    called = set()
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {"contents": "read"}
        for job in workflow["jobs"].values():
            matrix = job.get("strategy", {}).get("matrix", {})
            values = [*matrix.get("target", []), *(row["target"] for row in matrix.get("include", []))]
            for step in job["steps"]:
                if "uses" in step:
                    assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), step
                    continue
                word, target, *_ = step["run"].replace("${{ matrix.target }}", "MATRIX").split()
                assert word == "make"
                called |= set(values if target == "MATRIX" else [target])
        assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert called == targets & {"lint", "docs", "test", "slow", "lowest", "newest", "release-check"}
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    here = {target for line in re.findall(r"^make (.+)$", run, re.MULTILINE) for target in line.split()}
    assert {"lint", "test"} <= here <= called


def test_issue_forms_ask_for_no_patient_data():
    for name in ("bug", "question"):
        form = yaml.safe_load(
            (ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8")
        )
        assert {"name", "description", "body"} <= form.keys()
        fields = [field for field in form["body"] if field["type"] != "markdown"]
        assert len({field["id"] for field in fields}) == len(fields)
        assert "patient data" in str(form)


# --- shipped models -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.NAMES)
def test_shipped_models_have_a_card_with_data_licence_and_scores(name):
    facts, _ = registry.shipped_facts(name)
    card = facts["card"]
    assert card["data"] and facts["licence"] and card["never_tried"] and card["commands"]
    for group in card["held_out"].values():
        assert (
            group["cases"] > 0
            and 0 < group["dice"]["min"] <= group["dice"]["mean"] <= group["dice"]["max"] <= 1
        )
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert f"## {name}\n" in page and facts["licence"] in page


# --- what a wheel may hold ------------------------------------------------------------------------------------


def _wheel(folder, *more, without=()):
    path = folder / "liverjax-0.1.0-py3-none-any.whl"
    models = [f"liverjax/pretrained/shipped/{name}.safetensors" for name in registry.NAMES]
    names = ["liverjax/__init__.py", "liverjax/py.typed", "liverjax/viewer/page/viewer.js", *models, *more]
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            if name not in without:
                archive.writestr(name, "x")
        archive.writestr("liverjax-0.1.0.dist-info/METADATA", "x")
    return path


@pytest.mark.parametrize(
    "stranger",
    [
        "liverjax/__pycache__/files.cpython-311.pyc",
        "liverjax/scan.nii.gz",
        "liverjax/pretrained/shipped/patient.npy",
        "liverjax/pretrained/other.safetensors",
        "liverjax/.cache/runs/run.json",
        "demo_output/mask.py",
        "tests/test_files.py",
    ],
)
def test_a_wheel_with_data_or_caches_is_refused(release, tmp_path, stranger):
    release.check_wheel(_wheel(tmp_path))
    with pytest.raises(release.Refused, match=re.escape(stranger)):
        release.check_wheel(_wheel(tmp_path, stranger))


def test_a_wheel_without_a_model_or_too_large_is_refused(release, tmp_path, monkeypatch):
    model = f"liverjax/pretrained/shipped/{registry.NAMES[0]}.safetensors"
    with pytest.raises(release.Refused, match="has the models"):
        release.check_wheel(_wheel(tmp_path, without=[model]))
    monkeypatch.setattr(release, "LARGEST", 100)
    with pytest.raises(release.Refused, match="bytes, expected 100 at most"):
        release.check_wheel(_wheel(tmp_path))


def test_metadata_that_lacks_something_is_refused(release, tmp_path):
    good = (
        "Metadata-Version: 2.4\nName: liverjax\nVersion: 0.1.0\nSummary: x\nLicense-Expression: Apache-2.0\n"
        "Requires-Python: >=3.11\nProject-URL: Repository, https://example.org\n"
        "Description-Content-Type: text/markdown\n\nWords.\n"
    )

    def check(text):
        path = tmp_path / "liverjax-0.1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("liverjax-0.1.0.dist-info/METADATA", text)
        return release.check_metadata(path)

    assert check(good) == "0.1.0"
    for old, new, message in (
        ("License-Expression: Apache-2.0\n", "", "no license_expression"),
        ("Apache-2.0", "Apache 2", "not valid"),
        ("Version: 0.1.0", "Version: first", "not valid"),
        ("text/markdown", "text/plain", "Markdown"),
        ("Project-URL: Repository, https://example.org\n", "", "no project_urls"),
    ):
        with pytest.raises(release.Refused, match=message):
            check(good.replace(old, new))


@pytest.mark.parametrize(
    ("fields", "licence", "allowed"),
    [
        ({"License-Expression": "MIT"}, "MIT", True),
        ({"License-Expression": "BSD-3-Clause AND (MIT OR GPL-3.0-only)"}, None, True),
        ({"License-Expression": "BSD-3-Clause AND GPL-3.0-only"}, None, False),
        ({"License": "Apache 2.0"}, "Apache-2.0", True),
        ({"License": "many\n words", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT", True),
        ({"Classifier": "License :: OSI Approved"}, "none", False),
        ({"License": "  Apache License\n      Version 2.0, January 2004\n      ..."}, "Apache-2.0", True),
        ({"FILE": "\n   Apache License\n   Version 2.0, January 2004\n"}, "Apache-2.0", True),
        ({"License": "GPL-3.0-or-later"}, "GPL-3.0-or-later", False),
        ({"License": "Ask me"}, "Ask me", False),
        ({}, "none", False),
    ],
)
def test_licences_from_any_field(release, tmp_path, fields, licence, allowed):
    folder = tmp_path / "other-1.dist-info"
    (folder / "licenses").mkdir(parents=True)
    lines = [f"{name}: {value}\n" for name, value in fields.items() if name != "FILE"]
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n" + "".join(lines))
    (folder / "licenses" / "LICENSE").write_text(fields.get("FILE", "All rights reserved."), encoding="utf-8")
    (folder / "RECORD").write_text("other-1.dist-info/licenses/LICENSE,,\n", encoding="utf-8")
    (package,) = importlib.metadata.distributions(path=[str(tmp_path)])
    found = release.licence_of(package)
    assert licence in (None, found)
    assert release.is_allowed(found) == allowed


# --- history of benchmarks ------------------------------------------------------------------------------------


def test_the_page_of_benchmarks_is_that_of_its_history(bench):
    records = json.loads(bench.HISTORY.read_text(encoding="utf-8"))
    assert bench.HISTORY.with_suffix(".md").read_text(encoding="utf-8") == bench.page(records)


_DUELS = """
import pytest
pytestmark = pytest.mark.slow
FACTS = dict(unit="CPU s", of="one", parity="equal")
def test_won(duel):
    duel("sums", "abacus", ours=1.0, theirs=2.0, aim=0.5, **FACTS)
def test_lost(duel):
    duel("roots", "abacus", ours=3.0, theirs=2.0, aim=1, **FACTS)
    assert 3 <= 2
def test_other():
    pytest.skip("abacus is not installed")
def test_apart(duel):
    assert 1 == 2, "results differ"
"""


def test_duels_are_kept_by_commit(bench, tmp_path, capfd):
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "benchmarks" / "conftest.py").read_text())
    (tmp_path / "test_duels.py").write_text(_DUELS)
    history = tmp_path / "benchmarks.json"
    assert bench.main(["won", "lost", "other"], tmp_path, history) == 0
    assert "skipped: test_other: abacus is not installed" in capfd.readouterr().out
    (record,) = json.loads(history.read_text(encoding="utf-8"))
    assert [duel["ratio"] for duel in record["duels"]] == [0.5, 1.5]
    assert record["versions"]["jax"] and record["machine"]["cores"] > 0
    page = history.with_suffix(".md").read_text(encoding="utf-8")
    assert "| sums | abacus | 1 / 2 CPU s, one: 0.50 | 0.5: reached | equal |" in page
    assert "| roots | abacus | 3 / 2 CPU s, one: 1.50 | 1: not reached | equal |" in page

    # The same commit again: the newer figure stands for the older; another commit has a record of its own.
    newer = {**record, "duels": [{**record["duels"][0], "ratio": 0.4}]}
    (joined,) = bench.with_record([record], newer)
    assert [(duel["what"], duel["ratio"]) for duel in joined["duels"]] == [("roots", 1.5), ("sums", 0.4)]
    later = {**newer, "commit": "later"}
    assert bench.with_record([record], later) == [record, later]
    assert f"0.50 ({record['commit']}), 0.40 (later)" in bench.page([record, later])

    # Results that differ, and nothing measured, are no success.
    assert bench.main(["apart"], tmp_path, history) == 1
    assert "wrong: test_apart: AssertionError: results differ" in capfd.readouterr().err
    assert json.loads(history.read_text(encoding="utf-8")) == [record]
