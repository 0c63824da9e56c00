"""What the pages name exists: commands with flags, configs and fields, Python names, links, files, targets of make."""

import ast
import importlib
import pathlib
import re
import types

import pytest

from liverjax.commands import dispatch
from liverjax.config import load_config, override, resolve
from liverjax.options import Config
from tests.docs import pages

_NAMES = [page.relative_to(pages.ROOT).as_posix() for page in pages.PAGES]
_FOLDERS = ("colab", "configs", "docs", "launch", "liverjax", "requirements", "tests", "typings", ".ci")
#: Folders that `design.md` and others name as seen from the package.
_ROOMS = {path.name for path in (pages.ROOT / "liverjax").iterdir() if path.is_dir()}


@pytest.fixture(params=pages.PAGES, ids=_NAMES)
def page(request):
    return request.param


def test_commands_exist_with_their_flags_and_fields(page, capsys):
    found = [words for block in pages.blocks(page) for words in pages.commands(block.text)]
    found += [words for text in pages.inline(page) for words in pages.commands(text)]
    problems = [f"liverjax {' '.join(words)}: {said}" for words in found if (said := problem(words, capsys))]
    assert not problems, "\n".join(problems)


def problem(words, capsys):
    """Returns what is wrong with a call of liverjax as far as reading it can tell; None if nothing."""
    abbreviated = "..." in words or len(words) < 3
    words = [word for word in words if word not in ("...", "…")]
    if not words or words[0].isupper() or words[0] in ("--version", "-V", "--help"):
        return None
    if words[0] not in dispatch.COMMANDS:
        return "no such command"
    module = importlib.import_module(f"liverjax.commands.{words[0].replace('-', '_')}")
    parsed = []
    names = ("define", "POSITIONAL", "SEVERAL", "MAY_BE_EMPTY")
    program = types.SimpleNamespace(
        __name__=module.__name__,
        run=parsed.append,
        **{n: getattr(module, n) for n in names if hasattr(module, n)},
    )
    if dispatch.run_program(program, f"liverjax {words[0]}", words[1:]) or not parsed:
        said = capsys.readouterr().err.strip()
        return None if not said or (" required" in said and abbreviated) or "--help" in words else said
    try:
        _check_config(parsed[0])
    except Exception as error:
        return str(error)
    return None


def _check_config(flags):
    given = {name: flags[name].value for name in ("config", "override", "ablation") if name in flags}
    name, changes = given.get("config") or "", given.get("override") or []
    own = name.isupper() or ".py" in name
    config = resolve(load_config(name)) if name and not own else Config()
    if changes and not own:
        override(
            config,
            [re.sub(r"^(tumor|liver)\.predict", "predict", one) for one in changes if "FIELD" not in one],
        )
    ablation = given.get("ablation") or ""
    if ablation and not ablation.isupper() and ".py" not in ablation:
        functions = ast.parse((pages.ROOT / "configs" / "ablations.py").read_text(encoding="utf-8")).body
        assert ablation in {node.name for node in functions if isinstance(node, ast.FunctionDef)}, ablation


def test_python_compiles_and_its_names_exist(page):
    for block in pages.blocks(page):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "liverjax":
                for alias in node.names:
                    assert _exists(f"{node.module}.{alias.name}"), (node.module, alias.name)
            elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("liverjax."):
                assert _exists(ast.unparse(node)), ast.unparse(node)
    for text in pages.inline(page):
        if name := re.fullmatch(r"(liverjax(?:\.\w+)+)(\(.*\))?", text):
            assert _exists(name[1]), text


def _exists(name):
    """Whether a dotted name leads somewhere: modules as far as they go, then attributes."""
    words = name.split(".")
    for count in range(len(words), 0, -1):
        try:
            found = importlib.import_module(".".join(words[:count]))
        except ModuleNotFoundError:
            continue
        for word in words[count:]:
            if not hasattr(found, word):
                return word in getattr(found, "__annotations__", {})
            found = getattr(found, word)
        return True
    return False


