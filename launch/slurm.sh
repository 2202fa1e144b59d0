#!/usr/bin/env bash
# Trains on GPUs of a SLURM cluster, with a process for each GPU.
#
#   launch/slurm.sh [--dry_run] COMMAND OPTIONS... [-- ARGUMENTS...]
#
# run       submit a job that runs `phenaki train --distributed ARGUMENTS`; also what goes on after it was stopped
# logs      show its output as it grows; Ctrl-C ends the showing
# stop      SIGTERM to all processes: they save after the same step, and the job ends; where it still waits: delete
# delete    end the job at once; what its last checkpoint has not is lost
#
# --name NAME               of the job (phenaki)
# --nodes N, --gpus N       how many nodes, and GPUs of each (1, 8)
# --time D-HH:MM:SS         limit of the job, after which it is queued again and goes on (1-00:00:00)
# --stop_before S           so many seconds before that limit it saves (300)
# --restarts N              how often it begins again by itself where a process fails (3); never after a mistake
# --partition P, --account A    of the cluster
# --sbatch_flags "..."      more for sbatch, such as "--cpus-per-task=16 --mem=0 --qos=NAME"
# --dry_run                 print the commands instead
#
# PHENAKI=command           what runs phenaki on the nodes ("phenaki", or that of .venv where there is one), which has
#                           jax[cuda12] or jax[cuda13]
#
# ARGUMENTS are those of phenaki train. This checkout, what PHENAKI names and all folders in ARGUMENTS are where every node
# has them. The output is in NAME.log in the working directory. A job that is preempted, whose node fails or whose time is up is
# queued again by itself.
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name=phenaki nodes=1 gpus=8 time=1-00:00:00 stop_before=300 restarts=3 partition="" account="" sbatch_flags=""
read_options "name nodes gpus time stop_before restarts partition account sbatch_flags" "" "$@"
check_command run logs stop delete
check_name
check_counts nodes gpus stop_before restarts
((nodes > 0 && gpus > 0)) || fail "found --nodes $nodes and --gpus $gpus, expected at least 1 of each"
[[ "$time" =~ ^([0-9]+-)?[0-9]+(:[0-9]+){0,2}$ ]] || fail "found --time '$time', expected minutes, HH:MM:SS or D-HH:MM:SS"
if [[ "$command" == run ]]; then check_arguments folder; fi
log="$name.log"

run() {
  need sbatch "run this where SLURM's commands are, such as a login node of the cluster"
  find_phenaki
  local more=() asked=()
  if [[ -n "$partition" ]]; then more+=(--partition="$partition"); fi
  if [[ -n "$account" ]]; then more+=(--account="$account"); fi
  read -ra asked <<<"$sbatch_flags"
  # Without B: the signal goes to the processes that srun has started, and not to the shell of the batch.
  perform sbatch --job-name="$name" --nodes="$nodes" --ntasks-per-node="$gpus" --gpus-per-node="$gpus" --time="$time" \
    --signal="TERM@$stop_before" --requeue --open-mode=append --output="$log" "${more[@]}" "${asked[@]}" \
    "$root/launch/slurm_job.sh" "$restarts" \
    "$root/launch/worker.sh" --mistake 200 "$PHENAKI" train --distributed "${arguments[@]}"
}

logs() {
  perform tail -n 100 -F "$log"
}

# The shell of the batch first, so that it does not queue the job again.
stop() {
  need scancel "run this where SLURM's commands are, such as a login node of the cluster"
  perform scancel --batch --signal=TERM --user="$(id -un)" --name="$name"
  perform scancel --signal=TERM --user="$(id -un)" --name="$name"
}

delete() {
  need scancel "run this where SLURM's commands are, such as a login node of the cluster"
  perform scancel --user="$(id -un)" --name="$name"
}

"$command"
