#!/usr/bin/env bash
# Installs what building, demo and tests need and this machine lacks. Debian 12 and later, Fedora. Root when something is missing.
# usage: deps.sh           installs; does nothing, and needs no network, when all is there
#        deps.sh --check   prints what is missing and fails if anything is
# Services that come with the packages (nginx, containerd, a registry) are neither started nor enabled: the tests run their own.
set -euo pipefail
PATH=$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$here/../../Cargo.toml")

has() { command -v "$1" >/dev/null; }
has_static_busybox() { has busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1; }
has_plugins() { "$here/cni.sh" bin-dir >/dev/null 2>&1; }
has_registry() { has docker-registry || has registry; }
has_oci_schema() { [ -f /usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema/config-schema.json ]; }
has_seccomp_headers() { [ -f /usr/include/seccomp.h ]; }
has_rust() {
  has cargo && has rustc || return 1
  local version
  version=$(rustc --version 2>/dev/null | cut -d' ' -f2)
  [ -n "$version" ] && [ "$(printf '%s\n' "$rust" "$version" | sort -V | head -1)" = "$rust" ]
}

# check, Debian package, Fedora package; a Fedora package in brackets is optional there
needs=(
  'has gcc|gcc libc6-dev|gcc glibc-devel'
  'has make|make|make'
  'has pkg-config|pkg-config|pkgconf-pkg-config'
  'has_seccomp_headers|libseccomp-dev|libseccomp-devel'
  'has git|git|git-core'
  'has curl|curl ca-certificates|curl'
  'has jq|jq|jq'
  'has zstd|zstd|zstd'
  'has ldd|libc-bin|glibc-common'
  'has flock|util-linux|util-linux-core'
  'has ip|iproute2|iproute'
  'has iptables|iptables|iptables-nft'
  'has_plugins|containernetworking-plugins|containernetworking-plugins'
  'has_static_busybox|busybox-static|busybox'
  'has nginx|nginx-light|nginx-core'
  'has skopeo|skopeo|skopeo'
  'has umoci|umoci|[umoci]'
  'has openssl|openssl|openssl'
  'has script|bsdutils|[util-linux-script]'
  'has nsenter|util-linux|util-linux-core'
  'has unshare|util-linux|util-linux-core'
  'has pgrep|procps|procps-ng'
  'has find|findutils|findutils'
  'has runc|runc|runc'
  'has containerd|containerd|containerd'
  'has_oci_schema|golang-github-opencontainers-specs-dev|[golang-github-opencontainers-specs-devel]'
  'has_registry|docker-registry|[docker-distribution]'
)

family() {
  if has apt-get; then echo debian; elif has dnf; then echo fedora; else
    echo "deps.sh: neither apt-get nor dnf here; install by hand what 'deps.sh --check' names" >&2
    return 1
  fi
}

missing() {
  local need
  for need in "${needs[@]}"; do ${need%%|*} || echo "$need"; done
}

install_debian() {
  local policy=/usr/sbin/policy-rc.d made='' failed=''
  # asked by the packages' scripts before they start a service; 101 forbids it
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' > $policy
    chmod 755 $policy
    made=1
  fi
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; } || failed=1
  [ -z "$made" ] || rm -f $policy
  [ -z "$failed" ]
}

install_packages() {
  local debian=() fedora=() optional=() services=() need words unit
  while IFS='|' read -r need words unit; do
    [ -n "$need" ] || continue
    # shellcheck disable=SC2206  # several packages in one field
    debian+=($words)
    # shellcheck disable=SC2206
    case $unit in '['*) optional+=(${unit//[][]/}) ;; *) fedora+=($unit) ;; esac
    case $need in *nginx) services+=(nginx) ;; *containerd) services+=(containerd) ;; *registry) services+=(docker-registry) ;; esac
  done <<< "$1"
  if [ "$(family)" = debian ]; then
    install_debian "${debian[@]}"
    if has systemctl; then for unit in "${services[@]}"; do systemctl disable -q "$unit" 2>/dev/null || true; done; fi
  else
    [ ${#fedora[@]} -eq 0 ] || dnf install -y --setopt=install_weak_deps=False "${fedora[@]}"
    for unit in "${optional[@]}"; do dnf install -y "$unit" || echo "deps.sh: $unit is not to be had here; the tests that need it say so" >&2; done
  fi
}

# Debian 12's own Rust is too old and it has no rustup package: there the Rust project's installer is taken, its checksum checked.
install_rust() {
  echo "deps.sh: Rust $rust or later is missing; installing it with rustup for $(id -un)" >&2
  if ! has rustup && ! has rustup-init; then
    if [ "$(family)" = fedora ]; then dnf install -y rustup
    elif [[ $(apt-cache policy rustup 2>/dev/null) == *'Candidate: '[0-9]* ]]; then install_debian rustup; fi
  fi
  if has rustup; then
    rustup toolchain install stable --profile minimal -c clippy -c rustfmt
    rustup default stable
  elif has rustup-init; then
    rustup-init -y -q --no-modify-path --profile minimal -c clippy -c rustfmt
  else
    local host base work
    host=$(uname -m)-unknown-linux-gnu
    base=https://static.rust-lang.org/rustup/dist/$host
    work=$(mktemp -d)
    curl -fsS --proto '=https' --tlsv1.2 -o "$work/rustup-init" "$base/rustup-init"
    curl -fsS --proto '=https' --tlsv1.2 "$base/rustup-init.sha256" | cut -d' ' -f1 | sed "s|\$|  $work/rustup-init|" | sha256sum -c --quiet
    chmod 755 "$work/rustup-init"
    "$work/rustup-init" -y -q --no-modify-path --profile minimal -c clippy -c rustfmt
    rm -rf "$work"
  fi
}

lacking=$(missing)
if [ "${1:-}" = --check ]; then
  [ -z "$lacking" ] || cut -d'|' -f2 <<< "$lacking"
  has_rust || echo "Rust $rust or later"
  [ -z "$lacking" ] && has_rust
  exit
fi
if [ -n "$lacking" ]; then
  [ "$(id -u)" = 0 ] || { echo "deps.sh: run as root, or install by hand (Debian | Fedora):" >&2; cut -d'|' -f2- <<< "$lacking" >&2; exit 1; }
  install_packages "$lacking"
fi
has_rust || install_rust
lacking=$(missing | grep -vF '|[' || true)
[ -z "$lacking" ] || [ "$(family)" = debian ] || lacking=$(grep -v '\[' <<< "$lacking" || true)
[ -z "$lacking" ] || { echo "deps.sh: still missing:" >&2; cut -d'|' -f2- <<< "$lacking" >&2; exit 1; }
