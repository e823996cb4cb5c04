#!/bin/sh
# keepalived asks by it whether the API server can be reached through this node's HAProxy.
curl -sfk --max-time 2 https://localhost:8443/healthz -o /dev/null || { echo "no answer on https://localhost:8443/healthz" >&2; exit 1; }
