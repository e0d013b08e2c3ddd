# A newcomer types `make demo` or `make test`; everything else is set up on the way.
VENV ?= .venv
PY := $(VENV)/bin/python
JOBS ?= 2
# The tests of a file stay together, for they share fixtures, and come in order: the longest file is an early one.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder
EXTRAS := cpu,engines,export,calibration,pesq,ray,media,serve,plots,signing,kiosk,dev

.PHONY: demo test check soak thin oldest bench lint format clean
.DEFAULT_GOAL := test

$(VENV)/.installed: pyproject.toml
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

demo: $(VENV)/.installed
	$(PY) -m samples.demo --out out/demo

test: $(VENV)/.installed
	$(PYTEST) -m "not slow and not soak"

check: lint
	$(PYTEST) -m "not soak"

soak: $(VENV)/.installed
	$(PY) -m pytest -m soak

# Fresh environments without torch; they need the small bundle that `make test` keeps in out/tests.
thin oldest: $(VENV)/.installed
	.ci/thin $(if $(filter oldest,$@),--oldest) python3 "$$(ls -dt out/tests/mini-* | head -1)" .venv-$@

bench: $(VENV)/.installed
	$(PY) -m tests.benchmarks --out out/bench

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis
