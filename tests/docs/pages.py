"""What stands in the pages: their blocks of code, the commands in these, links, and names of files.

The word behind a fence says what a block is. ``sh`` runs as it stands, in order, in an empty folder; so does ``python``
in the tutorials, and with a title it is a file. ``shell``, and what is indented, needs a GPU, a cluster, patients or a
long time, and is only parsed.
"""

import dataclasses
import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).parent.parent.parent
#: Every page, in order.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: The pages with blocks that run.
RUN = [page for page in PAGES if re.search(r"^```sh$", page.read_text(encoding="utf-8"), re.MULTILINE)]

_FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^(?: {4}.*)?\n)+", re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
#: Scripts that pass their arguments to ``liverjax train``.
_LAUNCHERS = ("launch/slurm.sh", "launch/tpu_pod.sh")


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code: its language ("" of an indented one), its title, its text."""

    language: str
    title: str
    text: str


def blocks(page: pathlib.Path) -> list[Block]:
    """Returns the blocks of a page: the fenced ones in order, then the indented ones."""
    text = page.read_text(encoding="utf-8")
    fenced = [Block(*(found or "" for found in match)) for match in _FENCE.findall(text)]
    indented = [Block("", "", match.group()) for match in _INDENTED.finditer(_FENCE.sub("", text))]
    return fenced + [block for block in indented if block.text.strip()]


def inline(page: pathlib.Path) -> list[str]:
    """Returns what stands in single backticks, each on one line."""
    return [
        " ".join(text.split()) for text in _INLINE.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))
    ]


def links(page: pathlib.Path) -> list[str]:
    """Returns the targets of the links and pictures of a page."""
    prose = _INLINE.sub("", _FENCE.sub("", page.read_text(encoding="utf-8")))
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def anchors(page: pathlib.Path) -> set[str]:
    """Returns the anchors of a page's headings, as sites make them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def commands(text: str) -> list[list[str]]:
    """Returns the words of each call of ``liverjax`` in lines of a shell, without the word itself.

    Args:
      text: lines; what starts a call (``srun``, variables) is left out, and so are comments, redirections, and words in
        a column of their own behind it. Scripts of launch/ are calls of ``liverjax train``.
    """
    found: list[list[str]] = []
    for line in re.sub(r"\\\n *", "", text).splitlines():
        lexer = shlex.shlex(re.split(" {8,}", line.strip())[0], posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:
            continue  # Prose with an apostrophe, or code.
        for call in _calls(words):
            found += _of_liverjax(call)
    return found


def _calls(words: list[str]) -> list[list[str]]:
    calls: list[list[str]] = [[]]
    for word in words:
        if set(word) <= set("();|&"):
            calls.append([])
        else:
            calls[-1].append(word)
    return [
        call[: min((n for n, word in enumerate(call) if set(word) <= set("<>")), default=None)]
        for call in calls
    ]


def _of_liverjax(call: list[str]) -> list[list[str]]:
    for n, word in enumerate(call):
        if word == "liverjax" and n and call[n - 1] in ("from", "import"):
            return []
        if word == "liverjax" or word.endswith("/liverjax"):
            return [[word.strip("[]") for word in call[n + 1 :]]]
        if word in _LAUNCHERS:
            return [["train", *(word.replace("%a", "0") for word in call[n + 1 :])]]
        if re.match(r"--\w+=liverjax ", word):  # --wrap='liverjax ...'
            return commands(word.partition("=")[2])
    return []
