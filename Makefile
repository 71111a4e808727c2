PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench bench-senses bench-gpu screenshots editor clean

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: .venv/ready
	$(BIN)/python -m assembler.demo

# Bytecode is kept: otherwise each of the many processes that the tests start would compile the package anew.
TESTING := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

test: .venv/ready
	$(TESTING) $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m "not browser"
	$(TESTING) $(BIN)/python -m pytest tests/ui -m browser

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.senses

bench-senses: .venv/ready
	$(BIN)/python -m benchmarks.senses

bench-gpu: .venv/ready
	$(BIN)/python -m benchmarks.gpu

screenshots: .venv/ready
	$(BIN)/python -m tests.ui.screenshots

# The editor's bundle is committed, so that users need no node; this builds it anew.
editor:
	cd ui/frontend && npm ci --ignore-scripts && npm run check && npm test && npm run build

clean:
	rm -rf .venv build *.egg-info
