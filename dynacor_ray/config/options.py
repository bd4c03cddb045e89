"""An option is one field of a dataclass: whatever shows, checks or counts options is read off the fields.

The field gives type and default, the text below it says what the option means, and `option` adds the rest. From these
come the flags and the help of the command line, the checks, `result_options`, what `--vary` takes, and the tables of
the guides.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from types import NoneType
from typing import Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

from dynacor_ray.config.recipes import RECIPES, published_options
from dynacor_ray.core.errors import ConfigError, closest, expected_got
from dynacor_ray.core.redaction import redact_all

_SHOWN = 100
"""Characters of a wrong value that a message shows."""
_MEANING = {str: "text", bool: "True or False", int: "a whole number", float: "a finite number"}


def wrong_choice(subject: str, value: Any, choices: Sequence[str]) -> ConfigError:
    """The error for what is not among the choices; names the closest."""
    close = closest(str(value), choices)
    remedy = f"perhaps {close!r} is meant" if close else "choose one of these"
    return ConfigError(expected_got(f"{subject} to be one of {', '.join(choices)}", repr(value), remedy))


@dataclass(frozen=True, kw_only=True)
class Option:
    """What is known of an option; of a list, `kind`, `within` and `choices` are those of its items.

    Attributes:
        group: Heading under which help and guides show it.
        within: Interval of allowed numbers, such as "(0, 1]" or "[1, inf)".
        choices: The allowed texts. Of a Literal type by themselves; a function where listing them is slow.
        only_with: What must stand beside it on the command line, such as "--network" or "--lr-schedule multistep".
        hint: Remedy in messages, in place of leaving it out or naming the default.
        changes_results: Whether it may change the result of a run, rather than where or how fast it is computed.
        most_used: Whether help shows it first.
        positional: Whether it is given by its place instead of by a flag.
        name, kind, many, optional: Read off the field: `kind` is str, bool, int or float.
    """

    group: str
    default: Any
    within: str = ""
    choices: Callable[[], Iterable[str]] | tuple[str, ...] = ()
    only_with: str = ""
    hint: str = ""
    changes_results: bool = True
    most_used: bool = False
    positional: bool = False
    name: str = ""
    kind: Any = str
    many: bool = False
    optional: bool = False

    @property
    def flag(self) -> str:
        """How it is spelled on the command line."""
        return self.name.upper() if self.positional else "--" + self.name.replace("_", "-")

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper end of `within`; infinite where there is none."""
        low, high = (self.within or "(-inf, inf)")[1:-1].split(",")
        return float(low), float(high)

    def allows(self, number: float) -> bool:
        """Whether a number lies in `within`."""
        low, high = self.bounds
        above = low <= number if self.within[0] == "[" else low < number
        return above and (number <= high if self.within[-1] == "]" else number < high)

    @property
    def remedy(self) -> str:
        """What to do about a wrong value."""
        if self.hint or self.default is MISSING:
            return self.hint or "correct it"
        return "leave it out" if self.optional or self.many else f"the default is {self.default!r}"

    @property
    def shown_default(self) -> str:
        """The default as it is typed; empty where there is none, or where the text says what happens."""
        known = self.default not in (MISSING, None, "", ()) and self.default is not False
        return " ".join(map(str, self.default if self.many else [self.default])) if known else ""

    def fits(self, values: Mapping[str, Any]) -> bool:
        """Whether what `only_with` asks for is among the values of all options."""
        needed, _, wanted = self.only_with.partition(" ")
        value = values.get(needed[2:].replace("-", "_"))
        return not needed or (value == wanted if wanted else value is not None)

    def parse(self, text: str) -> Any:
        """A word of the command line as a number, where one is wanted and it is one; `check` refuses the others."""
        try:
            return self.kind(text)
        except ValueError:
            return text

    def check(self, value: Any) -> Any:
        """The value in the declared type: a path becomes text, a list a tuple, NumPy's numbers become Python's.

        Raises:
            ConfigError: It is of another type, not among the choices, or out of range.
        """
        if value is None and self.optional:
            return None
        if not self.many:
            return self._check_item(value, self.flag)
        items = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(items, str) or not isinstance(items, Sequence):
            remedy = f"pass e.g. {self.name}=[{items!r}]"
            raise ConfigError(expected_got(f"{self.flag} to be a list", repr(items), remedy))
        if not items and self.default != ():
            raise ConfigError(expected_got(f"{self.flag} with at least one value", "none", self.remedy))
        checked = tuple(self._check_item(item, f"each of {self.flag}") for item in items)
        if len(set(checked)) < len(checked):
            got = " ".join(map(str, checked))
            raise ConfigError(expected_got(f"different values in {self.flag}", got, "name each once"))
        return checked

    def _check_item(self, value: Any, subject: str) -> Any:
        choices = tuple(self.choices() if callable(self.choices) else self.choices)
        typed = _typed(value, self.kind)
        if choices and typed not in choices:
            raise wrong_choice(subject, value, choices)
        if typed is None:
            raise ConfigError(expected_got(f"{subject} to be {_MEANING[self.kind]}", _shown(value), self.remedy))
        if self.within and not self.allows(typed):
            low, high = self.bounds
            least = f"of at least {low:g}" if self.within[0] == "[" else f"above {low:g}"
            expected = least if math.isinf(high) else f"in {self.within}"
            raise ConfigError(expected_got(f"{subject} {expected}", repr(typed), self.remedy))
        return typed


