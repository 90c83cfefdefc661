# The whole project in a few commands. `make` alone lists them.
#
# PYTHON=python3.11   the interpreter that makes .venv
# Nothing here depends on where the checkout lies; the package index is the only network that is used.

PYTHON ?= python3.11
VENV   := .venv
RUN    := $(VENV)/bin/python
SPHINX := $(RUN) -c "from jupyter_book.cli.main import main; main()" build . -n -W --keep-going

ZOO    := --images $(or $(IMAGES),cifar10) $(addprefix --method ,$(METHOD)) $(addprefix --seed ,$(SEED))

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help book html test lint unit cases pages nbval check bench rates run zoo zoo-publish zoo-verify zoo-repeat packs paper paper-dry lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 20

book: $(VENV)/installed  ## install what is missing, execute every notebook, build the book
	$(RUN) scripts/notebooks.py execute
	@$(MAKE) html

html: $(VENV)/installed  ## build the book from the committed outputs, warnings are errors
	$(SPHINX)
	@echo "The book is at $(CURDIR)/_build/html/index.html"

test: $(VENV)/installed  ## everything: lint, unit tests, build, the pages in a browser, the notebooks' outputs
	@$(MAKE) lint
	@$(MAKE) unit
	@$(MAKE) html
	@$(MAKE) pages
	@$(MAKE) nbval

lint: $(VENV)/installed  ## ruff: rules and format
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

unit: $(VENV)/installed  ## unit and property tests
	$(RUN) -m pytest --ignore=tests/browser --ignore=tests/benchmarks

cases: $(VENV)/installed  ## 10,000 adversarial sets through both engines (5 min)
	CASES=10000 $(RUN) -m pytest -q tests/test_duplicates.py -k adversarial

pages: $(VENV)/installed  ## look at the built pages in headless Chromium (light, dark, phone width)
	@if command -v chromedriver >/dev/null || [ -n "$$CI" ]; then $(RUN) -m pytest -q tests/browser; else \
		echo "The pages were NOT looked at in a browser: there is no chromedriver" \
			"(Debian: apt-get install chromium chromium-driver)."; fi

# Two at a time, the two longest first, one thread each.
nbval: $(VENV)/installed  ## execute every notebook again and compare its outputs with the committed ones
	printf '%s\n' notebooks/0[38]-*.ipynb $$(ls notebooks/*.ipynb | grep -v '/0[38]-') | \
		OMP_NUM_THREADS=1 JUPYTER_PREFER_ENV_PATH=1 xargs -P 2 -n 1 $(RUN) -m pytest -q --nbval \
		--nbval-current-env --nbval-cell-timeout=900 --nbval-sanitize-with tests/nbval.cfg

bench: $(VENV)/installed  ## the benchmarks: tests/benchmarks/bench_*.py
	@set -e; for script in tests/benchmarks/bench_*.py; do echo "== $$script"; $(RUN) "$$script"; done

rates: $(VENV)/installed  ## measure this machine for the cost model of the appendix on scale
	$(RUN) -m tests.benchmarks.measure_rates

run: $(VENV)/installed  ## your own run: make run NB=08 P="model=timm:resnet18 images=FOLDER" [F=FILE.yaml]
	@$(RUN) scripts/notebooks.py run "$(NB)" -p "$$P" -f "$$F"

zoo: $(VENV)/installed  ## train the pocket zoo: make zoo [METHOD=byol] [SEED=1] [IMAGES=FOLDER]
	OMP_NUM_THREADS=1 $(RUN) scripts/zoo.py train $(ZOO)

zoo-publish: $(VENV)/installed
	OMP_NUM_THREADS=1 $(RUN) scripts/zoo.py publish $(ZOO)

zoo-verify: $(VENV)/installed
	OMP_NUM_THREADS=1 $(RUN) scripts/zoo.py verify $(ZOO)

zoo-repeat: $(VENV)/installed
	OMP_NUM_THREADS=1 $(RUN) scripts/zoo.py repeat $(ZOO)

paper: $(VENV)/installed  ## the study at full size: make paper IMAGES=FOLDER [WEIGHTS=FOLDER] [DEVICE=cuda] [WORKERS=8]
	$(RUN) scripts/paper.py run --images "$(IMAGES)" $(if $(WEIGHTS),--weights "$(WEIGHTS)") \
		$(addprefix --device ,$(DEVICE)) $(addprefix --workers ,$(WORKERS)) $(addprefix --params ,$(F))

paper-dry: $(VENV)/installed  ## rehearse it on synthetic checkpoints, from files to figures
	$(RUN) scripts/paper.py dry

packs: $(VENV)/installed  ## rebuild the image packs from their sources
	$(RUN) scripts/packs/build.py

lock: $(VENV)/installed  ## after a change of pyproject.toml: pin it in requirements.lock and environment.yml
	$(RUN) scripts/lock.py

clean:  ## remove the built book (not .venv, not runs/)
	rm -rf _build

# --no-build-isolation: the pinned setuptools of the lock builds the project, nothing else is downloaded.
$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
