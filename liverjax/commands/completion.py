"""Let a shell complete commands, flags, configs, shipped models and files.

  liverjax completion bash

prints a script. For bash, `eval "$(liverjax completion bash)"` in ~/.bashrc; for zsh, `eval "$(liverjax completion
zsh)"` in ~/.zshrc after compinit; for fish, `liverjax completion fish > ~/.config/fish/completions/liverjax.fish`.
"""

import dataclasses
import importlib

from absl import flags

POSITIONAL = "shell"


@dataclasses.dataclass(frozen=True)
class Value:
    """What may follow a flag, or stand as a command's first word.

    Attributes:
      name: of the flag, without dashes.
      short: its one letter, or "".
      about: what it means.
      takes: whether a value follows it.
      words: values that are known; ``files``: whether files are values too.
    """

    name: str
    short: str = ""
    about: str = ""
    takes: bool = True
    words: tuple[str, ...] = ()
    files: bool = False


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_enum("shell", None, ["bash", "zsh", "fish"], "the shell: the first word", flag_values=values)
    flags.mark_flags_as_required(["shell"], flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Prints the script of a shell."""
    from liverjax.commands import completion_bash, completion_zsh, dispatch

    commands = {}
    for name, about in dispatch.COMMANDS.items():
        program = importlib.import_module(f"liverjax.commands.{name.replace('-', '_')}")
        commands[name] = about, _values(dispatch.defined_flags(program)), getattr(program, "POSITIONAL", "")
    script = {"bash": completion_bash.bash, "zsh": completion_zsh.zsh, "fish": completion_zsh.fish}[
        args.shell
    ]
    print(script(commands), end="")


def _values(values: flags.FlagValues) -> list[Value]:
    from liverjax.commands import flag_help

    configs = [f"{name}{arg}" for name in flag_help.configs() for arg in ("", ":small")]
    configs.remove("demo:small")  # It has no such arg.
    models = flag_help.models()
    known = {"config": configs, **dict.fromkeys(("model", "models", "init"), models), "name": models}
    found = [Value("help", "h", "print what the command does and its flags", takes=False)]
    for flag in flag_help.listed(values):
        words = getattr(flag.parser, "enum_values", None) or known.get(flag.name, ())
        text = isinstance(flag.parser, flags.ListParser) or type(flag.parser) is flags.ArgumentParser
        found.append(
            Value(
                flag.name,
                flag.short_name or "",
                flag_help.meaning(flag).partition("\n")[0],
                takes=not flag.boolean,
                words=tuple(words),
                files=text and flag.name != "name",
            )
        )
    return found
