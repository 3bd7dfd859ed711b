# `make demo` shows the whole way, `make test` runs the tests, `make faults` stops and damages runs, `make
# browser` looks at the report in Chromium, `make docs` builds the site, `make smoke` sweeps a few pairs on the starter
# model; these set up .venv first. `make package` builds sdist and wheel, and has mypy look at a user's lines with what
# the wheel says of its types.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What is installed at once; a target that needs more installs that itself.
EXTRAS ?= dev
INSTALLED := $(VENV)/installed-$(EXTRAS)
# What is imported is compiled then: to compile all that is installed takes longer than the installation.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: demo test faults browser docs smoke package install lint clean

demo: $(INSTALLED)
	$(BIN)/bdpo demo

test: $(INSTALLED)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile \
		--no-loadscope-reorder --ignore tests/report/test_browser.py

faults: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults

package:
	$(PYTHON) -m venv build/venv
	build/venv/bin/python -m pip install --quiet --disable-pip-version-check build mypy
	build/venv/bin/python -m build --outdir dist .
	build/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall dist/bdpo-*.whl
	cd build && venv/bin/mypy --config-file= --strict ../tests/typed_user.py

browser: $(INSTALLED)
	$(if $(findstring browser,$(EXTRAS)),,-$(PIP) -e '.[browser]')
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -rs tests/report/test_browser.py || [ $$? = 5 ]

docs: $(INSTALLED)
	$(if $(findstring docs,$(EXTRAS)),,$(PIP) -e '.[docs]')
	$(BIN)/python docs/site.py

smoke: $(INSTALLED)
	rm -rf build/smoke
	HF_HUB_OFFLINE=1 $(BIN)/bdpo sweep --config studies/smoke.yaml --out build/smoke

install: $(INSTALLED)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf $(VENV) runs build dist src/*.egg-info
