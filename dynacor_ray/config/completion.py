"""Completion of commands, options and choices in bash and zsh, as a script that is made from the parsers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from dynacor_ray.config.command_line import CommandParser
from dynacor_ray.config.options import all_options

_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
_SCRIPT = """# Completion of dynacor in {shell}: made by `dynacor completion {shell}`.
{start}_dynacor() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" option="" words="" at
  COMPREPLY=()
  if (( COMP_CWORD == 1 )); then
    words={commands}
  elif [[ "$current" == -* ]]; then
    case "${{COMP_WORDS[1]}}" in
{flags}
    esac
  else
    for (( at = COMP_CWORD - 1; at > 1; at-- )); do
      if [[ "${{COMP_WORDS[at]}}" == --* ]]; then option="${{COMP_WORDS[at]}}"; break; fi
    done
    case "${{COMP_WORDS[1]}} $option" in
{choices}
    esac
  fi
  [[ "$current" == "=" ]] && current=""
  [[ -n "$words" ]] && COMPREPLY=( $(compgen -W "$words" -- "$current") )
  return 0
}}
complete -o default -F _dynacor dynacor
"""


def completion_script(shell: str, commands: Mapping[str, type[Any]]) -> str:
    """What the shell reads to complete `dynacor`; where a path may stand, it completes files.

    Args:
        shell: "bash" or "zsh".
        commands: Class of options by command.
    """
    flags, choices = [], []
    for command, kind in commands.items():
        parser = CommandParser(f"dynacor {command}", "", kind)
        flags.append(_case(command, [*parser.flags, "--help"]))
        for one in all_options(kind).values():
            listed = list(one.choices() if callable(one.choices) else one.choices)
            if listed:
                choices.append(_case(f"{command} {'' if one.positional else one.flag}", listed))
    return _SCRIPT.format(
        shell=shell,
        start=_ZSH if shell == "zsh" else "",
        commands=shlex.quote(" ".join([*commands, "--help", "--version"])),
        flags="\n".join(flags),
        choices="\n".join(choices),
    )


def _case(pattern: str, words: list[str]) -> str:
    return f"      {shlex.quote(pattern)}) words={shlex.quote(' '.join(words))};;"
