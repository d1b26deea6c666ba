# make venv | test | test-all | coverage | lint | perf | perf-full | perf-peers | stress | order | model | chaos | fuzz |
# leaks | javascript | wheels | ci-long | docs | docs-serve | clean
# Every target does its own set-up, and redoes it only when pyproject.toml has changed.
# Settings: PYTHON=python3.12, VENV=.venv, PYTEST_ARGS="-x -k port", PERF_ARGS="--json out.json", ROUNDS=10,
# COUNT=1000, RUNS=0, WHEELS_ARGS=--quick, SECONDS=600, SEED=1, LINKS="tcp tls", SETS=3, WORKERS=0 (processes that the
# tests are shared out to; most wait for most of their time)

PYTHON ?= python3
VENV ?= .venv
ROUNDS ?= 5
COUNT ?= 10000
RUNS ?= 30000
WORKERS ?= 3
SETS ?= 1
SECONDS ?= 60
SEED ?=
LINKS ?= tcp native+tcp
PYTEST_ARGS ?=
COUNTING :=
PERF_ARGS ?=
WHEELS_ARGS ?=

PY := $(VENV)/bin/python
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check
READY := $(VENV)/.ready
READY_PEERS := $(VENV)/.ready-peers
READY_DOCS := $(VENV)/.ready-docs
READY_PACKAGE := $(VENV)/.ready-package
VERSIONS := 3.11 3.12 3.13 3.14 3.15
# All that are installed; asked for only where it is used.
PYTHONS = $(foreach version,$(VERSIONS),$(shell .ci/find-python $(version)))

.PHONY: venv test test-all coverage lint perf perf-full perf-peers stress order model chaos fuzz leaks javascript wheels \
    ci-long docs docs-serve clean
.DEFAULT_GOAL := test

venv: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "callport needs Python 3.11 or later, this is " + sys.version.split()[0] + "; choose with PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --editable '.[dev]'
	@$(PY) -m compileall -q engine transport perf  # even where Python is told not to keep what it compiled
	@touch $@

$(READY_PEERS): $(READY)
	$(PIP_INSTALL) --editable '.[perf-peers]'
	@touch $@

$(READY_DOCS): $(READY)
	$(PIP_INSTALL) --editable '.[docs]'
	@touch $@

$(READY_PACKAGE): $(READY)
	$(PIP_INSTALL) --editable '.[package]'
	@touch $@

test: $(READY)
	$(PY) $(COUNTING) -m pytest --numprocesses $(WORKERS) --no-loadscope-reorder $(PYTEST_ARGS)

# The venv's own Python, then each other supported one that is installed.
test-all: $(READY)
	@own=$$($(PY) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); failed=; \
	$(MAKE) --no-print-directory test || failed=" $$own"; \
	for version in $(VERSIONS); do \
	    test $$version = $$own && continue; \
	    found=$$(.ci/find-python $$version) || { echo "Python $$version: not installed, skipped"; continue; }; \
	    echo "Python $$version: $$found"; \
	    $(MAKE) --no-print-directory test PYTHON="$$found" VENV=.venv-$$version || failed="$$failed $$version"; \
	done; \
	test -z "$$failed" || { echo "failed on Python$$failed"; exit 1; }

# The tests, and which lines and branches of engine and transport they run; fails below 95 %. Child processes count for
# SETS of a test's sets of parameters at most.
coverage: $(READY)
	$(PY) -m coverage erase
	$(MAKE) --no-print-directory test COUNTING='-m coverage run' PYTEST_ARGS='--sets $(SETS) $(PYTEST_ARGS)'
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check --quiet .
	$(PY) -m mypy
	for package in engine transport; do \
	    PATH="$(abspath $(VENV))/bin:$$PATH" PYTHONPATH="$(CURDIR)" \
	        $(PY) -m pyright --ignoreexternal --verifytypes $$package || exit 1; \
	done

perf: $(READY)
	$(PY) -m perf run --quick $(PERF_ARGS)

perf-full: $(READY)
	$(PY) -m perf run --full $(PERF_ARGS)

perf-peers: $(READY_PEERS)
	$(PY) -m perf run peers unix_peers $(PERF_ARGS)

# All tests, those marked `stress` too, several times over, with threads switched 500 times as often as usual.
# No dumps of running threads' stacks on the way: switched so often, they can bring the interpreter down.
stress: $(READY)
	@for round in $$(seq $(ROUNDS)); do \
	    echo "round $$round of $(ROUNDS)"; \
	    $(PY) -m pytest -q -m '' --switch-interval 0.00001 --timeout 600 -o faulthandler_timeout=0 $(PYTEST_ARGS) || exit 1; \
	done

# So many sequences of 1,000 calls, in six processes on one processor: routines are entered in order. About 15 minutes.
order: $(READY)
	$(PY) -m tests.rpc.ordering $(COUNT)

# The threads of the scheduler in up to RUNS orders of their steps for each scenario; 0 for all there are, which may take
# hours for some. `make test` tries the first few hundred.
model: $(READY)
	$(PY) -m pytest -q -s -m model --timeout 0 -o faulthandler_timeout=0 --model-runs $(RUNS) $(PYTEST_ARGS)

# Clients and servers under random faults, random messages at either side, and everything again and again: for so many
# SECONDS over each of the LINKS. The SEED of a run that has failed repeats its plan. `make test` has a few seconds of each.
LONG = for link in $(LINKS); do \
    $(PY) -m tests.long.$@ $(SECONDS) --link $$link $(if $(SEED),--seed $(SEED)) || exit 1; \
done

chaos: $(READY)
	@$(LONG)

fuzz: $(READY)
	@$(LONG)

leaks: $(READY)
	@$(LONG)

# The packages of examples/javascript, which its tests find there. Needs Node.js 20 or later.
javascript:
	mkdir -p .javascript
	cp examples/javascript/package.json .javascript
	npm install --prefix .javascript --no-package-lock --no-audit --no-fund --silent

# Wheel and sdist, into dist/: what is in them, what an index would refuse, and whether the wheel works in an environment
# that has nothing else, of each of PYTHONS.
wheels: $(READY_PACKAGE)
	$(PY) -m tests.packaging.wheels $(WHEELS_ARGS) $(PYTHONS)

# What takes too long for each change: every supported Python that is installed, coverage, the tests under stress, more
# orders of the scheduler's steps, and a minute over each link of the programs that run long.
ci-long: test-all wheels coverage stress model chaos fuzz leaks

# The site, into site/; what is wrong with a page or a link fails it.
docs: $(READY_DOCS)
	$(VENV)/bin/zensical build --clean --strict

docs-serve: $(READY_DOCS)
	$(VENV)/bin/zensical serve

clean:
	rm -rf .venv .venv-3.* .javascript build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	find engine transport perf tests examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
