# `make help` lists the targets. Everything runs in a virtual environment that the first target creates.
#
#   VENV=path     the environment, .venv unless said otherwise
#   VENV=active   the python3 on PATH as it is: nothing is created, nothing is installed
#   PYTHON=name   the interpreter that creates the environment, 3.11 or newer

VENV ?= .venv
PYTHON ?= python3
DEMO ?= demo
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --no-input

ifeq ($(VENV),active)
RUN := python3
LINT_IMPORTS := lint-imports
SHELLCHECK := shellcheck
READY :=
else
RUN := $(VENV)/bin/python
LINT_IMPORTS := $(VENV)/bin/lint-imports
SHELLCHECK := $(VENV)/bin/shellcheck
READY := $(VENV)/.phenaki_jax-installed
endif

# Large pages for what malloc gives out, which XLA on CPU is up to a seventh faster with; the phenaki command asks for them too.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

LIBTPU = .libtpu/libtpu/libtpu.so

BENCH_VENV = .bench/$(BENCH)
BENCH_REQUIREMENTS = $(wildcard benchmarks/$(BENCH).requirements.txt)
BENCH_READY = $(if $(BENCH_REQUIREMENTS),$(BENCH_VENV)/.installed,$(READY))
BENCH_RUN = $(if $(BENCH_REQUIREMENTS),$(BENCH_VENV)/bin/python,$(RUN))

# $(call create_venv,folder): does nothing where the folder already holds an environment with a working pip.
define create_venv
	@command -v $(PYTHON) >/dev/null \
	  || { echo "$(PYTHON) not found: install Python 3.11 or newer (Debian, Ubuntu: apt install python3 python3-venv)." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$$($(PYTHON) --version) is too old: install Python 3.11 or newer and name it, as in make PYTHON=python3.11." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "$(PYTHON) cannot create virtual environments: install its venv package (Debian, Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@$(1)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(1)
endef

.PHONY: help install demo test test-slow bench lint format clean
.DELETE_ON_ERROR:

help:
	@echo 'make install            create the environment and install the package into it, once'
	@echo 'make demo               dataset, both trainings, a story and a report, on one CPU; DEMO=folder says where'
	@echo 'make test               make lint, then every test that is not slow'
	@echo 'make test-slow          the slow tests, some hours on two cores; installs the TPU compiler into .libtpu'
	@echo 'make bench BENCH=name   benchmarks/name.py; its last line is one line of JSON; ARGS="..." are passed on'
	@echo 'make lint               formatting, ruff, types, which room may import which, and shell scripts'
	@echo 'make format             formats, and fixes what ruff can fix'
	@echo 'make clean              removes caches and build outputs; keeps .venv, .bench, .libtpu, demo and runs'
	@echo 'VENV=path names another environment than .venv; VENV=active takes the python3 on PATH as it is.'

install: $(READY)

# The stamp is touched last, so an interrupted or failed installation is begun again.
$(VENV)/.phenaki_jax-installed: pyproject.toml setup.py constraints.txt phenaki_jax/__init__.py
	$(call create_venv,$(VENV))
	@echo "Installing into $(VENV): some minutes and 4 GB, once." >&2
	@$(RUN) $(PIP_INSTALL) --constraint constraints.txt pip setuptools wheel
	@$(RUN) $(PIP_INSTALL) --constraint constraints.txt --no-build-isolation --editable '.[test]'
	@touch $@

demo: $(READY)
	$(RUN) -m phenaki_jax.cli.main demo --out $(DEMO)

test: lint
	$(RUN) -m pytest -m 'not slow' --timeout 600 -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test-slow: $(READY) $(LIBTPU)
	TPU_LIBRARY_PATH=$(abspath $(LIBTPU)) $(RUN) -m pytest -m slow --timeout 7200

# The TPU compiler, beside the environment: within it JAX would look for TPUs.
$(LIBTPU): constraints.txt | $(READY)
	@echo "Installing the TPU compiler into .libtpu, once." >&2
	@$(RUN) $(PIP_INSTALL) --constraint constraints.txt --no-deps --upgrade --target .libtpu libtpu
	@touch $@

lint: $(READY)
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(LINT_IMPORTS) --no-logo
	$(SHELLCHECK) --external-sources launch/*.sh

format: $(READY)
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

ifdef BENCH
bench: $(BENCH_READY)
	@test -f benchmarks/$(BENCH).py || { echo "There is no benchmarks/$(BENCH).py." >&2; exit 1; }
	@PYTHONPATH=. $(BENCH_RUN) benchmarks/$(BENCH).py $(ARGS)
else
bench:
	@echo 'Name one, as in make bench BENCH=name:' $(basename $(notdir $(wildcard benchmarks/*.py))) >&2; exit 1
endif

# A comparison's environment holds what its requirements file lists and nothing else (a line `-c ../constraints.txt`
# in it takes our versions); phenaki_jax comes from this checkout.
.bench/tokenizer_race/.installed: benchmarks/tokenizer_step.requirements.txt
.bench/%/.installed: benchmarks/%.requirements.txt constraints.txt
	$(call create_venv,.bench/$*)
	@echo "Installing into .bench/$*, once." >&2
	@.bench/$*/bin/python $(PIP_INSTALL) --requirement $< >&2
	@touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	find phenaki_jax tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