def _shown(value: Any) -> str:
    """The beginning of what Python shows of it, on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _typed(value: Any, kind: type) -> Any:
    """`value` as `kind`, or None when it is something else."""
    if kind is str:
        path = os.fspath(value) if isinstance(value, os.PathLike) else value
        return path if isinstance(path, str) else None
    if kind is bool or isinstance(value, bool):
        return value if kind is type(value) else None
    if kind is int:
        return int(value) if isinstance(value, numbers.Integral) else None
    return float(value) if isinstance(value, numbers.Real) and math.isfinite(value) else None


def option(default: Any, group: str, **more: Any) -> Any:
    """Declare an option: a field of a dataclass.

    Args:
        default: Its default; `dataclasses.MISSING` where it must be given.
        group: Heading under which help and guides show it.
        **more: Further attributes of `Option`.
    """
    return field(default=default, metadata={"option": Option(default=default, group=group, **more)})


class Checked:
    """A dataclass of options: each is checked when an object is made.

    Attributes:
        left_out: Of a class whose runs share a configuration: names and groups of what has no meaning there.
        settled: Values of left-out options that differ from their defaults.
    """

    left_out: ClassVar[tuple[str, ...]] = ()
    settled: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        type.__setattr__(cls, "__repr__", Checked.__repr__)  # before `dataclass` makes one that shows secrets

    def __repr__(self) -> str:
        """What differs from the defaults, secrets redacted."""
        values = {one.name: (getattr(self, one.name), one.default) for one in fields(self)}  # type: ignore[arg-type]
        shown = [f"{name}={redact_all(value)!r}" for name, (value, default) in values.items() if value != default]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __post_init__(self) -> None:
        options = own_options(type(self)).values()
        for one in options:
            object.__setattr__(self, one.name, one.check(getattr(self, one.name)))
        for one in options:
            if getattr(self, one.name) != one.default and not one.fits(vars(self)):
                needed = one.only_with.split()[0]
                value = getattr(self, needed[2:].replace("-", "_"))
                got = "none" if value is None else f"{needed} {value}"
                remedy = f"add it, or leave out {one.flag}"
                raise ConfigError(expected_got(f"{one.only_with} for {one.flag}", got, remedy))


Read = TypeVar("Read")


def _once_per_class(read: Callable[[type[Any]], Read]) -> Callable[[type[Any]], Read]:
    """Keep what is read off each class: a sweep makes a configuration per trial."""
    kept: Callable[[type[Any]], Read] = functools.cache(read)  # type: ignore[assignment]  # it takes no class for hashable
    return kept


@_once_per_class
def own_options(config_type: type[Any]) -> dict[str, Option]:
    """Name -> option: the fields of a class that are declared by `option`, in their order."""
    hints, found = get_type_hints(config_type), dict[str, Option]()
    for one in fields(config_type):
        if "option" in one.metadata:
            inner = hints[one.name]
            optional = NoneType in get_args(inner)
            inner = get_args(inner)[0] if optional else inner
            many = get_origin(inner) is tuple
            inner = get_args(inner)[0] if many else inner
            read = {"name": one.name, "kind": inner, "many": many, "optional": optional}
            if get_args(inner):  # of a Literal
                read |= {"kind": str, "choices": get_args(inner)}
            found[one.name] = replace(one.metadata["option"], **read)
    return found


@_once_per_class
def shared_config(config_type: type[Any]) -> type[Any] | None:
    """The class of the field `detect`, where a configuration has one: what all its runs share."""
    return get_type_hints(config_type).get("detect")


def all_options(config_type: type[Any]) -> dict[str, Option]:
    """Name -> option: of the class itself, then of what all its runs share, without its `left_out`."""
    shared, left_out = shared_config(config_type), getattr(config_type, "left_out", ())
    options = own_options(shared).items() if shared else ()
    return own_options(config_type) | {name: one for name, one in options if not {name, one.group} & set(left_out)}


@_once_per_class
def option_texts(config_type: type[Any]) -> dict[str, str]:
    """Name -> what an option of `all_options` means: the text below its field, in one line, and its limits."""
    shared, found = shared_config(config_type), dict[str, str]()
    for owner in [*(shared.__mro__ if shared else ()), *reversed(config_type.__mro__)]:
        tree = ast.parse(inspect.getsource(owner)).body[0] if issubclass(owner, Checked) else None
        for pair in itertools.pairwise(getattr(tree, "body", ())):
            match pair:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    for name, one in all_options(config_type).items():
        notes = [f"Only with {one.only_with}."] if one.only_with else []
        notes += [f"Range: {one.within}."] if one.within and "inf" not in one.within else []
        found[name] = " ".join([found[name], *notes])
    return found


def options_table(config_type: type[Any], group: str = "") -> str:
    """Options as a Markdown table of flag, default and meaning.

    Args:
        config_type: A class of options, such as DetectConfig.
        group: Heading of the group to show. Default: all options that are the class's own.
    """
    rows, texts = ["| option | default | meaning |", "|---|---|---|"], option_texts(config_type)
    for name, one in own_options(config_type).items():
        if group in ("", one.group):
            default = f"`{one.shown_default}`" if one.shown_default else ""
            rows.append(f"| `{one.flag}` | {default} | {texts[name]} |")
    return "\n".join(rows)


def unknown_option(name: str, valid: Sequence[str], also: Sequence[str] = ()) -> ConfigError:
    """The error for an option that there is not; names the closest, or all valid ones where none is near.

    also: Those that are not listed, but may be meant, such as --no-quiet beside --quiet.
    """
    close = closest(name, [*valid, *also])
    remedy = f"perhaps {close!r} is meant" if close else f"valid options: {', '.join(valid)}"
    return ConfigError(expected_got("a known option", repr(name), remedy))


Config = TypeVar("Config")


def make_config(config_type: type[Config], /, data: Any = None, **given: Any) -> Config:
    """Build a configuration; what is given wins over a `recipe`, that over what a `variant` brings, then the defaults.

    Args:
        config_type: DetectConfig, SweepConfig, CompareConfig or AnalyzeSignalsConfig.
        data: What to search, as `--data` takes it.
        **given: The other options, its own and those of what its runs share.

    Raises:
        ConfigError: An option is unknown, missing, wrong, or contradicts another one.
    """
    own, options, shared = own_options(config_type), all_options(config_type), shared_config(config_type)
    if not isinstance(data, (str, os.PathLike, type(None))):
        remedy = "save what Python holds, e.g. as .npz or parquet: only detect takes it"
        raise ConfigError(expected_got("--data to be a path, URI or name", _shown(data), remedy))
    given |= {} if data is None else {"data": data}
    for name in given:
        if name not in options:
            raise unknown_option(name, list(options))
    for name, one in options.items():
        if one.default is MISSING and name not in given:
            raise ConfigError(expected_got(one.flag, "none", one.remedy))
    recipe: dict[str, Any] = {}
    if given.get("recipe") is not None:
        recipe = RECIPES[options["recipe"].check(given["recipe"])]
    if given.get("variant") == "paper":
        recipe = published_options(given.get("network", recipe.get("network"))) | recipe
    recipe = {name: value for name, value in recipe.items() if name in options}
    merged = recipe | given
    # A recipe's steps give way to another schedule.
    given = {n: v for n, v in merged.items() if n not in recipe or options[n].fits(merged) or v != recipe[n]}
    mine = {name: value for name, value in given.items() if name in own}
    if shared:
        others = {name: value for name, value in given.items() if name not in own}
        mine["detect"] = shared(**others, **getattr(config_type, "settled", {}))
    return config_type(**mine)
