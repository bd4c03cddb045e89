# make demo   find the wrong labels in the embedded demo data: the quickest way to see a result
# make test   lint, types, documentation and all tests that must pass before a change is merged
# make unit   of these the tests that take two minutes; lint, docs, browser, one-process and on-ray are the other parts
# make docs   README, guides and docstrings as one site, in build/docs
# make bench  the benchmarks at small sizes, as JSON; larger sizes by options, see jobs/bench_*.py
# make slow   tests of rarer faults, untrusted input, and the documented commands that train often
# make soak   runs whose processes are killed 30 times at random (KILLS=8 SEED=7: fewer, at other moments); half an hour
# Another interpreter: make demo PYTHON=python3.12
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# pip compiles modules with one CPU only; what does not compile is for another Python, and pip says nothing of it either.
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib dynacor_ray || true
SOURCES := pyproject.toml constraints.txt

# Where this is set, every process of a test compiles the whole package for itself.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test lint docs unit browser one-process on-ray bench soak venv slow
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# //p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Expected Python 3.11, 3.12 or 3.13, but got $$($(PYTHON) --version 2>&1) from '$(PYTHON)';" \
	       "name another one, for example: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# What a run needs. The stamp is newer than the files that say what to install.
$(VENV)/.installed: $(SOURCES) | $(BIN)/python
	@echo "Installing into $(VENV): 6.6 GB. The first time this takes 5 to 10 minutes, in which pip says nothing ..."
	$(PIP) -e '.[encoders]'
	@$(COMPILE)
	@touch $@

# What a developer needs, in one go.
$(VENV)/.installed-dev: $(SOURCES) | $(BIN)/python
	@echo "Installing into $(VENV), with all that tests need. The first time this takes 5 to 10 minutes, silently ..."
	$(PIP) -e '.[encoders,dev]'
	@$(COMPILE)
	@touch $(VENV)/.installed $@

venv: $(VENV)/.installed-dev

demo: $(VENV)/.installed
	$(BIN)/dynacor detect --data demo --out runs/demo

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: venv
	$(BIN)/python .ci/docs.py build/docs

PYTEST := $(BIN)/pytest --durations=10
ON_ALL_CPUS := -n logical --dist loadfile

unit: venv
	$(PYTEST) $(ON_ALL_CPUS)  # tests/unit, and the examples in docstrings

browser: venv
	$(PYTEST) tests/browser  # the report; skipped where there is no chromium

one-process: venv
	$(PYTEST) $(ON_ALL_CPUS) tests/engine -m "not slow and not ray"

# One after the other: of two clusters on a machine one would wait, and take no jobs.
on-ray: venv
	$(PYTEST) tests/engine -m "not slow and ray"
	$(PYTEST) tests/jobs -m "not slow"

# Two parts at a time: types have use for one CPU only, and a cluster that starts for hardly more. Each is told of when
# it has ended, where make can do that.
AT_ONCE := --jobs 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync)
test: venv
	$(MAKE) $(AT_ONCE) on-ray lint docs unit browser one-process

slow: venv
	$(PYTEST) tests/engine -m slow
	$(PYTEST) tests/jobs -m slow

SEED ?= 0
KILLS ?= 30
soak: venv
	$(BIN)/pytest tests/soak --seed $(SEED) --kills $(KILLS) -s

bench: venv
	@for script in jobs/bench_*.py; do echo "== $$script" >&2; $(BIN)/python "$$script" || exit 1; done
