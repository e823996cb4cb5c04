#!/usr/bin/env bash
# Shows the direct backend at work: two static pods from fixtures/manifests, without any CRI daemon, in a root of their own. Root.
# usage: demo.sh          PODSTEAD: another binary than target/release/podstead     KEEP=1: ends only after Enter, to look around
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
support=$repository/tests/support
PATH=$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] || { echo "demo.sh: containers need root; run 'sudo make demo'" >&2; exit 1; }

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
die() {
  echo "demo.sh: $*" >&2
  [ ! -f "$work/agent.log" ] || { echo "demo.sh: the agent's last lines:" >&2; tail -20 "$work/agent.log" >&2; }
  exit 1
}

if [ -z "${PODSTEAD:-}" ]; then
  say "Building podstead"
  cargo build --release --locked --bin podstead --manifest-path "$repository/Cargo.toml"
  PODSTEAD=${CARGO_TARGET_DIR:-$repository/target}/release/podstead
fi
"$repository/fixtures/images/build.sh"
images=$repository/fixtures/images/out

work=$(mktemp -d /tmp/podstead-demo.XXXXXX)
state=/run/${work##*/}
cgroup=/${work##*/}
agent=''
# the flags that say which runtime is meant; every command takes them
node=(--runtime direct --root-dir "$work/root" --state-dir "$state" --cni-conf-dir "$("$support/cni.sh" write "$work")"
  --cni-bin-dir "$("$support/cni.sh" bin-dir)")

# The agent removes the pods whose files are gone; only then it is ended itself.
clean() {
  local code=$? tries
  trap - EXIT INT TERM
  if [ -n "$agent" ] && kill -0 "$agent" 2>/dev/null; then
    rm -f "$work"/manifests/*.yaml
    for ((tries = 0; tries < 100; tries++)); do [ "$(pods 2>/dev/null | jq '.items | length' || echo 1)" != 0 ] || break; sleep 0.2; done
    kill "$agent" 2>/dev/null || true
    wait "$agent" 2>/dev/null || true
  fi
  "$support/cni.sh" clean "$work" || true
  find /sys/fs/cgroup -depth -type d -path "*$cgroup*" -exec rmdir {} + 2>/dev/null || true
  if grep -qF -e "$work/" -e "$state/" /proc/self/mountinfo; then
    echo "demo.sh: something is still mounted below $work or $state; left in place" >&2
    [ $code != 0 ] || code=1
  else
    rm -rf "$work" "$state"
  fi
  exit $code
}
trap clean EXIT
trap 'exit 130' INT TERM

pods() { "$PODSTEAD" pods -o json "${node[@]}"; }
# the address of the pod whose name begins with $1, when it has one
address() {
  pods 2>/dev/null | jq -r --arg name "$1" 'first(.items[] | select(.metadata.name | startswith($name)) | .status.podIP // empty)' || true
}

say "Importing the images"
"$PODSTEAD" images import "$images/busybox.tar" "$images/nginx.tar" "${node[@]}"

say "Starting the agent on a copy of fixtures/manifests"
mkdir "$work/manifests"
cp "$repository"/fixtures/manifests/*.yaml "$work/manifests/"
"$PODSTEAD" run --pod-manifest-path "$work/manifests" --hostname-override demo --pod-logs-dir "$work/logs" \
  --container-logs-dir "$work/links" --cgroup-root "$cgroup" "${node[@]}" > "$work/agent.log" 2>&1 &
agent=$!
ip=''
for ((tries = 0; tries < 300; tries++)); do
  kill -0 "$agent" 2>/dev/null || die "the agent ended"
  ip=$(address static-web)
  if [ -n "$ip" ] && curl -fs -o /dev/null --max-time 2 "http://$ip/"; then break; fi
  sleep 0.1
done
[ -n "$ip" ] || die "the pod static-web has no address after 30 s"

say "podstead ps"
"$PODSTEAD" ps "${node[@]}"
say "curl http://$ip/"
curl -fsS --max-time 5 "http://$ip/" || die "the page of the pod static-web cannot be fetched"
say "podstead logs: the pod hello"
hello=$("$PODSTEAD" ps -o json "${node[@]}" | jq -r 'first(.containers[] | select(.name == "hello") | .id)')
[ -z "$hello" ] || "$PODSTEAD" logs --tail 3 "$hello" "${node[@]}"

if [ "${KEEP:-}" = 1 ]; then
  say "The node stays until Enter; its flags: ${node[*]}"
  read -r _
fi
say "Moving the files away: the pods end, then the agent"
