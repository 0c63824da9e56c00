"""What a release must pass: `make release-check`. Needs nothing but the pins of `requirements/`.

Builds wheel and sdist into `dist/`; checks their metadata and what they hold; installs each in a fresh environment,
where it segments a phantom with a shipped model, without a network if the system allows one to be taken away; lists the
licences of all that a plain installation brings. The first thing that is wrong ends it with one line and status 1.
"""

from __future__ import annotations

import email.parser
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile

from packaging.licenses import canonicalize_license_expression
from packaging.metadata import Metadata

ROOT = pathlib.Path(__file__).resolve().parent.parent
#: The largest size of a wheel, in bytes, the shipped models included.
LARGEST = 12_000_000
#: What a wheel may hold.
_HELD = re.compile(
    r"liverjax/([\w/]+\.py|py\.typed|pretrained/shipped/\w+\.(json|safetensors)|viewer/page/[\w.]+\.(html|css|js))"
)
#: What else an sdist holds, below its folder.
_OF_SOURCE = re.compile(
    r"configs/\w+\.py|LICENSE|README\.md|CHANGELOG\.md|CITATION\.cff|pyproject\.toml|PKG-INFO|\.gitignore"
)
#: Licences under which a package may be needed: they ask nothing of those who only call it. Those of the LGPL and MPL
#: are used as they are published.
_ALLOWED = re.compile(
    r"(0BSD|Apache-2\.0( WITH LLVM-exception)?|BSD-[23]-Clause|CC0-1\.0|HPND|ISC|LGPL-[23]\.[01]-(only|or-later)|MIT|"
    r"MIT-CMU|MPL-2\.0|NCSA|PSF-2\.0|Python-2\.0|Unlicense|Zlib)"
)
#: Words of packages whose metadata has no SPDX expression -> that expression.
_SPELLED = {
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "LGPLv3": "LGPL-3.0-only",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
#: A network namespace of its own, where the system allows one.
_ALONE = ["unshare", "--net", "--map-root-user"]
#: Writes a phantom with its reference, as the layout of nnU-Net.
_PHANTOM = """
from liverjax.datasets.phantom import write_dataset
write_dataset("phantom", [0], shape=(96, 80, 72), spacing=(4.0, 4.0, 4.0))
"""


class Refused(Exception):
    """A release that must not be made, in one line."""


def main() -> int:
    """Runs all checks, and returns the exit status."""
    start = time.monotonic()
    try:
        wheel, sdist = build(ROOT / "dist")
        version = check_metadata(wheel)
        check_changelog((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version)
        check_wheel(wheel)
        check_sdist(sdist)
        with tempfile.TemporaryDirectory() as folder:
            for file in (sdist, wheel):
                python = install(file, pathlib.Path(folder) / file.suffix)
                smoke_test(python, pathlib.Path(folder) / f"work{file.suffix}", version)
            check_licences(python)  # Of the wheel: an sdist needs what builds it, too.
    except Refused as refused:
        print(f"release-check: {refused}", file=sys.stderr)
        return 1
    print(f"release-check: liverjax {version} is sound ({time.monotonic() - start:.0f} s)")
    return 0


# --- what is built --------------------------------------------------------------------------------------------


def build(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns the wheel and the sdist of this checkout, newly built into a folder."""
    for old in folder.glob("liverjax-*"):
        old.unlink()
    _run([sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def check_metadata(wheel: pathlib.Path) -> str:
    """Returns the version that the metadata states, which must be valid and lack nothing that users look for."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        content = archive.read(name)
    try:
        metadata = Metadata.from_email(content, validate=True)
    except Exception as error:  # A group of them.
        reasons = "; ".join(map(str, getattr(error, "exceptions", [error])))
        raise Refused(f"{wheel.name}: its metadata is not valid: {reasons}") from error
    for field in ("summary", "description", "license_expression", "requires_python", "project_urls"):
        if not getattr(metadata, field):
            raise Refused(f"{wheel.name}: its metadata has no {field}, expected one in pyproject.toml")
    address = email.parser.BytesParser().parsebytes(content)
    if address["Description-Content-Type"] != "text/markdown":
        raise Refused(f"{wheel.name}: its README is not said to be Markdown")
    return str(metadata.version)


def check_changelog(text: str, version: str) -> None:
    """Refuses a changelog whose top section is not that of the version."""
    top = re.search(r"^## (\S+)", text, re.MULTILINE)
    found = top[1] if top else "no section"
    if found != version:
        raise Refused(
            f"CHANGELOG.md begins with {found}, expected ## {version}, as liverjax/__init__.py says"
        )


def check_wheel(wheel: pathlib.Path) -> None:
    """Refuses a wheel that holds what it should not, lacks what it must have, or is too large."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    own = {name: size for name, size in sizes.items() if ".dist-info/" not in name}
    _refuse_strangers(wheel, [name for name in own if not _HELD.fullmatch(name)])
    models = sorted(name for name in own if name.endswith(".safetensors"))
    expected = [f"liverjax/pretrained/shipped/{name}.safetensors" for name in _shipped()]
    if models != sorted(expected):
        raise Refused(f"{wheel.name}: has the models {models}, expected {sorted(expected)}")
    if wheel.stat().st_size > LARGEST:
        raise Refused(f"{wheel.name}: has {wheel.stat().st_size} bytes, expected {LARGEST} at most")
    _print_contents(wheel, own)


def check_sdist(sdist: pathlib.Path) -> None:
    """Refuses an sdist that holds what it should not; that it holds enough shows when it is installed."""
    with tarfile.open(sdist) as archive:
        sizes = {member.name.partition("/")[2]: member.size for member in archive.getmembers()}
    _refuse_strangers(
        sdist, [name for name in sizes if not _HELD.fullmatch(name) and not _OF_SOURCE.fullmatch(name)]
    )
    _print_contents(sdist, sizes)


def _refuse_strangers(file: pathlib.Path, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise Refused(
            f"{file.name}: holds {sorted(names)[0]}{more}, expected source, shipped models and the viewer's page alone"
        )


def _shipped() -> list[str]:
    code = "from liverjax.pretrained.registry import NAMES; print(*NAMES)"
    return _run([sys.executable, "-c", code], cwd=ROOT).split()


def _print_contents(file: pathlib.Path, sizes: dict[str, int]) -> None:
    print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB, {len(sizes)} files")
    kinds: dict[str, list[int]] = {}
    for name, size in sizes.items():
        kinds.setdefault(pathlib.PurePath(name).suffix or name, []).append(size)
    for kind, found in sorted(kinds.items(), key=lambda item: -sum(item[1])):
        print(f"  {kind:14} {len(found):4} {sum(found) / 1e6:8.3f} MB")


# --- installed afresh -----------------------------------------------------------------------------------------


def install(file: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Returns the Python of a fresh environment with the pins and a wheel or sdist."""
    start = time.monotonic()
    _run([sys.executable, "-m", "venv", folder])
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pins = ["-r", ROOT / "requirements" / "run.txt"]
    if file.suffix == ".gz":
        pins += ["-r", ROOT / "requirements" / "build.txt"]
    _run([*pip, "--require-hashes", *pins])
    _run([*pip, "--no-deps", "--no-build-isolation", file])
    # What the metadata asks for is what the pins brought.
    _run([python, "-m", "pip", "check", "--disable-pip-version-check"])
    print(f"{file.name}: installed in a fresh environment in {time.monotonic() - start:.0f} s")
    return python


def smoke_test(python: pathlib.Path, work: pathlib.Path, version: str) -> None:
    """Segments a phantom as a user would, outside the checkout, and scores it."""
    start = time.monotonic()
    work.mkdir()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "JAX_"))
    }
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(work / "cache")}
    alone = [] if subprocess.run([*_ALONE, "true"], capture_output=True).returncode else _ALONE

    def do(*words: str | os.PathLike) -> str:
        return _run([*alone, *words], cwd=work, env=environment)

    liverjax = python.parent / "liverjax"
    if do(liverjax, "--version").split() != ["liverjax", version]:
        raise Refused(f"the installed version is not {version}")
    do(python, "-c", _PHANTOM)
    do(liverjax, "predict", "-i", "phantom", "-o", "masks", "--quiet")
    words = [
        "--predictions=masks",
        "--references=phantom",
        "-o",
        "scores",
        "--regions=liver",
        "--metrics=dice",
    ]
    do(liverjax, "evaluate", *words, "--quiet")
    summary = json.loads((work / "scores" / "summary.json").read_text(encoding="utf-8"))
    dice = summary["scores"]["liver"]["per_case"]["dice"]["mean"]
    if not dice > 0.85:
        raise Refused(f"a phantom is segmented with a Dice of {dice:.3f}, expected more than 0.85")
    network = "without a network" if alone else "the network could not be taken away"
    print(f"  a phantom segmented and scored ({network}): Dice {dice:.3f}, {time.monotonic() - start:.0f} s")


