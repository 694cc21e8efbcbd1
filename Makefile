# make demo: environment, installation and the whole loop on rendered streets.
# make test: the same environment with the test tools, and the tests.
# make test-fast: without those of killed runs, several processes, browsers and packaging.
# make test-long: all tests, with those that take too long for every day or need a GPU.
# make docs: the documentation as a site, in build/site/html.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A process a core; each takes tests from the others once it has none left.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

.PHONY: demo test test-fast test-long lint docs clean

demo: $(VENV)/installed
	@echo "The whole loop on rendered streets: about six minutes on two CPU cores"
	$(BIN)/python pipeline.py run --config configs/demo.yaml

test: $(VENV)/installed-dev
	$(PYTEST)

test-fast: $(VENV)/installed-dev
	$(PYTEST) -m "not slow and not long and not gpu"

test-long: $(VENV)/installed-dev
	$(PYTEST) -m ""

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p $(VENV)/types
	ln -sfn ../.. $(VENV)/types/bdl
	$(BIN)/mypy

docs: $(VENV)/installed-docs
	$(BIN)/python docs/build_site.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "Installing (PyTorch is large: a minute or more on a fast line)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
