"""How files are made that do harm, that are damaged, or that are something else."""

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
def good() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(Model(), (torch.zeros(2, 4),)), buffer)
    return buffer.getvalue()


def members() -> Members:
    """The members of a file that is well, by name below its folder."""
    with zipfile.ZipFile(io.BytesIO(good())) as archive:
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


def torch_saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def edited(edit: Callable[[Json, Path], None], name: str = PROGRAM) -> Callable[[Path], bytes]:
    def make(mark: Path) -> bytes:
        found = members()
        content = json.loads(found[name])
        edit(content, mark)
        return packed(found | {name: json.dumps(content).encode()})

    return make


def in_graph(edit: Callable[[Json, Path], None]) -> Callable[[Path], bytes]:
    return edited(lambda program, mark: edit(program["graph_module"]["graph"], mark))


def replaced(name: str, data: Callable[[Path], bytes]) -> Callable[[Path], bytes]:
    return lambda mark: packed(members() | {name: data(mark)})


def renamed(old: str, new: Callable[[Path], str]) -> Callable[[Path], bytes]:
    """A name in the graph replaced wherever it stands."""

    def make(mark: Path) -> bytes:
        found = members()
        text = found[PROGRAM].decode()
        assert json.dumps(old) in text
        changed = text.replace(json.dumps(old), json.dumps(new(mark)))
        return packed(found | {PROGRAM: changed.encode()})

    return make


def code(mark: Path) -> str:
    return f"__import__('os').system(\"touch '{mark}'\")"


def calling(name: str, *arguments: Any) -> Callable[[Path], bytes]:
    """The relu replaced by a call of a function, with texts as arguments."""

    def edit(graph: Json, mark: Path) -> None:
        node = graph["nodes"][1]
        node["target"] = name
        texts = [str(argument).replace("MARK", str(mark)) for argument in arguments]
        if texts:
            node["inputs"] = [{"name": "", "arg": {"as_string": text}, "kind": 1} for text in texts]

    return in_graph(edit)


def sized(expression: Any) -> Callable[[Path], bytes]:
    """A size of the input replaced by an expression."""

    def edit(graph: Json, mark: Path) -> None:
        written = expression(mark) if callable(expression) else expression
        size = {"as_expr": {"expr_str": written, "hint": {"as_int": 2}}}
        graph["tensor_values"]["x"]["sizes"][0] = size

    return in_graph(edit)


def shaped(sizes: list[Any], strides: list[Any] | None = None) -> Callable[[Path], bytes]:
    def edit(graph: Json, _: Path) -> None:
        meta = graph["tensor_values"]["x"]
        meta["sizes"] = [{"as_int": size} for size in sizes]
        meta["strides"] = [{"as_int": stride} for stride in strides or [1] * len(sizes)]

    return in_graph(edit)


def higher_order(name: str, graph_name: str = "body") -> Callable[[Path], bytes]:
    """The relu replaced by a higher-order call of a graph, with an argument of some name."""

    def edit(graph: Json, mark: Path) -> None:
        body = {
            **graph,
            "nodes": [],
            "tensor_values": {},
            "inputs": [],
            "outputs": [],
        }
        text = graph_name.replace("CODE", code(mark))
        graph["nodes"][1]["target"] = "torch.ops.higher_order.wrap"
        graph["nodes"][1]["inputs"] = [
            {"name": "", "arg": {"as_graph": {"name": text, "graph": body}}, "kind": 1},
            {"name": name.replace("CODE", code(mark)), "arg": {"as_int": 1}, "kind": 2},
        ]

    return in_graph(edit)


def pickled_weights(config: Json, _: Path) -> None:
    for held in config["config"].values():
        held["use_pickle"] = True


def evil_weights(mark: Path) -> bytes:
    found = members()
    config = json.loads(found[WEIGHTS])
    pickled_weights(config, mark)
    evil = {name: torch_saved(Payload(mark)) for name in found if "weights/weight_" in name}
    return packed(found | evil | {WEIGHTS: json.dumps(config).encode()})


def evil_constants(mark: Path) -> bytes:
    config = {"c": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}}
    evil = {
        "data/constants/model_constants_config.json": json.dumps({"config": config}).encode(),
        "data/constants/opaque_obj_0": pickle.dumps(Payload(mark)),
    }
    return packed(members() | evil)


def older(mark: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("version", "8.2")
        archive.writestr("serialized_exported_program.json", members()[PROGRAM])
        for name in ("state_dict", "constants", "example_inputs"):
            archive.writestr(f"serialized_{name}.pt", torch_saved(Payload(mark)))
    return buffer.getvalue()


def unweighted(mark: Path) -> bytes:
    found = members()
    del found[WEIGHTS]
    return packed(found | {"data/weights/model.pt": torch_saved(Payload(mark))})


def bomb(name: str, start: bytes, block: bytes, times: int) -> Callable[[Path], bytes]:
    """A member that unpacks to many blocks."""

    def make(_: Path) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for each, data in members().items():
                if each != name:
                    archive.writestr(f"archive/{each}", data)
            with archive.open(f"archive/{name}", "w", force_zip64=True) as member:
                member.write(start)
                for _block in range(times):
                    member.write(block)
        return buffer.getvalue()

    return make


def many_members(_: Path) -> bytes:
    buffer = io.BytesIO(good())
    with zipfile.ZipFile(buffer, "a") as archive:
        for number in range(20_000):
            archive.writestr(f"archive/extra/{'x' * 200}{number}", b"")
    return buffer.getvalue()


def twice(_: Path) -> bytes:
    buffer = io.BytesIO(packed(members()))
    with zipfile.ZipFile(buffer, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(f"archive/{PROGRAM}", members()[PROGRAM])
    return buffer.getvalue()


def directory_entry(name: str, at: int, change: bytes) -> Callable[[Path], bytes]:
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


def flipped(_: Path) -> bytes:
    data = bytearray(packed(members()))
    data[data.index(b'"graph_module"') + 2] ^= 1
    return bytes(data)


def zipped(*names: str) -> Callable[[Path], bytes]:
    def make(_: Path) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name in names:
                archive.writestr(name, b"content")
        return buffer.getvalue()

    return make


def scripted(_: Path) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(4, 3)), buffer)
    return buffer.getvalue()


def tarred(_: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pt2"))
    return buffer.getvalue()


def safetensors(_: Path) -> bytes:
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return struct.pack("<Q", len(header)) + header + b"\0" * 4


def of_bytes(data: bytes) -> Callable[[Path], bytes]:
    return lambda _: data


def of_many_arguments(calls: int, arguments: int) -> Callable[[Path], bytes]:
    """Calls of one operator, each with as many empty lists for arguments."""

    def edit(graph: Json, _: Path) -> None:
        argument = {"name": "", "arg": {"as_tensors": []}}
        call = {**graph["nodes"][1], "inputs": [argument] * arguments}
        graph["nodes"][1:1] = [call] * calls

    return in_graph(edit)


def maps_a_file(graph: Json, mark: Path) -> None:
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
