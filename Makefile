# A fresh machine needs Python 3.11 or newer and make: `make demo` or `make test` does the rest.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin
CREATED := $(VENV)/.created
INSTALLED := $(VENV)/.installed-
DEMO_SCORES := scores-demo
DEMO_REPORT := report.html

CHECK_PYTHON := import sys; v = sys.version_info; \
	sys.exit(v < (3, 11) and "This project needs Python 3.11 or newer, but %s is %d.%d. Name a newer one, for example: make demo PYTHON=python3.12" % (sys.executable, v[0], v[1]) or 0)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all test-ci advisories lint format docs clean distclean

help:  ## say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(INSTALLED)report  ## score the digits with 10 % of the labels corrupted, and write report.html
	$(BIN)/lsi compute --dataset digits --corrupt-label 0.1 --output $(DEMO_SCORES) --overwrite --report $(DEMO_REPORT)
	@echo "The report is $(abspath $(DEMO_REPORT)): open it in a browser."

test: $(INSTALLED)test  ## run the test suite and the doctests (PYTEST_ARGS='-k kron' to choose)
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

# Slow are: real data of thousands of samples, brute force of thousands of weights, hundreds of classes in two threads.
test-all: $(INSTALLED)test  ## the same with the tests marked slow, as every night
	$(BIN)/python -m pytest -n auto --dist worksteal -m '' $(PYTEST_ARGS)

test-ci: $(INSTALLED)ci  ## run the test suite with every extra, where only listed tests may be skipped
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps timm
	$(BIN)/python -m pytest -n auto --dist worksteal --no-skips $(PYTEST_ARGS)

advisories: $(CREATED)  ## look up known vulnerabilities of the versions in constraints.txt (needs the network)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m pip_audit --requirement constraints.txt --no-deps --disable-pip

lint: $(INSTALLED)lint  ## ruff (rules and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)lint  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)docs  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The documentation is $(abspath site/index.html)."

clean:  ## remove what the targets above wrote, but not the environment
	rm -rf site build dist $(DEMO_SCORES) $(DEMO_REPORT) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## remove the environment too
	@if test -f "$(VENV)/pyvenv.cfg"; then rm -rf "$(VENV)"; fi

# The stamps live inside the environment: they go when it goes.
$(CREATED):
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	@$(PYTHON) -m venv "$(VENV)" || { \
		echo "$(PYTHON) could not make a virtual environment. On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -c '$(CHECK_PYTHON)'
	@touch $@

# A change of pyproject.toml or constraints.txt installs again.
$(INSTALLED)%: pyproject.toml constraints.txt | $(CREATED)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@
