# Needs Python 3.11 or newer and make; everything else is installed below this folder.
#
#   make run     a whole Shouyin on this machine: servers, demo order, sandbox
#   make test    the test suite, on servers of its own
#   make check   lint, types, layering, schema

# Any of these Pythons will do; PYTHON=… chooses one.
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11 python3.14 python; do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
endif

BIN := .venv/bin
INSTALL := @$(PYTHON) -I app/local/install.py
UV := uv==0.13.9
COMPILE := .venv/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

.NOTPARALLEL:
.PHONY: help run test check bench lint types schema web browser local dev lock clean python

help:
	@sed -n 's/^#   //p' Makefile

run: local web
	@exec $(BIN)/shouyin run

test: dev web browser
	$(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS)

check: lint types schema
	$(BIN)/python -m pytest -q -n 0 tests/test_layers.py tests/test_project.py

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .

types: dev
	$(BIN)/mypy

schema: dev
	@$(BIN)/shouyin schema | diff -u schema.graphql - \
	  || { echo 'schema.graphql is not what the code says: $(BIN)/shouyin schema > schema.graphql' >&2; exit 1; }

bench: dev web
	$(BIN)/python -m tests.bench $(BENCH)

# The parts, each a matter of milliseconds when nothing changed.
local: python
	$(INSTALL) local

dev: python
	$(INSTALL) dev

web: local
	$(INSTALL) web

browser: python
	$(INSTALL) browser

python:
	@test -n '$(PYTHON)' && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo 'Python 3.11 or newer is needed; install it, or name it: make PYTHON=/path/to/python3' >&2; exit 1; }

lock: dev
	@test -x .venv/lock/bin/uv || { $(PYTHON) -m venv .venv/lock && .venv/lock/bin/pip install --quiet $(UV); }
	$(COMPILE) pyproject.toml --output-file requirements.lock
	$(COMPILE) pyproject.toml --group local --output-file requirements-local.lock
	$(COMPILE) pyproject.toml --group dev --output-file requirements-dev.lock

clean:
	rm -rf .venv app/web/built app/web/node_modules build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
