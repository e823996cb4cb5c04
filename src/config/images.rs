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
    /// Pull one image at a time [default: true, unless --max-parallel-image-pulls is above 1]
    #[arg(
        long,
        value_name = "BOOL",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    pub serialize_image_pulls: Option<bool>,
    /// Images pulled at a time [default: any number with --serialize-image-pulls=false]
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
    /// How long an image that was pulled and that nobody uses is kept at most; 0s: for ever
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub image_maximum_gc_age: Duration,
    /// Credentials.
    #[command(flatten)]
    pub credentials: CredentialFlags,
}

impl ImageFlags {
    /// Whether one image is pulled at a time. Who allows several to be pulled need not say it twice.
    pub fn serialized(&self) -> bool {
        let several = self.max_parallel_image_pulls.is_some_and(|most| most > 1);
        self.serialize_image_pulls.unwrap_or(!several)
    }

    /// Checks those about pulls.
    pub(super) fn settings(&self, root_dir: &Path) -> Result<Settings, ConfigError> {
        let wrong = |why: &str| Err(ConfigError::Images(why.to_owned()));
        let parallel = match (self.serialized(), self.max_parallel_image_pulls) {
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
        let (min_age, max_age) = (self.minimum_image_ttl_duration, self.image_maximum_gc_age);
        if !max_age.is_zero() && max_age <= min_age {
            return wrong("--image-maximum-gc-age must be more than --minimum-image-ttl-duration, or 0s");
        }
        Ok(Policy { high, low, min_age, max_age, ..Policy::default() })
    }
}
