"""Whatever a user gets wrong is answered in a sentence: no traceback, exit code 2, no output."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commands import Run

MANY = """
import sys
import torch
from torch import nn

class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
    def forward(self, x):
        return self.linear(x)

class Needs(nn.Module):
    def __init__(self, width): super().__init__()

def tensor(): return Tiny(), torch.zeros(3, 4)
def as_list(): return Tiny(), [torch.zeros(3, 4)]
def four(): return Tiny(), 1, 2, 3
def number(): return Tiny(), 3
def exits(): sys.exit(3)
def recurses(): return recurses()
def memory(): raise MemoryError
def interrupted(): raise KeyboardInterrupt
def fails():
    return nn.Linear("x", 3)
def needs(width): return Tiny()
def colourful(): raise ValueError("first\\nsecond\\x1b[31m")
def empty(): return ()
class Interrupts(Tiny):
    def forward(self, x): raise KeyboardInterrupt
def late(): return Interrupts(), torch.zeros(3, 4)
instance = Tiny()
value = 3
_hidden = Tiny
"""
FILES = {
    "many.py": MANY,
    "exits.py": "import sys\nsys.exit('bye')\n",
    "syntax.py": "x = 1\ndef x(:\n",
    "raises.py": "import json\n\njson.loads('{')\n",
    "nothing.py": "x = 1\n",
    "json.py": "import torch\ndef make(): return torch.nn.ReLU(), torch.zeros(2)\n",
    "deep.json": "[" * 100_000 + "]" * 100_000,
    "types.json": '{"model_type": ["bert"]}',
    "names.json": '{"model_type": "bert", "architectures": 3}',
    "name.json": '{"model_type": "bert", "architectures": [3]}',
    "code.json": '{"model_type": "nope", "auto_map": [1]}',
    "text.json": '{"model_type": "bert", "hidden_size": "abc"}',
    "negative.json": '{"model_type": "bert", "hidden_size": -8}',
    "null.json": '{"model_type": null, "auto_map": null}',
    "number.json": "3",
}


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\n")
    (tmp_path / "latin.json").write_bytes(b'{"model_type": "b\xe9rt"}')
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(10**10)
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "folder" / "config.json").mkdir(parents=True)


CHOICES = (
    "Name what gives the model: many.py:Tiny, many.py:tensor, many.py:as_list, many.py:four, "
    "many.py:number, many.py:exits, many.py:recurses, many.py:memory, many.py:interrupted, "
    "many.py:fails, many.py:colourful, many.py:empty, many.py:Interrupts, many.py:late, "
    "many.py:instance."
)
FAILS = "fails when called without arguments: "
REFUSED = {
    # arguments: what the sentence says
    "count many.py": f"many.py is a file of Python code. {CHOICES}",
    "count many.py:": CHOICES,
    "count many.py:zzzzzz": f"many.py has no 'zzzzzz'. {CHOICES}",
    "count many.py:Tny": "many.py has no 'Tny'. Did you mean Tiny?",
    "count many.py:Needs": f"{FAILS}TypeError: Needs.__init__() missing 1 required",
    "count many.py:needs": f"{FAILS}TypeError: needs() missing 1 required positional argument",
    "count many.py:four": "many.py:four gives 4 values, not a model.",
    "count many.py:number": "gives a model with inputs, but args is of type int. Give a tuple",
    "count many.py:exits": f"{FAILS}SystemExit: 3 (at many.py:20).",
    "count many.py:recurses": f"{FAILS}RecursionError: maximum recursion depth exceeded",
    "count many.py:memory": f"{FAILS}MemoryError: no message (at many.py:22).",
    "count many.py:fails": "(at many.py:25). Give a function that builds the model by itself.",
    "count many.py:colourful": f"{FAILS}ValueError: first (at many.py:27).",
    "count many.py:empty": "many.py:empty gives a tuple, not a model.",
    "count many.py:value": "many.py:value gives a int, not a model.",
    "count exits.py:x": "exits.py cannot be imported: SystemExit: bye (at exits.py:2).",
    "count syntax.py:x": "syntax.py cannot be imported: SyntaxError: invalid syntax (syntax.py, l",
    "count raises.py:x": "(at raises.py:3). Correct it, or run where its imports work.",
    "count raises.py": "raises.py cannot be imported: JSONDecodeError: Expecting property name",
    "count nothing.py": "Nothing in it gives a model by itself: add a function without parameters",
    "count nothing.py:y": "nothing.py has no 'y'. Known: x.",
    "count bytes.py:x": "bytes.py cannot be imported: SyntaxError: (unicode error)",
    "count folder.py:x": "folder.py is no file. Give the path of a Python file: FILE.py:NAME.",
    "count missing.py": "missing.py does not exist. Give the path of a Python file: FILE.py:NAME.",
    "count :x": "':x' names nothing in Python. Write FILE.py:NAME or MODULE:NAME.",
    "count :": "':' names nothing in Python. Write FILE.py:NAME or MODULE:NAME.",
    "count hff:bert": "No module named 'hff'. Give a module that is installed, FILE.py:NAME, or hf:",
    "count hf:deep.json": "deep.json cannot be read: it is nested too deeply. Give a transformers",
    "count hf:latin.json": "latin.json is not JSON: 'utf-8' codec can't decode byte 0xe9",
    "count hf:types.json": "types.json: 'model_type' is ['bert'], not a name.",
    "count hf:names.json": "names.json: 'architectures' is 3, not a list of names.",
    "count hf:name.json": "transformers cannot build 'bert' from this config: attribute name must",
    "count hf:code.json": "code.json: 'auto_map' is [1], not an object.",
    "count hf:code.json --trust-remote-code": "code.json: 'auto_map' is [1], not an object.",
    "count hf:text.json": "'hidden_size' expected int, got str (value: 'abc'). Correct the config",
    "count hf:negative.json": "negative dimension -8: [30522, -8]. Correct the config or --set.",
    "count hf:null.json": "the config null.json has no 'model_type'.",
    "count hf:number.json": "number.json holds no JSON object.",
    "count hf:huge.json": "huge.json has 10,000,000,000 bytes, too many for a config.",
    "count hf:folder": "folder/config.json is a folder. Give a transformers config.json.",
    "count hf:": "config.json does not exist. Give a config.json, its folder, or a model type",
    "count timm:": "has no model ''.",
    "count many.py:tensor --dtype xyz": "'xyz' is not a dtype. Known: float32, float64, float16, ",
    "count many.py:tensor --dtype bfloat": "'bfloat' is not a dtype. Did you mean float, bfloat16, ",
    "count many.py:tensor --dtype nn": "'nn' is not a dtype. Known: float32",
    "count many.py:tensor --dtype int8": "--dtype int8 is not a floating-point type. Try float32",
    "count hf:bert --set hidden_size=": "expected int, got str (value: ''). Correct the config",
    "count hf:bert --set hidden_size=1e400": "expected int, got float (value: inf). Correct",
    f"count hf:bert --set hidden_size={'[' * 100_000}": "expected int, got str",
    "count many.py:tensor --input x=": "--input 'x=' is not NAME=SHAPE[:DTYPE].",
    "count many.py:tensor --input =3x4": "--input '=3x4' is not NAME=SHAPE[:DTYPE].",
    "count many.py:tensor --input x=-1x4": "--input 'x=-1x4' is not NAME=SHAPE[:DTYPE].",
    "count many.py:tensor --input x=3x4:nope": "'nope' is not a dtype. Known: ",
    "explain many.py:tensor 99": "Tiny makes no call '99'. See graphflops ops.",
    "train many.py:tensor --loss nothing.py:x": "loss is of type int, no function.",
    "train many.py:tensor --loss zzz": "'zzz' names nothing in Python.",
    "train many.py:tensor --optimizer adamm": "'adamm' is no optimizer known here. Did you mean",
    "train many.py:tensor --step-time 0": "is no measurement. Give seconds and a rate above 0.",
    "train many.py:tensor --step-time 1 --accelerator z": "'z' is no device known here. Known",
    "train many.py:tensor --freeze zzz": "--freeze 'zzz' matches no parameter of Tiny.",
    "generate many.py:tensor --new-tokens 3": "Tiny cannot generate: it has no head",
    "models [": "no known model name matches '['.",
    "count we\x1b[31mird": r"'we\x1b[31mird' is no model name.",
    "count we\nird.py:x": "we ird.py does not exist.",
}


@pytest.mark.parametrize("line", REFUSED, ids=lambda line: ascii(line)[:60])
def test_what_is_wrong_is_said_in_a_sentence(run: Run, tmp_path: Path, line: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(*line.split(" "))
    assert (code, out) == (2, "")
    assert REFUSED[line] in err
    assert err.startswith("graphflops: ")
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    assert "Traceback" not in err
    assert err.rstrip().endswith((".", "?"))
    assert [
        path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in str(path)
    ] == before


@pytest.mark.parametrize(
    "line",
    [
        "count many.py:tensor --depth -1",
        "count many.py:tensor --batch-size 0",
        "count many.py:tensor --batch-size 1.5",
        "count many.py:tensor --audio-seconds nan",
        "count many.py:tensor --audio-seconds inf",
        "count many.py:tensor --symbolic",
        "count many.py:tensor --set =3",
        "count many.py:tensor extra",
        "explain many.py:tensor -1",
        "ops many.py:tensor --top 0",
        "train many.py:tensor --steps 1.5",
        "train many.py:tensor --steps 0",
        "train many.py:tensor --step-time nan",
        "train many.py:tensor --step-time inf",
        "generate hf:gpt2 --new-tokens 0",
        "generate hf:gpt2",
        "count --convention",
    ],
)
def test_wrong_usage_is_shown_with_the_usage(run: Run, line: str) -> None:
    code, out, err = run(*line.split(" "))
    assert (code, out) == (2, "")
    assert "Usage: graphflops" in err or "requires an argument" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["interrupted", "late"])
def test_who_interrupts_it_gets_no_traceback(run: Run, name: str) -> None:
    assert run("count", f"many.py:{name}") == (130, "", "")


@pytest.mark.parametrize("name", ["tensor", "as_list"])
def test_inputs_as_people_give_them(run: Run, name: str) -> None:
    code, out, err = run("count", f"many.py:{name}", "--format", "json")
    assert (code, err) == (0, "")
    assert json.loads(out)["totals"]["macs"] == 3 * 4 * 2


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        *(("bf16", "bfloat16"), ("fp16", "float16"), ("half", "float16"), ("f16", "float16")),
        *(("fp32", "float32"), ("float", "float32"), ("F32", "float32"), ("double", "float64")),
        *(("torch.bfloat16", "bfloat16"), ("float64", "float64"), ("BFloat16", "bfloat16")),
    ],
)
def test_dtypes_by_the_names_people_have_for_them(run: Run, given: str, dtype: str) -> None:
    code, out, _ = run("count", "many.py:tensor", "--dtype", given, "--format", "json")
    assert code == 0
    assert json.loads(out)["model"]["inputs"]["x"]["dtype"] == dtype


def test_a_file_may_be_called_as_a_module_is(run: Run) -> None:
    code, out, err = run("count", "json.py:make")
    assert (code, err) == (0, "")
    assert "2 FLOPs" in out
    assert json.loads("3") == 3


def test_all_sentences_end_before_advice(run: Run) -> None:
    _, _, err = run("count", "hf:bert", "--set", "hidden_size=7")
    assert re.search(r"\w\)?\. Correct the config or --set\.\n$", err)
