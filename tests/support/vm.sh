#!/usr/bin/env bash
# Runs a command as root in the node in a box: a small guest with systemd and a pure cgroup v2 hierarchy.
# usage: vm.sh [boot.sh's options] 'command'     exit code: the command's; 77 when this machine has no such tools
# The tools (setup.sh, boot.sh) are looked for in $PODSTEAD_VM_TOOLS, then in ../shared/vm beside the repository. The guest sees the
# repository and the build directory read-only under their own paths, and starts in the repository. Sockets, and all that needs
# xattrs or inotify, must stay on the guest's own disk (/tmp, /var).
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
tools=${PODSTEAD_VM_TOOLS:-$repository/../shared/vm}
if [ ! -x "$tools/boot.sh" ]; then
  echo "vm.sh: no node in a box here (PODSTEAD_VM_TOOLS, ../shared/vm)" >&2
  exit 77
fi
[ -f "${PODSTEAD_VM:-$HOME/.cache/podstead-vm}/rootfs.ext4" ] || "$tools/setup.sh" >&2

shares=(-s "$repository:$repository:ro")
target=${CARGO_TARGET_DIR:-$repository/target}
mkdir -p "$target"
target=$(cd "$target" && pwd -P)
case $target/ in "$repository"/*) ;; *) shares+=(-s "$target:$target:ro") ;; esac

options=()
while getopts m:c:t:s:k option; do
  case $option in k) options+=(-k) ;; '?') exit 2 ;; *) options+=("-$option" "$OPTARG") ;; esac
done
shift $((OPTIND - 1))
[ $# -ge 1 ] || { sed -n '2,6s/^# //p' "$0"; exit 2; }
exec "$tools/boot.sh" "${shares[@]}" "${options[@]}" "export CARGO_TARGET_DIR='$target'; cd '$repository' || exit 1
$*"
