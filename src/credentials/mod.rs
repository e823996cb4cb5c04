//! Credentials for registries, found as the kubelet finds them (`kubelet-static-pods.md 2.7`): in files, then from programs.
//! Reads the files that are searched, at each pull, and runs the programs; never prints what is secret in either.

mod ask;
mod file;
mod glob;
mod keyring;
mod plugins;
pub mod provider;

use std::path::{Path, PathBuf};

use podstead_runtime::Auth;

use crate::images::name::Name;
use file::Read;
use keyring::Keyring;
use plugins::Plugins;
use provider::Provider;

/// Where credentials come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Files.
    pub places: Places,
    /// Programs, in their order.
    pub providers: Vec<Provider>,
}

/// Finds credentials, and remembers what programs answered.
#[derive(Debug)]
pub struct Credentials {
    places: Places,
    plugins: Plugins,
}

impl Credentials {
    /// From these sources.
    pub fn new(sources: &Sources) -> Self {
        Self { places: sources.places.clone(), plugins: Plugins::new(&sources.providers) }
    }

    /// The credentials for an image in the order in which they are to be tried: those of the files first. None: the
    /// registry is asked as anybody may.
    pub async fn find(&self, image: &Name) -> Vec<Auth> {
        let (places, name) = (self.places.clone(), image.clone());
        let mut found = tokio::task::spawn_blocking(move || places.find(&name)).await.unwrap_or_default();
        found.extend(self.plugins.find(image).await);
        found
    }
}

/// Where credentials are searched: the first file that has any counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Files in docker's present format, then those in its old one (`.dockercfg`).
    files: Vec<(PathBuf, Format)>,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `{"auths": {"registry": {...}}}`.
    Json,
    /// `{"registry": {...}}`.
    Dockercfg,
}

impl Places {
    /// `config.json` in the root directory and the working directory, `.docker/config.json` in the home directory and in
    /// `/`; then `.dockercfg` in the same four.
    pub fn new(root_dir: &Path, working_dir: Option<&Path>, home: Option<&Path>) -> Self {
        let own: Vec<&Path> = [Some(root_dir), working_dir].into_iter().flatten().collect();
        let homes: Vec<&Path> = home.into_iter().chain([Path::new("/")]).collect();
        let new = own.iter().map(|dir| dir.join("config.json"));
        let new = new.chain(homes.iter().map(|dir| dir.join(".docker/config.json")));
        let old = own.iter().chain(&homes).map(|dir| dir.join(".dockercfg"));
        let files = new.map(|path| (path, Format::Json)).chain(old.map(|path| (path, Format::Dockercfg)));
        Self { files: files.collect() }
    }

    /// Those of the root directory alone.
    pub fn only(root_dir: &Path) -> Self {
        let file = |name: &str, format| (root_dir.join(name), format);
        Self { files: vec![file("config.json", Format::Json), file(".dockercfg", Format::Dockercfg)] }
    }

    /// The credentials for an image, the most specific first; none: the registry is asked as anybody may. Blocking.
    pub fn find(&self, image: &Name) -> Vec<Auth> {
        for (path, format) in &self.files {
            match file::read(path, *format) {
                Ok(Read::Entries(entries)) => return Keyring::new(entries).lookup(image),
                Ok(Read::Absent) => {}
                Ok(Read::NoAuths) => {
                    tracing::debug!(file = %path.display(), "it has no \"auths\" and is passed over");
                }
                Err(error) => tracing::warn!("credentials for registries: {error}"),
            }
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn found(places: &Places, image: &str) -> Vec<String> {
        let user = |auth| match auth {
            Auth::Basic { username, .. } => username,
            other => panic!("{other:?}"),
        };
        places.find(&Name::parse(image).unwrap()).into_iter().map(user).collect()
    }

    fn auths(user: &str) -> String {
        format!(r#"{{"auths": {{"registry.example": {{"username": "{user}", "password": "p"}}}}}}"#)
    }

    #[test]
    fn the_first_file_that_has_any_counts() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["root", "cwd", "home/.docker"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let (root, cwd, home) = (at("root"), at("cwd"), at("home"));
        let places = Places::new(&root, Some(&cwd), Some(&home));
        let image = "registry.example/web:1";
        assert_eq!(found(&places, image), [""; 0]);
        let old = r#"{"registry.example": {"username": "old", "password": "p"}}"#;
        fs::write(home.join(".dockercfg"), old).unwrap();
        assert_eq!(found(&places, image), ["old"]);
        fs::write(home.join(".docker/config.json"), auths("home")).unwrap();
        assert_eq!(found(&places, image), ["home"]);
        // A container's configuration is called the same.
        fs::write(cwd.join("config.json"), r#"{"ociVersion": "1.0.2"}"#).unwrap();
        assert_eq!(found(&places, image), ["home"]);
        fs::write(cwd.join("config.json"), auths("cwd")).unwrap();
        assert_eq!(found(&places, image), ["cwd"]);
        fs::write(root.join("config.json"), "{").unwrap();
        assert_eq!(found(&places, image), ["cwd"], "a broken one is passed over");
        fs::write(root.join("config.json"), auths("root")).unwrap();
        assert_eq!(found(&places, image), ["root"]);
        assert_eq!(found(&Places::only(&root), image), ["root"]);
        // Found is found: others are not asked for a registry that it does not know.
        assert_eq!(found(&places, "other.example/web:1"), [""; 0]);
    }
}
