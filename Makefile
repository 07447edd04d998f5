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

# DATA holds imdb_train, sst2_train and sst2_validation as Parquet with columns text, label; PEERS the peers' programs.
BENCH := runs/bench
RUN := $(BENCH)/sst2

bench: $(READY)  ## speed beside the peers and without each part of the engine; an hour, on an idle machine
	mkdir -p $(BENCH)
	$(BIN)/python benchmarks/training_speed.py $(DATA)/imdb_train.parquet --peers $(PEERS) --log $(BENCH)/speed.jsonl
	$(BIN)/python benchmarks/training_speed.py $(DATA)/sst2_train.parquet --peers $(PEERS) --log $(BENCH)/speed.jsonl \
		--rows 6400 --batch 32
	test -f $(RUN)/run.json || $(BIN)/bertlora train $(DATA)/sst2_train.parquet --sample 6400 --out $(RUN)
	$(BIN)/python benchmarks/prediction_speed.py $(RUN) $(DATA)/sst2_validation.parquet --peers $(PEERS) \
		--log $(BENCH)/speed.jsonl
	$(BIN)/python benchmarks/prediction_speed.py $(RUN) $(DATA)/imdb_train.parquet --rows 1000 --peers $(PEERS) \
		--log $(BENCH)/speed.jsonl
	$(BIN)/python benchmarks/startup.py $(RUN) --log $(BENCH)/speed.jsonl
	$(BIN)/python benchmarks/time_to_accuracy.py $(DATA)/imdb_train.parquet --rows 1000 --seeds 1 2 3
	$(BIN)/python benchmarks/time_to_accuracy.py $(DATA)/sst2_train.parquet --seeds 1 2 3 \
		--judged-file $(DATA)/sst2_validation.parquet
	$(BIN)/python benchmarks/ablation.py $(DATA)/sst2_train.parquet --rows 800 --batch 32 --targets all-linear \
		--log $(BENCH)/speed.jsonl

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) runs build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
