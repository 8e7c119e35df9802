"""Import of transformers without what only its losses, processors and image files need."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.abc
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Unpack

from graphflops.capture.torch_internals.deferred_dynamo import DEFERRED
from graphflops.models.optional_dependencies import run_torchvision
from graphflops.runtime.deferred_modules import defer_module, load_module

_LOSSES = "transformers.loss.loss_utils"
_IMPORTS = "transformers.utils.import_utils"


class _Losses(Mapping[str, Any]):
    """Losses by type, whose names are read without their code: that of detectors imports SciPy."""

    @functools.cached_property
    def _losses(self) -> Mapping[str, Any]:
        return vars(load_module(_LOSSES))["LOSS_MAPPING"]  # type: ignore[no-any-return]  # a dict

    @functools.cached_property
    def _names(self) -> Sequence[str]:
        source = Path(str(vars(sys.modules[_LOSSES])["__file__"])).read_text("utf-8")
        for statement in ast.parse(source).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id="LOSS_MAPPING")], value=ast.Dict(keys=keys)):
                    return [str(key.value) for key in keys if isinstance(key, ast.Constant)]
        return list(self._losses)

    def __getitem__(self, key: str) -> Any:
        return self._losses[key]

    def __contains__(self, key: object) -> bool:
        return key in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _OneScan(importlib.abc.MetaPathFinder):
    """Finder under which transformers reads the files of its models once, not twice."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of the module that reads them."""
        return _with_code(name, path, target, _run_import_utils) if name == _IMPORTS else None


def _run_import_utils(module: ModuleType, run: Callable[[ModuleType], None]) -> None:
    run(module)
    scan = getattr(module, "create_import_structure_from_path", None)
    if scan is not None:
        vars(module)[scan.__name__] = _by_folder(scan)
    # A model is built in this process alone: transformers has a way without process groups.
    vars(module)["is_torch_distributed_available"] = functools.cache(lambda: False)
    read = getattr(module, "fetch__all__", None)
    if read is not None:
        vars(module)[read.__name__] = _from_list(read)


def _from_list(read: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """Return a function that reads the last list of names of a file, and no line before it."""
    return lambda text: read(text[text.rfind("\n__all__") + 1 :])


def _by_folder(scan: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Return a function that scans each folder of modules once."""
    found: dict[str, Any] = {}

    @functools.wraps(scan)
    def scan_once(path: Any) -> Any:
        folder = os.path.dirname(path) if os.path.isfile(path) else str(path)  # noqa: PTH113, PTH120 - thousands of calls
        if folder not in found:
            found[folder] = scan(folder)
        return _copy(found[folder])

    return scan_once


def _copy(names: Any) -> Any:
    """Return a copy of nested dictionaries of sets."""
    if isinstance(names, dict):
        return {key: _copy(value) for key, value in names.items()}
    return names.copy()


class _RepairedTorchvision(importlib.abc.MetaPathFinder):
    """Finder that repairs torchvision when it is first imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a torchvision that imports."""
        return _with_code(name, path, target, run_torchvision) if name == "torchvision" else None


def _with_code(
    name: str,
    path: Sequence[str] | None,
    target: ModuleType | None,
    run_module: Callable[[ModuleType, Callable[[ModuleType], None]], None],
) -> ModuleSpec | None:
    """Return the spec of a module whose code is run by a function, which is given its loader's."""
    spec = PathFinder.find_spec(name, path, target)
    loader: Any = None if spec is None else spec.loader
    if loader is not None:
        run = loader.exec_module
        loader.exec_module = lambda module: run_module(module, run)
    return spec


def import_transformers() -> ModuleType:
    """Import transformers, and put off what it imports along with a model and few models use."""
    DEFERRED.defer()
    if "transformers" in sys.modules:
        return sys.modules["transformers"]
    sys.meta_path[:0] = [_OneScan(), _RepairedTorchvision()]
    transformers = importlib.import_module("transformers")
    defer_module(_LOSSES, LOSS_MAPPING=_Losses())
    defer_module("transformers.processing_utils", Unpack=Unpack)
    # Annotations of a module of validators, of which configs use those of numbers.
    defer_module("transformers.video_utils", VideoMetadataType=Any)
    images: Any = sys.modules.get("PIL.Image")
    if images is not None:
        defer_module("transformers.image_utils", PILImageResampling=images.Resampling)
    return transformers
