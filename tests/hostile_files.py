"""Files that were made to harm, and files that are damaged: how each is made, what is said of it."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

MACS = 2 * 4 * 3
"""Of the program that the files are made of: a linear layer of 4 to 3 features, two rows."""

Members = dict[str, bytes]
Json = dict[str, Any]


class Model(nn.Module):
    """A linear layer and a view."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.linear(x).relu().reshape(6)


@cache
def _good() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(Model(), (torch.zeros(2, 4),)), buffer)
    return buffer.getvalue()


def members() -> Members:
    """The members of a file that is well, by name below its folder."""
    with zipfile.ZipFile(io.BytesIO(_good())) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def packed(found: Members, method: int = zipfile.ZIP_STORED) -> bytes:
    """Members as an archive of PyTorch."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in found.items():
            archive.writestr(f"archive/{name}", data)
    return buffer.getvalue()


PROGRAM, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


class Payload:
    """What makes a file of this name when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.system, (f"touch '{self.mark}'",))


def _torch_saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _edited(edit: Callable[[Json, Path], None], name: str = PROGRAM) -> Callable[[Path], bytes]:
    def make(mark: Path) -> bytes:
        found = members()
        content = json.loads(found[name])
        edit(content, mark)
        return packed(found | {name: json.dumps(content).encode()})

    return make


def _in_graph(edit: Callable[[Json, Path], None]) -> Callable[[Path], bytes]:
    return _edited(lambda program, mark: edit(program["graph_module"]["graph"], mark))


def _replaced(name: str, data: Callable[[Path], bytes]) -> Callable[[Path], bytes]:
    return lambda mark: packed(members() | {name: data(mark)})


def _renamed(old: str, new: Callable[[Path], str]) -> Callable[[Path], bytes]:
    """A name in the graph replaced wherever it stands."""

    def make(mark: Path) -> bytes:
        found = members()
        text = found[PROGRAM].decode()
        assert json.dumps(old) in text
        changed = text.replace(json.dumps(old), json.dumps(new(mark)))
        return packed(found | {PROGRAM: changed.encode()})

    return make


def _code(mark: Path) -> str:
    return f"__import__('os').system(\"touch '{mark}'\")"


def _target(name: str, *arguments: Any) -> Callable[[Path], bytes]:
    """The relu replaced by a call of a function, with texts as arguments."""

    def edit(graph: Json, mark: Path) -> None:
        node = graph["nodes"][1]
        node["target"] = name
        texts = [str(argument).replace("MARK", str(mark)) for argument in arguments]
        if texts:
            node["inputs"] = [{"name": "", "arg": {"as_string": text}, "kind": 1} for text in texts]

    return _in_graph(edit)


def _size(expression: Any) -> Callable[[Path], bytes]:
    """A size of the input replaced by an expression."""

    def edit(graph: Json, mark: Path) -> None:
        written = expression(mark) if callable(expression) else expression
        size = {"as_expr": {"expr_str": written, "hint": {"as_int": 2}}}
        graph["tensor_values"]["x"]["sizes"][0] = size

    return _in_graph(edit)


def _shape(sizes: list[Any], strides: list[Any] | None = None) -> Callable[[Path], bytes]:
    def edit(graph: Json, _: Path) -> None:
        meta = graph["tensor_values"]["x"]
        meta["sizes"] = [{"as_int": size} for size in sizes]
        meta["strides"] = [{"as_int": stride} for stride in strides or [1] * len(sizes)]

    return _in_graph(edit)


def _higher_order(name: str, graph_name: str = "body") -> Callable[[Path], bytes]:
    """The relu replaced by a higher-order call of a graph, with an argument of some name."""

    def edit(graph: Json, mark: Path) -> None:
        body = {
            **graph,
            "nodes": [],
            "tensor_values": {},
            "inputs": [],
            "outputs": [],
        }
        text = graph_name.replace("CODE", _code(mark))
        graph["nodes"][1]["target"] = "torch.ops.higher_order.wrap"
        graph["nodes"][1]["inputs"] = [
            {"name": "", "arg": {"as_graph": {"name": text, "graph": body}}, "kind": 1},
            {"name": name.replace("CODE", _code(mark)), "arg": {"as_int": 1}, "kind": 2},
        ]

    return _in_graph(edit)


def _pickled_weights(config: Json, _: Path) -> None:
    for held in config["config"].values():
        held["use_pickle"] = True


