# `make help` lists the targets. Everything is installed by the targets themselves.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

export PLAN2_CACHE ?= $(HOME)/.cache/plan2
export UV_PYTHON_DOWNLOADS ?= never
UV_VERSION := 0.13.9
UV := $(PLAN2_CACHE)/uv-$(UV_VERSION)/bin/uv
SYSTEM_PYTHON ?= python3
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m coverage run -m pytest

include tests/cluster/cluster.mk
include tests/images/images.mk
include tests/clients/clients.mk
include tests/bench/bench.mk

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/:.*## /\t/' | expand -t 20

$(UV):
	@echo "installing uv $(UV_VERSION) into $(PLAN2_CACHE)" >&2
	@$(SYSTEM_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Plan2 needs Python 3.11 or newer; $(SYSTEM_PYTHON) is $$($(SYSTEM_PYTHON) -V 2>&1). Set SYSTEM_PYTHON." >&2; exit 1; }
	@$(SYSTEM_PYTHON) -m venv $(PLAN2_CACHE)/uv-$(UV_VERSION) || { echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PLAN2_CACHE)/uv-$(UV_VERSION)/bin/python -m pip install --quiet uv==$(UV_VERSION)

.venv/.synced: pyproject.toml uv.lock | $(UV)
	@$(UV) sync --quiet --locked --all-extras --python $(SYSTEM_PYTHON)
	@touch $@

.PHONY: setup
setup: .venv/.synced ## Make .venv with exactly the locked packages

.PHONY: demo
demo: setup ## The main job: cluster, chart, six databases, a service that uses them
	@$(PYTHON) tests/e2e/demo.py up

.PHONY: demo-down
demo-down: setup ## Take the demo down and the cluster with it
	@$(PYTHON) tests/e2e/demo.py down

.PHONY: test
test: setup ## Everything the gate checks
	@$(PYTHON) -m coverage erase
	@$(MAKE) --no-print-directory lint unit conformance clients examples cluster-tests e2e
	@$(MAKE) --no-print-directory coverage

.PHONY: lint
lint: setup ## Style, types and the arrows between packages
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

.PHONY: unit
unit: setup ## Pure tests, seconds
	@$(PYTEST) tests/unit

.PHONY: conformance
conformance: setup system-packages ## Each driver against its real or wire-true server
	@$(PYTEST) tests/conformance tests/images -m "not images"

.PHONY: examples
examples: setup system-packages ## Each example in front of a real sidecar
	@$(PYTEST) tests/examples

.PHONY: cluster-tests
cluster-tests: setup system-packages ## On a real API server, without a node
	@$(PYTEST) tests/cluster tests/helm -m "not node"

.PHONY: e2e
e2e: setup system-packages ## On a real node
	@$(PYTEST) tests/cluster tests/e2e -m node

.PHONY: coverage
coverage: setup ## What the tests reached
	@$(PYTHON) -m coverage combine --quiet
	@$(PYTHON) -m coverage report

.PHONY: golden
golden: setup ## Renew the golden manifests; read the difference before you commit it
	@PLAN2_UPDATE_GOLDEN=1 $(PYTHON) -m pytest -q tests/unit/operator -k golden

.PHONY: reference
reference: setup ## Renew docs/reference/http-api.md from what the sidecar declares
	@PYTHONPATH=tests $(PYTHON) tests/tools/http_reference.py

.PHONY: format
format: setup ## Format the code
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .
