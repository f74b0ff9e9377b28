# `make help` lists the targets. Each target first installs whatever it needs into $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Processes of `make test`. Many tests wait for a timer or a server, so more processes than cores pay off.
WORKERS ?= 4
SOURCES := pyproject.toml setup.py $(wildcard src/jobcloud/*.pyx src/jobcloud/*.h src/jobcloud/*/*.pyx \
	compat/http-parser/pyproject.toml compat/http-parser/http_parser/*.py)

# The tests start thousands of processes. Without bytecode on disk, each compiles all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help
help: ## List the targets
	@echo "Usage: make TARGET [ARGS='...']. ARGS is passed on to the command of the target."
	@awk -F ' *## ' '/^[a-z-]+:.*## /{split($$1, name, ":"); printf "  %-20s %s\n", name[1], $$2}' $(firstword $(MAKEFILE_LIST))

# ------------------------------------------------------------------------------------------------ run and test

.PHONY: run test test-mesos test-zookeeper test-etcd test-oidc test-browser test-sql debug-test
run: $(VENV)/.server ## Run a cluster, a scheduler and a demo app on this machine, until Ctrl-C
	$(BIN)/jobcloud dev --demo $(ARGS)

test: $(VENV)/.tests ## Run the tests in WORKERS processes; ARGS='-n 0 FILE' runs one file in one process
	@echo "Running the tests in $(WORKERS) processes. This takes a few minutes."
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

# One process: the tests share one cluster.
test-mesos: $(VENV)/.tests ## Run the tests on a real Mesos; JOBCLOUD_TEST_MESOS names the command that starts it
	@test -n "$$JOBCLOUD_TEST_MESOS" || { echo "set JOBCLOUD_TEST_MESOS to a command that starts a Mesos cluster"; exit 2; }
	JOBCLOUD_TEST_NO_SKIP=1 $(BIN)/python -m pytest -m mesos $(ARGS)

test-zookeeper: $(VENV)/.tests ## Run the tests on a real ZooKeeper (apt-get install zookeeper)
	JOBCLOUD_TEST_NO_SKIP=1 $(BIN)/python -m pytest -m "zookeeper and not browser" $(ARGS)

test-etcd: $(VENV)/.tests ## Run the tests on a real etcd (apt-get install etcd-server)
	JOBCLOUD_TEST_NO_SKIP=1 $(BIN)/python -m pytest -m etcd $(ARGS)

# Node 20 or newer.
test-oidc: $(VENV)/.tests ## Run the tests with a real OpenID provider (apt-get install nodejs npm chromium)
	JOBCLOUD_TEST_NO_SKIP=1 $(BIN)/python -m pytest -m oidc $(ARGS)

# One of them kills the leader of two schedulers with their state in ZooKeeper, and one is a linter from npm.
test-browser: $(VENV)/.tests ## Run the tests in a real browser (apt-get install chromium nodejs npm zookeeper)
	JOBCLOUD_TEST_NO_SKIP=1 $(BIN)/python -m pytest -n $(WORKERS) -m "browser and not oidc" $(ARGS)

test-sql: $(VENV)/.tests ## Run the tests on a real PostgreSQL and MariaDB (apt-get install postgresql mariadb-server)
	JOBCLOUD_TEST_NO_SKIP=1 $(BIN)/python -m pytest -m sql $(ARGS)

# Without the mutants: they show that the tests can fail, whatever the build. A fifth of the random placements, because
# this build is slow.
debug-test: $(VENV)/.tests ## Run the tests of the matcher and of packing on a build with bounds checks
	mkdir -p build && find src -name '*.so' -print0 | tar -cf build/extensions.tar --null -T -
	JOBCLOUD_DEBUG=1 $(BIN)/python setup.py -q build_ext --inplace --force
	JOBCLOUD_MATCH_PLACEMENTS=20000 $(BIN)/python -m pytest -n $(WORKERS) --ignore tests/match/test_match_mutants.py \
		tests/match tests/planning/test_plan_packing.py; status=$$?; \
	tar -xf build/extensions.tar && exit $$status

# ------------------------------------------------------------------------------------------------ check and build

.PHONY: lint types format prose docs build clean
lint: $(VENV)/.tests ## Check style: ruff and cython-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" cython-lint src/jobcloud

types: $(VENV)/.tests ## Check types: mypy, and the stubs of the compiled modules
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest jobcloud._match jobcloud.match._placer jobcloud.planning._pack

format: $(VENV)/.tests ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

prose: ## Count odd English phrases; ARGS='--list FILE' shows them
	$(PYTHON) tools/prose.py $(ARGS)

docs: $(VENV)/.server ## Write the generated documents anew
	$(BIN)/python tools/state_pictures.py
	$(BIN)/python tools/field_tables.py
	$(BIN)/python tools/right_tables.py
	$(BIN)/python tools/sentence_tables.py

.PHONY: vendor pictures
pictures: $(VENV)/.tests ## Take the pictures of the console in docs/pictures (apt-get install chromium)
	$(BIN)/python tools/console_pictures.py

vendor: ## Fetch the JavaScript libraries of the console from npm
	$(PYTHON) tools/vendor.py

# The wheel is built from the sdist, so that neither the checkout nor the editable install takes part.
build: $(VENV)/.tests ## Build the sdist, and from it the wheel, into build/dist
	rm -rf build/dist && mkdir -p build/dist
	$(BIN)/python -m build --outdir build/dist .

clean: ## Remove everything that was built, and the virtual environment
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage
	rm -rf compat/http-parser/build
	find src compat tests bench tools -name '*.egg-info' -prune -exec rm -rf {} +
	find src compat tests bench tools -name __pycache__ -prune -exec rm -rf {} +
	find src -name '*.so' -delete

# ------------------------------------------------------------------------------------------------ long tests

.PHONY: simulate simulate-mutations soak match-soak thread-soak match-mutants cron-soak executor-soak
# make simulate SEEDS=10000 FROM=0; ARGS='--seed N --replay' prints one history.
SEEDS ?= 1000
FROM ?= 0
simulate: $(VENV)/.tests ## Play SEEDS simulated histories of the whole scheduler (docs/simulation.md)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --seed $(FROM) $(ARGS)

# ARGS='--only TEXT' selects bugs by name. ARGS='--unit-tests --table FILE' also asks the unit tests: all of them for
# each quiet bug, and until one fails for each other bug.
simulate-mutations: $(VENV)/.tests ## Plant bugs in the scheduler; the simulator must catch each within 2,000 histories
	$(BIN)/python -m tests.simulation.mutations $(ARGS)

# ARGS='--brief --part 5' is a small soak of less than four minutes. ARGS='--store etcd' keeps the state in etcd.
MINUTES ?= 10
soak: $(VENV)/.tests ## Kill, freeze and cut off real schedulers for MINUTES (needs JOBCLOUD_TEST_MESOS)
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(ARGS)

match-soak: $(VENV)/.tests ## Compare the compiled matcher with its twin over ten million placements (hours)
	JOBCLOUD_MATCH_PLACEMENTS=10000000 $(BIN)/python -m pytest tests/match/test_match_props.py -k random_placements -o timeout=0

# 406 pairs of calls of a matcher and 300 of a placer.
PAIR_SECONDS ?= 2
thread-soak: $(VENV)/.tests ## Make each pair of calls in two threads for PAIR_SECONDS, on a build with bounds checks (25 minutes)
	JOBCLOUD_DEBUG=1 $(BIN)/python setup.py -q build_ext --inplace --force
	JOBCLOUD_THREAD_SECONDS=$(PAIR_SECONDS) $(BIN)/python -m pytest -s -o timeout=0 tests/match/test_match_threads.py; status=$$?; \
	$(BIN)/python setup.py -q build_ext --inplace --force && exit $$status

match-mutants: $(VENV)/.tests ## Plant bugs in the compiled matcher; the comparison must catch each (15 minutes)
	$(BIN)/python -m tests.match.match_mutants $(ARGS)

cron-soak: $(VENV)/.tests ## Compare a million cron expressions with the oracles (10 minutes)
	JOBCLOUD_CRON_TRIPLES=1000000 $(BIN)/python -m pytest -q -o timeout=0 tests/test_cron_oracles.py

executor-soak: $(VENV)/.tests ## Run 100,000 executions through one executor: speed and memory (10 minutes)
	$(BIN)/python bench/bench_executor.py 100000 --out bench/results/executor.md $(ARGS)

# ------------------------------------------------------------------------------------------------ benchmarks

.PHONY: bench bench-gate bench-stores bench-start bench-history bench-api bench-consoles bench-pages bench-end-to-end bench-dev-cluster bench-plots bench-plan bench-quality
bench: $(VENV)/.tests ## Time a scheduling cycle and the matcher
	$(BIN)/python bench/bench_cycle.py
	$(BIN)/python bench/bench_wide.py
	$(BIN)/python -m pytest bench/bench_match.py --benchmark-enable --benchmark-only

bench-gate: $(VENV)/.tests ## Fail if the matcher got slower than its yardsticks allow, or computes more scores
	$(BIN)/python bench/gate.py $(ARGS)

bench-history: $(VENV)/.tests ## Measure the cost of the history, and of a page of it; ARGS='--rows 10000000' (minutes)
	$(BIN)/python bench/bench_history.py $(ARGS)

bench-api: $(VENV)/.tests ## Compare the p99 of list, detail and trigger with a bare route, on a busy scheduler (5 minutes)
	$(BIN)/python bench/bench_api.py $(ARGS)

bench-consoles: $(VENV)/.tests ## Measure what ten open consoles cost at 1,500 notices a second (2 minutes)
	$(BIN)/python bench/bench_consoles.py $(ARGS)

bench-pages: $(VENV)/.tests ## Measure the list of 10,000 jobs in a browser, next to a bare page (1 minute)
	$(BIN)/python bench/bench_pages.py $(ARGS)

bench-stores: $(VENV)/.tests ## Compare the ZooKeeper and etcd stores on real servers; ARGS='--servers 3' (minutes)
	$(BIN)/python bench/bench_stores.py $(ARGS)

# ARGS="BASE ." compares two checkouts; the first is the base.
bench-start: $(VENV)/.tests ## Measure start and memory of scheduler, commands and executor (2 minutes)
	$(BIN)/python bench/bench_start.py $(ARGS)

bench-end-to-end: $(VENV)/.tests ## Time the whole loop over HTTP to a dev cluster (15 minutes)
	$(BIN)/python bench/bench_end_to_end.py $(ARGS)

# ARGS="--against SRC" alternates with the sources of another commit.
bench-dev-cluster: $(VENV)/.tests ## Measure the CPU time that a launch costs the dev cluster
	$(BIN)/python bench/bench_dev_cluster.py $(ARGS)

bench-plots: $(VENV)/.tests ## Plot the time per placement over the number of hosts, into bench/results
	$(BIN)/python bench/plots.py --out bench/results $(ARGS)

bench-plan: $(VENV)/.tests ## Compare the planner with the bound of the configuration LP (minutes)
	$(BIN)/python bench/bench_plan.py --out bench/results/plan.md $(ARGS)

bench-quality: $(VENV)/.tests ## Measure how well each fitness rule packs; the default was chosen from this table
	$(BIN)/python bench/quality.py --out bench/results/quality.md $(ARGS)

# ------------------------------------------------------------------------------------------------ environment

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jobcloud needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	@echo "Creating a virtual environment in $(VENV)."
	$(PYTHON) -m venv $(VENV)

# `make test` after `make run` compiles a second time. Every other order compiles once.
$(VENV)/.server: $(VENV)/bin/python $(SOURCES)
	@echo "Installing jobcloud into $(VENV) and compiling its three Cython modules. This takes about a minute."
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -q ./compat/http-parser -e '.[server]'
	touch $@

$(VENV)/.tests: $(VENV)/bin/python $(SOURCES)
	@echo "Installing jobcloud into $(VENV) with the libraries for tests, and compiling its three Cython modules."
	@echo "This takes one to two minutes."
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -q ./compat/http-parser -e '.[server,plan,postgresql,mariadb,s3,tracing]' --group dev
	touch $(VENV)/.server $@
