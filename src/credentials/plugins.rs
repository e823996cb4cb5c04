//! The programs that know credentials, and what they answered, for as long as that counts. Touches memory only; `ask` runs
//! the programs.

use std::collections::HashMap;
use std::time::Duration;

use podstead_runtime::Auth;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::ask::{self, Scope};
use super::glob;
use super::keyring::Keyring;
use super::provider::Provider;
use crate::images::name::Name;

/// All programs.
#[derive(Debug, Default)]
pub(super) struct Plugins(Vec<Plugin>);

#[derive(Debug)]
struct Plugin {
    provider: Provider,
    /// Held while the program is asked: who asks for the same meanwhile gets the same answer.
    known: Mutex<HashMap<Key, Known>>,
}

/// For what an answer counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Image(String),
    Registry(String),
    Global,
}

#[derive(Debug)]
struct Known {
    auths: Vec<(String, Auth)>,
    until: Instant,
}

impl Plugins {
    pub(super) fn new(providers: &[Provider]) -> Self {
        let plugin = |provider: &Provider| Plugin { provider: provider.clone(), known: Mutex::default() };
        Self(providers.iter().map(plugin).collect())
    }

    /// What those say that are to be asked for this image, the most specific registry first; of equals, the program that
    /// is configured first. One that fails is passed over.
    pub(super) async fn find(&self, image: &Name) -> Vec<Auth> {
        let target = format!("{}/{}", image.domain, image.path);
        let mut entries = Vec::new();
        for plugin in &self.0 {
            if plugin.provider.match_images.iter().any(|pattern| glob::covers(pattern, &target)) {
                entries.extend(plugin.auths(&image.domain, &target).await);
            }
        }
        Keyring::new(entries).lookup(image)
    }
}

