"""Sources of transformers configs: a file, a folder, the hub, or the defaults of a model type."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors

from graphflops.errors import ModelNameError, ModelSpecError
from graphflops.models.workload import Options


@dataclass(frozen=True, kw_only=True)
class LoadedConfig:
    """Config as its source has it.

    Attributes:
        values: Contents of the JSON file.
        code_location: Folder or hub name to load the config's own Python code from.
    """

    values: dict[str, Any]
    code_location: str


def load_config(name: str, options: Options) -> LoadedConfig:
    """Load the config of a name; a local file or folder takes precedence over the hub.

    Raises:
        ModelSpecError: There is no such file or hub name, or it is not a config.
    """
    path = Path(name)
    if path.exists() or not _is_hub_name(name):
        options.forbid("a config on this machine", "revision")
        path = path / "config.json" if path.is_dir() else path
        if path.is_dir():
            raise ModelNameError(f"{path} is a folder. Give a transformers config.json.")
        if path.is_file():
            return LoadedConfig(values=_read(path), code_location=str(path.parent))
        if path.suffix == ".json" or "/" in name:
            raise ModelNameError(
                f"{path} does not exist. Give a config.json, its folder, or a model type such as "
                "hf:bert."
            )
        options.forbid("a model type", "trust_remote_code")
        return LoadedConfig(values={"model_type": name}, code_location="")
    return LoadedConfig(values=_read(Path(_download(name, options.revision))), code_location=name)


def strip_code(values: Any, depth: int = 0) -> Any:
    """Return a config without the keys that make transformers run code that comes with it.

    Where transformers has no class of its own for an ``auto_map``, at any depth of the config,
    it asks on the terminal whether to run the code, and takes the answer from a pipe.

    Args:
        values: The config, or a part of it.
        depth: Nesting depth of that part.

    Raises:
        ModelSpecError: The config names attention or experts that are code on the hub, or nests
            too deeply.
    """
    if depth > _MAX_DEPTH:
        raise ModelSpecError("the config nests too deeply. Give a transformers config.json.")
    if isinstance(values, list):
        return [strip_code(value, depth + 1) for value in values]
    if not isinstance(values, dict):
        return values
    for key in _KERNEL_KEYS & values.keys():
        if "/" in str(values[key]):
            msg = (
                f"the config wants {key} {str(values[key])!r}, which is code on the hub. If you "
                "trust its authors, allow that code to run: --trust-remote-code."
            )
            raise ModelSpecError(msg)
    return {key: strip_code(value, depth + 1) for key, value in values.items() if key != "auto_map"}


_MAX_DEPTH = 64
_KERNEL_KEYS = {
    f"{prefix}{kind}_implementation{suffix}"
    for prefix in ("", "_")
    for kind in ("attn", "experts")
    for suffix in ("", "_internal")
}


def _is_hub_name(name: str) -> bool:
    organization, slash, model = name.partition("/")
    is_plain = organization.strip("._~") and "/" not in model and not model.endswith(".json")
    return bool(slash and model and is_plain)


def _download(name: str, revision: str | None) -> str:
    location = f"{name} at {revision}" if revision else name
    try:
        return str(huggingface_hub.hf_hub_download(name, "config.json", revision=revision))
    except errors.LocalEntryNotFoundError as error:
        msg = (
            f"{location} is not on this machine, and the hub cannot be reached. Download its "
            "config.json and give hf:PATH, or set HF_HOME to a cache that has it."
        )
        raise ModelNameError(msg) from error
    except errors.GatedRepoError as error:
        msg = f"{name} is gated. Ask for access on its page, then log in: hf auth login."
        raise ModelNameError(msg) from error
    except errors.RepositoryNotFoundError as error:
        msg = f"the hub has no model {name!r}. Correct the name, or log in if it is private."
        raise ModelNameError(msg) from error
    except errors.RevisionNotFoundError as error:
        msg = f"{name} has no revision {revision!r}. Give a branch, a tag or a commit of it."
        raise ModelNameError(msg) from error
    except errors.EntryNotFoundError as error:
        msg = f"{location} has no config.json. Give a model that transformers can load."
        raise ModelNameError(msg) from error
    except (errors.HFValidationError, OSError, errors.HfHubHTTPError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        msg = f"{location} cannot be fetched from the hub: {reason}. Give hf:ORG/NAME or hf:PATH."
        raise ModelNameError(msg) from error


def _read(path: Path) -> dict[str, Any]:
    advice = "Give a transformers config.json."
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
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
    for key, (kind, description) in _KEY_TYPES.items():
        if not isinstance(values.get(key), kind | None):
            raise ModelSpecError(
                f"{path}: {key!r} is {values[key]!r:.40}, not {description}. {advice}"
            )
    return values


MAX_CONFIG_BYTES = 2**26
"""Size limit of a config file."""
_KEY_TYPES: dict[str, tuple[type, str]] = {
    "model_type": (str, "a name"),
    "architectures": (list, "a list of names"),
    "auto_map": (dict, "an object"),
}
"""Types of the keys that this package reads, with their descriptions for messages."""
