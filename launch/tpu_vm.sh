#!/usr/bin/env bash
# Trains on Cloud TPU VMs: slices of a pod, on whose workers the same command runs.
#
#   launch/tpu_vm.sh [--dry_run] COMMAND OPTIONS... [-- ARGUMENTS...]
#
# create     ask for the slices (a queued resource), and wait until they are there; where they were asked for already, only
#            wait; where that has failed or they were taken away, delete and ask anew
# install    copy what is committed here to all workers, and install it there; refused while they train
# run        begin `phenaki train --distributed ARGUMENTS` on all workers; it goes on when this or its ssh ends
# do         run the command in ARGUMENTS on all workers, in phenaki_jax/, and wait: such as phenaki precompute
# logs       show the log of one worker as it grows; Ctrl-C ends the showing
# stop       SIGTERM to all workers: they save after the same step and end
# resume     after a preemption or a failure, with the same options and arguments: create, install where the slices are new,
#            then run on workers that do not train, which goes on from the last checkpoint
# delete     give the slices back; what is in the bucket stays
#
# --name NAME, --project PROJECT, --zone ZONE    of the slices; PROJECT and ZONE of the environment unless said
# --topology CHIP:AxBxC    as phenaki compile names them, such as v5p:4x4x4 (create, resume)
# --slices N               so many, joined by their network: REPLICA = N in gin (1)
# --spot                   preemptible, at a lower price
# --runtime VERSION        the image of the workers; https://cloud.google.com/tpu/docs/runtimes lists them (the chip's own)
# --create_flags "..."     more for gcloud compute tpus queued-resources create, such as "--reserved --network=NAME"
# --restarts N             how often a worker begins again by itself where its process fails (10)
# --worker I, --slice J    whose log is shown (0, 0)
# --dry_run                print the commands instead
#
# ARGUMENTS are those of phenaki train, but for do. Each gs://BUCKET in them becomes /gcs/BUCKET, where the workers have the buckets
# that they may read and write (Cloud Storage FUSE). The API chooses the shape of slices of so many chips itself: where there
# are several, as 4x4x16 and 4x8x8, it takes the one with the shorter sides.
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

project="${PROJECT:-}" zone="${ZONE:-}" slices=1 spot="" runtime="" create_flags="" restarts=10
worker=0 slice=0
read_options "name project zone topology slices runtime create_flags restarts worker slice" "spot" "$@"
check_command create install run "do" logs stop resume delete
check_set name project zone
check_name
check_counts slices restarts worker slice
((slices > 0)) || fail "found --slices 0, expected at least 1"
((slice < slices)) || fail "found --slice $slice of $slices, expected 0 to $((slices - 1))"
if [[ "$command" == create || "$command" == resume ]]; then
  check_set topology
  describe_topology
