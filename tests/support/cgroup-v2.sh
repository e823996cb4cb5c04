#!/usr/bin/env bash
# Runs the workspace's integration tests again where cgroups are v2: in the node in a box, or not at all when this machine is v2 itself.
# usage: cgroup-v2.sh [NAME-FILTER [TEST-FILTER...]]     NAME-FILTER: an extended regular expression on the names of the test files;
#        TEST-FILTER: as the test executables take it; one that fits no test is an error
# Tests that start no container (SKIP) say nothing new there and are left out.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
filter=${1:-.}
only=("${@:2}")
skip=${SKIP:-'^(layers|sim|golden|agent_loop|wire)$'}

if [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]; then
  echo "cgroup v2: this machine has it; the tests have run on it"
  exit 0
fi
# name, directory of the package, executable
tests=$(cargo test --workspace --locked --tests --no-run --message-format=json-render-diagnostics |
  jq -r 'select(.reason == "compiler-artifact" and .profile.test and .executable and (.target.kind | index("test")))
    | [.target.name, (.manifest_path | rtrimstr("/Cargo.toml")), .executable] | @tsv' |
  awk -F'\t' -v skip="$skip" -v filter="$filter" '$1 !~ skip && $1 ~ filter')
if [ -z "$tests" ]; then
  echo "cgroup v2: no integration tests match"
  exit 0
fi
# shellcheck disable=SC2016  # the guest expands it
script='failed=""
while IFS="	" read -r name package executable; do
  echo "cgroup v2: $name"
  (cd "$package" && CARGO_MANIFEST_DIR=$package "$executable" '$(printf '%q ' "${only[@]}")' < /dev/null) || failed+=" $name"
done <<END
'$tests'
END
[ -z "$failed" ] || { echo "cgroup v2: failed:$failed"; exit 1; }'
code=0
"$here/vm.sh" -m 4G -t 900 "$script" || code=$?
if [ $code = 77 ]; then
  echo "cgroup v2: not run, this machine has neither cgroup v2 nor the node in a box"
  exit 0
fi
exit $code
