#!/usr/bin/env bash
# Trains on GKE: slices of a TPU pod, each a node pool and a job, all of them one JobSet (launch/gke/jobset.yaml).
#
#   launch/gke.sh [--dry_run] COMMAND OPTIONS... [-- ARGUMENTS...]
#
# create     make the cluster with a node pool for each slice, and install JobSet in it; what is there stays, but for
#            node pools that have failed, which are made anew
# build      make the image of what is committed here (launch/Dockerfile), and push it
# run        begin `phenaki train --distributed ARGUMENTS` on all hosts
# logs       show the log of one host as it grows; Ctrl-C ends the showing
# stop       SIGTERM to all hosts: they save after the same step and end
# resume     stop what may run still, then run, which goes on from the last checkpoint; same options and arguments as run
# delete     remove the cluster; what is in the bucket stays
#
# --name NAME, --project PROJECT, --zone ZONE    of the cluster; PROJECT and ZONE of the environment unless said
# --topology CHIP:AxBxC    as phenaki compile names them, such as v5p:4x4x4 (create, run, resume, delete of tpu7x)
# --slices N               so many, joined by their network: REPLICA = N in gin (1)
# --image IMAGE            such as us-docker.pkg.dev/PROJECT/REPOSITORY/phenaki (build, run, resume)
# --spot                   preemptible, at a lower price (create)
# --create_flags "..."     more for gcloud container node-pools create, such as "--reservation=NAME --reservation-affinity=specific"
# --restarts N             how often all begin again after a failure or a preemption (20); never after a mistake
# --grace S                seconds from SIGTERM until a host is killed, in which it saves (600)
# --service_account NAME   the Kubernetes account of the pods, which must have access to the bucket (default)
# --jobset VERSION         a release of https://github.com/kubernetes-sigs/jobset (v0.12.0)
# --worker I, --slice J    whose log is shown (0, 0)
# --dry_run                print the commands instead
#
# ARGUMENTS are those of phenaki train. Each gs://BUCKET in them becomes /gcs/BUCKET, where the pods have the buckets that
# they may read and write (Cloud Storage FUSE).
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

project="${PROJECT:-}" zone="${ZONE:-}" slices=1 image="" spot="" create_flags="" restarts=20 grace=600
service_account=default jobset=v0.12.0 worker=0 slice=0
read_options "name project zone topology slices image create_flags restarts grace service_account jobset worker slice" \
  "spot" "$@"
check_command create build run logs stop resume delete
case "$command" in
  build) check_set image ;;
  create) check_set name project zone topology ;;
  run | resume) check_set name project zone topology image ;;
  *) check_set name project zone ;;
esac
if [[ -n "$name" ]]; then check_name; fi
check_counts slices restarts grace worker slice
((slices > 0)) || fail "found --slices 0, expected at least 1"
if [[ -n "$topology" ]]; then describe_topology; fi
if [[ "$command" == run || "$command" == resume ]]; then check_arguments bucket; fi
case "$command" in
  build) need docker "install it, https://docs.docker.com/engine/install, and let it push with gcloud auth configure-docker" ;;
  create | delete) need gcloud "install the Google Cloud CLI, https://cloud.google.com/sdk/docs/install, and log in with gcloud auth login" ;;
esac
case "$command" in
  build | delete) ;;
  *) need kubectl "install it with gcloud components install kubectl gke-gcloud-auth-plugin" ;;
esac

where=(--project="$project" --location="$zone")
kubectl=(kubectl "--context=gke_${project}_${zone}_$name")

# Slices of several hosts of this chip are placed by a policy.
has_policy() {
  [[ "${gke_accelerator:-}" == tpu7x ]] && ((hosts > 1))
}

# describe COMMAND...: sets $status to what is told of it; to nothing where it is not there. A dry run takes it that it is not.
describe() {
  status=""
  if [[ -z "$dry_run" ]]; then
    status="$("$@" "--format=value(status)" 2>/dev/null)" || status=""
  else
    perform "$@" "--format=value(status)"
    echo "# where it is not there:"
  fi
}

