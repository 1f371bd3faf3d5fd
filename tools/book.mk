# The chain from sources to pages; run by tools/chain.py, which names PY and the targets.
# A rule writes to a temporary name and moves the result into place when it is good.

CHAPTERS := $(patsubst notebooks/%.ipynb,%,$(sort $(wildcard notebooks/[0-9]*.ipynb notebooks/report.ipynb)))
EXECUTED := $(CHAPTERS:%=_build/executed/%.ipynb)
DIAGRAMS := $(patsubst book/diagrams/%.mmd,_build/diagrams/%.svg,$(wildcard book/diagrams/*.mmd))
PAGES := $(wildcard book/*.md book/*.bib book/quizzes/*.yml book/slides/*.md book/assets/*) book _config.yml _toc.yml
STAGERS := tools/stage.py tools/tables.py tools/quiz.py tools/slides.py tools/slides.html tools/common.py tools/pages.py

.PHONY: html
html: _build/html.stamp

# Which chapter imports which module of recbal_utils, found by tools/deps.py.
-include _build/deps.mk

# The caches that all notebooks read, so that no two of them build the same one at once.
_build/data.stamp: .venv/.installed $(DATA_MODULES)
	@$(PY) -m recbal_utils.datasets
	@touch $@

# An experiment too long for a notebook; the notebooks that read it depend on it (deps.mk).
_build/studies/%.parquet: studies/%.py .venv/.installed | _build/data.stamp
	@$(PY) tools/study.py $*

_build/executed/%.ipynb: notebooks/%.ipynb .venv/.installed | _build/data.stamp
	@$(PY) tools/execute.py $*

# What Apache Spark returned: carried by the project, or from `make scale-test`.
_build/executed/21_scale_out.ipynb: $(wildcard studies/21_scale_out.json _build/spark/record.json)

# What Flower returned: carried by the project, or from `make flower-test`.
_build/executed/19_federated_private.ipynb: $(wildcard studies/19_federated_private.json _build/flower/record.json)

_build/diagrams/%.svg: book/diagrams/%.mmd tools/diagram.py
	@$(PY) tools/diagram.py $< $@

_build/html.stamp: $(EXECUTED) $(DIAGRAMS) $(PAGES) $(STAGERS)
	@$(PY) tools/pages.py $@
