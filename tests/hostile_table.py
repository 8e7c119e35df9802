"""Files of strangers, each with what is said of it."""

from __future__ import annotations

import pickle

from hostile_files import (
    PROGRAM,
    WEIGHTS,
    Hostile,
    Payload,
    bomb,
    calling,
    code,
    directory_entry,
    edited,
    evil_constants,
    evil_weights,
    flipped,
    good,
    higher_order,
    in_graph,
    many_members,
    maps_a_file,
    of_bytes,
    of_many_arguments,
    older,
    packed,
    renamed,
    replaced,
    safetensors,
    scripted,
    shaped,
    sized,
    tarred,
    torch_saved,
    twice,
    unweighted,
    zipped,
)

_INJECTED = "x): pass\n{code}\ndef g(self"
_NO_ARITHMETIC = "has a size that is no arithmetic"
_NO_OPERATOR = "which is no operator of PyTorch"

MALICIOUS: dict[str, Hostile] = {
    "a pickle as sample inputs": Hostile(
        replaced("data/sample_inputs/model.pt", lambda mark: torch_saved(Payload(mark))), None
    ),
    "pickled weights": Hostile(evil_weights, None),
    "pickled constants": Hostile(evil_constants, None),
    "pickled weights, torch 2.8": Hostile(unweighted, None),
    "pickles, torch 2.7": Hostile(older, None),
    "guards that are code": Hostile(
        edited(lambda program, mark: program.update(guards_code=[code(mark)])), None
    ),
    "a pytree of any type": Hostile(
        edited(
            lambda program, mark: program["graph_module"]["module_call_graph"][0][
                "signature"
            ].update(in_spec=code(mark))
        ),
        None,
    ),
    "a verifier of any name": Hostile(
        edited(lambda program, mark: program.update(verifiers=[code(mark)])), None
    ),
    "metadata that nests": Hostile(
        in_graph(
            lambda graph, _: graph["nodes"][0]["metadata"].update(
                from_node="[" * 50_000, custom="[" * 50_000
            )
        ),
        None,
    ),
    "a member outside of the archive": Hostile(replaced("../../MARK", lambda _: b"out"), None),
    "weights that unpack to much": Hostile(
        bomb("data/weights/weight_0", b"", b"\0" * (1 << 20), 300), None
    ),
    "a state dict by torch.save": Hostile(
        lambda mark: torch_saved({"weight": Payload(mark)}), "is a pickle written by torch.save"
    ),
    "a legacy state dict": Hostile(
        lambda mark: pickle.dumps(Payload(mark), protocol=2), "is a pickle: a state dict"
    ),
    "code as a size": Hostile(sized(code), _NO_ARITHMETIC),
    "code in a size": Hostile(sized(lambda mark: f"Add(Integer(1), {code(mark)})"), _NO_ARITHMETIC),
    "code in the name of a size": Hostile(
        sized(lambda mark: f"Symbol({code(mark)!r})"), "has a size called"
    ),
    "code by attributes of a size": Hostile(
        sized("Symbol.__init__.__globals__['sys'].exit()"), _NO_ARITHMETIC
    ),
    "a keyword of a size": Hostile(sized("Add(Integer(1), evaluate=False)"), "no arithmetic"),
    "a lambda as a size": Hostile(sized("(lambda: 1)()"), _NO_ARITHMETIC),
    "a huge power": Hostile(sized("Pow(Integer(10), Integer(1000000000))"), "with the power"),
    "powers of powers": Hostile(
        sized("Pow(Pow(Integer(9), Integer(16)), Integer(16))"), "beyond 64 bits"
    ),
    "a huge shift": Hostile(sized("LShift(Integer(1), Integer(10000000000))"), "with the power"),
    "a product of sums": Hostile(
        sized("Mul(" + ", ".join(["Add(Symbol('a'), Symbol('b'), Integer(1))"] * 12) + ")"),
        "of too many terms",
    ),
    "a size with parentheses": Hostile(sized("(" * 5_000), _NO_ARITHMETIC),
    "a size with signs": Hostile(sized("-" * 16_000 + "1"), "has a size"),
    "a size longer than any": Hostile(sized("1" * 20_000), "20,000 characters"),
    "a symbol to count up to": Hostile(
        edited(
            lambda program, _: program["range_constraints"].update(
                u999999999999={"min_val": 0, "max_val": None}
            )
        ),
        "has a size called",
    ),
    "os.system": Hostile(calling("os.system", "touch MARK"), _NO_OPERATOR),
    "os.system by way of torch": Hostile(
        calling("torch.serialization.os.system", "touch MARK"), _NO_OPERATOR
    ),
    "os.system by way of a prefix": Hostile(
        calling("mathematics.os.system", "touch MARK"), _NO_OPERATOR
    ),
    "load_library": Hostile(calling("torch.ops.load_library", "MARK"), "no operator of PyTorch"),
    "import_module": Hostile(calling("torch.ops.import_module", "MARK"), "no operator of PyTorch"),
    "an attribute of an operator": Hostile(
        calling("torch.ops.aten.relu.default.__globals__", "MARK"), _NO_OPERATOR
    ),
    "torch.hub.load": Hostile(calling("torch.hub.load", "MARK", "evil"), _NO_OPERATOR),
    "operator.call": Hostile(calling("_operator.call", "MARK"), _NO_OPERATOR),
    "operator.methodcaller": Hostile(calling("_operator.methodcaller", "MARK"), _NO_OPERATOR),
    "eval": Hostile(calling("builtins.eval", "MARK"), _NO_OPERATOR),
    "an operator of an extension": Hostile(calling("#evil:op"), "an operator of an extension"),
    "a path as an operator": Hostile(calling("torch.ops../../x.y"), _NO_OPERATOR),
    "a function as an argument": Hostile(
        in_graph(
            lambda graph, _: graph["nodes"][1]["inputs"].append(
                {"name": "", "arg": {"as_operator": "os.system"}, "kind": 1}
            )
        ),
        _NO_OPERATOR,
    ),
    "code as the name of an input": Hostile(
        renamed("x", lambda mark: _INJECTED.format(code=code(mark))), "where a name belongs"
    ),
    "code as the name of a value": Hostile(
        renamed("relu", lambda mark: _INJECTED.format(code=code(mark))), "where a name belongs"
    ),
    "code as the name of an argument": Hostile(higher_order("a=CODE, b"), "where a name belongs"),
    "code as the name of a graph": Hostile(
        higher_order("flag", 'g", CODE, "'), "where a name belongs"
    ),
    "an operator that maps a file": Hostile(in_graph(maps_a_file), None, unknown=True),
}

