# Vidgrain's commands. `make` alone prints them.
#   EXTRA=cpu|gpu   which FAISS to install         PORT=8000   where serve and demo listen
#   SERVE=0         demo stops after its tables    VENV=.venv  where Python's packages go

VENV  ?= .venv
EXTRA ?= cpu
PORT  ?= 8000
SERVE ?= 1
ARGS  ?=

BIN      := $(VENV)/bin
RUN_DONE := $(VENV)/.installed-$(EXTRA)
DEV_DONE := $(VENV)/.installed-$(EXTRA)-dev
NATIVE   := $(wildcard model/kernels/native/* model/resampling/native/*)
INSTALL  := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo serve test check format clean

help:
	@echo "make demo    index about 40 drawn clips, search them, serve the page (SERVE=0: don't serve)"
	@echo "make serve   serve the API and the page on port $(PORT), with a worker"
	@echo "make test    run every test (ARGS=... goes to pytest)"
	@echo "make check   run ruff, mypy and the house tests"
	@echo "make format  let ruff fix and format the code"
	@echo "make clean   remove caches and the demo's data, but neither $(VENV) nor your data"

demo: $(RUN_DONE)
	$(BIN)/vidgrain demo --port $(PORT) $(if $(filter 0 no false,$(SERVE)),--no-serve,--serve)

serve: $(RUN_DONE)
	$(BIN)/vidgrain serve --port $(PORT)

test: $(DEV_DONE)
	$(BIN)/python -m pytest $(ARGS)

check: $(DEV_DONE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/house

format: $(DEV_DONE)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist demo .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The first Python >= 3.11 that can make a virtual environment.
$(BIN)/python:
	@for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14 python; do \
	    if $$candidate -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        echo "making $(VENV) with $$($$candidate --version)"; \
	        $$candidate -m venv $(VENV) && exit 0 || exit 1; \
	    fi; \
	done; \
	echo "error: no Python >= 3.11 with venv was found." >&2; \
	echo "Install one (on Debian or Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12" >&2; \
	exit 1

# What is compiled is built by the install (where there is a C++ compiler), and again when one of its sources changes.
$(RUN_DONE): pyproject.toml constraints.txt $(NATIVE) | $(BIN)/python
	@echo "installing vidgrain[$(EXTRA)] (torch is large: a few minutes the first time)"
	@$(INSTALL) -e '.[$(EXTRA)]'
	@touch $@

$(DEV_DONE): pyproject.toml constraints.txt $(NATIVE) | $(BIN)/python
	@echo "installing vidgrain[$(EXTRA),decord,dev] (torch is large: a few minutes the first time)"
	@$(INSTALL) -e '.[$(EXTRA),decord,dev]'
	@touch $@ $(RUN_DONE)
