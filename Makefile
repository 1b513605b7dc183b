# A newcomer types `make demo` or `make test`; both install into .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help install demo test unit check bench faults release-check

help:
	@echo "make demo    run experiments/quickstart.yaml: a first learning curve in ten minutes on two CPU cores"
	@echo "make test    checks, unit tests and tests on a real local Ray"
	@echo "make unit    unit tests only: seconds, no Ray"
	@echo "make check   ruff, mypy and import-linter"
	@echo "make bench   speed and memory against peers; an hour, on a quiet machine"
	@echo "make faults  forty seeded kills of drivers, workers and nodes, and the slowest tests; half an hour"
	@echo "make release-check  sdist and wheel; the wheel, in a new environment, runs the quickstart in small"
	@echo "make install only the virtual environment .venv"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "raylearn needs Python 3.11 to 3.13: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -e ".[dev]" -c constraints.txt
	touch $@

demo: $(INSTALLED)
	$(BIN)/raylearn run quickstart

test: check
	$(BIN)/pytest tests -n 3 --dist loadfile --no-loadscope-reorder

unit: $(INSTALLED)
	$(BIN)/pytest tests/unit

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.scoring
	$(BIN)/python -m benchmarks.embeddings
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.query
	$(BIN)/python -m benchmarks.choosing
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.scheduler

faults: $(INSTALLED)
	$(BIN)/pytest tests -m long

# What a user of the package gets: no file of the repository is in reach of what runs here.
RELEASE := $(abspath build/release)
BUILD := from setuptools import build_meta as b; b.build_sdist("dist"); b.build_wheel("dist")
SMALL := dataset.reef.num_pool=40 dataset.reef.num_test=12 detector.image_size=64 training.epochs=2 initial_size=8 \
	budget=4 arms.query_size=[4] seeds=[0]

release-check: $(INSTALLED)
	rm -rf dist build
	$(BIN)/python -c '$(BUILD)' > /dev/null
	mkdir -p $(RELEASE)
	$(PYTHON) -m venv $(RELEASE)/venv
	$(RELEASE)/venv/bin/pip install --quiet dist/*.whl -c constraints.txt
	cd $(RELEASE) && venv/bin/raylearn run quickstart $(SMALL) && test -s runs/quickstart/report.html
	cd $(RELEASE) && venv/bin/raylearn init mine.yaml && venv/bin/raylearn check mine.yaml
	@ls -l dist
