//! The grammar of image references, read by hand: compiled as a regular expression (its tag may be 128 characters of any
//! script there) it takes 12 MiB of memory and tens of milliseconds at the first name. Pure.

/// What a reference without a registry means, and what older writings call it.
const DEFAULT_REGISTRY: (&str, &str) = ("docker.io", "index.docker.io");
/// The part of the default registry where one-word names live.
const OFFICIAL: &str = "library";
/// Longest repository, in bytes.
const LONGEST: usize = 255;
/// Longest tag, in bytes.
const LONGEST_TAG: usize = 128;

/// The parts of a reference, made whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub registry: &'a str,
    pub repository: String,
    pub tag: Option<&'a str>,
    pub digest: Option<&'a str>,
}

/// Takes a reference apart, or says what is wrong with it. The digest is not looked at.
pub(super) fn split(text: &str) -> Result<Parts<'_>, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    // A colon before the last slash is a port's.
    let at = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[at..].split_once(':') {
        Some((last, tag)) => (&rest[..at + last.len()], Some(tag)),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(
            "a tag is up to 128 letters, digits, '_', '.' and '-', and begins with none of the last two",
        );
    }
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if first == "localhost" || first.contains(['.', ':']) => (first, path),
        _ => (DEFAULT_REGISTRY.0, name),
    };
    if !is_registry(registry) {
        return Err("a registry is a host name, perhaps with a port");
    }
    if !path.split('/').all(is_component) {
        return Err("a repository is lower-case letters and digits, joined by '.', '_', '__', '-' or '/'");
    }
    let registry = if registry == DEFAULT_REGISTRY.1 { DEFAULT_REGISTRY.0 } else { registry };
    let official = registry == DEFAULT_REGISTRY.0 && !path.contains('/');
    let repository = if official { format!("{OFFICIAL}/{path}") } else { path.to_owned() };
    if repository.len() > LONGEST {
        return Err("a repository is at most 255 characters");
    }
    Ok(Parts { registry, repository, tag, digest })
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= LONGEST_TAG
        && bytes.first().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'))
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label) && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

/// Runs of letters and digits with one separator between two of them: `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let run = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let separators = bytes.split(|b| run(*b)).filter(|separator| !separator.is_empty());
    bytes.first().is_some_and(|b| run(*b))
        && bytes.last().is_some_and(|b| run(*b))
        && separators.into_iter().all(|s| matches!(s, b"." | b"_" | b"__") || s.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same words put together in many ways: this grammar and the registry client's say the same of all that is
    /// ASCII, except that upper-case letters in a repository and `_` in a host's name are refused here.
    #[test]
    fn it_is_the_registry_clients_grammar() {
        let hosts = [
            "",
            "localhost/",
            "Host.Example:5000/",
            "a-.b/",
            "h:/",
            "-a.b/",
            "1.2.3.4:5/",
            "index.docker.io/",
            "docker.io/",
        ];
        let paths = [
            "a",
            "a/b",
            "",
            "a//b",
            "a_b",
            "a___b",
            "a--b",
            "a..b",
            "a-",
            "-a",
            "a.b__c/d-1",
            "a/",
            "UP",
            "a b",
            "é",
        ];
        let tags = ["", ":", ":1", ":v1.2-x_Y", ":.a", ":-a", ":a b", ":a:b"];
        let long = format!(":{}", "a".repeat(129));
        let digest = format!("@sha256:{}", "0".repeat(64));
        for (host, path, tag) in hosts
            .iter()
            .flat_map(|h| paths.iter().map(move |p| (h, p)))
            .flat_map(|(h, p)| tags.iter().copied().chain([long.as_str()]).map(move |t| (h, p, t)))
        {
            for end in ["", digest.as_str()] {
                let text = format!("{host}{path}{tag}{end}");
                let sound = |r: &oci_client::Reference| {
                    r.repository() == r.repository().to_lowercase() && !r.registry().contains('_')
                };
                let theirs = oci_client::Reference::try_from(text.as_str()).ok().filter(sound);
                let ours = split(&text).ok();
                let same = match (&ours, &theirs) {
                    (Some(ours), Some(theirs)) => {
                        let tag = ours.tag.or(ours.digest.is_none().then_some("latest"));
                        (ours.registry, &*ours.repository, tag, ours.digest)
                            == (theirs.registry(), theirs.repository(), theirs.tag(), theirs.digest())
                    }
                    (None, None) => true,
                    _ => false,
                };
                assert!(same, "{text:?}: {ours:?} and {theirs:?}");
            }
        }
    }

    #[test]
    fn names_may_be_long_but_not_longer() {
        let path = "a".repeat(255);
        assert!(split(&format!("localhost/{path}")).is_ok());
        assert!(split(&format!("localhost/{path}a")).is_err());
        assert!(split(&format!("x:{}", "a".repeat(128))).is_ok());
    }
}
