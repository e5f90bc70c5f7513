# make tune    search on the demo images for 3 minutes (ARGS="-P data=FOLDER -P minutes=10" for your own)
# make test    run all tests in two processes (ARGS="tests/data -x" for a part of them)
# make test-fast  only the tests that start no Ray, server, browser or new environment
# make check   lint, types and import rules
# make faults  20,000 mutated inputs, then fault injection: kills, signals, out of memory (40 minutes; ARGS="--times 1" for less)
# make screenshots  create the images of README and docs from two real searches (12 minutes; needs Chromium; DATA=FOLDER for photos)
# make server  start the shared MLflow server with Docker; server-down stops it, server-logs prints its log
# setup creates .venv with the command freezeline; .venv/bin/activate puts it on the path
# tune creates .venv from requirements.txt; test, test-fast, check, faults, screenshots and setup add requirements-dev.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
RUNTIME := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
DATA := demo
export MLFLOW_DISABLE_TELEMETRY := true

COMPOSE := docker compose -f mlflow-compose.yml

.PHONY: setup tune test test-fast check faults screenshots clean server server-down server-logs

setup: $(DEV)

$(RUNTIME): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Freezeline needs Python 3.11 or newer, got %d.%d; use make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(DEV): $(RUNTIME) requirements-dev.txt pyproject.toml
	$(PIP_INSTALL) -r requirements-dev.txt
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

tune: $(RUNTIME)
	PATH="$(BIN):$$PATH" mlflow run . -e tune --env-manager local --experiment-name digits $(or $(ARGS),-P minutes=3)

test: $(DEV)
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-fast: $(DEV)
	$(BIN)/python -m pytest -n 2 -m 'not system' $(ARGS)

check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

server: .env
	$(COMPOSE) up -d --wait
	@echo "export MLFLOW_TRACKING_URI=http://127.0.0.1:5000"

.env:
	$(PYTHON) -m server.secrets

server-down:
	$(COMPOSE) down

server-logs:
	$(COMPOSE) logs --follow --tail 100

faults: $(DEV)
	$(BIN)/python -m pytest -n 2 --dist load --timeout 0 --hypothesis-profile faults tests/data/test_mutations.py
	$(BIN)/python -m benchmarks.faults $(ARGS)

screenshots: $(DEV)
	$(BIN)/python -m benchmarks.screenshots --data $(DATA) $(ARGS)
	$(BIN)/python -m benchmarks.screenshots.live docs/images/live.svg --data $(DATA)

clean:
	rm -rf $(VENV)
