# `make` lists what there is. Everything runs in the active virtual or conda environment, or in
# .venv, which `make install` makes. With STACK=onedl it runs on the onedl forks, in .venv-onedl.
SHELL := bash
export STACK ?= official
ifeq ($(STACK),official)
ENV := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX),$(CURDIR)/.venv)
else
ENV := $(CURDIR)/.venv-$(STACK)
endif
export PATH := $(ENV)/bin:$(PATH)

DEMO := mask-rcnn_narrow-r18-polynl-site-c4_fpn_toy-coco
DEMO_CONFIG := configs/demo/$(DEMO).py
DEMO_OUT := work_dirs/demo

FACE := retinaface_narrow-r18-polynl-site-c4_merge-fpn_toy-wider
FACE_CONFIG := configs/demo/$(FACE).py
FACE_OUT := work_dirs/demo-face

# The demos tell what they do in a line each, and log the rest; V=1 prints it all.
Q := $(if $(V),,@)
quiet = $(if $(V),,python tools/quiet_run.py '$(1)' $(2))

# Two cores run the tests in about half the time of one; more than four gain little.
PYTEST_ARGS ?= -n auto --maxprocesses 4

.DEFAULT_GOAL := help
.PHONY: help install demo demo-face test test-fast lint clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

install: ## install everything into the active environment or .venv
	@tools/install.sh

demo: install data/toy_coco/drawn.json ## train and test a small Mask R-CNN with Poly-NL on drawn shapes (CPU, minutes)
	@rm -rf $(DEMO_OUT)
	$(Q)$(call quiet,training $(DEMO),$(DEMO_OUT)/train.log) python tools/train.py $(DEMO_CONFIG) --work-dir $(DEMO_OUT)
	$(Q)$(call quiet,testing it,$(DEMO_OUT)/test.log) python tools/test.py $(DEMO_CONFIG) "$$(cat $(DEMO_OUT)/last_checkpoint)" --work-dir $(DEMO_OUT)/test --show-dir images
	$(Q)python tools/demo_report.py $(DEMO_OUT)

data/toy_coco/drawn.json: Makefile demo/toy_coco.py demo/files.py
	$(Q)python -m demo.draw coco data/toy_coco --train 2000 --val 80 --seed 0

demo-face: install data/toy_wider/drawn.json ## train and test a small RetinaFace with Poly-NL on drawn faces (CPU, minutes)
	@rm -rf $(FACE_OUT)
	$(Q)$(call quiet,training $(FACE),$(FACE_OUT)/train.log) python tools/train.py $(FACE_CONFIG) --work-dir $(FACE_OUT)
	$(Q)$(call quiet,testing it,$(FACE_OUT)/test.log) python tools/test.py $(FACE_CONFIG) "$$(cat $(FACE_OUT)/last_checkpoint)" --work-dir $(FACE_OUT)/test --show-dir images --tta
	$(Q)python tools/demo_report.py $(FACE_OUT)

data/toy_wider/drawn.json: Makefile demo/toy_wider.py demo/face_drawing.py
	$(Q)python -m demo.draw wider data/toy_wider --train 2000 --val 80 --seed 0

test: install ## run the tests (STACK=onedl: on the onedl forks)
	OMP_NUM_THREADS=1 python -m pytest $(PYTEST_ARGS)

test-fast: install ## run the tests but the slow ones
	OMP_NUM_THREADS=1 python -m pytest $(PYTEST_ARGS) -m 'not slow'

lint: install ## check the style
	ruff check .
	ruff format --check .

clean: ## remove what make made: its environments, the demos' data and results, caches
	@for env in .venv .venv-onedl; do if [ -f $$env/.made-by-make ]; then rm -rf $$env; fi; done
	rm -rf $(DEMO_OUT) $(FACE_OUT) data/toy_coco data/toy_wider
	rm -rf build polynl_mmdet.egg-info polynl_mmdet/.mim .pytest_cache .ruff_cache .hypothesis
	rm -f $(ENV)/.polynl_mmdet-* $(ENV)/polynl_mmdet-install.log
	@rmdir work_dirs data 2>/dev/null || true
	find . -name __pycache__ -not -path './.git/*' -not -path './.venv*' -prune -exec rm -rf {} +
