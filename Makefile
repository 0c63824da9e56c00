# `make demo` and `make test` are complete on a fresh machine with Python 3.11 to 3.13: they make their own
# virtual environment from hashed pins. PYTHON=/path/to/python chooses another interpreter.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
# Processes that share the tests.
JOBS ?= 2

.PHONY: demo test slow lint golden lock docs clean

demo: $(VENV)/run.done
	$(BIN)/liverjax demo -o demo_output

test: $(VENV)/test.done
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

slow: $(VENV)/test.done
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

# The resolved values of the shipped configs, after a change of a default: look at the difference.
golden: $(VENV)/test.done
	LIVERJAX_WRITE_GOLDEN=1 $(BIN)/python -m pytest -q tests/test_golden_configs.py

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "liverjax needs Python 3.11 to 3.13, and none was found" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.done: requirements/run.txt requirements/build.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt -r requirements/build.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/test.done: requirements/test.txt $(VENV)/run.done
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/test.txt
	touch $@

# The pins: hashed, without addresses, for every Python that the library supports. Needs `uv`.
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --generate-hashes --no-header
lock:
	$(COMPILE) pyproject.toml -o requirements/run.txt
	$(COMPILE) requirements/build.in -c requirements/run.txt -o requirements/build.txt
	$(COMPILE) requirements/docs.in -o requirements/docs.txt
	$(COMPILE) --extra test pyproject.toml requirements/build.in -c requirements/run.txt -o requirements/test.txt

# The site, build/site/index.html, from docs/ and the docstrings, in an environment of its own. Any warning fails.
docs: $(VENV)-docs/run.done
	rm -rf build/docs build/site && mkdir -p build/docs && cp -R docs build/docs/docs && mv build/docs/docs/zensical.toml build/docs/
	rm -rf build/docs/docs/*/*.py build/docs/docs/*/__pycache__
	sed -i.bak -E 's#`docs/([a-z]+)\.md`#[\1](\1.md)#g' build/docs/docs/*.md && rm build/docs/docs/*.bak
	cd build/docs && "$(CURDIR)/$(VENV)-docs/bin/zensical" build --strict > log.txt 2>&1 || { cat log.txt; exit 1; }
	! grep '^griffe:' build/docs/log.txt && mv build/docs/site build/site

$(VENV)-docs/run.done: requirements/docs.txt
	@test -n "$(PYTHON)" || { echo "liverjax needs Python 3.11 to 3.13, and none was found" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/docs.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-docs .cache build dist
