"""Identification of files without an exported program, by first bytes and archive members."""

from __future__ import annotations

import re
from collections.abc import Sequence

_MODULE = (
    "Count the module itself: build it in Python and give FILE.py:NAME, or pass it to gf.count."
)
_EXPORT = f"It has no graph of PyTorch's operators. {_MODULE}"
_PICKLED = f"A pickle can run code and is not opened. {_MODULE}"
_FETCH = "Fetch the file itself, which torch.export.save wrote."

Kind = tuple[str, str]
"""Problem as a predicate that follows the name of a file, and a sentence on what to do next."""

# Kinds of archives, by a pattern for the name of a member.
_ARCHIVES: tuple[tuple[str, Kind], ...] = (
    (
        r"(^|/)data/aotinductor/|\.(so|dll|dylib)$|\.wrapper\.cpp$",
        (
            "is an AOTInductor package: compiled code, which has no graph",
            "Count the program it was compiled from, saved with torch.export.save.",
        ),
    ),
    (
        r"^[^/]+/(constants\.pkl|code/.+\.py)$",
        (
            "is a TorchScript archive, written by torch.jit.save",
            f"TorchScript is not read. {_MODULE}",
        ),
    ),
    (
        r"^[^/]+/data\.pkl$",
        ("is a pickle written by torch.save: a state dict, or a module", _PICKLED),
    ),
    (
        r"/archive_format$",
        (
            "is an archive of PyTorch that holds no exported program",
            "Save the program with torch.export.save.",
        ),
    ),
    (r"(^|/)model\.weights\.h5$", ("is a Keras model", _EXPORT)),
    (r"^META-INF/|\.class$", ("is a Java archive", _FETCH)),
    (r"\.npy$", ("is a NumPy archive of arrays", _EXPORT)),
    (r"\.pt2$", ("is a zip archive with a .pt2 file in it", "Unpack it, and give that file.")),
)

# Kinds of files, by a pattern for the first bytes.
_FILES: tuple[tuple[bytes, Kind], ...] = (
    (rb"\Z", ("is empty", "Save the program again with torch.export.save.")),
    (
        rb"version https://git-lfs",
        ("is a pointer of Git LFS, not the file it stands for", "Fetch the file: git lfs pull."),
    ),
    (rb"\x80[\x00-\x05]", ("is a pickle: a state dict, a module or any object", _PICKLED)),
    (rb"(?s).{8}\{\s*\"", ("is a safetensors file: weights without a graph", _MODULE)),
    (rb"GGUF|GGML|lmgg|tjgg", ("is a GGUF file: weights for llama.cpp", _MODULE)),
    (rb"\x08[\x01-\x20]\x12|\x08[\x01-\x20]:", ("is an ONNX model", _EXPORT)),
    (rb"(?s).{4}TFL3", ("is a TensorFlow Lite model", _EXPORT)),
    (rb"(?s).{4}E[TX]\d\d", ("is an ExecuTorch program", _EXPORT)),
    (rb"\x89HDF\r\n", ("is an HDF5 file, perhaps of Keras", _EXPORT)),
    (rb"\x93NUMPY", ("is a NumPy array", _EXPORT)),
    (rb"\x1f\x8b", ("is compressed with gzip", "Unpack it, and give the file in it.")),
    (rb"BZh", ("is compressed with bzip2", "Unpack it, and give the file in it.")),
    (rb"\xfd7zXZ", ("is compressed with xz", "Unpack it, and give the file in it.")),
    (rb"\x28\xb5\x2f\xfd", ("is compressed with zstd", "Unpack it, and give the file in it.")),
    (rb"7z\xbc\xaf|Rar!", ("is an archive", "Unpack it, and give the file in it.")),
    (rb"(?s).{257}ustar", ("is a tar archive", "Unpack it, and give the file in it.")),
    (
        rb"\x7fELF|\xcf\xfa\xed\xfe|MZ",
        ("is a compiled library or program, perhaps of AOTInductor", _EXPORT),
    ),
    (rb"(?i)\s*(<!doctype html|<html)", ("is a web page, perhaps of a failed download", _FETCH)),
    (rb"\s*[{\[]", ("is JSON", "Give the whole archive that torch.export.save wrote.")),
)


def identify(start: bytes, members: Sequence[str] = ()) -> Kind:
    """Return the kind of a file.

    Args:
        start: First bytes of the file.
        members: Names of its members, if it is a zip archive.

    Example:
        >>> identify(b"GGUF...")[0]
        'is a GGUF file: weights for llama.cpp'
    """
    for pattern, kind in _ARCHIVES:
        if any(re.search(pattern, name) for name in members):
            return kind
    if start.startswith(b"PK"):
        return "is a zip archive without an exported program", _FETCH
    for mark, kind in _FILES:
        if re.match(mark, start):
            return kind
    problem = "is text" if _is_text(start) else "is of no known kind"
    return f"{problem}, and no program written by torch.export.save", _FETCH


def _is_text(start: bytes) -> bool:
    # The last character may be incomplete.
    text = start.decode("utf-8", "ignore")
    return len(text.encode()) > len(start) - 4 and all(c.isprintable() or c.isspace() for c in text)