def test_links_and_pictures_lead_somewhere(page):
    for target in pages.links(page):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.exists(), target
        assert not anchor or anchor in pages.anchors(place), target
        assert page.parent == pages.ROOT or place.is_relative_to(pages.ROOT / "docs"), (
            f"{target}: not on the site"
        )


def test_named_files_exist(page):
    for text in [*pages.inline(page), *(block.text for block in pages.blocks(page))]:
        for path in re.findall(rf"(?<![\w./-])((?:{'|'.join(map(re.escape, _FOLDERS))})/[\w./-]*\w)", text):
            if not re.search(r"\b[A-Z]{3,}\b", path):  # Not NAME.
                assert _file(path), path
        if re.fullmatch(r"(\w+)/[\w/]+\.py", text) and text.split("/")[0] in _ROOMS and "NAME" not in text:
            assert (pages.ROOT / "liverjax" / text).exists() or (pages.ROOT / text).exists(), text


def _file(path):
    return any(
        (pages.ROOT / path).with_name(name).exists()
        for name in (pathlib.Path(path).name, f"{pathlib.Path(path).name}.py")
    )


def test_targets_of_make_exist(page):
    targets = re.findall(r"^([\w-]+):", (pages.ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    lines = [line for block in pages.blocks(page) for line in block.text.splitlines()]
    for text in [*pages.inline(page), *(line.strip() for line in lines)]:
        if target := re.match(r"make ([\w-]+)( |$)", text):
            assert target[1] in targets, text


def test_the_site_has_every_page():
    import tomllib

    site = tomllib.loads((pages.ROOT / "docs" / "zensical.toml").read_text(encoding="utf-8"))["project"][
        "nav"
    ]
    assert sorted(_leaves(site)) == [
        page.removeprefix("docs/") for page in _NAMES if page.startswith("docs/")
    ]


def _leaves(nav):
    if isinstance(nav, str):
        return [nav]
    return [leaf for entry in (nav.values() if isinstance(nav, dict) else nav) for leaf in _leaves(entry)]


def test_the_readme_has_the_figures_of_the_cards():
    """The pages of the cards are compared with the shipped files elsewhere (`tests/pretrained/test_registry.py`)."""
    page = (pages.ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| .* \| (\d+) \| (0\.\d+) \| 0\.\d+ \| (0\.\d+) \| (0\.\d+) \|$", page, re.MULTILINE
    )
    readme = pages.PAGES[0].read_text(encoding="utf-8")
    said = re.findall(r"\| (\d+) (?:CT|MR).* \| (0\.\d+) \((0\.\d+) to (0\.\d+)\) \|", readme)
    assert said == rows and len(said) > 2
    assert set(re.findall(r"\| (\d\.\d MB) \|", readme)) == set(
        re.findall(r"^\| file \| (\d\.\d MB),", page, re.MULTILINE)
    )


@pytest.mark.parametrize(
    "line",
    [
        "liverjax predikt -i a -o b",
        "liverjax predict -i a -o b --no_such_flag=1",
        "liverjax train --config=ct_liver --store=S --workdir=R --config.train.stepps=3",
        "liverjax train --config=ct_livr --store=S --workdir=R",
        "liverjax predict -i a -o b --fusion=median",
        "srun -n 4 liverjax train --config=ct_liver --store=S --workdir=R --max_minuets=3",
        "sbatch --array=0-4 launch/slurm.sh --confg=ct_liver --store=S --workdir=R",
        "FOO=1 liverjax prepare -i a --config=demo",
        "true && liverjax sweep --ablation=viewz --config=demo --dataset=D --workdir=W",
        "sbatch --wrap='liverjax predict -i a -o b --sherd=1/2'",
    ],
)
def test_a_wrong_command_is_noticed(line, capsys):
    (words,) = pages.commands(line)
    assert problem(words, capsys)