def _evil_weights(mark: Path) -> bytes:
    found = members()
    config = json.loads(found[WEIGHTS])
    _pickled_weights(config, mark)
    evil = {name: _torch_saved(Payload(mark)) for name in found if "weights/weight_" in name}
    return packed(found | evil | {WEIGHTS: json.dumps(config).encode()})


def _evil_constants(mark: Path) -> bytes:
    config = {"c": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}}
    evil = {
        "data/constants/model_constants_config.json": json.dumps({"config": config}).encode(),
        "data/constants/opaque_obj_0": pickle.dumps(Payload(mark)),
    }
    return packed(members() | evil)


def _older(mark: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("version", "8.2")
        archive.writestr("serialized_exported_program.json", members()[PROGRAM])
        for name in ("state_dict", "constants", "example_inputs"):
            archive.writestr(f"serialized_{name}.pt", _torch_saved(Payload(mark)))
    return buffer.getvalue()


def _unweighted(mark: Path) -> bytes:
    found = members()
    del found[WEIGHTS]
    return packed(found | {"data/weights/model.pt": _torch_saved(Payload(mark))})


def _bomb(name: str, start: bytes, block: bytes, times: int) -> Callable[[Path], bytes]:
    """A member that unpacks to many blocks."""

    def make(_: Path) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for each, data in members().items():
                if each != name:
                    archive.writestr(f"archive/{each}", data)
            with archive.open(f"archive/{name}", "w", force_zip64=True) as member:
                member.write(start)
                for _ in range(times):
                    member.write(block)
        return buffer.getvalue()

    return make


def _many_members(_: Path) -> bytes:
    buffer = io.BytesIO(_good())
    with zipfile.ZipFile(buffer, "a") as archive:
        for number in range(20_000):
            archive.writestr(f"archive/extra/{'x' * 200}{number}", b"")
    return buffer.getvalue()


def _twice(_: Path) -> bytes:
    buffer = io.BytesIO(packed(members()))
    with zipfile.ZipFile(buffer, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(f"archive/{PROGRAM}", members()[PROGRAM])
    return buffer.getvalue()


def _directory_entry(name: str, at: int, change: bytes) -> Callable[[Path], bytes]:
    """The entry of a member in the zip directory, changed at an offset; its header likewise."""

    def make(_: Path) -> bytes:
        data = bytearray(packed(members()))
        full = f"archive/{name}".encode()
        header = data.index(full) - 30
        entry = data.rindex(full) - 46
        data[entry + at : entry + at + len(change)] = change
        data[header + at - 2 : header + at - 2 + len(change)] = change
        return bytes(data)

    return make


def _flipped(_: Path) -> bytes:
    data = bytearray(packed(members()))
    data[data.index(b'"graph_module"') + 2] ^= 1
    return bytes(data)


def _text(**archive: str) -> bytes:
    return packed({name.replace("__", "/"): text.encode() for name, text in archive.items()})


def _zipped(*names: str) -> Callable[[Path], bytes]:
    def make(_: Path) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name in names:
                archive.writestr(name, b"content")
        return buffer.getvalue()

    return make


def _script(_: Path) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(4, 3)), buffer)
    return buffer.getvalue()


