"""Spec of a batch: axes in TOML or YAML, whose product is the work list."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphflops import conventions
from graphflops.analysis.devices import device
from graphflops.analysis.toml_tables import TomlTable, read_toml
from graphflops.batch.item import Item, Mode
from graphflops.core.arguments import check_choice, whole_number
from graphflops.errors import ModelSpecError

_MODEL_AXES = ("batch_size", "seq_len", "image_size", "dtype", "set")
_AXES_BY_MODE = {
    Mode.COUNT: ("convention",),
    Mode.TRAIN: ("convention",),
    Mode.GENERATE: ("convention", "new_tokens"),
    Mode.MEMORY: (),
    Mode.TIME: ("convention", "device"),
}
"""Axes that a mode depends on, beside those of the model and its inputs."""
_DEFAULTS: Mapping[str, Any] = {"convention": "exact", "device": "h100-sxm", "set": {}}
_SUFFIXES = {".toml", ".yaml", ".yml"}


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Axes of a batch.

    Attributes:
        models: Names of models, or patterns of them.
        modes: What is counted of each.
        axes: Values of the other axes by key.
    """

    models: tuple[str, ...]
    modes: tuple[Mode, ...] = (Mode.COUNT,)
    axes: Mapping[str, tuple[Any, ...]]

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Names of floating-point types, which only torch can check."""
        return self.axes.get("dtype", ())

    def items(self, names: Iterable[str]) -> tuple[Item, ...]:
        """Return the work list: the product of the axes, each item once.

        A mode takes the axes that it depends on, so that a second device adds items of ``time``
        alone.

        Args:
            names: Names of models, in place of the patterns.

        Example:
            >>> spec = Spec(models=("hf:*",), axes={"batch_size": (1, 8), "device": ("a100", "l4")})
            >>> [item.batch_size for item in spec.items(["hf:bert"])]
            [1, 8]
        """
        found: dict[str, Item] = {}
        for name, mode in itertools.product(names, self.modes):
            keys = (*_MODEL_AXES, *_AXES_BY_MODE[mode])
            for values in itertools.product(*map(self._values, keys)):
                item = _item(name, mode, dict(zip(keys, values, strict=True)))
                found.setdefault(item.key, item)
        return tuple(found.values())

    def _values(self, key: str) -> Sequence[Any]:
        return self.axes[key] if key in self.axes else (_DEFAULTS.get(key),)


def _item(name: str, mode: Mode, values: dict[str, Any]) -> Item:
    return Item(model=name, mode=mode, overrides=values.pop("set"), **values)


def read_spec(path: Path) -> Spec:
    """Read the spec of a batch.

    Args:
        path: File in TOML or YAML.

    Raises:
        ModelSpecError: It cannot be read, or a key or value in it is invalid.
    """
    values = _read(path)
    TomlTable(str(path), values).check_keys(("models", "modes", *_CHECKS), required=("models",))
    axes = {
        key: tuple(check(f"{path}: {key}", value) for value in _listed(path, key, values[key]))
        for key, check in _CHECKS.items()
        if key in values
    }
    models = [_text(f"{path}: models", name) for name in _listed(path, "models", values["models"])]
    modes = [
        _mode(f"{path}: modes", mode)
        for mode in _listed(path, "modes", values.get("modes", "count"))
    ]
    if Mode.GENERATE in modes and "new_tokens" not in axes:
        raise ModelSpecError(f"{path}: mode generate needs a number of tokens. Add new_tokens.")
    return Spec(models=tuple(models), modes=tuple(modes), axes=axes)


def _read(path: Path) -> dict[str, Any]:
    if path.suffix not in _SUFFIXES:
        msg = f"{path} is no spec of a batch. Give a file in TOML or YAML: {', '.join(_SUFFIXES)}."
        raise ModelSpecError(msg)
    return read_toml(path, "a spec") if path.suffix == ".toml" else _read_yaml(path)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ModuleNotFoundError as error:
        msg = f"{path} needs PyYAML. Run: pip install 'graphflops[batch]', or write it in TOML."
        raise ModelSpecError(msg) from error
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}. Give the path of a spec."
        raise ModelSpecError(msg) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        msg = f"{path} is no YAML: {' '.join(str(error).split())}. Correct it."
        raise ModelSpecError(msg) from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ModelSpecError(f"{path} holds no keys. Write e.g. models: hf:bert.")
    return values


def _listed(path: Path, key: str, value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ModelSpecError(f"{path}: {key} is an empty list. Give a value, or leave it out.")
    return values


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ModelSpecError(f"{name} is {value!r}. Give a text, or a list of texts.")
    return value


def _mode(name: str, value: Any) -> Mode:
    check_choice(name, value, [mode.value for mode in Mode])
    return Mode(value)


def _convention(name: str, value: Any) -> str:
    conventions.describe(_text(name, value))
    return str(value)


def _device(name: str, value: Any) -> str:
    # One name for a device, so that its aliases are no further items.
    return device(_text(name, value)).name


def _overrides(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ModelSpecError(
            f"{name} is {value!r}. Give a table of config keys, or a list of them."
        )
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"{name} holds what JSON cannot: {error}. Give numbers, texts, lists and tables."
        raise ModelSpecError(msg) from error
    return value


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "batch_size": whole_number,
    "seq_len": whole_number,
    "image_size": whole_number,
    "dtype": _text,
    "convention": _convention,
    "device": _device,
    "new_tokens": whole_number,
    "set": _overrides,
}
"""Keys of the axes, each with the check of one value."""
