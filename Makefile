# servingd: `make help` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PINS := .ci/constraints.txt
STAMP := $(VENV)/.installed
ACCELERATOR ?= cpu
PORT ?= 8500
ARGS ?=
PIP := $(BIN)/python -m pip install --disable-pip-version-check $(if $(CI),--quiet,)

.DEFAULT_GOAL := help
.PHONY: help hooks install run test soak check lint types imports unit bench protos demo models docs docs-test format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## make .venv with everything that running, testing and developing needs

$(STAMP): pyproject.toml $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "servingd needs Python 3.11 or newer as '$(PYTHON)'; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "this Python has no venv; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "[1/4] making the environment $(VENV) (minutes, the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "[2/4] installing servingd, TensorFlow, and what tests need: about 2 GB"
	@$(PIP) -c $(PINS) -e '.[$(ACCELERATOR),models,dev,docs]'
	@echo "[3/4] installing TensorFlow Serving's stubs, as clients have them"
	@# Without their TensorFlow, which is here already.
	@$(PIP) --no-deps tensorflow-serving-api==2.21.0
	@$(PIP) --no-deps --upgrade \
		--target $(VENV)/tensorflow-serving-api-2.16 tensorflow-serving-api==2.16.1
	@echo "[4/4] installing what ordinary models are made with"
	@# It asks for a TensorFlow of its own, and for tokenizers' data.
	@$(PIP) --no-deps -c $(PINS) \
		tf-keras tensorflow-recommenders keras-hub regex tokenizers
	@touch $@

run: install demo ## serve models/; PORT=8500 (gRPC; HTTP at the next one), ARGS='--flags'
	$(BIN)/servingd serve models --port=$(PORT) --rest_api_port=$$(($(PORT) + 1)) $(ARGS)

demo: install ## make the demo models that are missing
	@$(BIN)/python models/make_demo_models.py

test: install ## the whole test suite
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadscope --no-loadscope-reorder

soak: install ## the long forms of tests that the suite runs short: an hour or more
	SERVINGD_TEST_KILLS=100 SERVINGD_FUZZ=1000000 SERVINGD_TEST_RANDOM_GRAPHS=600 \
	SERVINGD_TEST_STREAMS=10000 \
		$(BIN)/python -m pytest --timeout=7200 tests/e2e/test_workers.py tests/e2e/test_fuzz.py \
		tests/e2e/test_streaming.py tests/tensorflow/test_row_values.py

unit: install ## the pure tests
	$(BIN)/python -m pytest -q -n auto --maxprocesses=4 tests/unit

check: lint types imports fresh unit ## what must pass before a commit

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports --no-logo

.PHONY: fresh
fresh: install
	$(BIN)/python -m servingd.wire.protos.compile --check

hooks: ## let git run `make check` before each commit
	git config core.hooksPath .ci/hooks

format: install ## let ruff lay out the code
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

protos: install ## compile protos/ into servingd/wire/protos
	$(BIN)/python -m servingd.wire.protos.compile

models: install ## check the ordinary models: minutes
	$(BIN)/python -m tests.ordinary

docs: install ## build the guides into build/site
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/mkdocs.yml

docs-test: install ## run what the guides show
	$(BIN)/python -m pytest -q tests/docs

bench: install ## the project's own benchmarks; nothing else may run meanwhile
	$(BIN)/python -m tests.bench

clean: ## remove the environment and everything that was generated here
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
