#!/usr/bin/env bash
# The batch script of launch/slurm.sh: runs COMMAND, launch/worker.sh and its own, once for each task.
#
#   launch/slurm_job.sh RESTARTS COMMAND...
#
# A training that was stopped by SIGTERM (143, see launch/worker.sh), as before the time limit, is queued again. One that
# fails begins again on the same nodes, at most RESTARTS times, but for a mistake (2). Of a node that fails, or a job that is
# preempted, SLURM itself takes care (--requeue).
set -euo pipefail

restarts="$1"
shift
# Told to this shell: the job is to end.
asked_to_stop=""
trap 'asked_to_stop=yes' TERM

for ((attempt = 0; ; attempt++)); do
  code=0
  # JAX finds the others by what srun tells each task. The code is the highest of all tasks; where one has ended, the rest
  # learn of it within a heartbeat. A mistake of one comes as 200, above what others end with that have lost it, signals too.
  srun --wait=300 "$@" || code=$?
  if ((code == 200)); then code=2; fi
  if [[ -n "$asked_to_stop" ]]; then exit $((code == 143 ? 0 : code)); fi
  case "$code" in
    0 | 2) exit "$code" ;;
    143)
      echo "launch/slurm_job.sh: stopped with everything saved; queued again" >&2
      exec scontrol requeue "$SLURM_JOB_ID"
      ;;
  esac
  if ((attempt == restarts)); then exit "$code"; fi
  echo "launch/slurm_job.sh: ended with $code; attempt $((attempt + 2)) of $((restarts + 1))" >&2
done
