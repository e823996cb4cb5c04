#!/usr/bin/env bash
# Runs a command as root on a node of its own within this machine: with its own processes, network, and view of /etc, /var, /run and
# /usr/libexec, so that it may use the paths, ports and addresses that a node has. All of it ends with the command, also when that is killed.
# usage: own-node.sh DIR COMMAND [ARG...]     exit code: the command's
# Its address is 192.0.2.10 on eth0. What it writes below those directories is kept in DIR, which must be on a file system that an overlay's
# upper directory may be on.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
[ $# -ge 2 ] || { sed -n '2,6s/^# //p' "$0"; exit 2; }
dir=$(realpath "$1")
if [ -z "${PODSTEAD_OWN_NODE:-}" ]; then
  PODSTEAD_OWN_NODE=1 exec unshare --mount --net --pid --fork --kill-child --propagation private --mount-proc "$0" "$@"
fi
shift
# As systemd has it; the peers are this namespace's own
mount --make-rshared /
for name in etc var usr/libexec; do
  work=$dir/${name//\//-}
  mkdir -p "$work"/{upper,work}
  mount -t overlay overlay -o "lowerdir=/$name,upperdir=$work/upper,workdir=$work/work" "/$name"
done
mount -t tmpfs tmpfs /run
echo 'nameserver 192.0.2.53' > /etc/resolv.conf.new
mv /etc/resolv.conf.new /etc/resolv.conf
printf '127.0.0.1\tlocalhost\n192.0.2.10\tnode1\n' > /etc/hosts.new
mv /etc/hosts.new /etc/hosts
ip link set lo up
ip link add eth0 type veth peer name uplink
ip addr add 192.0.2.10/24 dev eth0
ip link set uplink up
ip link set eth0 up
ip route add default via 192.0.2.1
# This shell is the first process: whoever is left without a parent is its child, and is waited for.
"$@" < /dev/null &
wait $!