DAMAGED: dict[str, Hostile] = {
    "a graph that unpacks to much": Hostile(
        bomb(PROGRAM, b"", b" " * (1 << 20), 300), "bytes or more in"
    ),
    "a graph of empty objects": Hostile(
        bomb(PROGRAM, b"[", b"{}," * (1 << 18), 60), "more than can be read in bounded memory"
    ),
    "a graph of short texts": Hostile(
        bomb(PROGRAM, b"[", b'"a",' * (1 << 18), 60), "more than can be read in bounded memory"
    ),
    "a call of many arguments": Hostile(of_many_arguments(1, 100_000), "a call of 100,000 arg"),
    "calls of many arguments": Hostile(of_many_arguments(8, 16_000), "does not fit together"),
    "a graph that nests": Hostile(replaced(PROGRAM, lambda _: b"[" * 400_000), "is not JSON"),
    "an integer of many digits": Hostile(
        replaced(PROGRAM, lambda _: b"9" * 100_000), "is not JSON"
    ),
    "an infinite number": Hostile(replaced(PROGRAM, lambda _: b"[Infinity]"), "is not JSON"),
    "no text": Hostile(replaced(PROGRAM, lambda _: b"\xff\xfe\xfd"), "is not JSON"),
    "no object": Hostile(replaced(PROGRAM, lambda _: b"[]"), "[] stands where an object belongs"),
    "an object without fields": Hostile(replaced(PROGRAM, lambda _: b"{}"), "without all of its"),
    "no weights": Hostile(replaced(WEIGHTS, lambda _: b'{"config": {}}'), "its weights lack"),
    "an archive of too many members": Hostile(many_members, "more members than can be listed"),
    "a member twice": Hostile(twice, "twice in it"),
    "an encrypted member": Hostile(directory_entry(PROGRAM, 8, b"\x01\0"), "is encrypted"),
    "an unknown compression": Hostile(directory_entry(PROGRAM, 10, b"\x63\0"), "is damaged"),
    "a size that is not so": Hostile(directory_entry(PROGRAM, 24, b"\x10\0\0\0"), "is damaged"),
    "a flipped bit": Hostile(flipped, "is damaged (Bad CRC-32"),
    "the first half": Hostile(lambda _: good()[: len(good()) // 2], "cut short or damaged"),
    "the second half": Hostile(lambda _: good()[len(good()) // 2 :], "is text"),
    "a negative size": Hostile(shaped([-2, 4]), "of the shape [-2, 4], which none can have"),
    "a size beyond 64 bits": Hostile(shaped([2**63, 4]), "an integer of 64 bits belongs"),
    "more elements than 64 bits": Hostile(shaped([2**40, 2**40]), "which none can have"),
    "a stride beyond memory": Hostile(shaped([2, 2], [2**62, 2**62]), "which none can have"),
    "thousands of dimensions": Hostile(shaped([1] * 5_000), "which none can have"),
    "a text for a size": Hostile(shaped(["2", 4]), "'2' stands where an integer"),
    "a number for a name": Hostile(
        in_graph(lambda graph, _: graph["nodes"][0].update(name=5)), "5 stands where text"
    ),
    "an unknown dtype": Hostile(
        in_graph(lambda graph, _: graph["tensor_values"]["x"].update(dtype=99)), "99 stands where"
    ),
    "an unknown device": Hostile(
        in_graph(lambda graph, _: graph["tensor_values"]["x"].update(device={"type": "abacus"})),
        "does not fit together (RuntimeError",
    ),
    "an argument of a new kind": Hostile(
        in_graph(lambda graph, _: graph["nodes"][1]["inputs"][0].update(arg={"as_python": "1"})),
        "of a kind that is not known here, 'as_python'",
    ),
    "an operator that is not registered": Hostile(
        calling("torch.ops.mylib.gone.default"), "calls the operator mylib::gone.default, which is"
    ),
    "a value from nowhere": Hostile(
        in_graph(
            lambda graph, _: graph["nodes"][1]["inputs"][0].update(
                arg={"as_tensor": {"name": "nowhere"}}
            )
        ),
        "does not fit together (KeyError",
    ),
    "an operator without inputs": Hostile(
        in_graph(lambda graph, _: graph["nodes"][0].update(inputs=[])), "does not fit together"
    ),
    "modules a thousand deep": Hostile(
        in_graph(
            lambda graph, _: graph["nodes"][0]["metadata"].update(
                nn_module_stack=f"a,{'a.' * 1000}a,C"
            )
        ),
        "more than 64 deep",
    ),
    "a later schema": Hostile(
        edited(lambda program, _: program["schema_version"].update(major=9)),
        "is of version 9 of the format of programs",
    ),
    "a later archive": Hostile(replaced("archive_version", lambda _: b"7"), "has version '7'"),
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
        zipped("data/aotinductor/model/abc.cpp"), "is an AOTInductor package"
    ),
    "TorchScript": Hostile(scripted, "is a TorchScript archive, written by torch.jit.save"),
    "Keras": Hostile(zipped("config.json", "model.weights.h5"), "is a Keras model"),
    "NumPy archive": Hostile(zipped("a.npy", "b.npy"), "is a NumPy archive of arrays"),
    "zip": Hostile(zipped("a.txt"), "is a zip archive without an exported program"),
    "zip of a pt2": Hostile(zipped("model.pt2"), "with a .pt2 file in it"),
    "safetensors": Hostile(safetensors, "is a safetensors file"),
    "ONNX": Hostile(of_bytes(b"\x08\x0a\x12\x07pytorch\x1a\x052.1.0:"), "is an ONNX model"),
    "GGUF": Hostile(of_bytes(b"GGUF\x03\0\0\0"), "is a GGUF file"),
    "HDF5": Hostile(of_bytes(b"\x89HDF\r\n\x1a\n"), "is an HDF5 file"),
    "TensorFlow Lite": Hostile(of_bytes(b"\x1c\0\0\0TFL3"), "is a TensorFlow Lite model"),
    "ExecuTorch": Hostile(of_bytes(b"\x1c\0\0\0ET12"), "is an ExecuTorch program"),
    "NumPy": Hostile(of_bytes(b"\x93NUMPY\x01\0"), "is a NumPy array"),
    "tar": Hostile(tarred, "is a tar archive"),
    "gzip": Hostile(of_bytes(b"\x1f\x8b\x08\0"), "is compressed with gzip"),
    "library": Hostile(of_bytes(b"\x7fELF\x02\x01"), "is a compiled library"),
    "web page": Hostile(of_bytes(b"<!DOCTYPE html><html>404"), "is a web page"),
    "Git LFS": Hostile(
        of_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "is a pointer of Git LFS",
    ),
    "JSON": Hostile(of_bytes(b'{"graph_module": {}}'), "is JSON"),
    "text": Hostile(of_bytes("Größe\n".encode()), "is text"),
    "empty": Hostile(of_bytes(b""), "is empty"),
    "noise": Hostile(of_bytes(bytes(range(128, 256))), "is of no known kind"),
}

HOSTILE = MALICIOUS | DAMAGED | OTHERS
