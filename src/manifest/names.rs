//! The forms of names in the Kubernetes API. Pure. Each function says what is wrong, or nothing.

type Verdict = Result<(), String>;

/// DNS-1123 label: containers, volumes, namespaces.
pub(crate) fn label(name: &str) -> Verdict {
    let body = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends = |c: Option<char>| c.is_some_and(|c| c != '-');
    if name.is_empty() {
        return Err("may not be empty".into());
    }
    if name.len() > 63 {
        return Err(format!("\"{}...\" is longer than 63 characters", cut(name)));
    }
    if name.chars().all(body) && ends(name.chars().next()) && ends(name.chars().last()) {
        return Ok(());
    }
    Err(format!(
        "\"{name}\" must be lower case letters, digits and '-', and begin and end with a letter or digit"
    ))
}

/// DNS-1123 subdomain: pod names, prefixes of label keys.
pub(crate) fn subdomain(name: &str) -> Verdict {
    if name.is_empty() {
        return Err("may not be empty".into());
    }
    if name.len() > 253 {
        return Err(format!("\"{}...\" is longer than 253 characters", cut(name)));
    }
    let part = |p: &str| {
        let body = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !p.is_empty() && p.chars().all(body) && !p.starts_with('-') && !p.ends_with('-')
    };
    if name.split('.').all(part) {
        return Ok(());
    }
    Err(format!(
        "\"{name}\" must be lower case letters, digits, '-' and '.', and begin and end with a letter or digit"
    ))
}

/// Key of a label or annotation: an optional subdomain and `/`, then a name.
pub(crate) fn qualified(key: &str) -> Verdict {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix {
        subdomain(prefix).map_err(|e| format!("the key's prefix {e}"))?;
    }
    if name.is_empty() {
        return Err(format!("the key \"{}\" has no name", cut(key)));
    }
    token(name).map_err(|e| format!("the key {e}"))
}

/// Value of a label.
pub(crate) fn label_value(value: &str) -> Verdict {
    if value.is_empty() { Ok(()) } else { token(value).map_err(|e| format!("the value {e}")) }
}

fn token(text: &str) -> Verdict {
    if text.len() > 63 {
        return Err(format!("\"{}...\" is longer than 63 characters", cut(text)));
    }
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let body = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.chars().all(body) && ends(text.chars().next()) && ends(text.chars().last()) {
        return Ok(());
    }
    Err(format!(
        "\"{text}\" must be letters, digits, '-', '_' and '.', and begin and end with a letter or digit"
    ))
}

/// Name of a port: an IANA service name.
pub(crate) fn port(name: &str) -> Verdict {
    let body = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let right = (1..=15).contains(&name.len())
        && name.chars().all(body)
        && name.contains(|c: char| c.is_ascii_lowercase())
        && !(name.starts_with('-') || name.ends_with('-') || name.contains("--"));
    if right {
        return Ok(());
    }
    Err(format!(
        "\"{}\" must be at most 15 lower case letters, digits and single '-', with at least one letter",
        cut(name)
    ))
}

/// Name of an environment variable: printable ASCII without `=`.
pub(crate) fn variable(name: &str) -> Verdict {
    if name.is_empty() {
        return Err("may not be empty".into());
    }
    if name.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
        return Ok(());
    }
    Err(format!("\"{}\" must be printable ASCII without '='", cut(name)))
}

/// A uid names directories and cgroups, so it must be one harmless path component.
pub(crate) fn uid(uid: &str) -> Verdict {
    let body = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if (1..=63).contains(&uid.len()) && uid.chars().all(body) && !uid.starts_with('-') {
        return Ok(());
    }
    Err(format!(
        "\"{}\" must be at most 63 letters, digits and '-'; it names directories and cgroups",
        cut(uid)
    ))
}

fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}
