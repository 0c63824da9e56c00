"""The script that lets bash complete, as a function of the commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from liverjax.commands.completion import Value

#: Command -> what it does, its values, and the one that is its first word.
Commands = Mapping[str, tuple[str, Sequence[Value], str]]

# Readline splits words at "=" and ":", and replaces only what stands behind the last of them. Where no word is known
# and files are values, the reply stays empty, and readline completes files itself.
_BASH = """_liverjax() {
  local line=${COMP_LINE:0:COMP_POINT} word last flag="" words="" files="" head=""
  word=${line##*[[:space:]]} last=${line%[[:space:]]*} last=${last##*[[:space:]]}
  case $word in
    --*=*) flag=${word%%=*} word=${word#*=}; [[ $COMP_WORDBREAKS == *=* ]] || head=$flag= ;;
    -*) flag=flags ;;
    *) [[ $last == -* ]] && flag=$last ;;
  esac
  case "$((COMP_CWORD > 1)) ${COMP_WORDS[1]} $flag" in
    "0 "*) words="@COMMANDS@" ;;
@CASES@
  esac
  COMPREPLY=($(compgen -P "$head" -W "$words" -- "$word"))
  [[ $word == *:* && $COMP_WORDBREAKS == *:* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*:}"}"}")
  [[ $files ]] || compopt +o default +o bashdefault 2>/dev/null
  [[ $flag == flags && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
  return 0
}
complete -o default -o bashdefault -F _liverjax liverjax
"""


def bash(commands: Commands) -> str:
    """Returns the script of bash, from version 4."""
    cases = []
    for name, (_, values, positional) in commands.items():
        names = " ".join(f"--{value.name}{'=' * value.takes}" for value in values)
        cases.append(f'    "1 {name} flags") words="{names}" ;;')
        for value in values:
            keys = [f"--{value.name}", *([f"-{value.short}"] if value.short else [])]
            keys += [""] if value.name == positional else []
            if value.takes:
                match = "|".join(f'"1 {name} {key}"' for key in keys)
                cases.append(f'    {match}) words="{" ".join(value.words)}" files={"y" * value.files} ;;')
    return _BASH.replace("@COMMANDS@", " ".join(commands)).replace("@CASES@", "\n".join(cases))
