# shellcheck shell=bash
# What tools/install.sh says while it works: one line a step, the time it takes, and one line an
# error, with its cure. The output of the commands goes to $LOG.

say() { printf '== %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Run a command, and say every few seconds how long it has run (and what progress() has to say).
step() {
  local what=$1 start=$SECONDS
  shift
  say "$what"
  printf '\n== %s\n' "$what" >>"$LOG"
  tick "$start" &
  TICKER=$!
  trap 'kill $TICKER 2>/dev/null || true; clean_up' EXIT
  if ! "$@" >>"$LOG" 2>&1; then
    kill $TICKER
    die "${what%%, *}: $(cause_in_log). The log: $LOG"
  fi
  kill $TICKER
  [ $((SECONDS - start)) -lt 10 ] || printf '%s   done in %s\n' "$CLEAR" "$(duration "$start")"
}
pip_step() {
  local what=$1
  shift
  # shellcheck disable=SC2086  # PIP_ARGS are several words
  step "$what" "$PY" -m pip "$@" --disable-pip-version-check --no-input ${PIP_ARGS:-}
}
# Replace a line's text in a file of another package that this Python cannot run: file, old, new.
mend() {
  ! grep -qF "$2" "$1" || {
    say "mending a line of $1, which $("$PY" --version) cannot run:" | tee -a "$LOG"
    printf '   - %s\n   + %s\n' "$2" "$3" | tee -a "$LOG"
    "$PY" -c 'import pathlib, sys
path = pathlib.Path(sys.argv[1])
path.write_text(path.read_text("utf-8").replace(sys.argv[2], sys.argv[3]), "utf-8")' "$@"
  }
}
clean_up() { :; }
progress() { :; }
duration() { printf '%d min %02d s' $(((SECONDS - $1) / 60)) $(((SECONDS - $1) % 60)); }

# On a terminal one line that changes, elsewhere a line a minute.
CLEAR='' EVERY=60 END='\n'
[ ! -t 1 ] || { CLEAR=$'\r\033[K' EVERY=2 END=''; }
tick() {
  # The sleep gives up the output: it may outlive its parent.
  while sleep $EVERY >/dev/null 2>&1; do
    printf "%s   %s%s$END" "$CLEAR" "$(duration "$1")" "$(progress)"
  done
}

# What went wrong, and what to do about it: from the output of the last step.
cause_in_log() {
  local text
  text=$(awk '/^== / {text = ""} {text = text $0 "\n"} END {printf "%s", text}' "$LOG")
  has() { grep -qE "$1" <<<"$text"; }
  local args=${PIP_ARGS:+, and PIP_ARGS=$PIP_ARGS}
  if has 'No space left on device'; then
    echo "the disk is full. Free some space, or set POLYNL_CACHE and TMPDIR to folders on another disk"
  elif has 'NewConnectionError|Max retries exceeded|NameResolution|name resolution|dns error|error sending request|Failed to fetch'; then
    echo "the package index cannot be reached. Check the network, the proxy$args"
  elif has 'No matching distribution found'; then
    echo "$(grep -oE 'No matching distribution found.*' <<<"$text" | tail -n 1): the index has none for $("$PY" --version). Check the version asked for$args"
  elif has 'DO NOT MATCH THE HASHES'; then
    echo "the file of the index is not the published one (its checksum differs). Check the index$args"
  elif has 'Killed|internal compiler error|out of memory'; then
    echo "the memory did not suffice. MAX_JOBS=1 make install takes about 1.5 GB (with CUDA 4 GB)"
  else
    echo "failed ($(grep -iE 'error' <<<"$text" | tail -n 1 | cut -c 1-200))"
  fi
}
