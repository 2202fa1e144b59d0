#!/usr/bin/env bash
# Installs t5x, which is not on PyPI, from its source into the environment that phenaki_jax is in: see docs/t5x.md.
#
#   launch/install_t5x.sh [--dry_run]
#
# PYTHON=path         of the environment (that of .venv where there is one, else python3)
# T5X_SOURCE=path     a folder or tar archive of the source, where GitHub cannot be reached
# T5X_COMMIT=hash     another commit than the one that is tested
set -euo pipefail

# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"

case "${1:-}" in
  "") ;;
  --dry_run) dry_run=yes ;;
  -h | --help) usage 0 ;;
  *) fail "found $1, expected --dry_run or nothing; see --help" ;;
esac

commit="${T5X_COMMIT:-cc342d419ec3e3e9c4bf1df33c82330cafdc1e16}"
if [[ -z "${PYTHON:-}" ]]; then
  PYTHON=python3
  [[ -x "$root/.venv/bin/python" ]] && PYTHON="$root/.venv/bin/python"
fi

[[ -z "${T5X_SOURCE:-}" || -e "$T5X_SOURCE" ]] || fail "found no $T5X_SOURCE, expected a folder or a tar archive of t5x"
"$PYTHON" -c 'import phenaki_jax' 2>/dev/null \
  || fail "found no phenaki_jax in $PYTHON, expected the environment it is in: make install first, or set PYTHON"

# Built from a copy, in which building may leave what it likes.
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
source="$work/t5x"
perform mkdir -p "$source"
if [[ -z "${T5X_SOURCE:-}" ]]; then
  perform git -C "$source" init --quiet
  perform git -C "$source" fetch --quiet --depth 1 https://github.com/google-research/t5x "$commit"
  perform git -C "$source" checkout --quiet FETCH_HEAD
elif [[ -d "$T5X_SOURCE" ]]; then
  perform cp -R "$T5X_SOURCE/." "$source"
else
  perform tar -xf "$T5X_SOURCE" -C "$source"
  # Archives of GitHub hold one folder.
  [[ -n "$dry_run" || -e "$source/setup.py" ]] || source="$(dirname "$(find "$source" -maxdepth 2 -name setup.py | head -1)")"
fi
[[ -n "$dry_run" || -e "$source/t5x/train.py" ]] || fail "found no t5x/train.py in ${T5X_SOURCE:-the source}, expected t5x"

pip=("$PYTHON" -m pip install --quiet --disable-pip-version-check --no-input --constraint "$root/constraints.txt")
# What it asks for are sources on GitHub; phenaki_jax has brought all of them that it needs, but for these.
perform "${pip[@]}" fiddle cached_property
perform "${pip[@]}" --no-deps --no-build-isolation "$source"

# At the end of Python's path, where airio and jestimator are found if they are nowhere else.
stand_ins="$("$PYTHON" -c 'import pathlib, phenaki_jax; print(pathlib.Path(phenaki_jax.__file__).parent / "t5x/stand_ins")')"
path_file="$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/phenaki_jax_t5x.pth"
if [[ -n "$dry_run" ]]; then
  echo "echo $stand_ins > $path_file"
else
  echo "$stand_ins" > "$path_file"
  JAX_PLATFORMS=cpu TF_CPP_MIN_LOG_LEVEL=3 "$PYTHON" -c 'import t5x.train' 2>"$work/errors" \
    || { cat "$work/errors" >&2; fail "t5x does not import: it is tested with the versions of constraints.txt"; }
  echo "installed t5x; begin with docs/t5x.md"
fi
