# make demo | test | lint | docs | bench | explore | lock | clean.  PYTHON=/path/to/python chooses the Python of a new .venv.

# The main job, and where its report lies.
DEMO_OUT := demo
DEMO := .venv/bin/circuits demo --out $(DEMO_OUT)

# More words for pytest: make test TESTS="tests/circuits -k trace" JOBS=0
TESTS ?=
# Tests run in two to four processes of one thread each: quicker than one process of many threads.
JOBS ?= auto
# Threads that spin while they wait starve each other on a busy machine.
export OMP_WAIT_POLICY ?= PASSIVE
PYTEST := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} .venv/bin/python -m pytest -n $(JOBS) --maxprocesses=4 --dist=loadfile
BENCHMARKS := $(filter-out benchmarks/_%,$(sort $(wildcard benchmarks/*.py)))

.NOTPARALLEL:
.PHONY: help demo test test-all lint docs bench explore lock clean

help:
	@echo "make demo      install, trace a car circuit in the built-in network, say where the report lies"
	@echo "make test      install what the tests need and run them (test-all: the slow ones too)"
	@echo "make lint      ruff and mypy"
	@echo "make docs      the guides and the API reference as HTML, into build/docs"
	@echo "make bench     run every script of benchmarks/"
	@echo "make explore   open the circuit explorer"
	@echo "make lock      resolve constraints.txt again, newest versions"
	@echo "make clean     remove what make made (.venv too)"

demo:
	@tools/bootstrap.sh cli
	$(DEMO)
	@[ -f $(DEMO_OUT)/index.html ] || { echo "the demo left no report in $(DEMO_OUT)/"; exit 1; }
	@echo "The report lies at $(CURDIR)/$(DEMO_OUT)/index.html"

test:
	@tools/bootstrap.sh app cli dev lm lucent
	$(PYTEST) -m "not slow" $(TESTS)

test-all:
	@tools/bootstrap.sh app cli dev lm lucent
	$(PYTEST) $(TESTS)

lint:
	@tools/bootstrap.sh app cli dev lm
	.venv/bin/ruff check .
	.venv/bin/mypy

# Every warning is an error: a link that leads nowhere, a docstring that cannot be read.
docs:
	@tools/bootstrap.sh app cli dev docs lm
	.venv/bin/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "The documentation lies at $(CURDIR)/build/docs/index.html"

bench:
	@tools/bootstrap.sh app bench cli dev lm lucent
	@[ -n "$(BENCHMARKS)" ] || echo "benchmarks/ holds no script"
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; .venv/bin/python $$script; done

explore:
	@tools/bootstrap.sh app cli
	.venv/bin/circuits explore

# The old file is not read: everything moves to its newest version. Then run the tests.
lock:
	@PATH="$$PATH:.venv/bin" command -v uv >/dev/null || { echo "make lock needs uv: .venv/bin/pip install uv"; exit 1; }
	{ sed -n '/^#/p' constraints.txt; PATH="$$PATH:.venv/bin" uv pip compile --quiet --universal --fork-strategy fewest \
	  --python-version 3.11 --all-extras --no-annotate --no-header pyproject.toml; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf .venv $(DEMO_OUT) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
