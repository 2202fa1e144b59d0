# shellcheck shell=bash
# What the launchers share: options, mistakes in one line, commands that are printed or run. They source it.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
dry_run="" name="" topology=""
# Where each host of a pod has the buckets: phenaki reads and writes folders.
buckets=/gcs

# The comment that a script begins with.
usage() {
  sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p;}' "$0"
  exit "${1:-2}"
}

# A user's mistake.
fail() {
  echo "launch/${0##*/}: $*" >&2
  exit 2
}

# need_bash MAJOR MINOR: macOS has 3.2.
need_bash() {
  ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= $1 * 100 + $2)) || fail "found bash $BASH_VERSION, expected $1.$2 or newer"
}
need_bash 4 4

# Words as a shell reads them back.
quoted() {
  local word line=""
  for word in "$@"; do
    if [[ "$word" =~ ^[-_./:=,@%+a-zA-Z0-9]+$ ]]; then
      line+=" $word"
    elif [[ "$word" != *\'* ]]; then
      line+=" '$word'"
    else
      printf -v word '%q' "$word"
      line+=" $word"
    fi
  done
  printf '%s' "${line:1}"
}

# Runs a command, or prints it so that it can be pasted.
perform() {
  if [[ -n "$dry_run" ]]; then
    printf '%s\n' "$(quoted "$@")"
  else
    "$@"
  fi
}

# need COMMAND ADVICE: a dry run needs nothing.
need() {
  [[ -n "$dry_run" ]] || command -v "$1" >/dev/null || fail "found no $1: $2"
}

# read_options "OPTIONS WITH A VALUE" "OPTIONS WITHOUT" WORDS...: sets a variable for each, $command and ${arguments[@]}.
read_options() {
  local valued=" $1 " flags=" $2 dry_run " word option
  command="" arguments=()
  shift 2
  while (($#)); do
    word="$1"
    shift
    option="${word#--}"
    option="${option%%=*}"
    case "$word" in
      --) arguments=("$@"); return ;;
      -h | --help) usage 0 ;;
      -*)
        if [[ "$flags" == *" $option "* && "$word" == "--$option" ]]; then
          printf -v "$option" yes
        elif [[ "$valued" != *" $option "* ]]; then
          fail "found $word, expected options of this script, and -- before those of phenaki train; see --help"
        elif [[ "$word" == *=* ]]; then
          printf -v "$option" '%s' "${word#*=}"
        elif (($#)); then
          printf -v "$option" '%s' "$1"
          shift
        else
          fail "found --$option without a value, expected one; see --help"
        fi
        ;;
      *)
        [[ -z "$command" ]] || fail "found '$word' after '$command', expected one command, and -- before arguments; see --help"
        command="$word"
        ;;
    esac
  done
}

# check_command NAMES...
check_command() {
  [[ " $* " == *" $command "* && -n "$command" ]] || fail "found command '$command', expected one of $*; see --help"
}

# check_set OPTIONS...
check_set() {
  local option
  for option in "$@"; do
    [[ -n "${!option}" ]] || fail "found no --$option, which $command needs; see --help"
  done
}

# check_counts OPTIONS...
check_counts() {
  local option
  for option in "$@"; do
    [[ "${!option}" =~ ^(0|[1-9][0-9]*)$ ]] || fail "found --$option '${!option}', expected a whole number; see --help"
  done
}

check_name() {
  [[ "$name" =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] \
    || fail "found --name '$name', expected at most 40 small letters, digits and dashes that begin with a letter"
}

# In the arguments each gs://BUCKET becomes the folder where the hosts have it.
in_folders() {
  arguments=("${arguments[@]//gs:\/\//$buckets/}")
}

# check_arguments bucket | folder: those of phenaki train, whose workdir is in a bucket, or a folder.
check_arguments() {
  local where="$1" index workdir="" word gin_file=""
  for ((index = 0; index < ${#arguments[@]}; index++)); do
    word="${arguments[index]}"
    case "$word" in
      --workdir) workdir="${arguments[index + 1]:-}" ;;
      --workdir=*) workdir="${word#*=}" ;;
      --gin_file | --gin_file=*) gin_file=yes ;;
    esac
  done
  [[ -n "$gin_file" ]] || fail "found no --gin_file after --, expected the arguments of phenaki train; see --help"
  [[ -n "$workdir" ]] || fail "found no --workdir after --, expected the arguments of phenaki train; see --help"
  if [[ "$where" == bucket && ! "$workdir" =~ ^gs://[a-z0-9][-_.a-z0-9]+[a-z0-9]/. ]]; then
    fail "found --workdir '$workdir', expected gs://BUCKET/FOLDER with a bucket of yours (small letters, digits, - _ .): every host of a pod reads and writes there"
  elif [[ "$where" == folder && "$workdir" == gs://* ]]; then
    fail "found --workdir '$workdir', expected a folder that every node has"
  fi
  if [[ "$where" == bucket ]]; then in_folders; fi
}

# What the clouds call $topology, and how many hosts a slice of it has.
#
# From https://cloud.google.com/tpu/docs/runtimes, https://cloud.google.com/tpu/docs/v6e and its like of each chip, and
# https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus.
# shellcheck disable=SC2034 # for those who source this
describe_topology() {
  local chip="${topology%%:*}" cores=1 most="" machine_family
  shape="${topology#*:}"
  case "$chip" in
    v4)
      accelerator_type=v4 runtime_version=tpu-ubuntu2204-base cores=2 most=4096
      gke_accelerator=tpu-v4-podslice machine_family=ct4p-hightpu
      ;;
    v5e)
      accelerator_type=v5litepod runtime_version=v2-alpha-tpuv5-lite
      gke_accelerator=tpu-v5-lite-podslice machine_family=ct5lp-hightpu
      ;;
    v5p)
      accelerator_type=v5p runtime_version=v2-alpha-tpuv5 cores=2 most=6144
      gke_accelerator=tpu-v5p-slice machine_family=ct5p-hightpu
      ;;
    v6e)
      accelerator_type=v6e runtime_version=v2-alpha-tpuv6e
      gke_accelerator=tpu-v6e-slice machine_family=ct6e-standard
      ;;
    tpu7x)
      accelerator_type=tpu7x runtime_version=v2-alpha-tpu7-ubuntu2404 cores=2 most=9216
      gke_accelerator=tpu7x machine_family=tpu7x-standard
      ;;
    *) fail "found --topology '$topology', expected one that phenaki compile knows: v4, v5e, v5p, v6e or tpu7x and a slice, as v5p:4x4x4" ;;
  esac
  if [[ -z "$most" ]]; then
    [[ " 1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16 " == *" $shape "* ]] \
      || fail "found --topology '$topology', expected one that exists: $chip has 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16 and 16x16"
  else
    is_cube "$most" || fail "found --topology '$topology', expected one that exists: $chip has 2x2x1, 2x2x2, 2x2x4," \
      "2x4x4, and up to $most chips of multiples of 4 that do not fall, as 4x4x8"
  fi
  chips=$((${shape//x/*}))
  chips_per_host=4
  case "$chip:$shape" in
    *:1x1) chips_per_host=1 ;;
    *:2x4) chips_per_host=8 ;;
  esac
  hosts=$((chips / chips_per_host))
  accelerator_type="$accelerator_type-$((chips * cores))"
  machine_type="$machine_family-${chips_per_host}t"
}

# is_cube CHIPS: whether $shape is one of a torus of three dimensions with at most so many chips.
is_cube() {
  [[ " 2x2x1 2x2x2 2x2x4 2x4x4 " == *" $shape "* ]] && return
  [[ "$shape" =~ ^([1-9][0-9]?)x([1-9][0-9]?)x([1-9][0-9]?)$ ]] || return
  local a="${BASH_REMATCH[1]}" b="${BASH_REMATCH[2]}" c="${BASH_REMATCH[3]}"
  ((a % 4 == 0 && b % 4 == 0 && c % 4 == 0 && a <= b && b <= c && c <= 24 && a * b * c <= $1))
}

# What runs phenaki on this machine.
find_phenaki() {
  if [[ -z "${PHENAKI:-}" ]]; then
    PHENAKI=phenaki
    if [[ -x "$root/.venv/bin/phenaki" ]]; then PHENAKI="$root/.venv/bin/phenaki"; fi
  fi
}
