"""Schemes: which resolver a model name goes to, and what names there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib.metadata import EntryPoint, entry_points

from graphflops.errors import ModelSpecError
from graphflops.models.optional_dependencies import require
from graphflops.models.workload import Options, Resolver, Workload

PLUGINS = "graphflops.models"
"""Entry-point group of packages that bring a scheme of their own."""

_NEEDS = {"hf": "transformers", "timm": "timm", "torchvision": "torchvision"}
_OWN = {
    name: EntryPoint(name=name, value=f"graphflops.models.{module}", group=PLUGINS)
    for name, module in (("hf", "huggingface"), ("timm", "timm"), ("torchvision", "torchvision"))
}
LISTED = ":NAME, ".join(_OWN)
"""Schemes of our own, for a sentence."""
_PYTHON = EntryPoint(name="python", value="graphflops.models.python", group=PLUGINS)
_FORMS = (
    "Give hf:TYPE (a transformers model type), hf:PATH (a config.json or its folder), "
    "hf:ORG/NAME (on the hub), timm:NAME, torchvision:NAME, FILE.py:NAME, package.module:NAME "
    "or FILE.pt2."
)


def resolve(name: str, options: Options) -> Workload:
    """Find the model a name stands for and make its inputs.

    Args:
        name: One of the forms that :mod:`graphflops.models` lists.
        options: Sizes, dtype, config overrides and inputs.

    Raises:
        ModelSpecError: The name, the config or an option does not make sense.
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
    sentences = (f"{name!r} is no model name.", near(name), _FORMS)
    raise ModelSpecError(" ".join(filter(None, sentences)))


def schemes() -> Mapping[str, EntryPoint]:
    """Every scheme with its resolver: installed packages' and our own, which nobody replaces."""
    return {entry.name: entry for entry in entry_points(group=PLUGINS)} | _OWN


def known(wanted: Iterable[str] | None = None) -> tuple[dict[str, str], list[str]]:
    """All model names that can be listed.

    Args:
        wanted: Only the names of these schemes.

    Returns:
        Full names with a word on what each is, and a sentence for each scheme that cannot
        say, because something it needs is missing or broken.
    """
    names: dict[str, str] = {}
    missing: list[str] = []
    for scheme, entry in schemes().items():
        if wanted is None or scheme in wanted:
            try:
                names |= {f"{scheme}:{name}": what for name, what in _load(entry).known().items()}
            except ModelSpecError as error:
                missing.append(str(error))
    return names, missing


def search(pattern: str) -> tuple[dict[str, str], list[str]]:
    """The names that contain a text or match a glob (``timm:vit_*``), as :func:`known` does.

    Raises:
        ModelSpecError: There is none.
    """
    scheme = pattern.partition(":")[0]
    names, missing = known({scheme} if scheme in schemes() else None)
    glob = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    # "vit_*" is about names, "timm:vit_*" about full ones.
    found = {
        name: what
        for name, what in names.items()
        if fnmatchcase(name, glob) or fnmatchcase(name.partition(":")[2], glob)
    }
    if found:
        return found, missing
    advice = near(pattern) or "Give a part of a name, or a glob such as 'timm:vit_*'."
    raise ModelSpecError(" ".join((f"no known model name matches {pattern!r}.", *missing, advice)))


def near(name: str) -> str:
    """A question naming the known names that come closest; empty if none does.

    The same name under another scheme comes first, then those of the scheme it has, if any.
    """
    scheme, _, bare = name.rpartition(":")
    names = list(known()[0])
    same = [full for full in names if full.partition(":")[2] == bare]
    if scheme in schemes():
        own = [full for full in names if full.startswith(f"{scheme}:")]
        close = [*same, *get_close_matches(name, own, n=4, cutoff=0.7)]
    else:
        bares = dict.fromkeys(full.partition(":")[2] for full in names)
        matches = [bare] if same else get_close_matches(bare, bares, n=2, cutoff=0.7)
        close = [full for match in matches for full in names if full.partition(":")[2] == match]
    return f"Did you mean {', '.join(close[:4])}?" if close else ""


def _load(entry: EntryPoint) -> Resolver:
    if entry.name in _NEEDS:
        require(_NEEDS[entry.name], extra=entry.name)
    try:
        found: Resolver = entry.load()
    except Exception as error:
        raise ModelSpecError(
            f"the resolver of {entry.name}: names ({entry.value}) cannot be loaded: "
            f"{type(error).__name__}: {error}. Update or uninstall the plugin."
        ) from error
    return found
