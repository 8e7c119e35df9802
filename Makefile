# Every target does its own set-up, in .venv or .venv-NAME; nothing outside the checkout is touched.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test test-all test-latest test-lowest lint types docs docs-examples wheel vendor bench others clean

demo: $(INSTALLED)  ## Count the Llama-3-8B shape, 2,048 tokens, without weights
	$(BIN)/graphflops count hf:examples/configs/llama-3-8b --seq-len 2048

test: $(INSTALLED)  ## The tests, without the slow sweeps
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(INSTALLED)  ## All tests
	$(BIN)/python -m pytest -n 2

test-latest test-lowest: test-%: .venv-%/.installed  ## The same tests on other versions
	.venv-$*/bin/python -m pytest -n 2 -m "not slow"

lint: $(INSTALLED)  ## Style and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(INSTALLED)  ## Strict types
	$(BIN)/mypy

docs: .venv/.docs  ## The site, in docs/_build; a warning is an error
	$(BIN)/python -m sphinx -b html -W --keep-going -n -q docs docs/_build

docs-examples: $(INSTALLED)  ## Write the output and the figures in README and pages again
	$(BIN)/python -m benchmarks.docs_examples --update

wheel: $(INSTALLED)  ## Build the wheel and count a model with it in an empty environment
	rm -rf dist .venv-wheel
	$(BIN)/python -m build --wheel --outdir dist
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/pip install -q -c constraints.txt dist/*.whl
	cd .ci && ../.venv-wheel/bin/python smoke_wheel.py

vendor:  ## Bundle the libraries that HTML pages draw with: pinned versions, with checksums
	cd vendor && npm ci --ignore-scripts --no-audit --no-fund && node build.mjs

bench: .venv/.bench  ## Side by side with other counters
	$(BIN)/python -m benchmarks.vs_peers

others: .venv-others/.installed  ## Models of other packages, counted and compared
	.venv-others/bin/python -m benchmarks.others --resume

clean:
	rm -rf .venv .venv-latest .venv-lowest .venv-others .venv-wheel dist build docs/_build vendor/node_modules *.egg-info

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	touch $@

# constraints-latest.txt brings CUDA: 6 GB, minutes.
.venv-%/.installed: pyproject.toml constraints-%.txt
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install -q -c constraints-$*.txt -e ".[dev]"
	touch $@

.venv/.docs: $(INSTALLED)
	$(BIN)/pip install -q -c constraints.txt -e ".[dev,docs]"
	touch $@

.venv/.bench: $(INSTALLED)
	$(BIN)/pip install -q -c constraints.txt -e ".[dev,bench]"
	touch $@

# Sees what .venv has, so that there is one torch. torchaudio's extensions want CUDA: it does without.
.venv-others/.installed: benchmarks/others/requirements.txt $(INSTALLED)
	test -x .venv-others/bin/python || $(PYTHON) -m venv --without-pip .venv-others
	echo "import site; site.addsitedir('$$($(BIN)/python -c 'import torch; print(*torch.__path__)')/..')" \
		> $$(.venv-others/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth
	$(BIN)/pip --python .venv-others/bin/python install -q --no-deps -r benchmarks/others/requirements.txt
	rm -f .venv-others/lib/python*/site-packages/torchaudio/lib/*.so
	touch $@
