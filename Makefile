# The commands of this checkout; each sets up .venv first, once. ARGS passes options: make demo ARGS=--help
VENV := .venv
ARGS ?=

.PHONY: help setup demo test test-all lint format bench clean distclean

help:
	@echo "make setup | demo | test | test-all | lint | format | bench | clean | distclean"

setup: $(VENV)/.installed $(VENV)/.linked

$(VENV)/.installed: setup.py setup.cfg pyproject.toml constraints.txt tools/setup.sh
	@tools/setup.sh
	@touch $@

# A folder's time changes when a file in it comes or goes; edits need nothing, the files are links.
$(VENV)/.linked: $(VENV)/.installed tools/link_data_files.py $(shell find config launch -type d)
	@$(VENV)/bin/python tools/link_data_files.py
	@touch $@

demo: setup
	@$(VENV)/bin/canvas-robot demo $(ARGS)

test: setup
	$(VENV)/bin/pytest -m "not slow" $(ARGS)

test-all: setup
	$(VENV)/bin/pytest $(ARGS)

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: setup
	@$(VENV)/bin/canvas-robot bench $(or $(ARGS),policy)

clean:
	rm -rf build install log dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find canvas_robot tests tools launch -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
