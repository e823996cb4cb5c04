//! Whether a registry of a credentials file is that of an image. Pure.

/// Whether `pattern` (`host[:port][/path]`) covers `target` (`host[:port]/path`): the port must be the same, each part of
/// the host's name must match its own (`*`, `?` and `[...]` within a part), the path must begin with the pattern's.
pub(super) fn covers(pattern: &str, target: &str) -> bool {
    let ((pattern_host, pattern_path), (host, path)) = (split(pattern), split(target));
    let ((pattern_name, pattern_port), (name, port)) = (host_port(pattern_host), host_port(host));
    let (pattern_parts, parts) = (pattern_name.split('.'), name.split('.'));
    pattern_port == port
        && pattern_parts.clone().count() == parts.clone().count()
        && path.starts_with(pattern_path)
        && pattern_parts.zip(parts).all(|(pattern, part)| matches(pattern.as_bytes(), part.as_bytes()))
}

fn split(url: &str) -> (&str, &str) {
    url.find('/').map_or((url, ""), |at| url.split_at(at))
}

fn host_port(host: &str) -> (&str, &str) {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    // An IPv6 address, not a pattern.
    let literal =
        name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).filter(|name| name.contains(':'));
    (literal.unwrap_or(name), port)
}

/// Go's `filepath.Match` of texts without a separator. A pattern that makes no sense matches nothing.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|at| matches(rest, &text[at..])),
        ([b'?', rest @ ..], [_, tail @ ..]) => matches(rest, tail),
        ([b'[', rest @ ..], [first, tail @ ..]) => {
            class(rest, *first).is_some_and(|(hit, rest)| hit && matches(rest, tail))
        }
        ([b'\\', literal, rest @ ..] | [literal, rest @ ..], [first, tail @ ..]) => {
            literal == first && matches(rest, tail)
        }
        _ => false,
    }
}

/// Whether the class that begins here has the character, and what follows the class.
fn class(pattern: &[u8], wanted: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut hit = false;
    let mut first = true;
    loop {
        match rest {
            [b']', after @ ..] if !first => return Some((hit != negated, after)),
            [low, b'-', high, after @ ..] if *high != b']' => {
                hit |= (*low..=*high).contains(&wanted);
                rest = after;
            }
            [one, after @ ..] => {
                hit |= *one == wanted;
                rest = after;
            }
            [] => return None,
        }
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_hosts_part_by_part_and_paths_by_their_beginning() {
        for (pattern, target, covered) in [
            ("registry.example", "registry.example/web", true),
            ("registry.example", "registry.example:5000/web", false),
            ("registry.example:5000", "registry.example:5000/web", true),
            ("registry.example/team", "registry.example/team/web", true),
            ("registry.example/team", "registry.example/team-b/web", true),
            ("registry.example/team/", "registry.example/team-b/web", false),
            ("registry.example/team", "registry.example/other/web", false),
            ("*.example", "registry.example/web", true),
            ("*.example", "a.registry.example/web", false),
            ("*.*.example", "a.registry.example/web", true),
            ("*.example", "example/web", false),
            ("reg*y.example", "registry.example/web", true),
            ("registr?.example", "registry.example/web", true),
            ("registr[w-z].example", "registry.example/web", true),
            ("registr[^w-z].example", "registry.example/web", false),
            ("registr[.example", "registr[.example/web", false),
            ("[::1]:5000", "[::1]:5000/web", true),
            ("[::1]:5000", "[::2]:5000/web", false),
            ("127.0.0.1:5000", "127.0.0.1:5000/web", true),
        ] {
            assert_eq!(covers(pattern, target), covered, "{pattern} and {target}");
        }
    }
}
