# make demo: set up, run the pipeline on the embedded default, show the result.
# make test: set up, lint (ruff, mypy), run the tests.
# make slow: the tests that take minutes, among them every stage of the paper's presets on small models.
# make coverage: the tests of make test, and the share of each file's lines that they run.
# make plots: the charts of dvc plots, drawn without a network.
# make data: download the published corpora that corpora.fetch in params.yaml names.
# The first that runs and can make an environment; a name alone says neither (pyenv's shims, Debian without its venv package).
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11; do \
	$$name -c '$(FITS)' 2>/dev/null && echo $$name && break; done)
FITS := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))
NEEDED := needs Python 3.11, 3.12 or 3.13 with its venv module, found by that name (python3.12): install one, or say \
	which: make PYTHON=/path/to/python
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_DISABLE_PROGRESS_BARS := 1
export TRANSFORMERS_NO_ADVISORY_WARNINGS := 1

.PHONY: demo data test slow coverage lint experiments plots clean help
help:
	@sed -n '1,6p' Makefile

$(VENV)/.installed: requirements.txt pyproject.toml
	$(if $(shell $(or $(PYTHON),false) -c '$(FITS)' 2>/dev/null && echo yes),,$(error $(NEEDED)))
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --progress-bar off -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

demo: $(VENV)/.installed
	dvc repro
	comat show
	@echo; echo "To use comat and dvc in this shell: . $(BIN)/activate"

data: $(VENV)/.installed
	dvc repro corpora

lint: $(VENV)/.installed
	ruff check .
	ruff format --check .
	mypy

test: lint
	python -m pytest -q -n 2

coverage: $(VENV)/.installed
	python -m pytest -q -n 2 --cov --cov-report=term:skip-covered

slow: $(VENV)/.installed
	python -m pytest -q -n 2 -m slow

# What a person varies or looks at, of the hundreds of columns of dvc exp show: every parameter and dependency has one.
COLUMNS := (Experiment|rev|Created|State|.*\.total\.(base|tuned|gain)|oracle\.\w+\.gain|frechet\.ratio|train\.(loss|i2t)|seed|base_model|captioner|discriminator|concept_activation|attribute_(loss|steps)|alpha|beta|lambda_adv|guidance_scale|lora_rank|learning_rate|learning_rate_schedule|train_steps|global_batch|image_batch)$$
experiments: $(VENV)/.installed
	dvc exp show --drop '.*' --keep '$(COLUMNS)' --num 1

plots: $(VENV)/.installed
	python -m comat.reporting.plots_page .work/plots.html
	dvc plots show --out data/evaluate/plots --html-template .work/plots.html

clean:
	rm -rf $(VENV) .work
