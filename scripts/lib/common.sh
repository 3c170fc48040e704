# Sourced by the scripts beside it: where things are, and how this project talks on a terminal.
set -euo pipefail

FARCALL_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export FARCALL_ROOT
# Debian's own interpreter: the packages of install-deps are for it and for no other.
export FARCALL_PYTHON=/usr/bin/python3
if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# A clone that somebody else owns (a container's bind mount) is read all the same.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=$FARCALL_ROOT

die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

# The comment block at the top of the calling script is its help.
usage() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; }
