PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
export JAX_PLATFORMS ?= cpu

.PHONY: help demo test test-all random conformance fuzz lint bench bench-quick docs docs-quick gallery gallery-quick matrix matrix-ci wheel clean

help:
	@echo "make demo      set up, then fit two real data sets and compare with NUTS"
	@echo "make test      set up, then run the tests that fit into a few minutes"
	@echo "make test-all  the slow laws too"
	@echo "make random    300 random programs of fixed seeds on each engine, 120 random loops, 500 continuous or mixed, 2000 functions; long tutorials"
	@echo "make conformance  constructs and examples of NumPyro and Pyro beside formulas and the libraries' own losses"
	@echo "make fuzz      3000 new random programs, 600 loops, 3000 continuous or mixed, 3000 functions, against sums (PROGRAMS=n for another number)"
	@echo "make lint      ruff and pyright"
	@echo "make matrix    the versions of Python and of the libraries, each in an environment of its own (.matrix); writes docs/versions.md"
	@echo "make wheel     the wheel alone, in a clean environment: the README's programs, and the types of a user's script"
	@echo "make docs      the documentation site, into out/docs: every page's code is run, and a warning is an error"
	@echo "make docs-quick  the same without running the pages' code, into out/docs-quick: links, names, layout, in a minute"
	@echo "make gallery   full runs of the gallery's pages, or of NAME=... alone: minutes to an hour each; writes their results and the table"
	@echo "make gallery-quick  every page of the gallery in quick mode, as the tests run them"
	@echo "make bench     the benchmarks against hand-written code, NumPyro and Pyro"
	@echo "make bench-quick  ratios of times beside those that are kept, and which of them moved by more than the noise: three minutes"

$(VENV)/user: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

# A bare `torch` would pull gigabytes of CUDA packages.
$(VENV)/dev: $(VENV)/user
	$(RUN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(RUN)/pip install --quiet --disable-pip-version-check -e '.[pyro,dev]'
	touch $@

demo: $(VENV)/user
	$(RUN)/python demo.py

test: $(VENV)/dev
	$(RUN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-all: $(VENV)/dev
	XLA_FLAGS= $(RUN)/python -m pytest -n 2 --dist worksteal

RANDOM := $(addprefix tests/laws/test_random,.py _loops.py _mixed.py _functions.py _summed.py) tests/laws/test_enumerated_together.py tests/laws/test_summed_peers.py
random: $(VENV)/dev
	$(RUN)/python -m pytest -n 2 --dist worksteal -m slow $(RANDOM) tests/test_tutorials.py

conformance: $(VENV)/dev
	$(RUN)/python -m pytest -n 2 --dist worksteal tests/conformance

PROGRAMS ?= 3000
fuzz: $(VENV)/dev
	PPVI_FUZZ=$(PROGRAMS) $(RUN)/python -m pytest -n 2 --dist worksteal $(RANDOM)

lint: $(VENV)/dev
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/pyright

bench: $(VENV)/dev
	for script in vae_overhead mixture scaling staging summed cone strategies checking control_flow pyro_svi air_steps; do $(RUN)/python -m benchmarks.$$script || exit 1; done

bench-quick: $(VENV)/dev
	$(RUN)/python -m benchmarks.quick

$(VENV)/docs: $(VENV)/dev
	$(RUN)/pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

# Pages whose code, and what it runs on, have not changed are not run again (docs/_built).
docs: $(VENV)/docs
	OMP_NUM_THREADS=1 $(RUN)/python -m sphinx -b html -W --keep-going -n -q docs out/docs
	@echo "open out/docs/index.html"

# Links, public names and layout, without the code of pages, which takes minutes.
docs-quick: $(VENV)/docs
	OMP_NUM_THREADS=1 $(RUN)/python -m sphinx -b html -W --keep-going -n -q -D code_is_run=0 docs out/docs-quick
	@echo "open out/docs-quick/index.html"

gallery: $(VENV)/dev
	$(RUN)/python -m gallery $(NAME)

# Most of what a page does in quick mode is compiling.
gallery-quick: $(VENV)/dev
	XLA_FLAGS= JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(RUN)/python -m pytest -n 2 --dist worksteal tests/gallery

matrix:
	$(PYTHON) -m tests.matrix

# What a change has to pass beside the default environment, in three minutes.
matrix-ci:
	$(PYTHON) -m tests.matrix newest oldest

wheel: $(VENV)/dev
	$(RUN)/python -m tests.wheel

clean:
	rm -rf $(VENV) .matrix .peers .pytest_cache .ruff_cache docs/_built docs/tutorials docs/gallery out/docs
