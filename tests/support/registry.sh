#!/usr/bin/env bash
# A private image registry (plain http, loopback) that holds the test images as podstead/NAME:1.
# usage: registry.sh start DIR   prints its port once the images are in it
#        registry.sh stop DIR    ends it and removes its data; keeps DIR/registry.log
# PASSWORD=1: it wants user web, password secret.
# Needs skopeo and docker-registry (Debian's name; 'registry' elsewhere; exit code 77 where neither is). IMAGES: directory of the archives, default fixtures/images/out.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin

die() { echo "registry.sh: $*" >&2; exit 1; }
[ $# -eq 2 ] || { sed -n '2,6s/^# //p' "$0"; exit 2; }
mkdir -p "$2"
dir=$(realpath "$2")
images=${IMAGES:-$here/../../fixtures/images/out}

# serve PORT: starts the registry; fails when the port is taken
serve() {
  local tries
  sed -i "s/^  addr: .*/  addr: 127.0.0.1:$1/" "$dir/registry.yml"
  setsid "$registry" serve "$dir/registry.yml" < /dev/null > "$dir/registry.log" 2>&1 &
  echo $! > "$dir/registry.pid"
  for ((tries = 0; tries < 100; tries++)); do
    kill -0 "$(cat "$dir/registry.pid")" 2>/dev/null || return 1
    # the answer counts only while ours lives: another server on that port would answer too, but then ours ends at once
    if curl -fs -u web:secret -o /dev/null "http://127.0.0.1:$1/v2/" && sleep 0.1 && kill -0 "$(cat "$dir/registry.pid")" 2>/dev/null; then return; fi
    sleep 0.05
  done
  return 1
}

start() {
  local name port=''
  registry=$(command -v docker-registry || command -v registry) || { echo "registry.sh: neither docker-registry nor registry is here; 'make deps' installs it where the distribution has it" >&2; exit 77; }
  command -v skopeo >/dev/null || die "skopeo is missing; 'make deps' installs it"
  if ! [ -f "$images/busybox.tar" ] || ! [ -f "$images/nginx.tar" ] || ! [ -f "$images/pause.tar" ]; then
    "$here/../../fixtures/images/build.sh" "$images" >&2
  fi
  cat > "$dir/registry.yml" <<END
version: 0.1
log:
  level: info
  accesslog:
    disabled: false
storage:
  filesystem:
    rootdirectory: $dir/registry
  delete:
    enabled: true
http:
  addr: 127.0.0.1:0
END
  if [ -n "${PASSWORD:-}" ]; then
    # bcrypt of the password
    echo 'web:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW' > "$dir/registry.htpasswd"
    printf 'auth:\n  htpasswd:\n    realm: test\n    path: %s\n' "$dir/registry.htpasswd" >> "$dir/registry.yml"
  fi
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    port=$((20000 + RANDOM % 10000))
    if serve "$port"; then break; fi
    port=''
  done
  [ -n "$port" ] || { tail -5 "$dir/registry.log" >&2; die "the registry does not start; its log is $dir/registry.log"; }
  for name in busybox nginx pause; do
    skopeo copy --quiet --insecure-policy --dest-creds=web:secret --dest-tls-verify=false "oci-archive:$images/$name.tar" "docker://127.0.0.1:$port/podstead/$name:1" >&2 ||
      die "the push of $images/$name.tar failed"
  done
  echo "$port"
}

# the recorded process is alive and not another one with the same number
ours() { [ -f "$dir/registry.pid" ] && grep -qzxF -- "$dir/registry.yml" "/proc/$(cat "$dir/registry.pid")/cmdline" 2>/dev/null; }

stop() {
  local tries
  if ours; then
    kill -KILL "$(cat "$dir/registry.pid")"
    for ((tries = 0; tries < 100; tries++)); do ours || break; sleep 0.02; done
  fi
  rm -rf "$dir/registry" "$dir/registry.yml" "$dir/registry.pid" "$dir/registry.htpasswd"
}

case $1 in
  start | stop) "$1" ;;
  *) die "usage: registry.sh start|stop DIR" ;;
esac