impl Plugin {
    async fn auths(&self, registry: &str, image: &str) -> Vec<(String, Auth)> {
        let mut known = self.known.lock().await;
        let now = Instant::now();
        known.retain(|_, known| known.until > now);
        let keys = [Key::Image(image.to_owned()), Key::Registry(registry.to_owned()), Key::Global];
        if let Some(found) = keys.iter().find_map(|key| known.get(key)) {
            return found.auths.clone();
        }
        let answer = match ask::ask(&self.provider, image, ask::DEADLINE).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(provider = self.provider.name, image, "no credentials from it: {error}");
                return Vec::new();
            }
        };
        let [image, registry, global] = keys;
        let key = match answer.scope {
            Scope::Image => image,
            Scope::Registry => registry,
            Scope::Global => global,
        };
        let lasts = answer.cache.unwrap_or(self.provider.default_cache);
        if let Some(until) = Instant::now().checked_add(lasts).filter(|_| lasts > Duration::ZERO) {
            known.insert(key, Known { auths: answer.auths.clone(), until });
        }
        answer.auths
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::provider::tests::program;
    use super::*;

    /// A provider that counts how often it is asked, and answers with its name as the user.
    fn provider(dir: &Path, name: &str, matches: &str, answer: &str) -> Provider {
        let version = "credentialprovider.kubelet.k8s.io/v1";
        let text = format!(r#"{{"apiVersion":"{version}","kind":"CredentialProviderResponse",{answer}}}"#);
        let script = format!("echo x >>{}; echo '{text}'", asked(dir, name).display());
        Provider {
            name: name.into(),
            program: program(dir, name, &script),
            api_version: version.into(),
            match_images: vec![matches.into()],
            default_cache: Duration::ZERO,
            args: vec![],
            env: vec![],
        }
    }

    fn asked(dir: &Path, name: &str) -> PathBuf {
        dir.join(format!("{name}.asked"))
    }

    fn times(dir: &Path, name: &str) -> usize {
        std::fs::read_to_string(asked(dir, name)).map_or(0, |text| text.lines().count())
    }

    fn auth(registry: &str, user: &str) -> String {
        format!(r#""auth":{{"{registry}":{{"username":"{user}","password":"p"}}}}"#)
    }

    async fn users(plugins: &Plugins, image: &str) -> Vec<String> {
        let user = |auth| match auth {
            Auth::Basic { username, .. } => username,
            other => panic!("{other:?}"),
        };
        plugins.find(&Name::parse(image).unwrap()).await.into_iter().map(user).collect()
    }

    #[tokio::test]
    async fn those_that_match_are_asked_and_the_most_specific_answer_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let image =
            |user: &str, registry: &str| format!(r#""cacheKeyType":"Image",{}"#, auth(registry, user));
        let plugins = Plugins::new(&[
            provider(dir, "wide", "*.example", &image("wide", "*.example")),
            provider(dir, "narrow", "registry.example/team", &image("narrow", "registry.example/team")),
            provider(dir, "same", "*.example", &image("same", "*.example")),
            provider(dir, "elsewhere", "*.org", &image("elsewhere", "*.example")),
        ]);
        assert_eq!(users(&plugins, "registry.example/team/web:1").await, ["narrow", "wide", "same"]);
        assert_eq!(users(&plugins, "registry.example/other:1").await, ["wide", "same"]);
        assert_eq!(users(&plugins, "web").await, [""; 0]);
        assert_eq!((times(dir, "wide"), times(dir, "narrow"), times(dir, "elsewhere")), (2, 1, 0));
    }

    #[tokio::test]
    async fn an_answer_counts_for_what_it_says_and_as_long_as_it_says() {
        let (a, other, far) = ("r.example/a:1", "r.example/b:1", "s.example/a:1");
        for (key, cache, default, asked_for_three) in [
            ("Image", r#","cacheDuration":"10m""#, 0, 3),
            ("Registry", r#","cacheDuration":"10m""#, 0, 2),
            ("Global", r#","cacheDuration":"10m""#, 0, 1),
            ("Global", "", 600, 1),
            // What it says itself goes before the configuration.
            ("Global", r#","cacheDuration":"0s""#, 600, 6),
            ("Global", "", 0, 6),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let answer = format!(r#""cacheKeyType":"{key}"{cache},{}"#, auth("*.example", "u"));
            let mut provider = provider(dir.path(), "helper", "*.example", &answer);
            provider.default_cache = Duration::from_secs(default);
            let plugins = Plugins::new(&[provider]);
            for image in [a, other, far, a, other, far] {
                assert_eq!(users(&plugins, image).await, ["u"], "{image}");
            }
            assert_eq!(times(dir.path(), "helper"), asked_for_three, "{key} {cache} {default}");
        }
    }

    #[tokio::test]
    async fn one_that_fails_is_passed_over_and_asked_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let answer = format!(r#""cacheKeyType":"Global","cacheDuration":"1h",{}"#, auth("*.example", "u"));
        let plugins = Plugins::new(&[
            provider(dir, "bad", "*.example", "\"x\":1"),
            provider(dir, "good", "*.example", &answer),
        ]);
        for _ in 0..2 {
            assert_eq!(users(&plugins, "r.example/a").await, ["u"]);
        }
        assert_eq!((times(dir, "bad"), times(dir, "good")), (2, 1));
    }

    #[tokio::test]
    async fn who_asks_for_the_same_at_once_gets_the_same_answer() {
        let dir = tempfile::tempdir().unwrap();
        let answer = format!(r#""cacheKeyType":"Registry","cacheDuration":"1h",{}"#, auth("*.example", "u"));
        let plugins = Plugins::new(&[provider(dir.path(), "helper", "*.example", &answer)]);
        let both = tokio::join!(users(&plugins, "r.example/a"), users(&plugins, "r.example/b"));
        assert_eq!(both, (vec!["u".to_owned()], vec!["u".to_owned()]));
        assert_eq!(times(dir.path(), "helper"), 1);
    }
}
