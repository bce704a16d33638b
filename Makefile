# Every command of the project. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS ?= tests
MINUTES ?= 10
BENCH ?=
LEVEL ?= patch
BASE ?=
.DEFAULT_GOAL := help
# Hundreds of processes start in the tests: each would compile the code again.
export PYTHONDONTWRITEBYTECODE :=
.PHONY: help run dev setup test long e2e soak contract bench lint format coverage lock clean \
	agent-checksum agent-version-bump agent-version-check

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-19s %s\n", $$1, $$2}'

run: $(VENV)/run.stamp  ## install what is locked and run everything in the foreground
	@exec $(BIN)/vestibule up

dev: $(VENV)/dev.stamp  ## the same, restarted at each change of the code
	@exec $(BIN)/vestibule up --reload

setup: $(VENV)/dev.stamp  ## install only

test: $(VENV)/dev.stamp  ## lint, types, unit and real-Redis tests (TESTS=path for some of them)
ifeq ($(TESTS),tests)
	@$(MAKE) --no-print-directory lint
endif
	@$(BIN)/pytest $(TESTS) -n 3 --dist worksteal  # one of three waits while two compute

e2e: $(VENV)/e2e.stamp  ## the whole path in a browser: real Open WebUI, real vLLM (first run builds them)
	@$(BIN)/pytest tests/e2e -m e2e --timeout 1800

long: $(VENV)/dev.stamp  ## whole lives of several processes, hundreds of simulated ones
	@$(BIN)/pytest tests -m long --timeout 300 -n 3 --dist worksteal

soak: $(VENV)/dev.stamp  ## what takes longer: Cluster, Sentinel, the model, fresh examples, then days of traffic (MINUTES=10)
	@$(BIN)/pytest tests -m "soak or hypothesis" --hypothesis-profile fresh --timeout 1200
	@$(BIN)/python -m tests.simulation.soak --minutes $(MINUTES)

contract: $(VENV)/dev.stamp  ## the HTTP contract on every transport and Redis set-up, or of a deployment (URL=http://…)
ifdef URL
	@$(BIN)/vestibule doctor --contract $(URL)
	@$(BIN)/python -m tests.frontends.fuzz $(URL)
else
	@$(BIN)/pytest tests/contract tests/frontends/test_openapi_fuzz.py -m "soak or not soak" --timeout 300 -n 3 --dist worksteal
endif

bench: $(VENV)/dev.stamp  ## the benchmarks (BENCH=eta for one of them)
	@$(BIN)/python -m bench $(BENCH)

lint: $(VENV)/dev.stamp agent-version-check  ## style, types, the direction of imports, the agent's version
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --num-workers 2
	@$(BIN)/lint-imports
	@$(BIN)/hadolint worker_image/Dockerfile infra/aws/Dockerfile

format: $(VENV)/dev.stamp  ## rewrite the code in the house style
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

coverage: $(VENV)/dev.stamp  ## what the fast suite runs, line by line
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest tests
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --skip-covered

lock: $(VENV)/dev.stamp  ## choose the newest versions again (needs `uv` on the PATH)
	@infra/lock/update

agent-checksum:  ## the SHA-256 of the worker agent, for WORKER_AGENT_SHA256
	@$(PYTHON) worker_image/version.py checksum

agent-version-bump:  ## raise the agent's version and set its build date (LEVEL=patch|minor|major)
	@$(PYTHON) worker_image/version.py bump --level $(LEVEL)

agent-version-check:  ## fail when the agent changed and its version did not (BASE=commit)
	@$(PYTHON) worker_image/version.py check $(if $(BASE),--base $(BASE))

clean:  ## remove what make made; the state folder and the e2e cache stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache htmlcov .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp a lock file: installing happens when the lock changed, and then only once.
$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "there is no $(PYTHON): install Python 3.11 or newer, or name yours: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Vestibule needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment (Debian: apt install python3-venv)" >&2; exit 1; }

$(VENV)/%.stamp: infra/lock/%.txt pyproject.toml $(VENV)/bin/python
	@echo "installing $< into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
