# pophood's commands. `make help` lists them.
PYTHON ?= python3
MODEL ?=
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check
BUILD := build/dev
# One build of a folder at a time: two would damage ninja's records.
LOCK := $(if $(shell command -v flock),flock build)
CMAKE = PATH="$(CURDIR)/$(BIN):$$PATH" $(LOCK) cmake
TORCH := torch==2.13.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
# Requirements of an extra, read from pyproject.toml: the tests need them without building pophood twice.
EXTRA = $(PY) -c 'import sys, tomllib; e = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; print("\n".join(r for n in sys.argv[1:] for r in e[n]))'

# What `make quick` runs: folders whose tests are small, without their slowest files.
QUICK := $(addprefix tests/,sampling formats families generate hub text train/data attacks) \
  $(addprefix --ignore=tests/,text/test_authorities.py text/test_word_cuts.py text/test_tokenizer.py \
    attacks/test_template_attacks.py generate/test_endings.py hub/test_misbehaving_hub.py)

.DEFAULT_GOAL := help
.PHONY: help run tune-demo studio test quick test-full test-clients system-deps lint format typecheck mutants soak bench docs site pictures picture-peers notebook slides wheel check-wheel release-check native stubs clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/installed ## install, fetch the default model if there is none, show a demo (MODEL=smollm2: the small one)
	@$(BIN)/pophood demo $(if $(MODEL),--model $(MODEL))
	@echo "  make tune-demo   # fine-tune a small model for a minute"

tune-demo: $(VENV)/train-installed ## fine-tune smollm2 on a bundled text for a minute, samples before and after
	@$(BIN)/pophood tune tests/data/tinyshakespeare/first-120000.txt -m $(or $(MODEL),smollm2) --minutes 1 \
	  --learning-rate 5e-4 -o build/shakespeare-lora --overwrite

studio: $(VENV)/created ## check, test and build the studio's page and the scripts of saved pages (brings Node if there is none)
	@$(PY) studio/make.py

test: $(VENV)/test-installed native ## run the whole test suite (installs what it compares with; WORKERS=4: four tests at a time)
	@$(PY) studio/make.py --if-possible
	@$(PY) -m pytest -n $(WORKERS) --dist worksteal

quick: $(VENV)/test-installed native ## run the unit tests of readers, tokenizers, samplers, the hub and training data: under a minute
	@$(PY) -m pytest -n $(WORKERS) --dist worksteal -q $(QUICK)

test-full: $(VENV)/test-installed $(VENV)/ray-installed native ## the same with every long check (large shapes, random kills, clean installs; POPHOOD_FUZZ=100000: more mutations)
	@$(PY) studio/make.py --if-possible
	@POPHOOD_FUZZ=$(or $(POPHOOD_FUZZ),5000) $(PY) -m pytest -m "not clients" --timeout 3600 -n $(WORKERS) --dist worksteal

test-clients: $(VENV)/test-installed native ## try the server with real clients, in environments of their own (needs a network at the first time)
	@$(PY) -m pytest -m clients tests/clients

system-deps: ## Debian, as root: the tools that only the system can bring
	@sh tests/system-deps.sh

lint: $(VENV)/test-installed ## ruff and the layer rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

format: $(VENV)/test-installed ## lay the Python files out, and those of the studio if Node is there
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .
	@$(PY) studio/make.py --format

typecheck: $(VENV)/test-installed ## mypy --strict
	@$(BIN)/mypy

mutants: $(VENV)/test-installed native ## try the tests on 150 small wrong changes, and list those that none notices (hours)
	@$(PY) -m tests.mutants

soak: $(VENV)/test-installed native ## 100,000 requests of every kind to one server over an hour: what it holds (REQUESTS=, MINUTES=)
	@$(PY) -m tests.soak --requests $(or $(REQUESTS),100000) --minutes $(or $(MINUTES),60)

bench: $(VENV)/test-installed native ## time the engine beside its peers, one JSON line each
	@for file in benchmarks/[a-z]*.py; do $(PY) $$file || exit 1; done

docs: $(VENV)/installed native ## write the generated pages (docs/cli.md)
	@$(PY) -m pophood.cli.docs docs/cli.md

site: $(VENV)/docs-installed native ## build the documentation as a site, build/site (strict: a broken link ends it)
	@$(PY) -m docs.site

pictures: $(VENV)/test-installed $(VENV)/train-installed native ## make the README's pictures anew with smollm2 (needs Chromium; minutes)
	@$(PY) -m docs.pictures

picture-peers: $(VENV)/test-installed native ## draw the README's comparison with other engines from benchmarks/results
	@$(PY) -m docs.pictures peers

