# `make` lists the targets. They run in the active virtual or conda environment, or in .venv. With
# STACK=oldest, common, newest or onedl (tools/install.sh: their versions) they run in .venv-STACK.
SHELL := bash
export STACK ?= default
ifeq ($(STACK),default)
ENV := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX),$(CURDIR)/.venv)
else
ENV := $(CURDIR)/.venv-$(STACK)
endif
export PATH := $(ENV)/bin:$(PATH)

# Two cores run the tests in about half the time of one; more than four gain little.
PYTEST_ARGS ?= -n auto --maxprocesses 4

.DEFAULT_GOAL := help
.PHONY: help install demo demo-face test test-quick lint clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

install: ## install everything into the active environment or .venv
	@tools/install.sh

demo: install ## train and test a small Mask R-CNN with Poly-NL on drawn shapes (CPU, minutes)
	@python -m demo.run shapes

demo-face: install ## train and test a small RetinaFace with Poly-NL on drawn faces (CPU, minutes)
	@python -m demo.run faces

test: install ## run the tests (STACK=common: with other versions, see tools/install.sh)
	OMP_NUM_THREADS=1 python -m pytest $(PYTEST_ARGS)

test-quick: install ## run all tests but the slow ones
	OMP_NUM_THREADS=1 python -m pytest $(PYTEST_ARGS) -m 'not slow'

lint: install ## check the style
	ruff check .
	ruff format --check .

clean: ## remove what make made: its environments, the demos' data and results, caches
	@for env in .venv .venv-*; do if [ -f $$env/.made-by-make ]; then rm -rf $$env; fi; done
	rm -rf work_dirs/demo work_dirs/demo-face data/toy_coco data/toy_wider
	rm -rf build polynl_mmdet.egg-info polynl_mmdet/.mim .pytest_cache .ruff_cache .hypothesis
	rm -f $(ENV)/.polynl_mmdet-* $(ENV)/polynl_mmdet-install.log
	@rmdir work_dirs data 2>/dev/null || true
	find . -name __pycache__ -not -path './.git/*' -not -path './.venv*' -prune -exec rm -rf {} +
