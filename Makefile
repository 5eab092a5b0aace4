# `make quickstart` and `make test` set everything up by themselves on a machine with Python 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: install install-browser quickstart test test-quiet test-wheel check benchmark audit clean

install: $(INSTALLED)

# torch comes first and alone, in the build that pip's indexes give (CONTRIBUTING.md), before another package asks for any torch.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "slam-asr needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,dev]'
	touch $(INSTALLED)

# What the tests of the demo app need besides Chromium.
install-browser: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[browser]'

quickstart: install
	$(BIN)/slam-asr quickstart --resume

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The same where every bar of tqdm, datasets, huggingface_hub and transformers is off, as on a server or in a notebook.
test-quiet: install
	TQDM_DISABLE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 \
		$(BIN)/python -m pytest -n 2 --dist loadfile tests/modeling_slam_asr tests/trainers tests/hub_upload

# The wheel as anybody installs it: `make test-wheel PYTHON=python3.13`, packages as pip picks them (gigabytes), no constraints.txt.
test-wheel: install
	SLAM_ASR_WHEEL_PYTHON=$(PYTHON) $(BIN)/python -m pytest -m slow tests/test_wheel.py

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_docs.py tests/test_readme.py
	$(BIN)/python -m pytest -q --collect-only -m slow >/dev/null

# Speed by engine beside the plain composition of the parts; options are told by `python -m benchmarks.speed --help`.
benchmark: install
	$(BIN)/python -m benchmarks.speed

# Known vulnerabilities of the versions that are installed, from an index that lists them; --strict: what it does not know is told.
audit: install
	test -x .venv/audit/bin/pip-audit || { $(PYTHON) -m venv .venv/audit && .venv/audit/bin/pip install --quiet pip-audit; }
	.venv/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

clean:
	rm -rf .venv build *.egg-info quickstart runs
