//! Flags about credentials for registries, spelled as the kubelet spells them. Reads the programs' configuration.

use std::path::{Path, PathBuf};

use clap::Args;

use super::ConfigError;
use crate::credentials::{Places, Sources, provider};

/// Flags about credentials.
#[derive(Args, Clone, Debug, Default)]
pub struct CredentialFlags {
    /// File, or directory of files, that says which programs know credentials for registries
    #[arg(long, value_name = "PATH", env = "PODSTEAD_IMAGE_CREDENTIAL_PROVIDER_CONFIG")]
    pub image_credential_provider_config: Option<PathBuf>,
    /// Directory of these programs
    #[arg(long, value_name = "DIR", env = "PODSTEAD_IMAGE_CREDENTIAL_PROVIDER_BIN_DIR")]
    pub image_credential_provider_bin_dir: Option<PathBuf>,
}

impl CredentialFlags {
    /// Where credentials come from. Blocking.
    pub fn sources(&self, root_dir: &Path) -> Result<Sources, ConfigError> {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let working_dir = std::env::current_dir().ok();
        let places = Places::new(root_dir, working_dir.as_deref(), home.as_deref());
        let wrong = |why: String| Err(ConfigError::Images(why));
        let given = (&self.image_credential_provider_config, &self.image_credential_provider_bin_dir);
        let (config, bin_dir) = match given {
            (None, None) => return Ok(Sources { places, providers: Vec::new() }),
            (Some(config), Some(bin_dir)) => (config, bin_dir),
            (Some(_), None) => {
                return wrong(
                    "--image-credential-provider-config needs --image-credential-provider-bin-dir".into(),
                );
            }
            (None, Some(_)) => {
                return wrong(
                    "--image-credential-provider-bin-dir needs --image-credential-provider-config".into(),
                );
            }
        };
        let found = std::path::absolute(bin_dir).map(|bin_dir| provider::load(config, &bin_dir));
        match found {
            Ok(Ok(providers)) => Ok(Sources { places, providers }),
            Ok(Err(error)) => wrong(format!("--image-credential-provider-config: {error}")),
            Err(error) => {
                wrong(format!("--image-credential-provider-bin-dir {}: {error}", bin_dir.display()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_flag_about_programs_needs_the_other() {
        let path = || Some(PathBuf::from("/nonexistent/x"));
        for (config, bin_dir, told) in [
            (path(), None, "needs --image-credential-provider-bin-dir"),
            (None, path(), "needs --image-credential-provider-config"),
            (path(), path(), "--image-credential-provider-config: cannot read /nonexistent/x"),
        ] {
            let flags = CredentialFlags {
                image_credential_provider_config: config,
                image_credential_provider_bin_dir: bin_dir,
            };
            let error = flags.sources(Path::new("/root-dir")).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        assert_eq!(CredentialFlags::default().sources(Path::new("/root-dir")).unwrap().providers, []);
    }
}
