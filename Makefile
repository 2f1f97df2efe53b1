# One virtual environment in the checkout, rebuilt only when pyproject.toml or this file changes. On Windows, run it in a
# shell that has `rm` and `touch`, such as Git Bash.
ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := .venv/Scripts
else
PYTHON ?= python3
BIN := .venv/bin
endif
VENV := .venv
STAMP := $(VENV)/.installed
BACKENDS ?= tensorflow jax torch
# Jobs of the suite that run at once; by default as many as there are cores, and memory for.
WORKERS ?= 0
# Another command that `make test` runs as one of its jobs.
ALSO ?=
VERSIONS ?= lowest newest
# The release that the suite runs with, and not a newer one that may come with gigabytes for GPUs.
TORCH := torch==2.13.0
# Errors only: warnings are of the machine's configuration of pip, or of packages' own making.
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check
CHECK_PYTHON := import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit( \
	"Python %d.%d cannot hold all backends: TensorFlow has wheels for 3.11 to 3.13. Set one: make PYTHON=python3.12" % v)

.PHONY: demo test smoke docs notebooks results lint format clean install

demo: $(STAMP)
	KERAS_BACKEND=tensorflow $(BIN)/keras-mot demo

test: lint
	$(BIN)/python tests/run_backends.py --workers $(WORKERS) --also "$(ALSO)" $(BACKENDS)

# Everything once with the lowest and the newest versions that pyproject.toml allows, and the suite's main part with the
# lowest. PYTHON may be another interpreter.
smoke: $(STAMP)
	$(BIN)/python tests/versions/run.py --python $(PYTHON) --backends $(BACKENDS) --pin $(TORCH) -- $(VERSIONS)

# The site of the documentation, in `site/`; warnings are errors.
docs: $(STAMP)
	$(BIN)/python -m mkdocs build --strict

# Each example as a notebook, in `build/notebooks`; the site has them, too.
notebooks: $(STAMP)
	$(BIN)/python docs/notebooks.py

# Every benchmark that has no result yet, and benchmarks/RESULTS.md; `make results ARGUMENTS=--quick` for short runs.
results: $(STAMP)
	$(BIN)/python benchmarks/run_all.py $(ARGUMENTS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(STAMP)

$(STAMP): pyproject.toml Makefile
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	@echo "Installing keras-mot and all backends into $(VENV), which takes some minutes."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip
	$(PIP) install $(TORCH)
	$(PIP) install --editable ".[test]"
	touch $@

clean:
	rm -rf .venv .venv-lowest .venv-newest build dist site *.egg-info
