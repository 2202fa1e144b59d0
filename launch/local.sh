#!/usr/bin/env bash
# Trains in several processes on this machine, which share its cores: to try what a pod does, or for one process a GPU.
#
#   launch/local.sh [--dry_run] [--restarts N] PROCESSES ARGUMENTS...
#
# ARGUMENTS are those of `phenaki train`. Where one process ends with an error or is killed, the others are ended too; with
# --restarts all then begin again, at most N times, and go on from the last checkpoint. Ctrl-C, and SIGTERM to this script,
# stop all after the same step with everything saved.
#
# PHENAKI=command    what runs phenaki ("phenaki", or that of .venv where there is one)
# PORT=number        of the coordinator (a free one)
# DEVICES=number     simulated CPU devices of each process
set -euo pipefail

# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_bash 5 1

restarts=0
while [[ "${1:-}" == -* ]]; do
  case "$1" in
    --dry_run) dry_run=yes ;;
    --restarts) restarts="${2:-}"; shift $(($# > 1)) ;;
    -h | --help) usage 0 ;;
    *) fail "found $1, expected --dry_run, --restarts N or a number of processes; see --help" ;;
  esac
  shift
done
processes="${1:-}"
[[ "$processes" =~ ^[1-9][0-9]*$ ]] || fail "found '$processes' processes, expected a whole number; see --help"
check_counts restarts
shift

find_phenaki
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])'
}
if [[ -n "${DEVICES:-}" ]]; then
  # Devices that share busy cores may come to where they meet later than the 40 seconds after which XLA ends a process.
  patience=--xla_cpu_collective_call_terminate_timeout_seconds=600
  export XLA_FLAGS="${XLA_FLAGS:-} $patience --xla_force_host_platform_device_count=$DEVICES"
fi

started=()
stop_all() {
  if ((${#started[@]})); then kill -TERM "${started[@]}" 2>/dev/null || true; fi
}

# All of them, until all have ended; the first exit code that is not 0.
run_once() {
  local port="${PORT:-$(free_port)}" first=0 code process
  started=()
  for ((process = 0; process < processes; process++)); do
    local command=("$PHENAKI" train "$@" --coordinator "localhost:$port" --processes "$processes" --process "$process")
    if [[ -n "$dry_run" ]]; then
      echo "$(quoted "${command[@]}") &"
      continue
    fi
    "${command[@]}" &
    started+=($!)
  done
  while ((${#started[@]})); do
    code=0
    wait -n -p ended "${started[@]}" 2>/dev/null || code=$?
    # A signal came in between; or one had ended, which bash then knows no more but by its number.
    if [[ -z "${ended:-}" ]]; then
      for process in "${started[@]}"; do kill -0 "$process" 2>/dev/null || ended="$process"; done
      if [[ -z "${ended:-}" ]]; then continue; fi
      code=0
      wait "$ended" || code=$?
    fi
    local left=()
    for process in "${started[@]}"; do [[ "$process" == "$ended" ]] || left+=("$process"); done
    started=("${left[@]}")
    if ((code && !first)); then
      first=$code
      # The others find out by themselves within seconds, and tell it; then they are not waited for.
      (sleep 30; kill -KILL "${started[@]}") >/dev/null 2>&1 &
      killer=$!
    fi
  done
  if ((first)); then kill "$killer" 2>/dev/null || true; fi
  return "$first"
}

stopping=""
trap 'stopping=yes; stop_all' TERM INT
for ((attempt = 0; ; attempt++)); do
  code=0
  run_once "$@" || code=$?
  # 2 is a mistake, which another attempt would make again.
  if ((code == 0 || code == 2 || attempt == restarts)) || [[ -n "$stopping" ]]; then exit "$code"; fi
  echo "launch/local.sh: a process ended with $code; attempt $((attempt + 2)) of $((restarts + 1))" >&2
done
