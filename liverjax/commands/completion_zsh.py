"""The scripts that let zsh and fish complete, as functions of the commands."""

from __future__ import annotations

import shlex

from liverjax.commands.completion import Value
from liverjax.commands.completion_bash import Commands

_ZSH = """#compdef liverjax
_liverjax_word_or_file() { compadd -- "$@"; _files }
_liverjax() {
  if (( CURRENT == 2 )); then
    local -a commands=(@COMMANDS@)
    _describe command commands
    return
  fi
  shift words; (( CURRENT-- ))
  case $words[1] in
@CASES@
  esac
}
if [[ $funcstack[1] == _liverjax ]]; then _liverjax "$@"; else compdef _liverjax liverjax; fi
"""


def zsh(commands: Commands) -> str:
    """Returns the script of zsh."""
    listed = " ".join(shlex.quote(f"{name}:{about}") for name, (about, *_) in commands.items())
    cases = []
    for name, (_, values, positional) in commands.items():
        specs = []
        for value in values:
            about = "".join(f"\\{letter}" if letter in "[]:" else letter for letter in value.about)
            action = f":{value.name}:{_zsh_action(value)}" if value.takes else ""
            specs.append(f"--{value.name}{'=' * value.takes}[{about}]{action}")
            specs += [f"-{value.short}[{about}]{action}"] if value.short else []
            specs += [f"*:{value.name}:{_zsh_action(value)}"] if value.name == positional else []
        cases.append(f"    {name}) _arguments {' '.join(map(shlex.quote, specs))} ;;")
    return _ZSH.replace("@COMMANDS@", listed).replace("@CASES@", "\n".join(cases))


def _zsh_action(value: Value) -> str:
    words = " ".join(word.replace(":", "\\:") for word in value.words)
    if value.words and value.files:
        return f" _liverjax_word_or_file {words}"
    return f"({words})" if value.words else "_files" if value.files else " "


def fish(commands: Commands) -> str:
    """Returns the script of fish."""
    lines = ["complete -c liverjax -f"]
    for name, (about, values, positional) in commands.items():
        lines.append(f"complete -c liverjax -n __fish_use_subcommand -a {name} -d {_fish_quote(about)}")
        of_command = f"complete -c liverjax -n '__fish_seen_subcommand_from {name}'"
        for value in values:
            words = f" -a {_fish_quote(' '.join(value.words))}" if value.words else ""
            takes = f"{' -r -F' if value.files else ' -x'}{words}" if value.takes else ""
            short = f" -s {value.short}" if value.short else ""
            lines.append(f"{of_command} -l {value.name}{short}{takes} -d {_fish_quote(value.about)}")
            if value.name == positional:
                lines.append(f"{of_command}{' -F' if value.files else ''}{words}")
    return "\n".join(lines) + "\n"


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