create() {
  local more=() index status
  describe gcloud container clusters describe "$name" "${where[@]}"
  if [[ -z "$status" ]]; then
    perform gcloud container clusters create "$name" "${where[@]}" --machine-type=e2-standard-8 --num-nodes=1 \
      --workload-pool="$project.svc.id.goog" --addons=GcsFuseCsiDriver
  fi
  if has_policy; then
    local region=(--project="$project" --region="${zone%-*}")
    describe gcloud compute resource-policies describe "$name" "${region[@]}"
    if [[ -z "$status" ]]; then
      perform gcloud compute resource-policies create workload-policy "$name" "${region[@]}" --type=HIGH_THROUGHPUT \
        --accelerator-topology="$shape"
    fi
    more+=(--placement-policy="$name")
  fi
  if [[ -n "$spot" ]]; then more+=(--spot); fi
  local asked=()
  read -ra asked <<<"$create_flags"
  for ((index = 0; index < slices; index++)); do
    local pool=("slice-$index" --cluster="$name" "${where[@]}")
    describe gcloud container node-pools describe "${pool[@]}"
    case "$status" in
      "") ;;
      *ERROR) perform gcloud container node-pools delete "${pool[@]}" --quiet ;;
      *) continue ;;
    esac
    perform gcloud container node-pools create "${pool[@]}" --node-locations="$zone" --machine-type="$machine_type" \
      --tpu-topology="$shape" --num-nodes="$hosts" "${more[@]}" "${asked[@]}"
  done
  perform gcloud container clusters get-credentials "$name" "${where[@]}"
  perform "${kubectl[@]}" apply --server-side \
    --filename="https://github.com/kubernetes-sigs/jobset/releases/download/$jobset/manifests.yaml"
}

build() {
  # That of TPU hosts, whatever this machine is.
  local make=(docker build --platform=linux/amd64 --file launch/Dockerfile --tag "$image" -)
  if [[ -n "$dry_run" ]]; then
    echo "git -C $(quoted "$root") archive HEAD | $(quoted "${make[@]}")"
  else
    git -C "$root" archive HEAD | "${make[@]}"
  fi
  perform docker push "$image"
}

# The arguments as a list of JSON, which is one of YAML.
arguments_as_json() {
  local word listed=""
  for word in "${arguments[@]}"; do
    [[ "$word" != *[[:cntrl:]]* ]] || fail "found an argument with a line break or the like, expected none: '$word'"
    # Kubernetes would put a variable in the place of $(NAME).
    word="${word//\$(/\$\$(}"
    word="${word//\\/\\\\}"
    listed+=", \"${word//\"/\\\"}\""
  done
  printf '[%s]' "${listed:2}"
}

manifest() {
  local text values place
  text="$(<"$root/launch/gke/jobset.yaml")"
  values=(NAME "$name" SLICES "$slices" HOSTS "$hosts" CHIPS_PER_HOST "$chips_per_host" RESTARTS "$restarts" GRACE "$grace"
    GKE_ACCELERATOR "$gke_accelerator" SHAPE "$shape" IMAGE "$image" SERVICE_ACCOUNT "$service_account")
  for ((place = 0; place < ${#values[@]}; place += 2)); do
    text="${text//"\${${values[place]}}"/"${values[place + 1]}"}"
  done
  # Last, so that nothing within is taken for a name.
  printf '%s\n' "${text//"\${ARGUMENTS}"/"$(arguments_as_json)"}"
}

run() {
  local filled told
  filled="$(manifest)"
  if [[ -n "$dry_run" ]]; then
    printf "%s <<'END'\n%s\nEND\n" "$(quoted "${kubectl[@]}" create --filename=-)" "$filled"
  elif told="$("${kubectl[@]}" create --filename=- 2>&1 <<<"$filled")"; then
    echo "$told"
  elif [[ "$told" == *AlreadyExists* ]]; then
    fail "found a training $name, which may run or have ended, expected none: resume stops and removes it, and goes on"
  else
    echo "$told" >&2
    return 1
  fi
}

# In the foreground: until all pods have saved and ended.
stop() {
  perform "${kubectl[@]}" delete jobset "$name" --ignore-not-found --cascade=foreground
}

logs() {
  local labels="jobset.sigs.k8s.io/jobset-name=$name,jobset.sigs.k8s.io/job-index=$slice"
  perform "${kubectl[@]}" logs --follow --tail=100 --container=train \
    --selector="$labels,batch.kubernetes.io/job-completion-index=$worker"
}

delete() {
  perform gcloud container clusters delete "$name" "${where[@]}" --quiet
  if has_policy; then
    perform gcloud compute resource-policies delete "$name" --project="$project" --region="${zone%-*}" --quiet
  fi
}

if [[ "$command" == resume ]]; then
  stop
  run
else
  "$command"
fi
