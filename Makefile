# make demo | test | check | serve need Python 3.11 to 3.13 with pip, and nothing else: they set up .venv themselves.

PYTHON ?=
PYTHONS = $(PYTHON) python3.13 python3.12 python3.11 python3
VENV ?= .venv
RUN = $(VENV)/bin/python
INSTALL = $(RUN) -m pip install --disable-pip-version-check
CONTAINERS ?= $(shell command -v podman || command -v docker || echo podman)
IMAGE ?= tapehead:cpu
IMAGE_FLAGS ?=
ARGS ?=
TESSERACT ?=
# Two processes, each with whole files: the tests trace and compile on one core most of the time, and need about 3 GB each.
WORKERS ?= -n 2 --dist loadfile

.PHONY: help demo test test-slow check serve pictures format lock screenshots image clean

help:
	@echo "make demo     set up and run the main job: derivatives of trained models, fetched from a real server"
	@echo "make test     set up and run the tests (make test-slow: those that take many seconds each)"
	@echo "make check    lint, types, layers"
	@echo "make serve    set up and serve a folder of models (ARGS=models/) or the demo's"
	@echo "make bench    set up and measure ours and its peers in one run (ARGS='--quick', ARGS='--only jacobian-lstm')"
	@echo "              TESSERACT=/path/to/python names an environment that has Tesseract Core, to serve it beside ours"
	@echo "make pictures make the pictures of README and docs anew (ARGS=saliency)"
	@echo "make format   rewrite the code in the house's layout"
	@echo "make screenshots  take the pictures of the page anew (needs Chromium)"
	@echo "make lock     pin the requirements anew"
	@echo "make image    build the container image $(IMAGE)"
	@echo "make clean    remove what was built"

demo: $(VENV)/server.stamp
	@$(RUN) -m tapehead demo $(ARGS)

serve: $(VENV)/server.stamp
	@$(RUN) -m tapehead serve $(ARGS)

test: $(VENV)/dev.stamp
	$(RUN) -m pytest -m "not slow" $(WORKERS) $(ARGS)

test-slow: $(VENV)/dev.stamp
	$(RUN) -m pytest -m slow $(ARGS)

check: $(VENV)/dev.stamp
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(RUN) -m pytest -q tests/test_layers.py

bench: $(VENV)/bench.stamp
	@$(RUN) -m benchmarks.run $(ARGS)
	@$(if $(ARGS),,$(RUN) -m benchmarks.serve $(if $(TESSERACT),--tesseract $(TESSERACT)))

pictures: $(VENV)/dev.stamp
	$(RUN) -m docs.pictures $(ARGS)

format: $(VENV)/dev.stamp
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

# A venv without its own pip (Debian without python3-venv) gets one from the pip beside that Python.
$(RUN):
	@for python in $(PYTHONS); do \
	  $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || continue; \
	  echo "[1/3] making $(VENV) with $$($$python --version)"; \
	  $$python -m venv --clear $(VENV) >/dev/null 2>&1 && exit 0; \
	  $$python -m venv --clear --without-pip $(VENV) && $$python -m pip --python $(VENV) install pip && exit 0; \
	  rm -rf $(VENV); echo "$$python can make no virtual environment: it needs its venv module, or pip" >&2; exit 1; \
	done; \
	echo "Tapehead needs Python 3.11, 3.12 or 3.13, and finds none here (another place: make PYTHON=/path/to/python3)" >&2; \
	exit 1

$(VENV)/server.stamp: requirements/server.txt pyproject.toml | $(RUN)
	@echo "[2/3] installing the pinned requirements (about 340 MB to fetch the first time, most of it TensorFlow)"
	@$(INSTALL) --require-hashes -r requirements/server.txt
	@echo "[3/3] installing tapehead itself"
	@$(INSTALL) --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml | $(RUN)
	@echo "[2/3] installing the pinned requirements and the tools (about 500 MB to fetch the first time)"
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@echo "[3/3] installing tapehead itself"
	@$(INSTALL) --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# The peers are not pinned: they are wanted as they are today, and their versions stand in the results.
$(VENV)/bench.stamp: $(VENV)/dev.stamp
	@echo "installing the peers: PyTorch, JAX and Captum"
	@$(INSTALL) --quiet --no-build-isolation --editable '.[bench]'
	@touch $@

# One resolution for every Python and system, with one version of each wherever one will do; the lists agree.
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(VENV)-lock/bin/uv pip compile --quiet --universal --generate-hashes \
	--no-emit-index-url --no-annotate --fork-strategy fewest --group build pyproject.toml

lock: | $(RUN)
	@test -x $(VENV)-lock/bin/uv || { $(RUN) -m venv $(VENV)-lock && $(VENV)-lock/bin/python -m pip install --quiet uv; }
	$(COMPILE) --extra dev --output-file requirements/dev.txt
	$(COMPILE) --extra server --constraint requirements/dev.txt --output-file requirements/server.txt
	$(COMPILE) --extra cuda --constraint requirements/dev.txt --output-file requirements/cuda.txt

screenshots: $(VENV)/dev.stamp
	$(RUN) tests/screenshots.py

image:
	$(CONTAINERS) build $(IMAGE_FLAGS) --target cpu --tag $(IMAGE) .

clean:
	rm -rf $(VENV) $(VENV)-lock build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find service tests -name __pycache__ -type d -prune -exec rm -rf {} +
