# make report   the CT contrast study, quick preset, from nothing to an HTML report
# make test     every test
# make reports  every study          make lab    JupyterLab on copies of the notebooks, in my-notebooks/
# make check    what CI checks       make bench  the benchmarks, and benchmarks/RESULTS.md
# make fuzz     every loader on EXAMPLES files changed at random (2000 of each kind; make test does 40)
# make voila    the notebooks as dashboards in the browser, without code
# make docs     the documentation, in output/docs/: the studies that have not been run yet are run for it
# make matrix   docs/networks.md anew, from the tests of every method on every kind of network
#
# Everything goes into $(VENV). PYTHON=... picks the interpreter, 3.10 or newer.

VENV ?= .venv
STUDY ?= ct_contrast
PRESET ?= quick
EXAMPLES ?= 2000
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo "$$p" && break; done)

bin := $(VENV)/bin
notebooks := $(wildcard notebooks/*.ipynb notebooks/lessons/*.ipynb)
studies := $(basename $(notdir $(wildcard notebooks/*.ipynb)))

.PHONY: report reports docs test fuzz matrix lab voila lint check bench
.DEFAULT_GOAL := report

report: $(VENV)/installed
	$(bin)/xaitools report $(STUDY) --preset $(PRESET)

reports: $(VENV)/installed
	@set -e; for study in $(studies); do $(bin)/xaitools report $$study --preset $(PRESET); done

docs: $(VENV)/installed-docs
	@set -e; for study in $(studies); do \
		test -f output/$$study/quick/$$study.html || $(bin)/xaitools report $$study --preset quick; done
	$(bin)/python -m sphinx --fail-on-warning --keep-going -b html docs output/docs
	@echo "Documentation: output/docs/index.html"

test: $(VENV)/installed-dev
	$(bin)/python -m pytest --numprocesses auto --dist loadfile

# -s: what ends the process, as a fault in a library in C does, is to be seen.
fuzz: $(VENV)/installed-dev
	XAITOOLS_FUZZ=$(EXAMPLES) $(bin)/python -m pytest -s tests/hostile/test_fuzz.py

matrix: $(VENV)/installed-dev
	XAITOOLS_WRITE_MATRIX=1 $(bin)/python -m pytest tests/matrix

lab: $(VENV)/installed
	$(bin)/xaitools lab

voila: $(VENV)/installed
	$(bin)/xaitools lab --voila

lint: $(VENV)/installed-dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports
	$(if $(notebooks),$(bin)/nbstripout --verify $(notebooks))

check: lint test

# Some hours in all: what a script has measured stays when a later one fails (gpu.py does where there is none).
bench: $(VENV)/installed-bench
	@for benchmark in benchmarks/[!_]*.py; do \
		echo "== $$benchmark"; $(bin)/python $$benchmark || echo "$$benchmark failed"; done
	$(bin)/python benchmarks/_table.py

# A stamp file for each set of packages: installed again only when pyproject.toml has changed.
$(VENV)/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "xaitools needs Python 3.10 or newer, and none was found: install one, or say" \
		"where it is with 'make PYTHON=/path/to/python3'."; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "xaitools needs Python 3.10 or" \
		"newer, and '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1)."; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "'$(PYTHON)' cannot create virtual" \
		"environments: install its venv package (on Debian and Ubuntu: apt install python3-venv)."; exit 1; }
	@echo "Installing into $(VENV): PyTorch and the rest take two to three minutes and about 7 GB."
	@test -x $(bin)/python || "$(PYTHON)" -m venv $(VENV)
	$(bin)/python -m pip install --quiet --upgrade pip
	$(bin)/python -m pip install -e .
	@touch $@

$(VENV)/installed-%: $(VENV)/installed
	$(bin)/python -m pip install -e '.[$*]'
	@touch $@
