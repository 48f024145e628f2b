#!/usr/bin/env bash
# mmdet's own slurm_test.sh, with its usage and its variables unchanged. Sourced, it keeps this
# script's $0, so that the test.py that it starts is the one beside this file.
# The last line alone: the onedl forks print others while they are imported.
script=$(set -o pipefail; python -c 'from polynl_mmdet.cli import mmdet_tool as t; print(t("slurm_test.sh"))' | tail -n 1) || exit 1
. "$script"
