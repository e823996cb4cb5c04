#!/usr/bin/env bash
# A private pod network for one test directory: bridge, host-local addresses, port mappings. Root.
# usage: cni.sh bin-dir            prints the directory of the CNI plugins on this machine
#        cni.sh write DIR          writes DIR/cni/net.d/10-podstead.conflist, prints the directory net.d
#        cni.sh add|check|del DIR CONTAINER_ID NETNS_PATH [HOST_PORT:POD_PORT]   calls the plugins by hand (needs jq), add prints the result
#        cni.sh clean DIR          removes the bridge, its veths, and every iptables rule of the network
# Network name, bridge and subnet follow from DIR, so that runs do not meet. Bridge: ps-XXXXXXXX, name: podstead-XXXXXXXX.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin

die() { echo "cni.sh: $*" >&2; exit 1; }

plugins() {
  local dir
  for dir in /opt/cni/bin /usr/libexec/cni /usr/lib/cni; do
    if [ -x "$dir/bridge" ] && [ -x "$dir/portmap" ]; then echo "$dir"; return; fi
  done
  die "no CNI plugins in /opt/cni/bin, /usr/libexec/cni or /usr/lib/cni; install containernetworking-plugins"
}

names() {
  dir=$(realpath -m "$1")
  local hash
  hash=$(sha256sum <<< "$dir" | cut -c1-8)
  network=podstead-$hash bridge=ps-$hash
  conflist=$dir/cni/net.d/10-podstead.conflist
  # 10.64.0.0/10 holds 16384 networks of 254 pods; one that another bridge has already is stepped over
  local number=$((16#$hash % 16384))
  while subnet=10.$((64 + number / 256)).$((number % 256)).0/24; ip -4 route show exact "$subnet" | grep -v "dev $bridge" > /dev/null; do
    number=$(((number + 1) % 16384))
  done
}

write() {
  mkdir -p "$dir/cni/net.d"
  if [ ! -f "$conflist" ]; then
    sed "s|@NAME@|$network|; s|@BRIDGE@|$bridge|; s|@DIR@|$dir|; s|@SUBNET@|$subnet|" "$here/../../fixtures/cni/bridge.conflist.in" > "$conflist.new"
    mv "$conflist.new" "$conflist"
  fi
  echo "$dir/cni/net.d"
}

# call COMMAND INDEX PREVIOUS_RESULT: one plugin of the list, its configuration on standard input
call() {
  local config type
  config=$(jq -c --argjson index "$2" --argjson previous "${3:-null}" --argjson ports "$ports" '. as $list | .plugins[$index]
    | if .capabilities.portMappings then del(.capabilities) | .runtimeConfig = {portMappings: $ports} else . end
    | . + {name: $list.name, cniVersion: $list.cniVersion} + (if $previous then {prevResult: $previous} else {} end)' "$conflist")
  type=$(jq -r .type <<< "$config")
  CNI_COMMAND=$1 CNI_CONTAINERID=$id CNI_NETNS=$netns CNI_IFNAME=eth0 CNI_PATH=$path "$path/$type" <<< "$config" ||
    { echo >&2; die "$1 of the CNI plugin $type failed for $id"; }
}

by_hand() {
  local command=$1 count index result=null
  id=$2 netns=$3 path=$(plugins)
  # DEL and CHECK take the same port mappings as ADD did
  ports=$(cat "$dir/cni/ports-$id" 2>/dev/null || echo '[]')
  if [ -n "${4:-}" ]; then
    ports=$(jq -nc --argjson host "${4%%:*}" --argjson pod "${4##*:}" '[{hostPort: $host, containerPort: $pod, protocol: "tcp"}]')
  fi
  count=$(jq '.plugins | length' "$conflist")
  [ "$command" = add ] || result=$(cat "$dir/cni/result-$id" 2>/dev/null || echo null)
  case $command in
    add)
      echo "$ports" > "$dir/cni/ports-$id"
      for ((index = 0; index < count; index++)); do result=$(call ADD "$index" "$result"); done
      tee "$dir/cni/result-$id" <<< "$result"
      ;;
    check) for ((index = 0; index < count; index++)); do call CHECK "$index" "$result"; done ;;
    del)
      for ((index = count - 1; index >= 0; index--)); do call DEL "$index" "$result"; done
      rm -f "$dir/cni/result-$id" "$dir/cni/ports-$id"
      ;;
  esac
}

# Rules of the network carry its name in their comment; the chains that they jump to go with them, all in one transaction.
clean_rules() {
  local save chains
  save=$(iptables -w -t nat -S 2>/dev/null | grep -F -- "$network") || return 0
  chains=$(grep -oE -- '-j CNI-(DN-)?[0-9a-f]+' <<< "$save" | cut -d' ' -f2 | sort -u || true)
  {
    echo '*nat'
    grep -vE '^-A CNI-(DN-)?[0-9a-f]{12,} ' <<< "$save" | sed 's/^-A/-D/' || true
    # shellcheck disable=SC2086  # one word per chain
    [ -z "$chains" ] || { printf -- '-F %s\n' $chains; printf -- '-X %s\n' $chains; }
    echo COMMIT
  } | iptables-restore -w --noflush
}

clean() {
  local port
  for port in $(ip -o link show master "$bridge" 2>/dev/null | sed -E 's/^[0-9]+: ([^@:]+).*/\1/'); do ip link del "$port" 2>/dev/null || true; done
  ip link del "$bridge" 2>/dev/null || true
  if command -v iptables >/dev/null; then clean_rules; fi
  rm -rf "$dir/cni" /var/lib/cni/results/"$network"-* /var/lib/cni/cache/results/"$network"-*
}

case ${1:-} in
  bin-dir) plugins ;;
  write | clean) [ $# -eq 2 ] || die "usage: cni.sh $1 DIR"; names "$2"; "$1" ;;
  add | check | del) [ $# -ge 4 ] || die "usage: cni.sh $1 DIR CONTAINER_ID NETNS_PATH [HOST_PORT:POD_PORT]"; names "$2"; by_hand "$1" "${@:3}" ;;
  *) sed -n '2,8s/^# //p' "$0"; exit 2 ;;
esac
