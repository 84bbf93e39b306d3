# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
PIP_OPTIONS = --quiet --disable-pip-version-check
export HF_HUB_OFFLINE = 1
# the real recordings that some tests read; those tests skip where the folder is not there
NEUROCANVAS_TEST_DATA ?= $(abspath $(wildcard ../shared/data))
export NEUROCANVAS_TEST_DATA

.PHONY: demo test test-slow bench lint constraints clean
.DELETE_ON_ERROR:

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("neurocanvas needs Python 3.11 or later; say which with make PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install $(PIP_OPTIONS) -c constraints.txt -e '.[test,dev]'
	touch $@

demo: .venv/installed
	.venv/bin/neurocanvas demo -o runs/demo

test: .venv/installed
	.venv/bin/python -m pytest -m 'not slow' -n 2 --dist loadfile

test-slow: .venv/installed
	.venv/bin/python -m pytest -m slow

bench: .venv/installed  ## measure speed and memory; ONLY='names' for some
	.venv/bin/python tools/bench.py $(ONLY)

lint: .venv/installed
	.venv/bin/ruff check src tests tools
	.venv/bin/mypy

constraints: .venv/installed  ## renew the exact versions after upgrading the environment
	.venv/bin/python -m pip freeze --exclude-editable | sed "s/+cpu$$//" > constraints.txt

clean:
	rm -rf .venv runs build
