# make demo and make test set themselves up: .venv, with the versions in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check lint bench clean

demo: $(READY)  ## the whole story on the embedded reviews
	$(BIN)/bertlora demo --out runs/demo --overwrite

test: $(READY)  ## every test
	$(BIN)/pytest

check: lint test  ## all that must hold before a commit

lint: $(READY)  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## accuracy beside transformers' Trainer; DATA is a Parquet file with columns text and label
	$(BIN)/python benchmarks/parity_with_trainer.py $(DATA)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) runs build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
