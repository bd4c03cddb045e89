"""Completion of commands, options and choices in bash, zsh and fish, as a script that is made from the parsers."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from dynacor_ray.config.command_line import CommandParser
from dynacor_ray.config.options import all_options

_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
_SCRIPT = """# Completion of dynacor in {shell}: made by `dynacor completion {shell}`.
{start}_dynacor() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" option="" before="" words="" at
  COMPREPLY=()
  if (( COMP_CWORD == 1 )); then
    words={commands}
  elif [[ "$current" == --*=* ]]; then  # zsh: bash takes the two sides of = for words
    option="${{current%%=*}}" before="$option=" current="${{current#*=}}"
  elif [[ "$current" == -* ]]; then
    case "${{COMP_WORDS[1]}}" in
{flags}
    esac
  else
    for (( at = COMP_CWORD - 1; at > 1; at-- )); do
      if [[ "${{COMP_WORDS[at]}}" == --* ]]; then option="${{COMP_WORDS[at]}}"; break; fi
    done
  fi
  if [[ -z "$words" ]]; then
    case "${{COMP_WORDS[1]}} $option" in
{choices}
    esac
  fi
  [[ "$current" == "=" ]] && current=""
  [[ -n "$words" ]] && COMPREPLY=( $(compgen -P "$before" -W "$words" -- "$current") )
  return 0
}}
complete -o default -F _dynacor dynacor
"""
_FISH = """# Completion of dynacor in fish: made by `dynacor completion fish`.
complete -c dynacor -n __fish_use_subcommand -fa {commands}
{lines}
"""


def completion_script(shell: str, commands: Mapping[str, type[Any]]) -> str:
    """What the shell reads to complete `dynacor`; where a path may stand, it completes files.

    Args:
        shell: "bash", "zsh" or "fish".
        commands: Class of options by command.
    """
    flags = {
        command: [*CommandParser(f"dynacor {command}", "", kind).flags, "--help"] for command, kind in commands.items()
    }
    choices = {command: dict(_choices(kind)) for command, kind in commands.items()}
    words = shlex.quote(" ".join([*commands, "--help", "--version"]))
    if shell == "fish":
        lines = [line for command in commands for line in _fish_lines(command, flags[command], choices[command])]
        return _FISH.format(commands=words, lines="\n".join(lines))
    listed = ((f"{command} {option}", found) for command in commands for option, found in choices[command].items())
    return _SCRIPT.format(
        shell=shell,
        start=_ZSH if shell == "zsh" else "",
        commands=words,
        flags="\n".join(_case(command, found) for command, found in flags.items()),
        choices="\n".join(_case(pattern, found) for pattern, found in listed),
    )


def _choices(kind: type[Any]) -> Iterator[tuple[str, list[str]]]:
    """Options with a list of choices; "" stands for the argument without a name."""
    for one in all_options(kind).values():
        listed = list(one.choices() if callable(one.choices) else one.choices)
        if listed:
            yield "" if one.positional else one.flag, listed


def _case(pattern: str, words: list[str]) -> str:
    return f"      {shlex.quote(pattern)}) words={shlex.quote(' '.join(words))};;"


def _fish_lines(command: str, flags: list[str], choices: Mapping[str, list[str]]) -> Iterator[str]:
    """An option may take a file unless it has choices; `-x` says that nothing else may follow."""
    start = f"complete -c dynacor -n '__fish_seen_subcommand_from {command}'"
    for flag in flags:
        found = choices.get(flag)
        yield f"{start} -l {flag[2:]}" + (f" -xa {shlex.quote(' '.join(found))}" if found else "")
    if "" in choices:
        yield f"{start} -fa {shlex.quote(' '.join(choices['']))}"
