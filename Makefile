# Everything a newcomer needs: `make demo` and `make test` each set up `.venv` on their own, in any order.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2

.PHONY: setup demo test test-slow check format wheel clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "milkit needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . --group dev
	touch $@

demo: setup
	$(BIN)/milkit demo

# The fast set, under four minutes on two cores. One thread a worker: two workers share two cores.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(WORKERS) -m "not slow"

test-slow: setup
	$(BIN)/pytest -q -m slow

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: setup
	$(BIN)/python -m build

clean:
	rm -rf .venv dist build milkit-work milkit-demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
