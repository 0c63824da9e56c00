"""Runs the duels of this folder, and keeps their figures by commit: `make bench`.

  python tests/benchmarks/run.py                 # all at hand: some hours
  python tests/benchmarks/run.py forest kernel   # those whose names hold a word

Figures, with commit, machine and versions, are added to `docs/benchmarks.json`; `docs/benchmarks.md` is written from
it. A duel whose peer is not installed is skipped with a line. LIVERJAX_TORCH_PYTHON names a Python with torch, MONAI
and batchgeneratorsv2. The exit status is 1 if results disagree or nothing was measured, not if an aim is missed: that
is in the table.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HISTORY = ROOT / "docs" / "benchmarks.json"
#: What pytest does not run -> what it needs.
BY_HAND = {
    "onnx_writers": "onnx_writers.py: jax2onnx, in an environment of its own",
    "nnunet": "nnunet/duel.py: nnU-Net, a data set, a trained run and two hours",
}
_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "scipy",
    "onnxruntime",
    "scikit-learn",
    "surface-distance",
    "medpy",
)
OF_PEERS = ("torch", "monai", "batchgeneratorsv2")
_HEAD = """# Benchmarks

Duels beside other tools, as `make bench` measured them: results agree before times are compared; on a machine with
other work, ratios count, not seconds. What the figures mean: `docs/performance.md`. This page is written from
`docs/benchmarks.json`, which also has the load of the machine.
"""


def main(words: list[str], folder: pathlib.Path = HERE, history: pathlib.Path = HISTORY) -> int:
    """Runs the duels whose names hold one of the words (none: all), keeps their figures, and returns the status."""
    record = {"commit": commit(), "measured": time.strftime("%Y-%m-%d"), **surroundings()}
    record |= run(words, folder)
    for line in record["skipped"]:
        print(f"skipped: {line}")
    if record["duels"]:
        records = json.loads(history.read_text(encoding="utf-8")) if history.exists() else []
        records = with_record(records, record)
        history.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
        history.with_suffix(".md").write_text(page(records), encoding="utf-8")
        print(f"{len(record['duels'])} figures are in {history} and {history.with_suffix('.md')}")
    for line in record["wrong"]:
        print(f"wrong: {line}", file=sys.stderr)
    return 1 if record["wrong"] or not record["duels"] else 0


def run(words: list[str], folder: pathlib.Path) -> dict[str, list]:
    """Returns the duels of a folder, what was skipped and why, and which tests failed before their duel was noted."""
    with tempfile.TemporaryDirectory() as work:
        report = pathlib.Path(work) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "slow", "-q", f"--junitxml={report}", str(folder)]
        command += ["-o", "junit_family=xunit1"]  # The one that has properties of tests.
        command += ["-k", " or ".join(words)] if words else []
        subprocess.run(command, cwd=ROOT)
        found = (
            _read(report)
            if report.exists()
            else {"duels": [], "skipped": [], "wrong": ["pytest did not run"]}
        )
    for name, needs in BY_HAND.items():
        if not words or any(word in name for word in words):
            found["skipped"].append(f"{needs}; run it by hand, as its first lines say")
    return found


def _read(report: pathlib.Path) -> dict[str, list]:
    found: dict[str, list] = {"duels": [], "skipped": [], "wrong": []}
    for case in ElementTree.parse(report).iter("testcase"):
        notes = [
            json.loads(note.get("value", "")) for note in case.iter("property") if note.get("name") == "duel"
        ]
        skipped = case.find("skipped")
        failed = case.find("failure") if case.find("failure") is not None else case.find("error")
        if skipped is not None:
            found["skipped"].append(f"{case.get('name')}: {skipped.get('message')}")
        elif failed is not None and not notes:
            reason = (failed.get("message") or "").splitlines()
            found["wrong"].append(f"{case.get('name')}: {reason[0] if reason else 'failed'}")
        found["duels"] += notes
    return found


def commit() -> str:
    """Returns the commit that is checked out, with a "+" if files differ from it."""
    words = ["git", "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def surroundings() -> dict[str, Any]:
    """Returns the machine and the versions of what runs on it."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = {"cpu": model, "cores": len(os.sched_getaffinity(0)), "memory_gib": round(memory, 1)}
    found = {"python": platform.python_version()} | versions(_PACKAGES)
    peers = os.environ.get("LIVERJAX_TORCH_PYTHON", sys.executable)
    code = "import json, run; print(json.dumps(run.versions(run.OF_PEERS)))"
    done = subprocess.run([peers, "-c", code], cwd=HERE, capture_output=True, text=True)
    return {
        "machine": machine,
        "versions": found | (json.loads(done.stdout) if done.returncode == 0 else {}),
    }


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Returns the versions of those packages that this Python has."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def with_record(records: list[dict], record: dict) -> list[dict]:
    """Returns a history with one record more, or joined with the last if that is of the same commit and machine."""
    record = {name: value for name, value in record.items() if name not in ("skipped", "wrong")}
    last = records[-1] if records else {}
    if any(last.get(name) != record[name] for name in ("commit", "machine", "versions")):
        return [*records, record]
    again = set(map(key, record["duels"]))
    kept = [duel for duel in last["duels"] if key(duel) not in again]
    return [*records[:-1], {**record, "duels": kept + record["duels"]}]


def key(duel: dict) -> tuple[str, str, str]:
    """Returns what makes a figure comparable with those of other commits."""
    return duel["what"], duel["peer"], duel["unit"]


def page(records: list[dict]) -> str:
    """Returns the page of a history: the newest figure of each duel, then its ratios by commit."""
    latest: dict[tuple, tuple[dict, dict]] = {}
    ratios: dict[tuple, list[str]] = {}
    for record in records:
        for duel in record["duels"]:
            latest[key(duel)] = duel, record
            ratios.setdefault(key(duel), []).append(f"{duel['ratio']:.2f} ({record['commit']})")
    lines = [_HEAD, "| what | peer | ours / theirs | aim | results | commit |", "|---|---|---|---|---|---|"]
    for duel, record in latest.values():
        figures = (
            f"{duel['ours']:.3g} / {duel['theirs']:.3g} {duel['unit']}, {duel['of']}: {duel['ratio']:.2f}"
        )
        lines.append(
            f"| {duel['what']} | {duel['peer']} | {figures} | {_aim(duel)} | {duel['parity']} | {record['commit']} |"
        )
    lines += ["", "## By commit", "", "Ours / theirs.", "", "| what | peer | ratios |", "|---|---|---|"]
    lines += [
        f"| {what}, {unit} | {peer} | {', '.join(found)} |" for (what, peer, unit), found in ratios.items()
    ]
    lines += ["", "## Machines", "", "| commit | measured | machine | versions |", "|---|---|---|---|"]
    for record in records:
        machine = "{cpu}, CPUs used: {cores}, {memory_gib} GiB".format(**record["machine"])
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        lines.append(f"| {record['commit']} | {record['measured']} | {machine} | {versions} |")
    return "\n".join(lines) + "\n"


def _aim(duel: dict) -> str:
    if duel["aim"] is None:
        return ""
    reached = duel["ratio"] >= duel["aim"] if duel["more_is_better"] else duel["ratio"] <= duel["aim"]
    return f"{duel['aim']:.2g}: {'reached' if reached else 'not reached'}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