fi
case "$command" in
  run | resume) check_arguments bucket ;;
  do)
    ((${#arguments[@]})) || fail "found nothing after --, expected a command, as in -- phenaki precompute ...; see --help"
    in_folders
    ;;
esac
need gcloud "install the Google Cloud CLI, https://cloud.google.com/sdk/docs/install, and log in with gcloud auth login"

where=(--project="$project" --zone="$zone")
nodes=("$name")
if ((slices > 1)); then
  nodes=()
  for ((index = 0; index < slices; index++)); do nodes+=("$name-$index"); done
fi
host=phenaki_jax/launch/tpu_vm_host.sh

# on_workers COMMAND: of a shell on all workers, of all slices at once.
on_workers() {
  local node started=() code=0
  for node in "${nodes[@]}"; do
    local ssh=(gcloud compute tpus tpu-vm ssh "$node" "${where[@]}" --worker=all --command="$1")
    if [[ -n "$dry_run" ]]; then
      perform "${ssh[@]}"
    else
      "${ssh[@]}" &
      started+=($!)
    fi
  done
  for node in "${started[@]}"; do wait "$node" || code=$?; done
  return "$code"
}

described=(gcloud compute tpus queued-resources describe "$name" "${where[@]}" "--format=value(state.state)")

# Sets $state: what the API calls it, NONE where nothing was asked for, and nothing where there is no answer, with $why.
ask_state() {
  local told
  if told="$("${described[@]}" 2>&1)"; then
    why="$told"
    # Warnings may stand around it.
    state="$(grep -m 1 -x '[A-Z_]*[A-Z]' <<<"$told")" || state=""
  else
    why="$(tail -n 1 <<<"$told")"
    state=""
    if [[ "$told" == *NOT_FOUND* ]]; then state=NONE; fi
  fi
}

request() {
  local asked=(--accelerator-type="$accelerator_type" --runtime-version="${runtime:-$runtime_version}") more=()
  if ((slices > 1)); then asked+=(--node-count="$slices" --node-prefix="$name"); else asked+=(--node-id="$name"); fi
  if [[ -n "$spot" ]]; then asked+=(--spot); fi
  read -ra more <<<"$create_flags"
  perform gcloud compute tpus queued-resources create "$name" "${where[@]}" "${asked[@]}" "${more[@]}"
}

# Sets $created where the slices were not there at once.
create() {
  created=""
  if [[ -n "$dry_run" ]]; then
    perform "${described[@]}"
    echo "# where there is none; where it tells FAILED or SUSPENDED, after delete:"
    request
    echo "# until it tells ACTIVE:"
    perform "${described[@]}"
    return
  fi
  local state why told="" requested="" unanswered=0
  ask_state
  [[ -n "$state" ]] || fail "the state of $name cannot be told: $why"
  while [[ "$state" != ACTIVE ]]; do
    created=yes
    if [[ -n "$state" && "$state" != "$told" ]]; then echo "$name is $state" >&2; fi
    told="${state:-$told}"
    unanswered=$((${#state} ? 0 : unanswered + 1))
    # A wait of hours outlives a network that fails for minutes.
    ((unanswered < 20)) || fail "the state of $name cannot be told: $why"
    case "$state" in
      NONE | FAILED | SUSPENDED)
        [[ -z "$requested" ]] \
          || fail "$name is $state: see gcloud compute tpus queued-resources describe $name; the same command asks anew"
        if [[ "$state" != NONE ]]; then delete; fi
        request
        requested=yes
        ;;
      # Also SUSPENDING and DELETING, which end in one of those above.
      *) sleep "${PAUSE:-30}" ;;
    esac
    ask_state
  done
  echo "$name is ACTIVE" >&2
}

install() {
  local archive node
  # Of all before any of them is changed. A new worker has no such script.
  on_workers "[ ! -e $host ] || $host idle"
  archive="${TMPDIR:-/tmp}/phenaki_jax-$name.tar.gz"
  perform git -C "$root" archive --format=tar.gz --prefix=phenaki_jax/ --output="$archive" HEAD
  for node in "${nodes[@]}"; do
    perform gcloud compute tpus tpu-vm scp "$archive" "$node:phenaki_jax.tar.gz" "${where[@]}" --worker=all
  done
  # What an earlier version had and this one has not would make the workers' code differ from what was copied.
  on_workers "rm -rf phenaki_jax/phenaki_jax && tar -xzf phenaki_jax.tar.gz && $host install"
}

# run start | resume
run() {
  on_workers "$host $1 --restarts $restarts $(quoted "${arguments[@]}")"
}

delete() {
  perform gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

resume() {
  create
  if [[ -n "$dry_run" ]]; then echo "# where it did not tell ACTIVE at once:"; fi
  if [[ -n "$dry_run$created" ]]; then install; fi
  if [[ -n "$dry_run" ]]; then echo "# in any case:"; fi
  run resume
}

case "$command" in
  logs) perform gcloud compute tpus tpu-vm ssh "${nodes[slice]}" "${where[@]}" --worker="$worker" --command="$host logs" ;;
  run) run start ;;
  stop) on_workers "$host stop" ;;
  do) on_workers "$host do $(quoted "${arguments[@]}")" ;;
  *) "$command" ;;
esac
