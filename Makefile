# `make demo` and `make test` are the two commands that matter. Both install into .venv first; a second call installs
# nothing until pyproject.toml or constraints.txt changes. Another Python: make PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Bytecode is compiled once here, rather than at every start of a worker where Python may not write it.
INSTALL := $(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --compile-bytecode

.PHONY: install install-test demo test test-science test-engine test-rest test-slow lint bench constraints clean

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

# Empty files that say what is installed: uv alone; what running needs; what the tests need besides.
$(VENV)/.uv:
	@$(PYTHON) -c 'import sys; sys.exit("Witness needs Python 3.11 or newer; name one: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check 'uv<1'
	@touch $@

$(VENV)/.installed: $(VENV)/.uv pyproject.toml constraints.txt
	@echo "installing into $(VENV): downloads 3.4 GB, most of it PyTorch with CUDA, and takes 7 GB of disk"
	$(INSTALL) --editable .
	$(BIN)/python -m compileall -q align_core pipelines
	@touch $@

# torchattacks, a second implementation that attacks are compared with, pins an old version of requests: hence --no-deps.
$(VENV)/.installed-test: $(VENV)/.installed
	$(INSTALL) --editable '.[test]'
	$(INSTALL) --no-deps torchattacks==3.5.1
	@touch $@

demo: install
	$(BIN)/witness demo

# Three parts side by side: the science and reports, which hardly need a cluster; runs and their stages; and all else. Each has a cluster
# of its own, and waits for it much of the time. One thread each: with more, they would get in each other's way.
ENGINE := tests/pipelines/run tests/pipelines/stages
SCIENCE := tests/align_core tests/pipelines/report tests/pipelines/storage tests/pipelines/tracking
test: export OMP_NUM_THREADS = 1
test: install-test
	$(MAKE) --no-print-directory --jobs=3 test-engine test-rest test-science

test-science: install-test
	$(BIN)/pytest $(SCIENCE)

test-engine: install-test
	$(BIN)/pytest $(ENGINE)

test-rest: install-test
	$(BIN)/pytest $(foreach part,$(ENGINE) $(SCIENCE),--ignore=$(part))

test-slow: install-test
	$(BIN)/pytest -m slow

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install-test
	$(BIN)/python -m tests.benchmarks

# Versions that are in the file already stay, as far as pyproject.toml permits; `make constraints UPGRADE=--upgrade`
# takes the newest.
constraints: $(VENV)/.uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate \
		--custom-compile-command 'make constraints' --extra test $(UPGRADE) --output-file constraints.txt pyproject.toml

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
