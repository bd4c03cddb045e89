"""Options as flags of a command."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import MISSING
from typing import Any, NoReturn

from dynacor_ray.config.options import all_options, option_texts, unknown_option
from dynacor_ray.core.errors import ConfigError, expected_got

MOST_USED = "most used"
_METAVAR = {str: "TEXT", int: "INT", float: "FLOAT"}
_WIDEST_CHOICES = 50


class _Formatter(argparse.HelpFormatter):
    """Leaves flags such as --target-recall in one piece."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


class CommandParser(argparse.ArgumentParser):
    """Reads the options of a command; help shows those that most people need, then all others by groups.

    Args:
        command: How the program and its command are called, such as "dynacor detect".
        about: What the command does.
        config_type: Class of options, such as DetectConfig.
    """

    def __init__(self, command: str, about: str, config_type: type[Any]) -> None:
        super().__init__(
            prog=command,
            description=about,
            add_help=False,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=_Formatter,
        )
        self._options, texts = all_options(config_type), option_texts(config_type)
        headings = dict.fromkeys([MOST_USED, *(one.group for one in self._options.values())])
        groups = {heading: self.add_argument_group(heading) for heading in headings}
        words = [command]
        for name, one in self._options.items():
            text = f"{texts[name]} (default: {one.shown_default})" if one.shown_default else texts[name]
            settings: dict[str, Any] = {"help": text.replace("%", "%%")}
            if one.kind is bool:
                settings["action"] = "store_true" if one.default is False else argparse.BooleanOptionalAction
            else:
                listed = "" if callable(one.choices) else "{" + ",".join(one.choices) + "}"
                settings["metavar"] = listed if 2 < len(listed) < _WIDEST_CHOICES else _METAVAR[one.kind]
                settings |= {"type": one.parse, "nargs": "+" if one.many else None}
            if one.positional:
                settings["metavar"] = name.upper()
                if one.default is not MISSING:
                    settings["nargs"] = "?"
            group = groups[MOST_USED if one.most_used else one.group]
            group.add_argument(name if one.positional else one.flag, **settings)
            if one.positional and one.default is not MISSING:
                words.append(f"[{name.upper()}]")
            if one.default is MISSING:
                words.append(name.upper() if one.positional else f"{one.flag} {settings['metavar']}")
        self.usage = " ".join([*words, "[options]"])

    @property
    def flags(self) -> list[str]:
        """All flags, those that turn a switch off included."""
        return [flag for action in self._actions for flag in action.option_strings]

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError, where argparse would leave the program."""
        match message.split(": "):
            case ["the following arguments are required", missing]:
                raise ConfigError(expected_got(missing, "none", f"the command is: {self.usage}"))
            case [argument, "expected one argument" | "expected at least one argument"]:
                flag, remedy = argument.removeprefix("argument "), f"`{self.prog} --help` says what it takes"
                raise ConfigError(expected_got(f"a value after {flag}", "none", remedy))
        raise ConfigError(expected_got(f"a command as `{self.prog} --help` explains it", message, "correct it"))

    def given(self, words: Sequence[str]) -> dict[str, Any]:
        """The options that are given on the command line, without the defaults; `make_config` checks their values.

        Raises:
            ConfigError: There is no such option, or its value is missing.
        """
        found, unknown = self.parse_known_args(list(words))
        if unknown:
            valid = [one.flag for one in self._options.values() if not one.positional]
            if "--data" in valid and not hasattr(found, "data") and not unknown[0].startswith("-"):
                expected, got = "the data after --data", f"{unknown[0]!r} without it"
                raise ConfigError(expected_got(expected, got, f"say --data {unknown[0]}"))
            raise unknown_option(unknown[0].partition("=")[0], valid, self.flags)
        return vars(found)
