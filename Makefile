# One virtual environment in the checkout, rebuilt only when pyproject.toml or this file changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BACKENDS ?= tensorflow jax torch
WORKERS ?= 2

.PHONY: demo test lint format clean install

demo: $(STAMP)
	KERAS_BACKEND=tensorflow $(BIN)/keras-mot demo

test: lint
	$(BIN)/python tests/run_backends.py --workers $(WORKERS) $(BACKENDS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(STAMP)

$(STAMP): pyproject.toml Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable ".[test,all]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
