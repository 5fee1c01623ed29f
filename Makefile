# make demo: set up, run the pipeline on the embedded default, show the result.
# make test: set up, lint, run the tests.
# make slow: the tests that take minutes, among them every stage of the paper's presets on small models.
# make plots: the charts of dvc plots, drawn without a network.
# make data: download the published corpora that corpora.fetch in params.yaml names.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_DISABLE_PROGRESS_BARS := 1
export TRANSFORMERS_NO_ADVISORY_WARNINGS := 1

.PHONY: demo data test slow lint experiments plots clean help
help:
	@sed -n '1,5p' Makefile

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --progress-bar off -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

demo: $(VENV)/.installed
	dvc repro
	comat show

data: $(VENV)/.installed
	dvc repro corpora

lint: $(VENV)/.installed
	ruff check .
	ruff format --check .

test: lint
	python -m pytest -q -n 2

slow: $(VENV)/.installed
	python -m pytest -q -n 2 -m slow

experiments: $(VENV)/.installed
	dvc exp show --drop '.*' --keep '^Experiment$$|oracle\.(color|spatial|numeracy|complex|total)\.(tuned|gain)$$|frechet\.ratio|^lambda_adv|^alpha|^concept_activation|^image_batch' --num 1

plots: $(VENV)/.installed
	python -m comat.reporting.plots_page .work/plots.html
	dvc plots show --out data/evaluate/plots --html-template .work/plots.html

clean:
	rm -rf $(VENV) .work
