//! Flags about images: how they are pulled and when they are collected, spelled as the kubelet spells them.

use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::credentials::CredentialFlags;
use super::{ConfigError, duration};
use crate::images::Settings;
use crate::images::limits::Rates;
use crate::node::image_gc::Policy;

/// Flags about images.
#[derive(Args, Clone, Debug)]
pub struct ImageFlags {
    /// Image pulls begun a second, on average; 0: any number
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub registry_qps: u32,
    /// Image pulls that may begin together after a quiet time
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub registry_burst: u32,
    /// Pull one image at a time
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    pub serialize_image_pulls: bool,
    /// Images pulled at a time with --serialize-image-pulls=false [default: any number]
    #[arg(long, value_name = "N")]
    pub max_parallel_image_pulls: Option<usize>,
    /// Percent of the images' disk in use from which unused images are removed; 100: never
    #[arg(long, value_name = "PERCENT", default_value_t = 85)]
    pub image_gc_high_threshold: u8,
    /// Percent down to which they are removed
    #[arg(long, value_name = "PERCENT", default_value_t = 80)]
    pub image_gc_low_threshold: u8,
    /// How long an image that was pulled is kept in any case
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub minimum_image_ttl_duration: Duration,
    /// Credentials.
    #[command(flatten)]
    pub credentials: CredentialFlags,
}

impl ImageFlags {
    /// Checks those about pulls.
    pub(super) fn settings(&self, root_dir: &Path) -> Result<Settings, ConfigError> {
        let wrong = |why: &str| Err(ConfigError::Images(why.to_owned()));
        let parallel = match (self.serialize_image_pulls, self.max_parallel_image_pulls) {
            (_, Some(0)) => return wrong("--max-parallel-image-pulls must be at least 1"),
            (true, Some(2..)) => {
                return wrong("--max-parallel-image-pulls above 1 needs --serialize-image-pulls=false");
            }
            (true, _) => Some(1),
            (false, given) => given,
        };
        Ok(Settings {
            root_dir: root_dir.to_owned(),
            rates: Rates { parallel, per_second: self.registry_qps, burst: self.registry_burst },
            credentials: self.credentials.sources(root_dir)?,
        })
    }

    /// Checks those about collection.
    pub(super) fn policy(&self) -> Result<Policy, ConfigError> {
        let (high, low) = (self.image_gc_high_threshold, self.image_gc_low_threshold);
        let wrong = |why: &str| Err(ConfigError::Images(why.to_owned()));
        if high > 100 || low > 100 {
            return wrong("--image-gc-high-threshold and --image-gc-low-threshold are between 0 and 100");
        }
        if low >= high {
            return wrong("--image-gc-low-threshold must be less than --image-gc-high-threshold");
        }
        Ok(Policy { high, low, min_age: self.minimum_image_ttl_duration, ..Policy::default() })
    }
}
