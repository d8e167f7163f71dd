# `make demo` and `make test` work on a fresh machine with Python 3.11+, pip and make.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test docs release fuzz bench bench-davis tables check clean
demo: $(READY)
	@$(BIN)/python tools/demo.py

# Asserts are rewritten, to say what was compared, only where one failed: for all of them it takes 10 s of each process.
test: $(READY)
	@$(BIN)/python -m pytest -n 2 --assert=plain || { $(BIN)/python -m pytest --last-failed --last-failed-no-failures=none; exit 1; }

fuzz: $(READY)
	@$(BIN)/python tools/fuzz.py 5000

docs: $(READY)
	@$(BIN)/python -m mkdocs build -q && echo "out/site/index.html"

release: $(READY)
	@$(BIN)/python -m pip install -q twine && $(BIN)/python tools/release.py

check: $(READY)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: $(READY)
	@$(BIN)/python benchmarks/cost.py
	@$(BIN)/python benchmarks/many_objects.py
	@$(BIN)/python benchmarks/peers.py
	@$(BIN)/python benchmarks/matrix.py
	@$(BIN)/python benchmarks/sam2_cost.py
	@$(BIN)/python benchmarks/deva.py
	@$(BIN)/python benchmarks/dvis.py
	@$(BIN)/python benchmarks/rocovis.py
	@$(BIN)/python benchmarks/vis.py
	@$(BIN)/python benchmarks/vos.py
	@$(BIN)/python benchmarks/panoptic.py

bench-davis: $(READY)
	@$(BIN)/python benchmarks/davis.py --out out/davis.json

tables: $(READY)
	@for part in segmenter rocovis "dvis --steps 1500" page; do $(BIN)/python benchmarks/tables.py $$part || exit 1; done
	@for part in sam2bmp sam2long deva page; do $(BIN)/python benchmarks/tables_masks.py $$part || exit 1; done

clean:
	rm -rf .venv .cache out

# The stamp is written last, so that an interrupted installation is taken up again.
# Where Debian's venv has no pip of its own, the pip outside installs into it.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "masklet needs Python 3.11 or newer; install it, or say make PYTHON=/path/to/python"; exit 1; }
	@echo "masklet: setting up .venv with $(PYTHON), about a minute ..."
	@$(PYTHON) -m venv .venv >/dev/null 2>&1 || $(PYTHON) -m venv --without-pip .venv
	@if $(BIN)/python -m pip --version >/dev/null 2>&1; then $(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'; \
	else $(PYTHON) -m pip --python $(BIN)/python install -q -c constraints.txt -e '.[dev]'; fi
	@touch $(READY)