def _tar(_: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pt2"))
    return buffer.getvalue()


def _safetensors(_: Path) -> bytes:
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return struct.pack("<Q", len(header)) + header + b"\0" * 4


def _bytes(data: bytes) -> Callable[[Path], bytes]:
    return lambda _: data


def _maps_a_file(graph: Json, mark: Path) -> None:
    node = graph["nodes"][1]
    node["target"] = "torch.ops.aten.from_file.default"
    arguments: Json = {"filename": {"as_string": str(mark)}, "shared": {"as_bool": True}}
    arguments["size"] = {"as_int": 6}
    node["inputs"] = [{"name": k, "arg": arg, "kind": 1} for k, arg in arguments.items()]


class Hostile(NamedTuple):
    """A file, and what is said of it; ``None`` where it is counted rightly all the same."""

    make: Callable[[Path], bytes]
    said: str | None
    unknown: bool = False


_INJECTED = "x): pass\n{code}\ndef g(self"
_NO_ARITHMETIC = "has a size that is no arithmetic"
_NO_OPERATOR = "which is no operator of PyTorch"

MALICIOUS: dict[str, Hostile] = {
    "a pickle as sample inputs": Hostile(
        _replaced("data/sample_inputs/model.pt", lambda mark: _torch_saved(Payload(mark))), None
    ),
    "pickled weights": Hostile(_evil_weights, None),
    "pickled constants": Hostile(_evil_constants, None),
    "pickled weights, torch 2.8": Hostile(_unweighted, None),
    "pickles, torch 2.7": Hostile(_older, None),
    "guards that are code": Hostile(
        _edited(lambda program, mark: program.update(guards_code=[_code(mark)])), None
    ),
    "a pytree of any type": Hostile(
        _edited(
            lambda program, mark: program["graph_module"]["module_call_graph"][0][
                "signature"
            ].update(in_spec=_code(mark))
        ),
        None,
    ),
    "a verifier of any name": Hostile(
        _edited(lambda program, mark: program.update(verifiers=[_code(mark)])), None
    ),
    "metadata that nests": Hostile(
        _in_graph(
            lambda graph, _: graph["nodes"][0]["metadata"].update(
                from_node="[" * 50_000, custom="[" * 50_000
            )
        ),
        None,
    ),
    "a member outside of the archive": Hostile(_replaced("../../MARK", lambda _: b"out"), None),
    "weights that unpack to gigabytes": Hostile(
        _bomb("data/weights/weight_0", b"", b"\0" * (1 << 20), 1024), None
    ),
    "a state dict by torch.save": Hostile(
        lambda mark: _torch_saved({"weight": Payload(mark)}), "is a pickle written by torch.save"
    ),
    "a legacy state dict": Hostile(
        lambda mark: pickle.dumps(Payload(mark), protocol=2), "is a pickle: a state dict"
    ),
    "code as a size": Hostile(_size(_code), _NO_ARITHMETIC),
    "code in a size": Hostile(
        _size(lambda mark: f"Add(Integer(1), {_code(mark)})"), _NO_ARITHMETIC
    ),
    "code in the name of a size": Hostile(
        _size(lambda mark: f"Symbol({_code(mark)!r})"), "has a size called"
    ),
    "code by attributes of a size": Hostile(
        _size("Symbol.__init__.__globals__['sys'].exit()"), _NO_ARITHMETIC
    ),
    "a keyword of a size": Hostile(_size("Add(Integer(1), evaluate=False)"), "no arithmetic"),
    "a lambda as a size": Hostile(_size("(lambda: 1)()"), _NO_ARITHMETIC),
    "a huge power": Hostile(_size("Pow(Integer(10), Integer(1000000000))"), "with the power"),
    "powers of powers": Hostile(
        _size("Pow(Pow(Integer(9), Integer(16)), Integer(16))"), "beyond 64 bits"
    ),
    "a huge shift": Hostile(_size("LShift(Integer(1), Integer(10000000000))"), "with the power"),
    "a product of sums": Hostile(
        _size("Mul(" + ", ".join(["Add(Symbol('a'), Symbol('b'), Integer(1))"] * 12) + ")"),
        "of too many terms",
    ),
    "a size with parentheses": Hostile(_size("(" * 5_000), _NO_ARITHMETIC),
    "a size with signs": Hostile(_size("-" * 16_000 + "1"), "has a size"),
    "a size longer than any": Hostile(_size("1" * 20_000), "20,000 characters"),
    "a symbol to count up to": Hostile(
        _edited(
            lambda program, _: program["range_constraints"].update(
                u999999999999={"min_val": 0, "max_val": None}
            )
        ),
        "has a size called",
    ),
    "os.system": Hostile(_target("os.system", "touch MARK"), _NO_OPERATOR),
    "os.system by way of torch": Hostile(
        _target("torch.serialization.os.system", "touch MARK"), _NO_OPERATOR
    ),
    "os.system by way of a prefix": Hostile(
        _target("mathematics.os.system", "touch MARK"), _NO_OPERATOR
    ),
    "load_library": Hostile(_target("torch.ops.load_library", "MARK"), "no operator of PyTorch"),
    "import_module": Hostile(_target("torch.ops.import_module", "MARK"), "no operator of PyTorch"),
    "an attribute of an operator": Hostile(
        _target("torch.ops.aten.relu.default.__globals__", "MARK"), _NO_OPERATOR
    ),
    "torch.hub.load": Hostile(_target("torch.hub.load", "MARK", "evil"), _NO_OPERATOR),
    "operator.call": Hostile(_target("_operator.call", "MARK"), _NO_OPERATOR),
    "operator.methodcaller": Hostile(_target("_operator.methodcaller", "MARK"), _NO_OPERATOR),
    "eval": Hostile(_target("builtins.eval", "MARK"), _NO_OPERATOR),
    "an operator of an extension": Hostile(_target("#evil:op"), "an operator of an extension"),
    "a path as an operator": Hostile(_target("torch.ops../../x.y"), _NO_OPERATOR),
    "a function as an argument": Hostile(
        _in_graph(
            lambda graph, _: graph["nodes"][1]["inputs"].append(
                {"name": "", "arg": {"as_operator": "os.system"}, "kind": 1}
            )
        ),
        _NO_OPERATOR,
    ),
    "code as the name of an input": Hostile(
        _renamed("x", lambda mark: _INJECTED.format(code=_code(mark))), "where a name belongs"
    ),
    "code as the name of a value": Hostile(
        _renamed("relu", lambda mark: _INJECTED.format(code=_code(mark))), "where a name belongs"
    ),
    "code as the name of an argument": Hostile(_higher_order("a=CODE, b"), "where a name belongs"),
    "code as the name of a graph": Hostile(
        _higher_order("flag", 'g", CODE, "'), "where a name belongs"
    ),
    "an operator that maps a file": Hostile(_in_graph(_maps_a_file), None, unknown=True),
}

DAMAGED: dict[str, Hostile] = {
    "a graph that unpacks to gigabytes": Hostile(
        _bomb(PROGRAM, b"", b" " * (1 << 20), 1024), "bytes or more in"
    ),
    "a graph of empty objects": Hostile(
        _bomb(PROGRAM, b"[", b"{}," * (1 << 18), 60), "more than can be read in bounded memory"
    ),
    "a graph of short texts": Hostile(
        _bomb(PROGRAM, b"[", b'"a",' * (1 << 18), 60), "more than can be read in bounded memory"
    ),
    "a call of many arguments": Hostile(
        _in_graph(
            lambda graph, _: graph["nodes"][1].update(
                inputs=[{"name": "", "arg": {"as_tensors": []}}] * 140_000
            )
        ),
        "does not fit together",
    ),
    "a graph that nests": Hostile(_replaced(PROGRAM, lambda _: b"[" * 400_000), "is not JSON"),
    "an integer of many digits": Hostile(
        _replaced(PROGRAM, lambda _: b"9" * 100_000), "is not JSON"
    ),
    "an infinite number": Hostile(_replaced(PROGRAM, lambda _: b"[Infinity]"), "is not JSON"),
    "no text": Hostile(_replaced(PROGRAM, lambda _: b"\xff\xfe\xfd"), "is not JSON"),
    "no object": Hostile(_replaced(PROGRAM, lambda _: b"[]"), "[] stands where an object belongs"),
    "an object without fields": Hostile(_replaced(PROGRAM, lambda _: b"{}"), "without all of its"),
    "no weights": Hostile(_replaced(WEIGHTS, lambda _: b'{"config": {}}'), "its weights lack"),
    "an archive of too many members": Hostile(_many_members, "more members than can be listed"),
    "a member twice": Hostile(_twice, "twice in it"),
    "an encrypted member": Hostile(_directory_entry(PROGRAM, 8, b"\x01\0"), "is encrypted"),
    "an unknown compression": Hostile(_directory_entry(PROGRAM, 10, b"\x63\0"), "is damaged"),
    "a size that is not so": Hostile(_directory_entry(PROGRAM, 24, b"\x10\0\0\0"), "is damaged"),
    "a flipped bit": Hostile(_flipped, "is damaged (Bad CRC-32"),
    "the first half": Hostile(lambda _: _good()[: len(_good()) // 2], "cut short or damaged"),
    "the second half": Hostile(lambda _: _good()[len(_good()) // 2 :], "is text"),
    "a negative size": Hostile(_shape([-2, 4]), "of the shape [-2, 4], which none can have"),
    "a size beyond 64 bits": Hostile(_shape([2**63, 4]), "an integer of 64 bits belongs"),
    "more elements than 64 bits": Hostile(_shape([2**40, 2**40]), "which none can have"),
    "a stride beyond memory": Hostile(_shape([2, 2], [2**62, 2**62]), "which none can have"),
    "thousands of dimensions": Hostile(_shape([1] * 5_000), "which none can have"),
    "a text for a size": Hostile(_shape(["2", 4]), "'2' stands where an integer"),
    "a number for a name": Hostile(
        _in_graph(lambda graph, _: graph["nodes"][0].update(name=5)), "5 stands where text"
    ),
    "an unknown dtype": Hostile(
        _in_graph(lambda graph, _: graph["tensor_values"]["x"].update(dtype=99)), "99 stands where"
    ),
    "an unknown device": Hostile(
        _in_graph(lambda graph, _: graph["tensor_values"]["x"].update(device={"type": "abacus"})),
        "does not fit together (RuntimeError",
    ),
    "an argument of a new kind": Hostile(
        _in_graph(lambda graph, _: graph["nodes"][1]["inputs"][0].update(arg={"as_python": "1"})),
        "of a kind that is not known here, 'as_python'",
    ),
    "an operator that is not registered": Hostile(
        _target("torch.ops.mylib.gone.default"), "calls the operator mylib::gone.default, which is"
    ),
    "a value from nowhere": Hostile(
        _in_graph(
            lambda graph, _: graph["nodes"][1]["inputs"][0].update(
                arg={"as_tensor": {"name": "nowhere"}}
            )
        ),
        "does not fit together (KeyError",
    ),
    "an operator without inputs": Hostile(
        _in_graph(lambda graph, _: graph["nodes"][0].update(inputs=[])), "does not fit together"
    ),
    "modules a thousand deep": Hostile(
        _in_graph(
            lambda graph, _: graph["nodes"][0]["metadata"].update(
                nn_module_stack=f"a,{'a.' * 1000}a,C"
            )
        ),
        "more than 64 deep",
    ),
    "a later schema": Hostile(
        _edited(lambda program, _: program["schema_version"].update(major=9)),
        "is of version 9 of the format of programs",
    ),
    "a later archive": Hostile(_replaced("archive_version", lambda _: b"7"), "has version '7'"),
    "two programs": Hostile(
        lambda _: packed(
            {"archive_format": b"pt2", "models/encoder.json": b"", "models/decoder.json": b""}
        ),
        "holds 2 programs ('decoder', 'encoder')",
    ),
    "no program": Hostile(
        lambda _: packed({"archive_format": b"pt2", "extra/a.txt": b""}),
        "is an archive of PyTorch that holds no exported program",
    ),
}

OTHERS: dict[str, Hostile] = {
    "AOTInductor": Hostile(
        lambda _: packed({"archive_format": b"pt2", "data/aotinductor/model/a.so": b"\x7fELF"}),
        "is an AOTInductor package",
    ),
    "AOTInductor before 2.8": Hostile(
        _zipped("data/aotinductor/model/abc.cpp"), "is an AOTInductor package"
    ),
    "TorchScript": Hostile(_script, "is a TorchScript archive, written by torch.jit.save"),
    "Keras": Hostile(_zipped("config.json", "model.weights.h5"), "is a Keras model"),
    "NumPy archive": Hostile(_zipped("a.npy", "b.npy"), "is a NumPy archive of arrays"),
    "zip": Hostile(_zipped("a.txt"), "is a zip archive without an exported program"),
    "zip of a pt2": Hostile(_zipped("model.pt2"), "with a .pt2 file in it"),
    "safetensors": Hostile(_safetensors, "is a safetensors file"),
    "ONNX": Hostile(_bytes(b"\x08\x0a\x12\x07pytorch\x1a\x052.1.0:"), "is an ONNX model"),
    "GGUF": Hostile(_bytes(b"GGUF\x03\0\0\0"), "is a GGUF file"),
    "HDF5": Hostile(_bytes(b"\x89HDF\r\n\x1a\n"), "is an HDF5 file"),
    "TensorFlow Lite": Hostile(_bytes(b"\x1c\0\0\0TFL3"), "is a TensorFlow Lite model"),
    "ExecuTorch": Hostile(_bytes(b"\x1c\0\0\0ET12"), "is an ExecuTorch program"),
    "NumPy": Hostile(_bytes(b"\x93NUMPY\x01\0"), "is a NumPy array"),
    "tar": Hostile(_tar, "is a tar archive"),
    "gzip": Hostile(_bytes(b"\x1f\x8b\x08\0"), "is compressed with gzip"),
    "library": Hostile(_bytes(b"\x7fELF\x02\x01"), "is a compiled library"),
    "web page": Hostile(_bytes(b"<!DOCTYPE html><html>404"), "is a web page"),
    "Git LFS": Hostile(
        _bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "is a pointer of Git LFS",
    ),
    "JSON": Hostile(_bytes(b'{"graph_module": {}}'), "is JSON"),
    "text": Hostile(_bytes("Größe\n".encode()), "is text"),
    "empty": Hostile(_bytes(b""), "is empty"),
    "noise": Hostile(_bytes(bytes(range(128, 256))), "is of no known kind"),
}

HOSTILE = MALICIOUS | DAMAGED | OTHERS
