# Everything runs in a virtual environment of the repository, made on first use from requirements.lock.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test test-all lint bench bench-micro docs lock

help:
	@echo "make demo      the whole method on the micro family; ends in runs/demo/report.html"
	@echo "make test      the tests, without the slow ones"
	@echo "make test-all  all tests; those that need a GPU are skipped where there is none"
	@echo "make lint      ruff and mypy"
	@echo "make bench     the benchmarks, into benchmarks/results"
	@echo "make bench-micro  the micro family's figures, into benchmarks/results/micro (hours; continues)"
	@echo "make docs      the documentation, into site/"
	@echo "make lock      renew requirements.lock from pyproject.toml"

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with make PYTHON=...")'
	@echo "installing into $(VENV) (some minutes, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

demo: $(INSTALLED)
	$(BIN)/vggrpo demo --output runs/demo $(if $(wildcard runs/demo/config.yaml),--resume)

test: $(INSTALLED)
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m "not slow and not gpu"

test-all: $(INSTALLED)
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(INSTALLED)
	for script in benchmarks/*.py; do $(BIN)/python "$$script" || exit 1; done

bench-micro: $(INSTALLED)
	for name in main_result controls lgm_ablation alarm_experiment noise gradient_signal ablations training_cost guidance best_of report; do \
		$(BIN)/python benchmarks/micro/$$name.py || exit 1; done

docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[docs]'
	$(BIN)/mkdocs build

# torch goes first and by its exact version: its pin carries no local suffix (+cpu, +cu130), so any build of it fits.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet torch==2.13.0
	build/lock/bin/python -m pip install --quiet '.[dev]'
	@echo '# Every package that the project and its tests need, exactly as tested. Made by `make lock`; install with plain pip.' > requirements.lock
	build/lock/bin/python -m pip freeze --all --exclude pip --exclude vggrpo | sed 's/+[a-z0-9.]*$$//' >> requirements.lock
