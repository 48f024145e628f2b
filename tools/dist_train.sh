#!/usr/bin/env bash
# mmdet's own dist_train.sh, with its usage and its variables unchanged. Sourced, it keeps this
# script's $0, so that the train.py that it starts is the one beside this file.
# The last line alone: the onedl forks print others while they are imported.
script=$(set -o pipefail; python -c 'from polynl_mmdet.cli import mmdet_tool as t; print(t("dist_train.sh"))' | tail -n 1) || exit 1
IFS=$'\n'  # mmdet leaves names unquoted: a space in one does not split it
. "$script"
