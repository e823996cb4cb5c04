#!/usr/bin/env bash
# Checks licences, bans and sources of the dependencies against .deny.toml, and known vulnerabilities where the advisory database
# can be had. With cargo-deny 0.16 or later; without it licences and sources only, by means of cargo metadata.
# usage: deny.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if version=$(cargo-deny --version 2>/dev/null | cut -d' ' -f2) && [ "$(printf '%s\n' 0.16.0 "$version" | sort -V | head -1)" = 0.16.0 ]; then
  deny=(cargo-deny --log-level error --locked --target x86_64-unknown-linux-gnu)
  "${deny[@]}" check --hide-inclusion-graph bans licenses sources
  if timeout 60 "${deny[@]}" fetch db 2>/dev/null; then
    "${deny[@]}" check --disable-fetch advisories
  else
    echo "deny.sh: the advisory database cannot be had from here; known vulnerabilities not checked" >&2
  fi
  exit
fi

allowed=$(sed -n '/^allow = \[/,/^\]/s/^ *"\(.*\)",*$/\1/p' .deny.toml)
bad=0
# name, source, licence expression; '/' is the old spelling of OR. Every licence becomes 1 (allowed) or 0, the rest is arithmetic.
while IFS=$'\t' read -r name source expression; do
  case $source in
    path | registry+https://github.com/rust-lang/crates.io-index) ;;
    *) echo "deny.sh: $name comes from $source" >&2; bad=1 ;;
  esac
  terms=$(sed -E 's/([^ ]+) WITH /\1@/g; s|/| OR |g; s/([()])/ \1 /g' <<< "$expression")
  excepted=$(sed -nE "s/^ *\{ allow = \[\"(.*)\"\], crate = \"${name% *}\" \},$/\1/p" .deny.toml)
  sum=''
  for term in $terms; do
    case $term in
      AND) sum+='&&' ;; OR) sum+='||' ;; '(' | ')') sum+=$term ;;
      *) if grep -qxF -- "${term/@/ WITH }" <<< "$allowed"$'\n'"$excepted"; then sum+=1; else sum+=0; fi ;;
    esac
  done
  if [ "$((sum))" != 1 ]; then
    echo "deny.sh: the licence of $name is not among those that .deny.toml allows: $expression" >&2
    bad=1
  fi
done < <(cargo metadata --format-version 1 --locked --filter-platform x86_64-unknown-linux-gnu |
  jq -r --slurpfile clarified <(sed -nE 's/^# clarified: ([^ ]+) (.*)$/{"\1": "\2"}/p' .deny.toml) '($clarified | add // {}) as $known
    | .packages[] | [.name + " " + .version, .source // "path", .license // $known[.name] // "none"] | @tsv')
[ $bad = 0 ] || exit 1
echo "deny.sh: licences and sources are as .deny.toml says (bans and vulnerabilities need cargo-deny 0.16 or later)"
