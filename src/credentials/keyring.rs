//! Which of a file's credentials are for an image, and in which order. Pure.

use podstead_runtime::Auth;

use super::glob;
use crate::images::name::Name;

/// What docker calls its own registry in its files.
const DEFAULT_REGISTRY: &str = "index.docker.io";

/// A file's credentials, the most specific registry first.
#[derive(Debug)]
pub(super) struct Keyring(Vec<(String, Auth)>);

impl Keyring {
    /// Sorts entries as the kubelet does: backwards, so that what continues another stands before it.
    pub(super) fn new(entries: Vec<(String, Auth)>) -> Self {
        let mut keyed: Vec<_> = entries.into_iter().map(|(registry, auth)| (key(&registry), auth)).collect();
        keyed.sort_by(|(a, _), (b, _)| b.cmp(a));
        Self(keyed)
    }

    /// All that cover the image; of the default registry's only when no others do.
    pub(super) fn lookup(self, image: &Name) -> Vec<Auth> {
        let target = format!("{}/{}", image.domain, image.path);
        let (covering, rest): (Vec<_>, Vec<_>) =
            self.0.into_iter().partition(|(key, _)| glob::covers(key, &target));
        let found = if covering.is_empty() && image.domain == "docker.io" {
            rest.into_iter().filter(|(key, _)| key == DEFAULT_REGISTRY).collect()
        } else {
            covering
        };
        found.into_iter().map(|(_, auth)| auth).collect()
    }
}

/// A registry as the files have it, without scheme and without the API's version, which is no path of images.
fn key(registry: &str) -> String {
    let bare = registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://"));
    let bare = bare.unwrap_or(registry);
    let (host, path) = bare.find('/').map_or((bare, ""), |at| bare.split_at(at));
    let path = if path.starts_with("/v1/") || path.starts_with("/v2/") { &path[3..] } else { path };
    if path == "/" { host.to_owned() } else { format!("{host}{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(registries: &[&str], image: &str) -> Vec<String> {
        let entry = |registry: &&str| {
            let username = (*registry).to_owned();
            (username.clone(), Auth::Basic { username, password: String::new() })
        };
        let found = Keyring::new(registries.iter().map(entry).collect()).lookup(&Name::parse(image).unwrap());
        let user = |auth| match auth {
            Auth::Basic { username, .. } => username,
            other => panic!("{other:?}"),
        };
        found.into_iter().map(user).collect()
    }

    #[test]
    fn the_most_specific_comes_first_and_all_that_fit_come() {
        let registries =
            ["*.example", "registry.example", "registry.example/team", "registry.example/team/web", "x.y"];
        assert_eq!(
            lookup(&registries, "registry.example/team/web:1"),
            ["registry.example/team/web", "registry.example/team", "registry.example", "*.example"]
        );
        assert_eq!(lookup(&registries, "registry.example/other:1"), ["registry.example", "*.example"]);
        assert_eq!(lookup(&registries, "elsewhere.org/web:1"), [""; 0]);
    }

    #[test]
    fn scheme_and_version_of_the_api_do_not_count() {
        for registry in [
            "https://registry.example/v1/",
            "http://registry.example/v2/",
            "registry.example/",
            "registry.example",
        ] {
            assert_eq!(lookup(&[registry], "registry.example/web"), [registry]);
        }
        assert_eq!(key("https://registry.example/v2/team"), "registry.example/team");
    }

    #[test]
    fn images_without_a_registry_are_of_the_default_one() {
        let hub = "https://index.docker.io/v1/";
        for image in ["web", "team/web", "docker.io/team/web", "index.docker.io/team/web"] {
            assert_eq!(lookup(&[hub, "registry.example"], image), [hub], "{image}");
        }
        assert_eq!(lookup(&[hub, "docker.io"], "web"), ["docker.io"]);
        assert_eq!(lookup(&[hub], "localhost/web"), [""; 0]);
        assert_eq!(lookup(&[hub], "registry.example/web"), [""; 0]);
    }
}
