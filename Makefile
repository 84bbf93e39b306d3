# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
PIP_OPTIONS = --quiet --disable-pip-version-check
export HF_HUB_OFFLINE = 1
# the real recordings that some tests read; those tests skip where the folder is not there
NEUROCANVAS_TEST_DATA ?= $(abspath $(wildcard ../shared/data))
export NEUROCANVAS_TEST_DATA

# what an environment gets; the build backend is installed first, so that its version is among the pinned ones too
define install
	$(1)/bin/python -m pip install $(PIP_OPTIONS) $(2) hatchling editables
	$(1)/bin/python -m pip install $(PIP_OPTIONS) $(2) --no-build-isolation -e '.[test,dev,ray]'
endef

.PHONY: demo test test-slow bench lower-bounds lint constraints clean
.DELETE_ON_ERROR:

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("neurocanvas needs Python 3.11 or later; say which with make PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(call install,.venv,-c constraints.txt)
	touch $@

demo: .venv/installed
	.venv/bin/neurocanvas demo -o runs/demo

test: .venv/installed
	.venv/bin/python -m pytest -m 'not slow' -n 2 --dist loadfile

test-slow: .venv/installed
	.venv/bin/python -m pytest -m slow

bench: .venv/installed  ## measure speed and memory; ONLY='names' for some
	.venv/bin/python tools/bench.py $(ONLY)

lower-bounds: .venv/installed  ## the quick tests with the lowest versions that pyproject.toml admits
	.venv/bin/python tools/lower_bounds.py

lint: .venv/installed
	.venv/bin/ruff check src tests tools
	.venv/bin/mypy

constraints:  ## renew the exact versions: the newest that pyproject.toml admits, in an environment of its own
	$(PYTHON) -m venv --clear build/newest
	$(call install,build/newest)
	build/newest/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/newest

clean:
	rm -rf .venv runs build
