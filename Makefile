# The daily commands. Everything is made outside the clone, in ~/.cache/headrace (HEADRACE_CACHE_DIR moves it).
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
RUN = @test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer on the PATH. Fix: install one, or name it: make PYTHON=/path/to/python3.11 …"; exit 2; }; \
	exec $(PYTHON) tools/environment.py

.PHONY: quickstart test lint format clean-cache help
help: ## what can be made
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

quickstart: ## a real model answers on this machine, streamed; ONCE=1 stops by itself afterwards
	$(RUN) -- headrace quickstart $(if $(filter 1 yes true,$(ONCE)),--once)

test: ## the whole test suite, with its own set-up
	$(RUN) --dev -- python tools/run_tests.py $(FOLDERS)

lint: ## ruff and mypy --strict
	$(RUN) --dev -- python tools/run_tests.py lint

format: ## ruff's formatter
	$(RUN) --dev -- ruff format src tests bench tools

bench-%: ## a benchmark by name, e.g. make bench-gateway: table, goals, bench/results/NAME.json; ARGUMENTS="--help"
	$(RUN) --dev -- python tools/run_bench.py $* $(ARGUMENTS)

clean-cache: ## forget environments and weights
	rm -rf "$${HEADRACE_CACHE_DIR:-$${XDG_CACHE_HOME:-$$HOME/.cache}/headrace}"
