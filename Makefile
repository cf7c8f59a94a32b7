# The commands of this checkout; each sets up .venv first, once. ARGS passes options: make demo ARGS=--help
VENV := .venv
ARGS ?=

.PHONY: help setup demo demo-checkpoint test test-long test-all test-envs test-kilted lint format bench clean distclean

help:
	@echo "make setup | demo | demo-checkpoint | test | test-long | test-all | test-envs | test-kilted"
	@echo "     lint | format | bench | clean | distclean"

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

demo-checkpoint: setup
	@tools/demo_checkpoint.sh

# Files of tests side by side, then the node's alone: those watch its time. 5: none was asked for.
test: setup
	@passed=0; \
	$(VENV)/bin/pytest -m "not slow" --ignore=tests/ros -n auto --maxprocesses=4 --dist=loadfile $(ARGS) \
		|| [ $$? = 5 ] || passed=1; \
	$(VENV)/bin/pytest -m "not slow" tests/ros $(ARGS) || [ $$? = 5 ] || passed=1; \
	exit $$passed

# Of the node: a hundred walks through its states, every fault, ten minutes of two cameras, and the like.
test-long: setup
	$(VENV)/bin/pytest tests/ros -m slow --verbose $(ARGS)

test-all: setup
	$(VENV)/bin/pytest $(ARGS)

# Packages of environments that do not run on MuJoCo 4 yet have an environment of their own, on top.
.venv-envs/.installed: requirements-envs.txt $(VENV)/.installed
	$(VENV)/bin/python -m venv --clear --without-pip .venv-envs
	@$(VENV)/bin/python tools/lay_over.py $(VENV) .venv-envs
	.venv-envs/bin/python -m pip --disable-pip-version-check install --quiet -r requirements-envs.txt
	@touch $@

test-envs: setup .venv-envs/.installed
	.venv-envs/bin/python -m pytest tests/sim/test_foreign_environments.py $(ARGS)

# ROS 2 Kilted's wheels on top. All of them: a library is looked for beside Kilted's rclpy alone.
.venv-kilted/.installed: requirements-kilted.txt $(VENV)/.installed
	$(VENV)/bin/python -m venv --clear --without-pip .venv-kilted
	@$(VENV)/bin/python tools/lay_over.py $(VENV) .venv-kilted
	.venv-kilted/bin/python -m pip --disable-pip-version-check install --quiet --ignore-installed --no-deps -r requirements-kilted.txt
	@touch $@

test-kilted: setup .venv-kilted/.installed
	.venv-kilted/bin/python -m pytest tests/ros -m "not slow" $(ARGS)

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
	rm -rf $(VENV) .venv-envs .venv-kilted
