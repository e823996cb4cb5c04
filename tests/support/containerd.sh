#!/usr/bin/env bash
# A private containerd with the test images, for tests of the CRI backend. Root.
# usage: containerd.sh start DIR   prints the endpoint (unix://DIR/c.sock) once its CRI service answers and knows the images
#        containerd.sh stop DIR    ends it with every container, shim, mount, network and cgroup it left; keeps DIR/containerd.log
# SYSTEMD_CGROUP=1: containers' cgroups are systemd's. MORE_IMAGES: a directory of further archives.
# Works with containerd 1.6, 1.7 and 2.x (the first in PATH). IMAGES: directory of the archives, default fixtures/images/out, built
# when missing. Everything is below DIR, but shims keep their sockets in /run/containerd/s. DIR must be short (socket paths end at
# 107 bytes) and on a file system that has sockets and xattrs.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin

die() { echo "containerd.sh: $*" >&2; exit 1; }
[ $# -eq 2 ] || { sed -n '2,9s/^# //p' "$0"; exit 2; }
mkdir -p "$2"
dir=$(realpath "$2")
socket=$dir/c.sock
[ ${#socket} -le 107 ] || die "the path $socket is too long for a socket"
images=${IMAGES:-$here/../../fixtures/images/out}
tell() { ctr --address "$socket" --namespace k8s.io "$@"; }

snapshotter() {
  local probe=$dir/probe kind=native
  mkdir -p "$probe"/{lower,upper,work,merged}
  if mount -t overlay overlay -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" "$probe/merged" 2>/dev/null; then
    umount "$probe/merged"
    kind=overlayfs
  fi
  rm -rf "$probe"
  echo "$kind"
}

# Version 2 of the configuration is read by 1.6 and 1.7, and translated by 2.x.
configure() {
  cat > "$dir/config.toml" <<END
version = 2
root = "$dir/root"
state = "$dir/state"
oom_score = 0
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.blockfile"]
[grpc]
address = "$socket"
[plugins."io.containerd.nri.v1.nri"]
disable = true
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/podstead/pause:1"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "$("$here/cni.sh" bin-dir)"
conf_dir = "$dir/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "$(snapshotter)"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "$dir/state/runc"
SystemdCgroup = $([ -n "${SYSTEMD_CGROUP:-}" ] && echo true || echo false)
END
}

# wait_for SECONDS WHAT COMMAND...: tries every 50 ms
wait_for() {
  local tries=$(($1 * 20)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    tries=$((tries - 1))
    if [ $tries -le 0 ] || ! kill -0 "$(cat "$dir/pid")" 2>/dev/null; then
      tail -5 "$dir/containerd.log" >&2
      die "$what; its log is $dir/containerd.log"
    fi
    sleep 0.05
  done
}

cri_ready() { tell plugins ls | grep -E '^io\.containerd\.grpc\.v1 +cri +.* ok *$' > /dev/null; }
# The CRI service marks the images that it has taken over, so the mark proves that it runs.
images_known() { ! tell images ls | grep -F application/ | grep -vF io.cri-containerd.image=managed > /dev/null; }

start() {
  command -v containerd >/dev/null || die "containerd is missing; 'make deps' installs it"
  [ ! -S "$socket" ] || ! tell version >/dev/null 2>&1 || die "one runs in $dir already"
  if ! [ -f "$images/busybox.tar" ] || ! [ -f "$images/nginx.tar" ] || ! [ -f "$images/pause.tar" ]; then
    "$here/../../fixtures/images/build.sh" "$images" >&2
  fi
  "$here/cni.sh" write "$dir" >/dev/null
  configure
  setsid containerd --config "$dir/config.toml" < /dev/null > "$dir/containerd.log" 2>&1 &
  echo $! > "$dir/pid"
  wait_for 30 "containerd gives no answer" tell version
  wait_for 30 "containerd's CRI service does not run" cri_ready
  local archive kind
  kind=$(sed -n 's/^snapshotter = "\(.*\)"/\1/p' "$dir/config.toml")
  for archive in "$images"/{pause,nginx,busybox}.tar ${MORE_IMAGES:+"$MORE_IMAGES"/*.tar}; do
    tell images import --snapshotter "$kind" "$archive" >&2 || die "the import of $archive failed"
  done
  wait_for 30 "containerd's CRI service does not see the imported images" images_known
  sleep 0.05 # the mark is set just before the name enters the service's own table
  echo "unix://$socket"
}

# descendants PID...: these processes and all below them
descendants() {
  local pid children
  for pid in "$@"; do
    echo "$pid"
    children=$(cat /proc/"$pid"/task/*/children 2>/dev/null || true)
    # shellcheck disable=SC2086  # one word per process
    [ -z "$children" ] || descendants $children
  done
}

shims() { grep -lzsxF -- "$socket" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3 | grep -vx "$$" || true; }

# the recorded process is alive and not another one with the same number
ours() { [ -f "$dir/pid" ] && grep -qzxF -- "$dir/config.toml" "/proc/$(cat "$dir/pid")/cmdline" 2>/dev/null; }

stop() {
  local ids='' sockets='' name pids tries mounts cgroup
  if tell version >/dev/null 2>&1; then
    for name in $(ctr --address "$socket" namespaces ls -q); do
      for id in $(ctr --address "$socket" --namespace "$name" containers ls -q); do
        ids+=" $id"
        sockets+=" /run/containerd/s/$(printf %s "$socket/$name/$id" | sha256sum | cut -d' ' -f1)"
        ctr --address "$socket" --namespace "$name" tasks kill --signal SIGKILL --all "$id" >/dev/null 2>&1 || true
      done
    done
  fi
  if ours; then
    kill -KILL "$(cat "$dir/pid")"
    for ((tries = 0; tries < 100; tries++)); do ours || break; sleep 0.02; done
  fi
  # shellcheck disable=SC2046  # one word per process
  pids=$(descendants $(shims))
  # shellcheck disable=SC2086
  [ -z "$pids" ] || kill -KILL $pids 2>/dev/null || true
  for ((tries = 0; tries < 10; tries++)); do
    mounts=$(awk -v prefix="$dir/" 'index($5, prefix) == 1 {print $5}' /proc/self/mountinfo | tac)
    [ -n "$mounts" ] || break
    while read -r name; do umount "$name" 2>/dev/null || umount -l "$name" 2>/dev/null || true; done <<< "$mounts"
  done
  for name in $ids; do
    rm -f /var/lib/cni/results/*-"$name"-* /var/lib/cni/cache/results/*-"$name"-*
    while read -r cgroup; do rmdir "$cgroup" 2>/dev/null || { sleep 0.1; rmdir "$cgroup" 2>/dev/null; } || true; done \
      < <(find /sys/fs/cgroup -depth -type d -name "$name" 2>/dev/null)
  done
  # shellcheck disable=SC2086  # one word per socket
  [ -z "$sockets" ] || rm -f $sockets
  "$here/cni.sh" clean "$dir"
  rm -rf "$dir/root" "$dir/state" "$dir/config.toml" "$dir/pid" "$socket" "$socket.ttrpc"
}

case $1 in
  start | stop) "$1" ;;
  *) die "usage: containerd.sh start|stop DIR" ;;
esac
