#!/usr/bin/env bash
# What launch/tpu_vm.sh does on each worker, whose home has this repository in phenaki_jax/.
#
#   launch/tpu_vm_host.sh install | start [--restarts N] ARGUMENTS... | do COMMAND... | logs | stop
#
# install    Python 3.11, this package with jax[tpu], and Cloud Storage FUSE, where they are not there
# start      `phenaki train --distributed ARGUMENTS` in a session of its own; its output goes to ~/phenaki.log
# do         COMMAND in phenaki_jax/, with the environment of install
# logs       that log as it grows
# stop       SIGTERM to all processes of that session
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

log=~/phenaki.log
session=~/phenaki.session

is_running() {
  [[ -f "$session" ]] && kill -0 -- "-$(<"$session")" 2>/dev/null
}

install() {
  if ! command -v gcsfuse >/dev/null; then
    local key=/usr/share/keyrings/cloud.google.asc
    curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" \
      | sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    # A new machine upgrades itself, and holds the lock while it does.
    sudo apt-get -o DPkg::Lock::Timeout=600 update -qq
    sudo apt-get -o DPkg::Lock::Timeout=600 install -y -qq gcsfuse
  fi
  export PATH="$HOME/.local/bin:$PATH"
  command -v uv >/dev/null || curl -fsSL https://astral.sh/uv/install.sh | sh
  cd "$root"
  # The images have Python 3.10, and constraints.txt is of 3.11.
  uv venv --quiet --allow-existing --python 3.11 .venv
  uv pip install --quiet --python .venv --constraint constraints.txt --editable . 'jax[tpu]'
}

mount_buckets() {
  mountpoint -q "$buckets" && return
  sudo mkdir -p "$buckets"
  sudo chown "$(id -u)" "$buckets"
  # What another host has just written must be seen at once: nothing that is known of files is kept.
  gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 "$buckets"
}

start() {
  ! is_running || fail "a training runs here already: follow it with logs, or end it with stop"
  local restarts=0
  if [[ "${1:-}" == --restarts ]]; then
    restarts="${2:?}"
    shift 2
  fi
  find_phenaki
  [[ -x "$PHENAKI" ]] || fail "found no $PHENAKI, expected what install makes: install first"
  mount_buckets
  cd "$root"
  setsid launch/worker.sh --restarts "$restarts" "$PHENAKI" train --distributed "$@" </dev/null >>"$log" 2>&1 &
  echo $! >"$session"
}

case "${1:-}" in
  install) install ;;
  start) shift; start "$@" ;;
  do)
    shift
    mount_buckets
    cd "$root"
    PATH="$root/.venv/bin:$PATH" exec "$@"
    ;;
  logs) exec tail -n 100 -F "$log" ;;
  stop) if is_running; then kill -TERM -- "-$(<"$session")"; fi ;;
  -h | --help) usage 0 ;;
  *) fail "found '${1:-}', expected install, start, do, logs or stop; see --help" ;;
esac
