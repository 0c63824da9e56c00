# `make demo` and `make test` are complete on a fresh machine with Python 3.11 to 3.13: they make their own
# virtual environment from hashed pins. PYTHON=/path/to/python chooses another interpreter.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
# Processes that share the tests.
JOBS ?= 2

# The rooms that depend most on the versions of jax, flax, optax, Orbax, Grain and NumPy; what `lowest` and `newest` run.
CORE := $(wildcard tests/test_*.py) $(addprefix tests/,models checkpoint data training inference pretrained scans)

.PHONY: demo test slow lint lowest newest release-check bench golden lock docs clean

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

# The core with the lowest versions that pyproject.toml allows (3.11 or 3.12: some have no wheels for later ones).
lowest: $(VENV)-lowest/test.done
	$(VENV)-lowest/bin/python -m pytest -n $(JOBS) --dist worksteal $(CORE)

# The core with the newest versions there are: nothing is pinned, and each call asks anew.
newest: $(VENV)-newest/bin/python
	$(VENV)-newest/bin/pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager \
		--editable '.[test]' -r requirements/build.in
	$(VENV)-newest/bin/pip list --disable-pip-version-check
	$(VENV)-newest/bin/python -m pytest -n $(JOBS) --dist worksteal $(CORE)

# Wheel and sdist: what they hold, their metadata, each installed afresh and tried without a network, and licences.
release-check: $(VENV)/run.done
	$(BIN)/python .ci/release_check.py

# Every duel at hand, appended to docs/benchmarks.json; DUELS=surface takes those of that name. Some hours for all.
bench: $(VENV)/test.done
	$(BIN)/python tests/benchmarks/run.py $(DUELS)

# The resolved values of the shipped configs, after a change of a default: look at the difference.
golden: $(VENV)/test.done
	LIVERJAX_WRITE_GOLDEN=1 $(BIN)/python -m pytest -q tests/test_golden_configs.py

$(VENV)/bin/python $(VENV)-lowest/bin/python $(VENV)-newest/bin/python:
	@test -n "$(PYTHON)" || { echo "liverjax needs Python 3.11 to 3.13, and none was found" >&2; exit 1; }
	$(PYTHON) -m venv $(@:/bin/python=)

$(VENV)/run.done: requirements/run.txt requirements/build.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt -r requirements/build.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/test.done: requirements/test.txt $(VENV)/run.done
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/test.txt
	touch $@

$(VENV)-lowest/test.done: requirements/lowest.txt pyproject.toml | $(VENV)-lowest/bin/python
	$(VENV)-lowest/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/lowest.txt
	$(VENV)-lowest/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# The pins: hashed, without addresses, for every Python that the library supports. Needs `uv`.
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --generate-hashes --no-header
lock:
	$(COMPILE) pyproject.toml -o requirements/run.txt
	$(COMPILE) requirements/build.in -c requirements/run.txt -o requirements/build.txt
	$(COMPILE) requirements/docs.in -o requirements/docs.txt
	$(COMPILE) --extra test pyproject.toml requirements/build.in -c requirements/run.txt -o requirements/test.txt
	$(COMPILE) --resolution lowest-direct --no-build --upgrade --extra test pyproject.toml requirements/build.in -o requirements/lowest.txt

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
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest $(VENV)-docs .cache build dist
