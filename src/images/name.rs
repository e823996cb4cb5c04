//! Names of images: is it one, and of which registry. Pure.

/// An image's name in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Host and port of the registry; `docker.io` if none was written.
    pub domain: String,
    /// The repository within it.
    pub path: String,
}

impl Name {
    /// Reads `[registry/]repository[:tag][@digest]`. The error is for people.
    pub fn parse(image: &str) -> Result<Self, String> {
        let wrong = |why: String| Err(format!("invalid reference format: {why}"));
        let (named, digest) = match image.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (image, None),
        };
        let slash = named.rfind('/').map_or(0, |at| at + 1);
        let (repository, tag) = match named[slash..].split_once(':') {
            Some((last, tag)) => (&named[..slash + last.len()], Some(tag)),
            None => (named, None),
        };
        if repository.len() == 64 && repository.bytes().all(|b| b.is_ascii_hexdigit()) {
            return wrong("64 hexadecimal digits are an id, no name; write sha256: before it".into());
        }
        let name = split(repository);
        if !is_domain(&name.domain) {
            return wrong(format!("{:?} is no registry", name.domain));
        }
        if name.path.contains(|c: char| c.is_ascii_uppercase()) {
            return wrong(format!("repository name ({}) must be lowercase", name.path));
        }
        if !name.path.split('/').all(is_component) || name.domain.len() + name.path.len() > 254 {
            return wrong(format!("{:?} is no repository name", name.path));
        }
        match (tag.filter(|tag| !is_tag(tag)), digest.filter(|digest| !is_digest(digest))) {
            (Some(tag), _) => wrong(format!("{tag:?} is no tag")),
            (_, Some(digest)) => wrong(format!("{digest:?} is no digest")),
            _ => Ok(name),
        }
    }
}

/// The name in full, with its tag and digest as written, so that two spellings of one name are equal. What is no name
/// stays as it is.
pub fn normal(image: &str) -> String {
    let Ok(Name { domain, path }) = Name::parse(image) else { return image.to_owned() };
    let last = image.split('@').next().map_or(0, |named| named.rfind('/').map_or(0, |at| at + 1));
    let rest = image[last..].find([':', '@']).map_or("", |at| &image[last + at..]);
    format!("{domain}/{path}{rest}")
}

/// Parts registry and repository: the first part is a registry when it looks like one.
fn split(repository: &str) -> Name {
    let looks = |first: &str| {
        first.contains(['.', ':']) || first == "localhost" || first.contains(|c: char| c.is_ascii_uppercase())
    };
    let (domain, path) = match repository.split_once('/') {
        Some((first, rest)) if looks(first) => (first, rest.to_owned()),
        _ => ("docker.io", repository.to_owned()),
    };
    let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
    let official = domain == "docker.io" && !path.contains('/');
    Name { domain: domain.to_owned(), path: if official { format!("library/{path}") } else { path } }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let part = |part: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
        && literal.map_or_else(|| host.split('.').all(part), |h| h.parse::<std::net::Ipv6Addr>().is_ok())
}

/// Lower case letters and digits, parted by `.`, `_`, `__` or any number of `-`.
fn is_component(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = part;
    loop {
        let tail = rest.trim_start_matches(alphanumeric);
        if tail.len() == rest.len() {
            return false;
        }
        if tail.is_empty() {
            return true;
        }
        let end = tail.find(alphanumeric).unwrap_or(tail.len());
        let (separator, after) = tail.split_at(end);
        if !(matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-')) {
            return false;
        }
        rest = after;
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(word) && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

fn is_digest(digest: &str) -> bool {
    let algorithm = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "+._-".contains(c))
    };
    digest.split_once(':').is_some_and(|(kind, value)| {
        algorithm(kind) && value.len() >= 32 && value.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parted_as_docker_does() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (image, domain, path) in [
            ("nginx", "docker.io", "library/nginx"),
            ("team/web:1", "docker.io", "team/web"),
            ("index.docker.io/nginx", "docker.io", "library/nginx"),
            ("localhost/podstead/busybox:1", "localhost", "podstead/busybox"),
            ("127.0.0.1:5000/web", "127.0.0.1:5000", "web"),
            ("[::1]:5000/web:1", "[::1]:5000", "web"),
            ("registry.example/a/b-c__d.e/f---g:V1.0_x-y", "registry.example", "a/b-c__d.e/f---g"),
            (&format!("registry.example/web:1@{digest}"), "registry.example", "web"),
            (&digest, "docker.io", "library/sha256"),
        ] {
            let name = Name::parse(image).unwrap();
            assert_eq!((name.domain.as_str(), name.path.as_str()), (domain, path), "{image}");
        }
    }

    #[test]
    fn two_spellings_of_one_name_are_equal() {
        let digest = format!("@sha256:{}", "0".repeat(64));
        for (image, full) in [
            ("nginx:1", "docker.io/library/nginx:1"),
            ("127.0.0.1:5000/web:1", "127.0.0.1:5000/web:1"),
            ("127.0.0.1:5000/web", "127.0.0.1:5000/web"),
            ("No Name", "No Name"),
        ] {
            assert_eq!(normal(image), full);
        }
        assert_eq!(normal(&format!("team/web:1{digest}")), format!("docker.io/team/web:1{digest}"));
        assert_eq!(normal(&format!("team/web{digest}")), format!("docker.io/team/web{digest}"));
    }

    #[test]
    fn what_is_no_name_is_told() {
        let (hex, long) = ("0".repeat(64), "a".repeat(300));
        for (image, why) in [
            ("", "no repository name"),
            ("localhost/UPPER", "must be lowercase"),
            ("localhost/with space", "no repository name"),
            ("registry..example/web", "no registry"),
            ("registry.example:port/web", "no registry"),
            ("-registry.example/web", "no registry"),
            ("registry.example/", "no repository name"),
            ("registry.example//web", "no repository name"),
            ("web:", "no tag"),
            ("web:-1", "no tag"),
            ("web@sha256:12", "no digest"),
            ("web@", "no digest"),
            ("a/_b", "no repository name"),
            ("a/b_", "no repository name"),
            ("a/b___c", "no repository name"),
            (&hex, "an id"),
            (&long, "no repository name"),
        ] {
            let error = Name::parse(image).unwrap_err();
            assert!(
                error.starts_with("invalid reference format: ") && error.contains(why),
                "{image}: {error}"
            );
        }
    }
}
