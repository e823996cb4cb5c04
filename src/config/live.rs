//! What of the configuration can change while the agent runs. Pure.

use std::time::Duration;

use super::effective::Effective;
use super::{Config, ImagePolicy, LogPolicy};
use crate::images::limits::Rates;

/// Flags whose new values a running agent takes; all others need a new agent, which restarts no container.
pub const LIVE: &[&str] = &[
    "v",
    "file-check-frequency",
    "registry-qps",
    "registry-burst",
    "serialize-image-pulls",
    "max-parallel-image-pulls",
    "image-gc-high-threshold",
    "image-gc-low-threshold",
    "minimum-image-ttl-duration",
    "image-maximum-gc-age",
    "container-log-max-size",
    "container-log-max-files",
    "container-log-monitor-interval",
];

/// Flags that only say where settings are.
const PLACES: &[&str] = &["config", "config-dir", "env-file"];

/// What a running agent can be told anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// How often manifests are read again without a notification.
    pub file_check_frequency: Duration,
    /// How many images are pulled at once and in a time.
    pub rates: Rates,
    /// When images are collected.
    pub image_gc: ImagePolicy,
    /// When logs are rotated; `None` for never.
    pub log_rotation: Option<LogPolicy>,
}

impl Config {
    /// What of it can change.
    pub fn live(&self) -> Live {
        Live {
            file_check_frequency: self.sources.file_check_frequency,
            rates: self.images.rates,
            image_gc: self.image_gc.clone(),
            log_rotation: self.log_rotation.clone(),
        }
    }
}

/// A flag with another value than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The flag, without dashes.
    pub flag: String,
    /// Its values before.
    pub was: Vec<String>,
    /// Its values now.
    pub now: Vec<String>,
    /// Whether a running agent takes it.
    pub live: bool,
}

/// What is not as it was, in the order of the flags.
pub fn changes(was: &[Effective], now: &[Effective]) -> Vec<Change> {
    let changed = now.iter().filter_map(|new| {
        let old = was.iter().find(|old| old.flag == new.flag);
        // Two values that are masked look the same.
        let unchanged = old.is_some_and(|old| old.values == new.values && old.mark == new.mark);
        let was = old.map(|old| old.values.clone()).unwrap_or_default();
        let same = unchanged || PLACES.contains(&new.flag.as_str());
        (!same).then(|| Change {
            flag: new.flag.clone(),
            was,
            now: new.values.clone(),
            live: LIVE.contains(&new.flag.as_str()),
        })
    });
    changed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    fn have(flag: &str, value: &str) -> Effective {
        let values = value.split_whitespace().map(str::to_owned).collect();
        Effective { flag: flag.into(), field: None, values, from: Origin::Default, mark: 0 }
    }

    #[test]
    fn only_what_has_another_value_has_changed() {
        let was = [have("v", "1"), have("node-ip", "10.0.0.1"), have("config", "/a"), have("root-dir", "/r")];
        let now = [have("v", "2"), have("node-ip", ""), have("config", "/b"), have("root-dir", "/r")];
        let changes = changes(&was, &now);
        let told: Vec<(&str, usize, usize, bool)> =
            changes.iter().map(|c| (c.flag.as_str(), c.was.len(), c.now.len(), c.live)).collect();
        assert_eq!(told, [("v", 1, 1, true), ("node-ip", 1, 0, false)]);
    }

    #[test]
    fn every_live_flag_is_one() {
        let command = <crate::cli::Cli as clap::CommandFactory>::command();
        let known = super::super::known::Known::of(&command);
        for flag in LIVE.iter().chain(PLACES) {
            assert!(known.arg(flag).is_some(), "--{flag}");
        }
    }
}
