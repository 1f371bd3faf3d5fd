# The commands of the project. The chain from notebooks to pages is in tools/book.mk.

PYTHON ?=
JOBS ?= 2
PY := .venv/bin/python
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help book test lab student report slides scale-test flower-test offline-kit lint format lock clean setup

help: ## list these targets
	@echo "make book          build the book: open _build/html/index.html when it is done"
	@echo "make test          lint, build the book, run every test"
	@echo "make notebooks/01  run one chapter alone"
	@echo "make lab           open JupyterLab on the notebooks"
	@echo "make report        is balancing worth it on a log of yours? LOG=clicks.csv LABEL=clicked"
	@echo "make student       notebooks with answer cells instead of solutions, in _build/student;"
	@echo "                   'make lab STUDENT=1' opens them"
	@echo "make slides        slides of each part, in _build/slides, from the notebooks as last run"
	@echo "make scale-test    the scale-out chapter's samples on Apache Spark too (needs Java 17)"
	@echo "make flower-test   the federated chapter's stores under Flower too, installed apart"
	@echo "make offline-kit   all that a room without network needs, in _build/offline-kit"
	@echo "make lint          check style; 'make format' repairs it"
	@echo "make lock          compile requirements.in into requirements.txt"
	@echo "make clean         delete everything made, except .venv"
	@echo
	@echo "JOBS=1 runs one notebook at a time; PYTHON=python3.12 chooses the Python of a new .venv."

setup:
	@PYTHON="$(PYTHON)" tools/setup.sh

book: setup ## the pages, in _build/html
	@$(PY) tools/chain.py --jobs $(JOBS) html

test: setup lint book
	@$(PY) -m pytest

notebooks/%: setup
	@$(PY) tools/chain.py --jobs $(JOBS) "$@"

lab: setup
	@$(PY) tools/lab.py $(if $(STUDENT),--student)

student: setup
	@$(PY) tools/student.py notebooks _build/student

# The options of the command line go to the script as they are: USER of the shell is none of them,
# and a column may have a $ in its name.
ifneq ($(filter report,$(MAKECMDGOALS)),)
GIVEN := $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v))
$(foreach v,$(GIVEN),$(eval export RECBAL_REPORT_$v := $$(value $v)))
export RECBAL_CALLER := $(PWD)
endif

report: setup ## a report on a log of your own
	@$(PY) tools/report.py

slides: setup
	@$(PY) tools/slides.py

scale-test: setup
	@$(PY) tools/scale_test.py

flower-test: setup
	@$(PY) tools/flower_test.py

offline-kit: setup
	@$(PY) tools/offline_kit.py

lint: setup
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { echo "lint: run 'make format'" >&2; exit 1; }
	@$(BIN)/nbstripout --verify --keep-id notebooks/*.ipynb || { echo "lint: notebooks hold outputs; run 'make format'" >&2; exit 1; }

format: setup
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@$(BIN)/nbstripout --keep-id notebooks/*.ipynb

lock: setup
	@$(BIN)/uv pip compile requirements.in --universal --python-version 3.11 --quiet --no-emit-index-url --output-file requirements.txt

clean:
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
