"""Where a transformers config comes from: a file, a folder, the hub, or a type's defaults."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors

from graphflops.errors import ModelSpecError
from graphflops.models.workload import Options


@dataclass(frozen=True, kw_only=True)
class Config:
    """A config as it was found.

    Attributes:
        values: What the JSON says.
        home: The folder or hub name that code next to the config would come from.
    """

    values: dict[str, Any]
    home: str


def find_config(name: str, options: Options) -> Config:
    """Find the config a name stands for; what exists on this machine wins over the hub.

    Raises:
        ModelSpecError: There is no such file or hub name, or it is no config.
    """
    path = Path(name)
    if path.exists() or not _on_hub(name):
        options.forbid("a config on this machine", "revision")
        path = path / "config.json" if path.is_dir() else path
        if path.is_dir():
            raise ModelSpecError(f"{path} is a folder. Give a transformers config.json.")
        if path.is_file():
            return Config(values=_read(path), home=str(path.parent))
        if path.suffix == ".json" or "/" in name:
            raise ModelSpecError(
                f"{path} does not exist. Give a config.json, its folder, or a model type such as "
                "hf:bert."
            )
        options.forbid("a model type", "trust_remote_code")
        return Config(values={"model_type": name}, home="")
    return Config(values=_read(Path(_download(name, options.revision))), home=name)


def without_code(values: Any, depth: int = 0) -> Any:
    """A config without what makes transformers run code that comes with it.

    Where transformers has no class of its own for an ``auto_map``, at any depth of the config,
    it asks on the terminal whether to run the code, and takes the answer from a pipe.

    Args:
        values: The config, or a part of it.
        depth: How deep in the config that part is.

    Raises:
        ModelSpecError: The config wants attention or experts that are code on the hub, or nests
            as none does.
    """
    if depth > _MAX_DEPTH:
        raise ModelSpecError("the config nests too deeply. Give a transformers config.json.")
    if isinstance(values, list):
        return [without_code(value, depth + 1) for value in values]
    if not isinstance(values, dict):
        return values
    for key in _KERNELS & values.keys():
        if "/" in str(values[key]):
            msg = (
                f"the config wants {key} {str(values[key])!r}, which is code on the hub. If you "
                "trust its authors, allow that code to run: --trust-remote-code."
            )
            raise ModelSpecError(msg)
    return {
        key: without_code(value, depth + 1) for key, value in values.items() if key != "auto_map"
    }


_MAX_DEPTH = 64
_KERNELS = {
    f"{start}{kind}_implementation{end}"
    for start in ("", "_")
    for kind in ("attn", "experts")
    for end in ("", "_internal")
}


def _on_hub(name: str) -> bool:
    organization, slash, model = name.partition("/")
    plain = organization.strip("._~") and "/" not in model and not model.endswith(".json")
    return bool(slash and model and plain)


def _download(name: str, revision: str | None) -> str:
    where = f"{name} at {revision}" if revision else name
    try:
        return str(huggingface_hub.hf_hub_download(name, "config.json", revision=revision))
    except errors.LocalEntryNotFoundError as error:
        msg = (
            f"{where} is not on this machine, and the hub cannot be reached. Download its "
            "config.json and give hf:PATH, or set HF_HOME to a cache that has it."
        )
        raise ModelSpecError(msg) from error
    except errors.GatedRepoError as error:
        msg = f"{name} is gated. Ask for access on its page, then log in: hf auth login."
        raise ModelSpecError(msg) from error
    except errors.RepositoryNotFoundError as error:
        msg = f"the hub has no model {name!r}. Correct the name, or log in if it is private."
        raise ModelSpecError(msg) from error
    except errors.RevisionNotFoundError as error:
        msg = f"{name} has no revision {revision!r}. Give a branch, a tag or a commit of it."
        raise ModelSpecError(msg) from error
    except errors.EntryNotFoundError as error:
        msg = f"{where} has no config.json. Give a model that transformers can load."
        raise ModelSpecError(msg) from error
    except (errors.HFValidationError, OSError, errors.HfHubHTTPError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        msg = f"{where} cannot be fetched from the hub: {reason}. Give hf:ORG/NAME or hf:PATH."
        raise ModelSpecError(msg) from error


def _read(path: Path) -> dict[str, Any]:
    advice = "Give a transformers config.json."
    try:
        if path.stat().st_size > LARGEST:
            msg = f"{path} has {path.stat().st_size:,} bytes, too many for a config. {advice}"
            raise ModelSpecError(msg)
        values = json.loads(path.read_text("utf-8"))
    except (OSError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error.strerror
        raise ModelSpecError(f"{path} cannot be read: {reason}. {advice}") from error
    except ValueError as error:
        raise ModelSpecError(f"{path} is not JSON: {error}. {advice}") from error
    if not isinstance(values, dict):
        raise ModelSpecError(f"{path} holds no JSON object. {advice}")
    for key, (kind, what) in _KINDS.items():
        if not isinstance(values.get(key), kind | None):
            raise ModelSpecError(f"{path}: {key!r} is {values[key]!r:.40}, not {what}. {advice}")
    return values


LARGEST = 2**26
"""Bytes of the largest config that is read."""
_KINDS: dict[str, tuple[type, str]] = {
    "model_type": (str, "a name"),
    "architectures": (list, "a list of names"),
    "auto_map": (dict, "an object"),
}
"""What we look at ourselves before transformers does."""
