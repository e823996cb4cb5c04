#!/usr/bin/env bash
# Makes the keys, certificates and kubeconfig files that `kubeadm init` makes for a control plane at 192.0.2.10, as far as static pods use them.
# usage: kubeadm.sh DIR        DIR: in the place of /etc/kubernetes
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,3s/^# //p' "$0"; exit 2; }
mkdir -p "$1/pki/etcd"
cd "$1/pki"
umask 077

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

# authority FILE NAME
authority() {
  key "$1.key"
  openssl req -x509 -new -key "$1.key" -subj "/CN=$2" -days 2 -out "$1.crt" \
    -addext keyUsage=critical,digitalSignature,keyEncipherment,keyCertSign
}

# certificate FILE AUTHORITY SUBJECT USAGE
certificate() {
  key "$1.key"
  openssl req -new -key "$1.key" -subj "$3" |
    openssl x509 -req -CA "$2.crt" -CAkey "$2.key" -set_serial "0x$(openssl rand -hex 8)" -days 2 -out "$1.crt" -extfile <(
      echo "keyUsage=critical,digitalSignature,keyEncipherment"
      echo "extendedKeyUsage=$4"
      echo "subjectAltName=DNS:node1,DNS:localhost,DNS:kubernetes,IP:192.0.2.10,IP:127.0.0.1"
    ) 2>/dev/null
}

authority ca kubernetes
authority front-proxy-ca front-proxy-ca
authority etcd/ca etcd-ca
certificate apiserver ca /CN=kube-apiserver serverAuth
certificate apiserver-kubelet-client ca /O=kubeadm:cluster-admins/CN=kube-apiserver-kubelet-client clientAuth
certificate front-proxy-client front-proxy-ca /CN=front-proxy-client clientAuth
certificate apiserver-etcd-client etcd/ca /CN=kube-apiserver-etcd-client clientAuth
certificate etcd/server etcd/ca /CN=node1 serverAuth,clientAuth
certificate etcd/peer etcd/ca /CN=node1 serverAuth,clientAuth
certificate etcd/healthcheck-client etcd/ca /CN=kube-etcd-healthcheck-client clientAuth
key sa.key
openssl pkey -in sa.key -pubout -out sa.pub
for name in admin controller-manager scheduler; do
  printf 'apiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers: []\ncurrent-context: %s\n' "$name" > "../$name.conf"
done
