# A fresh machine needs Python 3.11 or newer with venv, and make. Everything else goes into .venv.
#
#   make run        train notebooks/02_train.ipynb on all three backends and report
#   make test       everything that CI runs
#   make quick      the tests of one backend that take no time, BACKEND=torch or another; pytest --lf works
#   make notebooks  execute the notebooks and store them as they are committed
#   make params     write what Recipe says of its parameters into params, docs and the notebooks
#   make bench      our network beside hand-written ones in each framework, into benchmarks/results
#   make lab        open the notebooks in JupyterLab
#   make wheel      the package as it is installed: its wheel in an empty environment, with BACKEND=jax or another
#   make lowest     the same with the lowest versions that pyproject.toml allows
#   make nightly    put Keras's nightly build into .venv
#   make clean      remove .venv, runs and generated data

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BACKENDS := tensorflow jax torch
INSTALLED := $(VENV)/installed

.DELETE_ON_ERROR:
.PHONY: run test quick lint notebooks params bench lab wheel lowest nightly clean $(BACKENDS:%=test-%)

run: $(INSTALLED)
	@$(BIN)/python -m alexnet batch notebooks/02_train.ipynb --backends $(BACKENDS)

test: lint $(BACKENDS:%=test-%)
	@echo "All tests passed on: $(BACKENDS)"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# One process for each backend: Keras cannot change it. What does not depend on it is tested with the first.
test-tensorflow: ONLY :=
test-jax test-torch: ONLY := -m "not once"
# XLA would compile the same small networks again and again; a test finds what an earlier one compiled.
test-jax: export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/$(VENV)/compiled
test-jax: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0.1
$(BACKENDS:%=test-%): test-%: $(INSTALLED)
	KERAS_BACKEND=$* $(BIN)/python -m pytest tests --ignore=tests/notebooks $(ONLY)
	KERAS_BACKEND=$* $(BIN)/python -m pytest -c tests/notebooks/nbval.ini --nbval --nbval-kernel-name python3 \
	  notebooks tests/notebooks

quick: BACKEND ?= torch
quick: $(INSTALLED)
	KERAS_BACKEND=$(BACKEND) $(BIN)/python -m pytest tests --ignore=tests/notebooks -q -m "not once and not slow"

notebooks: $(INSTALLED)
	$(BIN)/python tests/notebooks/refresh.py

params: $(INSTALLED)
	$(BIN)/python docs/write_parameters.py

bench: $(INSTALLED)
	@$(BIN)/python -m benchmarks --growth

wheel lowest: BACKEND ?= jax
wheel lowest:
	$(PYTHON) tests/environments.py $@ --backend $(BACKEND)

nightly: $(INSTALLED)
	$(BIN)/python -m pip uninstall --quiet --yes keras  # both are the module keras
	$(BIN)/python -m pip install --quiet --pre keras-nightly

lab: $(INSTALLED)
	$(BIN)/python -m pip install --quiet jupyterlab
	$(BIN)/jupyter lab notebooks

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=python3.11')"
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); this takes a few minutes the first time."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) runs data/shapes data/signs
