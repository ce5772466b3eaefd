# make demo   the whole way on a laptop, offline once installed      make test   what CI runs
# make unit   the unit tests alone                                    make lint   ruff, if there is one
#
# PYTHON=/path/to/python3.11  VENV=/another/folder  DEMO_ARGS="key=value ..."

PYTHON ?= python3.11
VENV ?= .venv
DEMO_ARGS ?=
TEST_DEMO_ARGS ?= --quick
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.PHONY: demo test unit lint install clean

demo: install
	$(RUN) examples/demo.py $(DEMO_ARGS)

# the unit tests come last, so that their closing line is the last one
test: install
	$(RUN) examples/demo.py $(TEST_DEMO_ARGS)
	$(RUN) -m pytest tests

unit: install
	$(RUN) -m pytest tests

lint:
	@if command -v ruff >/dev/null; then ruff check .; else echo "no ruff here: pip install ruff, then make lint"; fi

install: $(INSTALLED)

# The package itself is installed in place: scripts and their child processes find it from any folder. That needs no
# network, because the setuptools that requirements.txt has brought is used as it is.
$(INSTALLED): requirements.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
		{ echo "nemo_duplex needs Python 3.11, and '$(PYTHON)' is not: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "this Python has no venv: on Debian and Ubuntu, apt-get install python3.11-venv"; exit 1; }
	@echo "installing into $(VENV): about 4 GB, some minutes"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --disable-pip-version-check --quiet -r requirements.txt || \
		{ echo "installation failed. cdifflib and pyopenjtalk (both asked for by NeMo's tts) are built here and need a C and a" \
		"C++ compiler and the headers of Python: apt-get install build-essential python3.11-dev"; exit 1; }
	$(RUN) -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) nemo_duplex.egg-info