notebook: $(VENV)/installed native ## write notebooks/talk.ipynb from the course
	@$(BIN)/pophood talk --notebook notebooks/talk.ipynb

slides: $(VENV)/installed native ## write the talk as slides, build/talk.html (MODEL=smollm2: with its outputs)
	@$(PY) -c 'import matplotlib' 2> /dev/null || { $(EXTRA) plot > build/plot-requirements.txt && \
	  $(PIP) install -q -c constraints.txt -r build/plot-requirements.txt; }
	@$(BIN)/pophood talk --slides build/talk.html $(if $(MODEL),--model $(MODEL))

wheel: $(VENV)/test-installed studio ## build the wheel (on Linux as manylinux) and the sdist into dist/
	@rm -rf dist && $(PY) -m build --no-isolation --outdir dist .
	@test "$$(uname)" != Linux || { PATH="$(CURDIR)/$(BIN):$$PATH" $(PY) -m auditwheel repair --wheel-dir dist dist/*-linux_*.whl && rm dist/*-linux_*.whl; }

check-wheel: $(VENV)/test-installed studio ## build, audit, install in a bare environment and use the Linux wheel
	@$(PY) -m pytest -m "full or not full" tests/contracts/test_packaging.py --timeout 1800

release-check: $(VENV)/test-installed ## build a release from a clean clone of HEAD, check it, use it with every Python that is here
	@$(PY) -m tests.release

native: $(VENV)/installed ## rebuild the C++ part after an edit
	@test -f $(BUILD)/CMakeCache.txt || { rm $(VENV)/installed && $(MAKE) -s $(VENV)/installed; }
	@$(CMAKE) --build $(BUILD) --target _native -- --quiet
	@$(CMAKE) --install $(BUILD) --component python --prefix "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("platlib"))')" > /dev/null

stubs: native $(VENV)/test-installed ## write the type stubs of the C++ module (src/pophood/_native) with nanobind's stubgen
	@$(PY) -m nanobind.stubgen -q -r -m pophood._native -O src/pophood && $(BIN)/ruff format -q src/pophood/_native

clean: ## remove what was built (not .venv, not models)
	rm -rf build dist wheelhouse src/pophood/*/dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(0) if sys.version_info >= (3, 11) else sys.exit("pophood needs Python 3.11 or newer; %s is %d.%d: try make PYTHON=python3.12" % (sys.executable, *sys.version_info[:2]))'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/created pyproject.toml constraints.txt
	@echo "Installing pophood into $(VENV) (compiles the engine, about a minute)"
	@command -v cmake > /dev/null || $(PIP) install -q -c constraints.txt cmake
	@$(PIP) install -q -c constraints.txt scikit-build-core nanobind ninja
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install -q -c constraints.txt --no-build-isolation -C build-dir=$(BUILD) $(if $(CI),-C cmake.define.POPHOOD_WERROR=ON) -e .
	@touch $@

$(VENV)/torch-installed: $(VENV)/created constraints.txt
	@$(PY) -c 'import importlib.metadata as m, sys; sys.exit(m.version("torch").split("+")[0] != "2.13.0")' 2> /dev/null || { \
	  if [ "$$(uname)" = Linux ] && $(PIP) install -q --no-deps --retries 0 --timeout 5 --index-url $(TORCH_CPU_INDEX) $(TORCH); then :; else \
	  echo "No CPU build of $(TORCH) from $(TORCH_CPU_INDEX); taking the default one"; \
	  $(PIP) install -q -c constraints.txt $(TORCH); fi; }
	@touch $@

$(VENV)/train-installed: $(VENV)/installed $(VENV)/torch-installed
	@mkdir -p build && $(EXTRA) train > build/train-requirements.txt && $(PIP) install -q -c constraints.txt -r build/train-requirements.txt
	@touch $@

$(VENV)/test-installed: $(VENV)/installed $(VENV)/torch-installed
	@echo "Installing what the tests compare with (llama-cpp-python compiles for about 6 minutes)"
	@mkdir -p build && $(EXTRA) test oracle docs > build/test-requirements.txt && $(PIP) install -q -c constraints.txt -r build/test-requirements.txt
	@touch $@

$(VENV)/docs-installed: $(VENV)/installed
	@mkdir -p build && $(EXTRA) docs > build/docs-requirements.txt && $(PIP) install -q -c constraints.txt -r build/docs-requirements.txt
	@touch $@

$(VENV)/ray-installed: $(VENV)/test-installed
	@mkdir -p build && $(EXTRA) ray notebook > build/ray-requirements.txt && $(PIP) install -q -c constraints.txt -r build/ray-requirements.txt
	@touch $@