# --- licences -------------------------------------------------------------------------------------------------


def check_licences(python: pathlib.Path) -> None:
    """Prints package, version and licence of all in an environment, and refuses what is unknown or not allowed."""
    (site,) = (python.parent.parent / "lib").glob("python*/site-packages")
    found = importlib.metadata.distributions(path=[str(site)])
    rows = sorted((package.name.lower(), package.version, licence_of(package)) for package in found)
    print("licences:")
    for row in rows:
        print("  {:28} {:18} {}".format(*row))
    for name, _, licence in rows:
        if not is_allowed(licence):
            raise Refused(f"{name}: has the licence {licence!r}, which is not one of those allowed")


def licence_of(package: importlib.metadata.Distribution) -> str:
    """Returns the SPDX expression of a package, from the field that states it or its licence's text; else its words."""
    metadata = package.metadata
    stated = metadata.get("License-Expression")
    if not stated:
        words = [
            line.rpartition(" :: ")[2]
            for line in metadata.get_all("Classifier") or []
            if "License ::" in line
        ]
        words = [word for word in words if word != "OSI Approved"]
        field = (metadata.get("License") or "").strip()
        if not words and field and "\n" not in field:
            words = [field]
        stated = " AND ".join(_SPELLED.get(word, word) for word in words) or _by_text(field or _text(package))
    try:
        return canonicalize_license_expression(stated)
    except ValueError:
        return stated


def _text(package: importlib.metadata.Distribution) -> str:
    """Returns the text of the package's licence file; "" if it has none."""
    for path in package.files or []:
        if path.name.startswith("LICENSE") and ".dist-info" in path.parts[0]:
            return path.read_text(encoding="utf-8")
    return ""


def _by_text(text: str) -> str:
    """Returns the licence that has a text; "none" for one that is not known here."""
    apache = " ".join(text.split()[:6]) == "Apache License Version 2.0, January 2004"
    return "Apache-2.0" if apache else "none"


def is_allowed(licence: str) -> bool:
    """Returns whether every licence of an expression, or of each "OR" one, is allowed."""
    expression = licence.replace("(", " ").replace(")", " ")
    return all(
        any(_ALLOWED.fullmatch(choice.strip()) for choice in part.split(" OR "))
        for part in expression.split(" AND ")
    )


def _run(words: list, **options) -> str:
    words = list(map(str, words))
    done = subprocess.run(words, capture_output=True, text=True, **options)
    if done.returncode:
        end = (done.stderr.strip() or done.stdout.strip() or "nothing said").splitlines()[-1]
        raise Refused(f"`{' '.join(words)[:200]}` failed: {end}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
