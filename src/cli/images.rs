//! `podstead images`: list, pull, import, remove.

use std::path::PathBuf;

use anyhow::Context as _;
use podstead_runtime::{Auth, Image, ImageSpec, Runtime};

use super::find::NotFound;
use super::output::{self, Format};
use super::progress::Shown;
use crate::config::{CredentialFlags, RuntimeFlags};
use crate::credentials::Credentials;
use crate::images::{self, name::Name};
use crate::pod::container::with_tag;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands on images.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// List images
    #[command(after_help = "Example:\n  podstead images ls -o json")]
    Ls {
        /// Output
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Pull images from their registries
    #[command(
        after_help = "Examples:\n  podstead images pull quay.io/nginx/nginx-unprivileged:stable\n  podstead \
                            --insecure-registry 127.0.0.1:5000 images pull 127.0.0.1:5000/web:1"
    )]
    Pull {
        /// References, by tag or digest
        #[arg(required = true)]
        images: Vec<String>,
        /// Whom to log in as [default: as the agent finds it]
        #[arg(
            long,
            value_name = "USER:PASSWORD",
            env = "PODSTEAD_CREDS",
            hide_env_values = true,
            value_parser = credentials
        )]
        creds: Option<Auth>,
        /// Credentials.
        #[command(flatten)]
        credentials: CredentialFlags,
    },
    /// Import OCI layouts, OCI archives or docker archives
    #[command(after_help = "Examples:\n  podstead images import web.tar\n  podstead images import --name \
                            localhost/web:2 layout-directory")]
    Import {
        /// Files or directories
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Name for the image instead of the archive's own
        #[arg(long)]
        name: Option<String>,
    },
    /// Remove images
    #[command(after_help = "Example:\n  podstead images rm localhost/web:1")]
    Rm {
        /// References or ids
        #[arg(required = true)]
        images: Vec<String>,
    },
}

impl Args {
    /// Whether it brings images, for which there must be a place.
    pub fn makes(&self) -> bool {
        matches!(self.command, Command::Pull { .. } | Command::Import { .. })
    }
}

fn credentials(text: &str) -> Result<Auth, String> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() => {
            Ok(Auth::Basic { username: user.to_owned(), password: password.to_owned() })
        }
        _ => Err("it is not USER:PASSWORD".to_owned()),
    }
}

/// Does it.
pub async fn run<R: Runtime>(runtime: &R, flags: &RuntimeFlags, args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Ls { output } => list(runtime, *output).await,
        Command::Pull { images, creds, credentials } => {
            let sources = credentials.sources(&flags.root_dir)?;
            pull(runtime, images, creds.as_ref(), &Credentials::new(&sources)).await
        }
        Command::Import { paths, name } => {
            for path in paths {
                let shown = Shown::on_stderr();
                let path = std::path::absolute(path)?;
                let names = runtime.import_image(&path, name.as_deref(), shown.progress()).await;
                shown.end();
                output::line(&(names?.join("\n") + "\n"))?;
            }
            Ok(())
        }
        Command::Rm { images } => {
            for image in images {
                let spec = ImageSpec::from(image.as_str());
                if runtime.image(&spec).await?.is_none() {
                    return Err(NotFound(format!("no image {image:?}")).into());
                }
                runtime.remove_image(&spec).await?;
                output::line(&format!("Deleted: {image}\n"))?;
            }
            Ok(())
        }
    }
}

async fn pull<R: Runtime>(
    runtime: &R,
    images: &[String],
    creds: Option<&Auth>,
    credentials: &Credentials,
) -> anyhow::Result<()> {
    for image in images {
        let image = with_tag(image);
        let auths = match (creds, Name::parse(&image)) {
            (Some(given), _) => vec![given.clone()],
            (None, Ok(name)) => credentials.find(&name).await,
            // The runtime says what is wrong with the name.
            (None, Err(_)) => Vec::new(),
        };
        let shown = Shown::on_stderr();
        let spec = ImageSpec::from(image.as_str());
        let pulled = images::pull(runtime, &spec, &auths, || shown.progress()).await;
        shown.end();
        match pulled {
            Ok(id) => output::line(&format!("{id}\n"))?,
            Err(mut failures) => {
                let last = failures.pop().context("nothing was tried")?;
                for earlier in failures {
                    tracing::warn!("{earlier}");
                }
                return Err(last.into());
            }
        }
    }
    Ok(())
}

async fn list<R: Runtime>(runtime: &R, format: Format) -> anyhow::Result<()> {
    let images = runtime.images().await?;
    if format != Format::Table {
        return output::data(format, &serde_json::json!({ "images": images }));
    }
    let mut rows: Vec<Vec<String>> = images.iter().flat_map(rows).collect();
    rows.sort();
    output::table(&["IMAGE", "TAG", "IMAGE ID", "SIZE"], rows)
}

fn rows(image: &Image) -> Vec<Vec<String>> {
    let row = |name: &str, tag: &str| {
        vec![name.to_owned(), tag.to_owned(), output::short(&image.id), output::size(image.size)]
    };
    if image.repo_tags.is_empty() {
        let digest = image.repo_digests.first().and_then(|d| d.split_once('@'));
        return vec![row(digest.map_or("<none>", |(name, _)| name), "<none>")];
    }
    let split = |reference: &String| match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => row(name, tag),
        _ => row(reference, "<none>"),
    };
    image.repo_tags.iter().map(split).collect()
}
