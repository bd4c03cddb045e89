# make demo   find the wrong labels in the embedded demo data: the quickest way to see a result
# make test   lint, types, documentation and all tests that must pass before a change is merged
# make docs   README, guides and docstrings as one site, in build/docs
# make bench  the benchmarks at small sizes, as JSON; larger sizes by options, see jobs/bench_*.py
# make slow   tests of rarer faults, untrusted input, and the documented commands that train often
# make soak   a run whose processes are killed ten times at random (SEED=7: at other moments); some minutes
# Another interpreter: make demo PYTHON=python3.12
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# pip compiles modules with one CPU only; what does not compile is for another Python, and pip says nothing of it either.
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
SOURCES := pyproject.toml constraints.txt

.PHONY: help demo test lint docs bench soak venv slow
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
	@echo "Installing into $(VENV); the first time this takes some minutes ..."
	$(PIP) -e '.[encoders]'
	@$(COMPILE)
	@touch $@

# What a developer needs, in one go.
$(VENV)/.installed-dev: $(SOURCES) | $(BIN)/python
	@echo "Installing into $(VENV), with all that tests need; the first time this takes some minutes ..."
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

test: venv
	$(MAKE) --jobs 2 lint docs  # mypy has use for one CPU only
	$(PYTEST) $(ON_ALL_CPUS)  # tests/unit, and the examples in docstrings
	$(PYTEST) tests/browser  # the report; skipped where there is no chromium
	$(PYTEST) $(ON_ALL_CPUS) tests/engine -m "not slow and not ray"
	$(PYTEST) tests/engine -m "not slow and ray"  # apart: clusters side by side would wait for one another
	$(PYTEST) tests/jobs -m "not slow"  # apart: a second cluster on the same machine could not take jobs

slow: venv
	$(PYTEST) tests/engine -m slow
	$(PYTEST) tests/jobs -m slow

SEED ?= 0
soak: venv
	$(BIN)/pytest tests/soak --seed $(SEED) -s

bench: venv
	@for script in jobs/bench_*.py; do echo "== $$script" >&2; $(BIN)/python "$$script" || exit 1; done
