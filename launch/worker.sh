#!/usr/bin/env bash
# Runs a training's command as one of many workers, and ends with a code that tells whether to begin it again.
#
#   launch/worker.sh [--restarts N] [--mistake CODE] COMMAND...
#
# COMMAND is `phenaki train --distributed ARGUMENTS`. The code is its own:
#
# 0      a training at its end
# 2      a mistake that another attempt would make again
# 75     others are gone, or never came: no fault of this worker; all of them begun again go on from the last checkpoint
# 143    stopped by SIGTERM before its last step, with everything saved; begun again it goes on
#
# With --restarts the command is begun again here, at most N times, but for 0, 2 and 143. As the first process of a container
# it passes SIGTERM on; elsewhere whoever sends it sends it to all processes. With --mistake it ends with CODE in the place of 2,
# for a launcher that learns of the highest code alone.
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

restarts=0 mistake=2
while [[ "${1:-}" == -* ]]; do
  case "$1" in
    --restarts) restarts="${2:-}"; shift $(($# > 1)) ;;
    --mistake) mistake="${2:-}"; shift $(($# > 1)) ;;
    -h | --help) usage 0 ;;
    *) fail "found $1, expected --restarts N, --mistake CODE or a command; see --help" ;;
  esac
  shift
done
check_counts restarts mistake
(($#)) || fail "found no command, expected phenaki train --distributed and its arguments; see --help"

asked_to_stop=""
child=""
on_term() {
  asked_to_stop=yes
  if (($$ == 1)) && [[ -n "$child" ]]; then kill -TERM "$child" 2>/dev/null || true; fi
}
trap on_term TERM

run_once() {
  local code=0
  "$@" --stopped_code 143 &
  child=$!
  # What came before there was a child has reached none.
  if [[ -n "$asked_to_stop" ]]; then kill -TERM "$child" 2>/dev/null || true; fi
  wait "$child" || code=$?
  # A signal ends the waiting, not the command.
  while kill -0 "$child" 2>/dev/null; do
    code=0
    wait "$child" || code=$?
  done
  child=""
  # Before its first step the training is interrupted like any command.
  if ((code == 130)) && [[ -n "$asked_to_stop" ]]; then return 143; fi
  return "$code"
}

for ((attempt = 0; ; attempt++)); do
  code=0
  run_once "$@" || code=$?
  if ((code == 2)); then exit "$mistake"; fi
  if ((code == 0 || code == 143 || attempt == restarts)) || [[ -n "$asked_to_stop" ]]; then exit "$code"; fi
  echo "launch/worker.sh: ended with $code; attempt $((attempt + 2)) of $((restarts + 1))" >&2
  sleep "${PAUSE:-10}" || true
  if [[ -n "$asked_to_stop" ]]; then exit 143; fi
done
