# `make run` and `make test` are all a newcomer needs; both set up what they need first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard src/jobcloud/*.pyx src/jobcloud/*.h src/jobcloud/*/*.pyx compat/http-parser/pyproject.toml compat/http-parser/http_parser/*.py)

.PHONY: run test test-mesos test-zookeeper lint types format build debug-test bench bench-end-to-end bench-dev-cluster bench-gate bench-plots bench-quality bench-plan executor-soak match-soak match-mutants cron-soak simulate simulate-mutations soak clean

run: $(VENV)/.server
	$(BIN)/jobcloud dev --demo $(ARGS)

test: $(VENV)/.tests
	$(BIN)/python -m pytest $(ARGS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jobcloud needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.server: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -q ./compat/http-parser -e '.[server]'
	touch $@

$(VENV)/.tests: $(VENV)/.server
	$(BIN)/python -m pip install -q -e '.[plan]' --group dev
	touch $@

# The tests that need a real Apache Mesos: JOBCLOUD_TEST_MESOS names the command that starts one.
test-mesos: $(VENV)/.tests
	@test -n "$$JOBCLOUD_TEST_MESOS" || { echo "set JOBCLOUD_TEST_MESOS to a command that starts a Mesos cluster"; exit 2; }
	JOBCLOUD_TEST_NO_SKIP=1 $(BIN)/python -m pytest -m mesos $(ARGS)

# The tests that need a real ZooKeeper: apt-get install zookeeper.
test-zookeeper: $(VENV)/.tests
	JOBCLOUD_TEST_NO_SKIP=1 $(BIN)/python -m pytest -m zookeeper $(ARGS)

lint: $(VENV)/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" cython-lint src/jobcloud

types: $(VENV)/.tests
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest jobcloud._match jobcloud.match._placer jobcloud.planning._pack

format: $(VENV)/.tests
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Built in a folder of its own, so that neither the checkout nor the editable install takes part.
build: $(VENV)/.tests
	rm -rf build/wheel && $(BIN)/python -m pip wheel -q --no-deps -w build/wheel .

# The suites of the matcher, by name too, and of packing on a build with bounds checks.
debug-test: $(VENV)/.tests
	JOBCLOUD_DEBUG=1 $(BIN)/python setup.py -q build_ext --inplace --force
	$(BIN)/python -m pytest tests/match tests/planning/test_plan_packing.py; status=$$?; \
	$(BIN)/python setup.py -q build_ext --inplace --force && exit $$status

# Bugs planted in the compiled matcher, each to be caught by the comparison with the plain one; some fifteen minutes.
match-mutants: $(VENV)/.tests
	$(BIN)/python -m tests.match.match_mutants $(ARGS)

# A million (expression, zone, start) triples against the oracles; some ten minutes.
cron-soak: $(VENV)/.tests
	JOBCLOUD_CRON_TRIPLES=1000000 $(BIN)/python -m pytest -q -o timeout=0 tests/test_cron_oracles.py

# The whole loop at speed, over HTTP to a dev cluster: latency, launches a second, bursts; some fifteen minutes.
bench-end-to-end: $(VENV)/.tests
	$(BIN)/python bench/bench_end_to_end.py $(ARGS)

# What a launch costs the dev cluster's process; ARGS="--against SRC" lets the sources of another commit take turns.
bench-dev-cluster: $(VENV)/.tests
	$(BIN)/python bench/bench_dev_cluster.py $(ARGS)

bench: $(VENV)/.tests
	$(BIN)/python bench/bench_cycle.py
	$(BIN)/python -m pytest bench/bench_match.py --benchmark-enable --benchmark-only

# The matcher's ratios to its yardsticks and the scores it computes: fails where either got worse.
bench-gate: $(VENV)/.tests
	$(BIN)/python bench/gate.py $(ARGS)

# ns per placement over hosts, log-log, with both yardsticks, into bench/results.
bench-plots: $(VENV)/.tests
	$(BIN)/python bench/plots.py --out bench/results $(ARGS)

# The planner beside the bound of the configuration LP, on batches of few shapes; some minutes.
bench-plan: $(VENV)/.tests
	$(BIN)/python bench/bench_plan.py --out bench/results/plan.md $(ARGS)

# A hundred thousand runs through one executor: its speed beside a fresh process, and its memory as they go by; ten minutes.
executor-soak: $(VENV)/.tests
	$(BIN)/python bench/bench_executor.py 100000 --out bench/results/executor.md $(ARGS)

# How well each fitness rule packs, over workloads and seeds: the table that the default was chosen from.
bench-quality: $(VENV)/.tests
	$(BIN)/python bench/quality.py --out bench/results/quality.md $(ARGS)

# Ten million random placements, the compiled matcher beside its twin; takes hours.
match-soak: $(VENV)/.tests
	JOBCLOUD_MATCH_PLACEMENTS=10000000 $(BIN)/python -m pytest tests/match/test_match_props.py -k random_placements -o timeout=0

# Simulated histories of the whole scheduler: SEEDS of them from the seed FROM on; ARGS='--seed N --replay' tells one.
SEEDS ?= 1000
FROM ?= 0
simulate: $(VENV)/.tests
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --seed $(FROM) $(ARGS)

# Deliberate bugs, each to be caught by the simulator within 2,000 histories. ARGS='--unit-tests --table FILE' also asks
# the unit tests: all of them once for the quiet bugs, and for each other bug until one fails; ARGS='--only TEXT' takes
# some of the bugs.
simulate-mutations: $(VENV)/.tests
	$(BIN)/python -m tests.simulation.mutations $(ARGS)

# Three schedulers on a real ZooKeeper and a real Mesos (JOBCLOUD_TEST_MESOS), killed, frozen and cut off for so many
# MINUTES beside 4,000 job instances; an independent checker judges what the jobs wrote. ARGS='--brief --part 5' for a small
# one of some three minutes.
MINUTES ?= 10
soak: $(VENV)/.tests
	PYTHONPATH=tests $(BIN)/python -m tests.soak --minutes $(MINUTES) $(ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache src/jobcloud.egg-info src/jobcloud/*.c src/jobcloud/*.so src/jobcloud/*/*.c src/jobcloud/*/*.so
