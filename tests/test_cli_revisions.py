"""``graphflops diff REVISION:FILE.py:NAME``: what the file imports is that of the revision."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template

import pytest
import yaml
from commands import Run

CI = Path(__file__).parents[1] / "examples" / "ci"

MODEL = """
import torch
from torch import nn
from sizes_of_model.width import WIDTH
def model(): return nn.Linear(4, WIDTH), (torch.zeros(3, 4),)
"""
TREE = "model.py:model"


def _git(folder: Path, *arguments: str) -> None:
    name = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")
    subprocess.run(["git", "-C", folder, *name, *arguments], check=True, capture_output=True)  # noqa: S607 - the git of the path


@pytest.fixture
def repository(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A model of widths 4 and 5 in two commits, and 8 in the working tree."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    package = tmp_path / "sizes_of_model"
    package.mkdir()
    _git(tmp_path, "init", "-q")
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / ".gitattributes").write_text("sizes_of_model export-ignore\n")
    for width in (4, 5):
        _write(package / "width.py", width)
        _git(tmp_path, "add", ".")
        _git(tmp_path, "commit", "-qm", f"width {width}")
    _write(package / "width.py", 8)
    yield run
    for name in [name for name in sys.modules if name.startswith("sizes_of_model")]:
        del sys.modules[name]


def _write(path: Path, width: int) -> None:
    path.write_text(f"WIDTH = {width}\n")


def _macs(out: str) -> Mapping[str, int]:
    macs: Mapping[str, int] = json.loads(out)["totals"]["macs"]
    return macs


# 3 rows of 4 inputs: 12 MACs for each column.
@pytest.mark.parametrize(
    ("before", "after", "widths"),
    [
        (f"HEAD~1:{TREE}", f"HEAD:{TREE}", (4, 5)),
        (f"HEAD:{TREE}", TREE, (5, 8)),
        (TREE, f"HEAD~1:{TREE}", (8, 4)),
        (f"HEAD^:{TREE}", f"HEAD~1:{TREE}", (4, 4)),
    ],
)
def test_revisions_and_the_working_tree(
    repository: Run, before: str, after: str, widths: tuple[int, int]
) -> None:
    path, folder = list(sys.path), Path.cwd()
    code, out, err = repository("diff", before, after, "--format", "json")
    assert (code, err) == (0, "")
    macs = _macs(out)
    assert (macs["before"], macs["after"]) == (12 * widths[0], 12 * widths[1])
    assert json.loads(out)["before"]["model"] == before
    assert (sys.path, Path.cwd()) == (path, folder)
    imported = getattr(sys.modules.get("sizes_of_model.width"), "WIDTH", 8)
    assert imported == 8


def test_a_revision_leaves_repository_and_folders_alone(repository: Run, tmp_path: Path) -> None:
    index = (tmp_path / ".git" / "index").read_bytes()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(temporary))
        assert repository("check", f"HEAD:{TREE}", "--budget", "b.toml")[0] == 2
        (tmp_path / "b.toml").write_text('["HEAD:model.py:model"]\nmacs = 60\n')
        code, out, _ = repository("check", f"HEAD:{TREE}", "--budget", "b.toml")
    assert code == 0
    assert out.startswith("HEAD:model.py:model: 1 limit, all kept")
    assert list(temporary.iterdir()) == []
    assert (tmp_path / ".git" / "index").read_bytes() == index


def test_the_workflow_compares_with_the_base(
    repository: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = yaml.safe_load((CI / "costs.yml").read_text())["jobs"]["costs"]["steps"]
    shutil.copy(CI / "budgets.toml", tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    codes = []
    for command in (step.get("run", "") for step in steps):
        words = shlex.split(Template(command).safe_substitute(MODEL=TREE, BASE="HEAD"))
        if words[:3] == ["python", "-m", "graphflops"]:
            codes.append(repository(*words[3:])[0])
    assert codes == [1, 0]  # 8 columns after 5; no call is unsupported
    summary = (tmp_path / "summary.md").read_text()
    assert "HEAD:model.py:model -\\> model.py:model: forward pass" in summary
    assert "model.py:model: 1 limit, all kept" in summary


def test_paths_are_relative_to_the_working_directory(
    repository: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "sizes_of_model")
    for path in ("../model.py", str(tmp_path / "model.py")):
        code, out, err = repository(
            "diff", f"HEAD~1:{path}:model", f"{path}:model", "--format", "json"
        )
        assert (code, err) == (0, "")
        assert _macs(out)["difference"] == 12 * 4


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere:model.py:model", "git knows no revision 'nowhere'. Give a branch, a tag or"),
        ("--help:model.py:model", "git knows no revision '--help'."),
        ("HEAD:other.py:model", "revision 'HEAD' has no other.py. Give a path in it, relative"),
        ("HEAD:model.py", "Name what gives the model: HEAD:model.py:model."),
        ("HEAD:model.py:other", "HEAD:model.py has no 'other'."),
    ],
)
def test_what_is_not_there_is_one_sentence(
    repository: Run, tmp_path: Path, name: str, sentence: str
) -> None:
    for names in ((name, TREE), (TREE, name)):
        code, out, err = repository("diff", "--", *names)
        assert (code, out) == (2, "")
        assert sentence in err
        assert err.startswith("graphflops: ")
        assert err.count("\n") == 1
        assert str(tmp_path) not in err


def test_a_file_that_only_the_working_tree_has(repository: Run, tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text(MODEL)
    code, _, err = repository("diff", "HEAD:new.py:model", "new.py:model")
    assert code == 2
    assert "HEAD:new.py:model: revision 'HEAD' has no new.py." in err


def test_no_repository_and_no_git(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = run("diff", f"HEAD:{TREE}", f"HEAD:{TREE}")
    assert code == 2
    assert "git cannot read it: not a git repository" in err
    monkeypatch.setenv("PATH", "")
    code, _, err = run("diff", f"HEAD:{TREE}", TREE)
    assert code == 2
    assert "git is not installed. Install it." in err
