#!/usr/bin/env bash
# What launch/tpu_vm.sh does on each worker, whose home has this repository in phenaki_jax/.
#
#   launch/tpu_vm_host.sh idle | install | start [--restarts N] ARGUMENTS... | resume ... | do COMMAND... | logs | stop
#
# idle       fails where a training runs
# install    Python 3.11, this package with jax[tpu], and Cloud Storage FUSE, where they are not there
# start      `phenaki train --distributed ARGUMENTS` in a session of its own; its output goes to ~/phenaki.log
# resume     start, or nothing where a training runs
# do         COMMAND in phenaki_jax/, with the buckets and the environment of install
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

check_idle() {
  ! is_running || fail "a training runs here already: follow it with logs, or end it with stop"
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

# The bare folder stays root's, so that nothing is written to the local disk where the buckets are missing. As a service
# that begins before sessions of users, gcsfuse is stopped after them: at a preemption too what is being saved gets through.
mount_buckets() {
  mountpoint -q "$buckets" && return
  # A gcsfuse that was killed leaves a mount that nothing answers for.
  sudo umount --lazy "$buckets" 2>/dev/null || true
  sudo mkdir -p "$buckets"
  # What another host has just written must be seen at once: nothing that is known of files is kept.
  sudo systemd-run --quiet --collect --unit=phenaki-buckets --property=Type=forking \
    --property=Before=systemd-user-sessions.service --property=After=network-online.target \
    gcsfuse -o allow_other --uid="$(id -u)" --gid="$(id -g)" \
    --implicit-dirs --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 "$buckets"
}

start() {
  check_idle
  local restarts=0
  if [[ "${1:-}" == --restarts ]]; then
    restarts="${2:?}"
    shift 2
  fi
  find_phenaki
  [[ -x "$PHENAKI" ]] || fail "found no $PHENAKI, expected what install makes: install first"
  mount_buckets
  cd "$root"
  # By `do`, so that every attempt finds the buckets. A machine that goes down sends SIGHUP to sessions after SIGTERM, and
  # would not let anything be saved.
  nohup setsid launch/worker.sh --restarts "$restarts" launch/tpu_vm_host.sh "do" "$PHENAKI" train --distributed "$@" \
    </dev/null >>"$log" 2>&1 &
  echo $! >"$session"
}

case "${1:-}" in
  idle) check_idle ;;
  install) install ;;
  start) shift; start "$@" ;;
  resume) shift; if is_running; then echo "a training runs here still"; else start "$@"; fi ;;
  do)
    shift
    mount_buckets
    cd "$root"
    PATH="$root/.venv/bin:$PATH" exec "$@"
    ;;
  logs) exec tail -n 100 -F "$log" ;;
  stop) if is_running; then kill -TERM -- "-$(<"$session")"; fi ;;
  -h | --help) usage 0 ;;
  *) fail "found '${1:-}', expected idle, install, start, resume, do, logs or stop; see --help" ;;
esac
