#!/usr/bin/env bash
# Trains on Cloud TPU VMs: slices of a pod, on whose workers the same command runs.
#
#   launch/tpu_vm.sh [--dry_run] COMMAND OPTIONS... [-- ARGUMENTS...]
#
# create     ask for the slices (a queued resource), and wait until they are there
# install    copy what is committed here to all workers, and install it there
# run        begin `phenaki train --distributed ARGUMENTS` on all workers; it goes on when this or its ssh ends
# do         run the command in ARGUMENTS on all workers, in phenaki_jax/, and wait: such as phenaki precompute
# logs       show the log of one worker as it grows; Ctrl-C ends the showing
# stop       SIGTERM to all workers: they save after the same step and end
# resume     after a preemption or a failure, with the same options and arguments: delete, create and install where the
#            slices are gone, then run, which goes on from the last checkpoint
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

create() {
  local asked=(--accelerator-type="$accelerator_type" --runtime-version="${runtime:-$runtime_version}") more=()
  if ((slices > 1)); then asked+=(--node-count="$slices" --node-prefix="$name"); else asked+=(--node-id="$name"); fi
  if [[ -n "$spot" ]]; then asked+=(--spot); fi
  read -ra more <<<"$create_flags"
  perform gcloud compute tpus queued-resources create "$name" "${where[@]}" "${asked[@]}" "${more[@]}"
  if [[ -n "$dry_run" ]]; then
    echo "# until it tells ACTIVE:"
    perform "${described[@]}"
    return
  fi
  local state="" told=""
  while [[ "$state" != ACTIVE ]]; do
    state="$("${described[@]}")"
    if [[ "$state" != "$told" ]]; then echo "$name is $state" >&2; fi
    told="$state"
    case "$state" in
      ACTIVE) ;;
      FAILED | SUSPENDING | SUSPENDED | DELETING)
        fail "$name is $state: see gcloud compute tpus queued-resources describe $name, then delete it and create it anew"
        ;;
      *) sleep "${PAUSE:-30}" ;;
    esac
  done
}

install() {
  local archive node
  archive="${TMPDIR:-/tmp}/phenaki_jax-$name.tar.gz"
  perform git -C "$root" archive --format=tar.gz --prefix=phenaki_jax/ --output="$archive" HEAD
  for node in "${nodes[@]}"; do
    perform gcloud compute tpus tpu-vm scp "$archive" "$node:phenaki_jax.tar.gz" "${where[@]}" --worker=all
  done
  # What an earlier version had and this one has not would make the workers' code differ from what was copied.
  on_workers "rm -rf phenaki_jax/phenaki_jax && tar -xzf phenaki_jax.tar.gz && $host install"
}

run() {
  on_workers "$host start --restarts $restarts $(quoted "${arguments[@]}")"
}

delete() {
  perform gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

resume() {
  if [[ -n "$dry_run" ]]; then
    perform "${described[@]}"
    echo "# where it does not tell ACTIVE:"
    delete
    create
    install
    echo "# in any case:"
    run
    return
  fi
  local state
  if ! state="$("${described[@]}" 2>&1)"; then
    [[ "$state" == *NOT_FOUND* ]] || fail "the state of $name cannot be told: $(tail -n 1 <<<"$state")"
    state=""
  fi
  if [[ "$state" != ACTIVE ]]; then
    if [[ -n "$state" ]]; then delete; fi
    create
    install
  fi
  run
}

case "$command" in
  logs) perform gcloud compute tpus tpu-vm ssh "${nodes[slice]}" "${where[@]}" --worker="$worker" --command="$host logs" ;;
  stop) on_workers "$host stop" ;;
  do) on_workers "$host do $(quoted "${arguments[@]}")" ;;
  *) "$command" ;;
esac
