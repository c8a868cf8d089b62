# A fresh machine needs Python 3.11 or newer with venv, and make. Everything else goes into .venv.
#
#   make run        train notebooks/02_train.ipynb on all three backends and report
#                   BACKENDS=jax installs and runs that one only; GPU=1 installs what an NVIDIA GPU needs
#   make test       everything that CI runs; BACKENDS=jax for one backend
#   make quick      the tests of one backend that take no time, BACKEND=torch or another; pytest --lf works
#   make test-notebooks  every notebook on every backend, as they are committed; `make test` shares out what takes long
#   make notebooks  execute the notebooks and store them as they are committed
#   make params     write what Recipe says of its parameters into params, docs and the notebooks, and what pyproject.toml
#                   and requirements.txt say of packages into a table of the package; badges, see docs/hosted.md
#   make bench      our network beside hand-written ones in each framework, into benchmarks/results
#   make docs       the pages of docs/ and a reference of the public names, into site/
#   make pages      every notebook as HTML and PDF to print, with formulas that need no internet, into build/pages
#   make lab        open the notebooks in JupyterLab
#   make wheel      the package as it is installed: its wheel in an empty environment, with BACKEND=jax or another
#   make lowest     the same with the lowest versions that pyproject.toml allows
#   make test-hosted  the tests that matter on Kaggle, with its versions, in .venv-hosted; BACKEND=jax or another
#   make nightly    put Keras's nightly build into .venv
#   make clean      remove .venv, runs and generated data

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ALL := tensorflow jax torch
BACKENDS := $(ALL)
# The tests compare each backend with the others and need all of them; a run needs those that it is told.
INSTALLED := $(VENV)/installed$(GPU:%=-gpu)
MISSING := $(filter-out $(BACKENDS),$(ALL))
CHOSEN := $(INSTALLED)$(subst $() ,,$(MISSING:%=-without-%))
HOSTED := .venv-hosted

.DELETE_ON_ERROR:
.PHONY: run test quick lint test-notebooks test-hosted notebooks params bench docs pages lab wheel lowest nightly clean
.PHONY: $(BACKENDS:%=test-%)

run: $(CHOSEN)
	@$(BIN)/python -m alexnet batch notebooks/02_train.ipynb --backends $(BACKENDS)

test: lint $(BACKENDS:%=test-%)
	@echo "All tests passed on: $(BACKENDS)"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Keras cannot change its backend in a process. What does not depend on it is tested with PyTorch, which starts fastest.
test-torch: ONLY :=
test-jax test-tensorflow: ONLY := -m "not once"
# Two processes: a test waits for a compiler of one thread, for a disk or for a process that it has started. The idle
# threads of PyTorch would take the processor from the other one, unless they sleep.
PYTEST := OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest tests --ignore=tests/notebooks -n 2 --dist worksteal
NBVAL := $(BIN)/python -m pytest -c tests/notebooks/nbval.ini --nbval --nbval-kernel-name python3
# 01 and 02 are compared on every backend, 03, 05 and 06 on one each; 03 goes on with the run of 02. 04 trains a dozen
# networks: tests/notebooks has a short run of it, and `make test-notebooks` compares it and its solutions.
NOTEBOOKS_torch := 01_architecture 02_train 05_backends
NOTEBOOKS_jax := 01_architecture 02_train 03_evaluate 06_two_gpus
NOTEBOOKS_tensorflow := 01_architecture 02_train
# The solutions of a notebook's exercises, on one backend.
SOLUTIONS_torch := 01_architecture 05_backends
SOLUTIONS_jax := 03_evaluate 06_two_gpus
SOLUTIONS_tensorflow := 02_train
# XLA would compile the same small networks again and again; a test finds what an earlier one compiled.
test-jax quick: export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/$(VENV)/compiled
test-jax quick: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0.1
$(BACKENDS:%=test-%): test-%: $(INSTALLED)
	KERAS_BACKEND=$* $(PYTEST) $(ONLY)
	KERAS_BACKEND=$* $(NBVAL) $(NOTEBOOKS_$*:%=notebooks/%.ipynb) \
		$(SOLUTIONS_$*:%=notebooks/solutions/%.ipynb) tests/notebooks

test-notebooks: $(INSTALLED)
	@set -e; for backend in $(BACKENDS); do KERAS_BACKEND=$$backend $(NBVAL) notebooks tests/notebooks; done

quick: BACKEND ?= torch
quick: $(INSTALLED)
	KERAS_BACKEND=$(BACKEND) $(PYTEST) -q -m "not once and not slow"

notebooks: $(INSTALLED)
	$(BIN)/python tests/notebooks/refresh.py

params: $(INSTALLED)
	$(BIN)/python docs/write_parameters.py
	$(BIN)/python docs/write_badges.py

bench: $(INSTALLED)
	@$(BIN)/python -m benchmarks --scaling

wheel lowest: BACKEND ?= jax
wheel lowest:
	$(PYTHON) tests/environments.py $@ --backend $(BACKEND)

HOSTED_TESTS := layers ops model networks recipe checkpoints data decoding
HOSTED_NOTEBOOKS := 01_architecture 02_train 03_evaluate 04_finetune
test-hosted: BACKEND ?= jax
test-hosted: export PYTHONPATH := $(CURDIR)
test-hosted: export PATH := $(CURDIR)/$(HOSTED)/bin:$(PATH)
test-hosted: $(HOSTED)/installed
	KERAS_BACKEND=$(BACKEND) python -m pytest $(HOSTED_TESTS:%=tests/test_%.py) -n 2 --dist worksteal
	KERAS_BACKEND=$(BACKEND) python -m pytest -c tests/notebooks/nbval.ini --nbval --nbval-kernel-name python3 \
	    $(HOSTED_NOTEBOOKS:%=notebooks/%.ipynb)

nightly: $(INSTALLED)
	$(BIN)/python -m pip uninstall --quiet --yes keras  # both are the module keras
	$(BIN)/python -m pip install --quiet --pre keras-nightly

docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "site/index.html"

pages: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	@$(BIN)/python docs/notebook_pages.py

lab: $(INSTALLED)
	$(BIN)/python -m pip install --quiet jupyterlab
	$(BIN)/jupyter lab notebooks

$(CHOSEN): FOR := $(BACKENDS)
$(INSTALLED): FOR := $(ALL)
$(sort $(CHOSEN) $(INSTALLED)): requirements.txt pyproject.toml requirements/install.py
	@$(PYTHON) requirements/install.py $(VENV) --backends $(FOR) $(if $(GPU),--gpu)
	@touch $@

# TORCH=2.13.0 takes another PyTorch where no build of that version for a CPU is found.
$(HOSTED)/installed: requirements/hosted.txt requirements/install.py
	@$(PYTHON) requirements/install.py $(HOSTED) --lock requirements/hosted.txt $(TORCH:%=--torch %)
	@touch $@

clean:
	rm -rf $(VENV) $(HOSTED) runs site build data/shapes data/signs
