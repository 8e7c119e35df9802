"""Devices and what their makers publish: ``devices.toml``, and a user's own file."""

from __future__ import annotations

import functools
import os
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from os import PathLike
from pathlib import Path

from graphflops.analysis.toml_tables import TomlTable, read_toml
from graphflops.errors import ModelSpecError

DEVICES_VARIABLE = "GRAPHFLOPS_DEVICES"
"""Environment variable with the path of the user's own file of devices."""
DTYPES = (
    "float64",
    "float32",
    "tf32",
    "float16",
    "bfloat16",
    "float8",
    "float4",
    "int8",
    "int4",
)
"""Dtypes that a device may have rates for; ``tf32`` is float32 rounded on the way in."""
_TERA, _GIGA, _MEBI, _MICRO = 10**12, 10**9, 2**20, 10**6
_LIMIT = 10**6
"""Limit of every figure of a file: a larger one is in FLOP/s or bytes."""
_RATES = ("matrix_tflops", "vector_tflops")
_TEXTS = ("title", "vendor", "source", "date")
_REQUIRED = ("family", "bandwidth_gb_per_second", "memory_gb")
_OPTIONAL = (
    *("multiprocessors", "cache_mib", "launch_microseconds", "devices_per_package"),
    "aliases",
)
_KEYS = (*_REQUIRED, *_RATES, *_OPTIONAL, *_TEXTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device as programs see it, and what its maker says it can do at best.

    Rates are dense, not those for 2:4 sparsity. A maker's package of several devices, such as the
    two dies of an MI250, is several of these; each has an equal share of the package's figures.

    Attributes:
        name: Name here, e.g. ``"h100-sxm"``.
        title: Full name.
        vendor: Maker.
        family: Class of devices that share fitted constants, e.g. ``"nvidia"``.
        matrix: FLOP/s of the matrix units (tensor cores, MXUs, ...) by dtype, see ``DTYPES``.
        vector: FLOP/s of the ordinary units by dtype; empty where the maker publishes none.
        bandwidth: Bytes/s of its memory.
        memory: Bytes of its memory, where a data sheet's GB are read as 10^9 bytes.
        cache: Bytes of the last level of memory on the chip; 0 where it is not published.
        launch: Least seconds from one kernel to the next: an order of magnitude, and ours.
        multiprocessors: Number of multiprocessors (SMs, compute units); 0 where it is not known.
        devices_per_package: Number of devices in what the maker's figures describe.
        aliases: Further names.
        source: Document that has the figures.
        date: Date of the source.
    """

    name: str
    title: str
    vendor: str
    family: str
    matrix: Mapping[str, float]
    vector: Mapping[str, float]
    bandwidth: float
    memory: int
    cache: int
    launch: float
    multiprocessors: int = 0
    devices_per_package: int = 1
    aliases: tuple[str, ...] = ()
    source: str = ""
    date: str = ""

    def rate(self, dtype: str, *, matrix: bool) -> float:
        """Return the peak rate in FLOP/s for a dtype.

        Args:
            dtype: Dtype of torch such as ``"bfloat16"`` or ``"float8_e4m3fn"``, or ``"tf32"``.
            matrix: Return the rate of the matrix units, if they compute in the dtype; otherwise
                that of the ordinary units.

        Raises:
            ModelSpecError: No rate is published.

        Example:
            >>> h100 = device("h100-sxm")
            >>> h100.rate("bfloat16", matrix=True) / 1e12, h100.rate("float32", matrix=True) / 1e12
            (989.4, 66.9)
        """
        rates = {**self.vector, **self.matrix} if matrix else self.vector
        if (key := rated_dtype(dtype)) in rates:
            return rates[key]
        units = "" if matrix else " of the ordinary units"
        known = f"There is one for {', '.join(rates)}" if rates else "There is one for no dtype"
        raise ModelSpecError(f"no peak rate{units} of {self.name} for {dtype} is known. {known}.")


def rated_dtype(dtype: str) -> str:
    """Return the dtype whose rate holds for one of torch: ``"float8"`` for ``"float8_e5m2"``."""
    for family in ("float8", "float4"):
        if dtype.startswith(f"{family}_"):
            return family
    return "int8" if dtype == "uint8" else dtype


def device(name: str, devices: str | PathLike[str] | None = None) -> Device:
    """Return a device by its name or one of its aliases, in any case.

    Args:
        name: Name of the device, e.g. ``"h100-sxm"``.
        devices: Path of your own devices in TOML, see :func:`load_devices`; by default that of
            the environment variable ``GRAPHFLOPS_DEVICES``. Its names go before those known here.

    Raises:
        ModelSpecError: There is no such device, or the file is not one of devices.

    Example:
        >>> device("A100").title
        'NVIDIA A100 SXM4 80GB'
    """
    known = known_devices(devices)
    by_name: dict[str, Device] = {}
    for found in known.values():
        for key in (found.name, *found.aliases):
            by_name.setdefault(key.lower(), found)
    if (key := str(name).lower()) in by_name:
        return by_name[key]
    close = get_close_matches(key, by_name, n=3, cutoff=0.4)
    hint = f"Did you mean {', '.join(close)}?" if close else f"Known: {', '.join(known)}."
    msg = (
        f"{name!r} is no device known here. {hint} A file of your own devices can be given as "
        f"--devices FILE or {DEVICES_VARIABLE}."
    )
    raise ModelSpecError(msg)


def known_devices(devices: str | PathLike[str] | None = None) -> dict[str, Device]:
    """Return the devices by name: those of the user's own file first, which replace ours.

    Args:
        devices: Path of the file; by default that of the environment variable
            ``GRAPHFLOPS_DEVICES``.

    Raises:
        ModelSpecError: The file is not one of devices.
    """
    path = devices or os.environ.get(DEVICES_VARIABLE)
    own = {found.name: found for found in load_devices(path)} if path else {}
    replaced = {name.lower() for name in own}
    ours = {name: found for name, found in _our_devices().items() if name not in replaced}
    return {**own, **ours}


def load_devices(path: str | PathLike[str]) -> tuple[Device, ...]:
    """Read the devices of a TOML file.

    Each is a table ``[devices.NAME]`` with ``family``, ``bandwidth_gb_per_second``, ``memory_gb``
    and ``matrix_tflops`` or ``vector_tflops`` by dtype, and, if wanted, ``cache_mib``,
    ``launch_microseconds``, ``devices_per_package``, ``title``, ``vendor``, ``aliases``,
    ``source`` and ``date``. A table ``[families]`` may add families:
    ``mine = { launch_microseconds = 4 }``.

    Raises:
        ModelSpecError: The file cannot be read, or has keys or values that mean nothing.
    """
    tables = read_toml(Path(path), "a file of devices")
    try:
        launches = _parse_families(_our_tables())
        return _parse_devices(TomlTable("", tables), launches, source=Path(path).name)
    except ModelSpecError as error:
        raise ModelSpecError(f"{path}: {error}") from None


@functools.cache
def _our_tables() -> TomlTable:
    text = resources.files(__package__).joinpath("devices.toml").read_text("utf-8")
    return TomlTable("", tomllib.loads(text))


@functools.cache
def _our_devices() -> dict[str, Device]:
    return {found.name: found for found in _parse_devices(_our_tables(), {}, source="")}


def _parse_families(tables: TomlTable) -> dict[str, float]:
    """Return the least microseconds from one kernel to the next by family of devices."""
    families = tables.table("families")
    launches = {}
    for name in families.values:
        family = families.table(name)
        family.check_keys(("launch_microseconds",), required=("launch_microseconds",))
        launches[name] = family.number("launch_microseconds", limit=_LIMIT)
    return launches


def _parse_devices(
    tables: TomlTable, launches: Mapping[str, float], *, source: str
) -> tuple[Device, ...]:
    """Return the devices of a file.

    Args:
        tables: The file.
        launches: Microseconds of a launch by family known without the file.
        source: Source of devices that name none.
    """
    tables.check_keys(("families", "devices"))
    launches = {**launches, **_parse_families(tables)}
    devices = tables.table("devices")
    if not devices.values:
        raise ModelSpecError("there is no device. Write a table [devices.NAME] for each.")
    parsed = tuple(
        _parse_device(name, devices.table(name), launches, source) for name in devices.values
    )
    names = Counter(name.lower() for found in parsed for name in (found.name, *found.aliases))
    if ambiguous := [name for name, number in names.items() if number > 1]:
        raise ModelSpecError(f"{ambiguous[0]!r} names several devices. Rename all but one.")
    return parsed


def _parse_device(
    name: str, table: TomlTable, launches: Mapping[str, float], source: str
) -> Device:
    table.check_keys(_KEYS, required=_REQUIRED)
    if (family := table.text("family")) not in launches:
        msg = (
            f"{table.name}.family is {family!r}. Give one of {', '.join(launches)}, or add a table "
            "[families.NAME] with launch_microseconds."
        )
        raise ModelSpecError(msg)
    share = table.number("devices_per_package", 1, limit=_LIMIT)
    if share != int(share):
        raise ModelSpecError(f"{table.name}.devices_per_package is {share}. Give a whole number.")
    matrix, vector = (_parse_rates(table.table(key), share) for key in _RATES)
    if not (matrix or vector):
        raise ModelSpecError(f"{table.name} has no rates. Give {' or '.join(_RATES)} by dtype.")
    launch = table.number("launch_microseconds", launches[family], limit=_LIMIT)
    return Device(
        name=name,
        title=table.text("title", name),
        vendor=table.text("vendor"),
        family=family,
        matrix=matrix,
        vector=vector,
        bandwidth=table.number("bandwidth_gb_per_second", limit=_LIMIT) * _GIGA / share,
        memory=round(table.number("memory_gb", limit=_LIMIT) * _GIGA / share),
        cache=round(table.number("cache_mib", 0, limit=_LIMIT) * _MEBI / share),
        launch=launch / _MICRO,
        multiprocessors=round(table.number("multiprocessors", 0, limit=_LIMIT) / share),
        devices_per_package=int(share),
        aliases=table.texts("aliases"),
        source=table.text("source", source),
        date=table.text("date"),
    )


def _parse_rates(table: TomlTable, share: float) -> dict[str, float]:
    table.check_keys(DTYPES)
    # Rounded before the division: 989.4 * 10**12 is not a whole number of floating point.
    return {
        dtype: round(table.number(dtype, limit=_LIMIT) * _TERA) / share for dtype in table.values
    }
