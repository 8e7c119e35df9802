"""Schemes of model names: their resolvers, and the names that each of them lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib.metadata import EntryPoint, entry_points

from graphflops.errors import ModelNameError, ModelSpecError
from graphflops.models.light_transformers import import_transformers
from graphflops.models.optional_dependencies import require
from graphflops.models.workload import Options, Resolver, Workload

PLUGINS = "graphflops.models"
"""Entry-point group of packages that add schemes."""

_PACKAGES = {"hf": "transformers", "timm": "timm", "torchvision": "torchvision"}
_BUILT_IN = {
    name: EntryPoint(name=name, value=f"graphflops.models.{module}", group=PLUGINS)
    for name, module in (("hf", "huggingface"), ("timm", "timm"), ("torchvision", "torchvision"))
}
SCHEME_LIST = ":NAME, ".join(_BUILT_IN)
"""Built-in schemes, as part of a sentence."""
_PYTHON = EntryPoint(name="python", value="graphflops.models.python", group=PLUGINS)
_FORMS = (
    "Give hf:TYPE (a transformers model type), hf:PATH (a config.json or its folder), "
    "hf:ORG/NAME (on the hub), timm:NAME, torchvision:NAME, FILE.py:NAME, package.module:NAME "
    "or FILE.pt2."
)


def resolve(name: str, options: Options) -> Workload:
    """Build the model of a name and its inputs.

    Args:
        name: One of the forms that :mod:`graphflops.models` lists.
        options: Sizes, dtype, config overrides and inputs.

    Raises:
        ModelSpecError: The name, the config or an option is invalid.
    """
    scheme, colon, rest = name.partition(":")
    if colon and (entry := schemes().get(scheme)):
        return _load(entry).resolve(rest, options)
    if name.endswith(".pt2"):
        options.forbid(
            "an exported program",
            *("batch_size", "seq_len", "image_size", "audio_seconds", "dtype"),
            *("overrides", "inputs", "revision", "trust_remote_code"),
        )
        return Workload(model=name)
    if colon or name.endswith(".py"):
        python: Resolver = _PYTHON.load()
        return python.resolve(name, options)
    sentences = (f"{name!r} is no model name.", suggest_model_names(name), _FORMS)
    raise ModelNameError(" ".join(filter(None, sentences)))


def prepare(name: str) -> None:
    """Import the library of a name's scheme, which ``resolve`` does too.

    Raises:
        ModelSpecError: It is not installed, or does not import.
    """
    if entry := schemes().get(name.partition(":")[0]):
        _load(entry)


def schemes() -> Mapping[str, EntryPoint]:
    """Return the resolvers by scheme: those of installed packages, overridden by built-in ones."""
    return {entry.name: entry for entry in entry_points(group=PLUGINS)} | _BUILT_IN


def known(scheme_names: Iterable[str] | None = None) -> tuple[dict[str, str], list[str]]:
    """Return all model names that can be listed.

    Args:
        scheme_names: Schemes to list; all by default.

    Returns:
        Full names with short descriptions, and an error message for each scheme that cannot list
        its names because a package is missing or broken.
    """
    names: dict[str, str] = {}
    errors: list[str] = []
    for scheme, entry in schemes().items():
        if scheme_names is None or scheme in scheme_names:
            try:
                names |= {
                    f"{scheme}:{name}": description
                    for name, description in _load(entry).known().items()
                }
            except ModelSpecError as error:
                errors.append(str(error))
    return names, errors


def search(pattern: str) -> tuple[dict[str, str], list[str]]:
    """Return the names that contain a text or match a glob (``timm:vit_*``), as :func:`known`.

    Raises:
        ModelSpecError: No name matches.
    """
    scheme = pattern.partition(":")[0]
    names, errors = known({scheme} if scheme in schemes() else None)
    glob = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    # "vit_*" matches names without the scheme, "timm:vit_*" full names.
    matches = {
        name: description
        for name, description in names.items()
        if fnmatchcase(name, glob) or fnmatchcase(name.partition(":")[2], glob)
    }
    if matches:
        return matches, errors
    default = "Give a part of a name, or a glob such as 'timm:vit_*'."
    advice = suggest_model_names(pattern) or default
    raise ModelNameError(" ".join((f"no known model name matches {pattern!r}.", *errors, advice)))


def suggest_model_names(name: str) -> str:
    """Return a question with the most similar model names, or an empty text.

    The same name under another scheme comes first, then names of the same scheme.
    """
    scheme, _, bare = name.rpartition(":")
    names = list(known()[0])
    same_name = [full_name for full_name in names if full_name.partition(":")[2] == bare]
    if scheme in schemes():
        in_scheme = [full_name for full_name in names if full_name.startswith(f"{scheme}:")]
        close = [*same_name, *get_close_matches(name, in_scheme, n=4, cutoff=0.7)]
    else:
        bare_names = dict.fromkeys(full_name.partition(":")[2] for full_name in names)
        matches = [bare] if same_name else get_close_matches(bare, bare_names, n=2, cutoff=0.7)
        close = [
            full_name
            for match in matches
            for full_name in names
            if full_name.partition(":")[2] == match
        ]
    return f"Did you mean {', '.join(close[:4])}?" if close else ""


def _load(entry: EntryPoint) -> Resolver:
    if entry.name in _PACKAGES:
        import_package = import_transformers if entry.name == "hf" else None
        require(_PACKAGES[entry.name], entry.name, import_package)
    try:
        resolver: Resolver = entry.load()
    except Exception as error:
        raise ModelNameError(
            f"the resolver of {entry.name}: names ({entry.value}) cannot be loaded: "
            f"{type(error).__name__}: {error}. Update or uninstall the plugin."
        ) from error
    return resolver
