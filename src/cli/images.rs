//! `podstead images`: list, pull, import, remove.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use podstead_runtime::image::{PullEvent, PullPhase};
use podstead_runtime::{Auth, Image, ImageSpec, PullProgress, Runtime};

use super::find::NotFound;
use super::output::{self, Format};
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
    Ls {
        /// Output
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Pull images from their registries
    Pull {
        /// References
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Import OCI layouts, OCI archives or docker archives
    Import {
        /// Files or directories
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Name for the image instead of the archive's own
        #[arg(long)]
        name: Option<String>,
    },
    /// Remove images
    Rm {
        /// References or ids
        #[arg(required = true)]
        images: Vec<String>,
    },
}

/// Does it.
pub async fn run<R: Runtime>(runtime: &R, args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Ls { output } => list(runtime, *output).await,
        Command::Pull { images } => {
            for image in images {
                let bars = Bars::new();
                let spec = ImageSpec::from(with_tag(image).as_str());
                let id = runtime.pull_image(&spec, &Auth::Anonymous, bars.progress()).await;
                bars.end();
                output::line(&format!("{}\n", id?))?;
            }
            Ok(())
        }
        Command::Import { paths, name } => {
            for path in paths {
                let bars = Bars::new();
                let names =
                    runtime.import_image(&std::path::absolute(path)?, name.as_deref(), bars.progress()).await;
                bars.end();
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

/// Progress bars on a terminal; elsewhere nothing.
struct Bars {
    all: MultiProgress,
    each: Arc<Mutex<BTreeMap<String, ProgressBar>>>,
    shown: bool,
}

impl Bars {
    fn new() -> Self {
        use std::io::IsTerminal;
        let shown = std::io::stderr().is_terminal();
        Self { all: MultiProgress::new(), each: Arc::default(), shown }
    }

    fn progress(&self) -> PullProgress {
        if !self.shown {
            return PullProgress::none();
        }
        let (all, each) = (self.all.clone(), Arc::clone(&self.each));
        PullProgress::new(move |event| {
            let mut each = each.lock().unwrap_or_else(PoisonError::into_inner);
            let bar = each.entry(event.item.clone()).or_insert_with(|| all.add(new_bar(&event)));
            bar.set_length(event.total);
            bar.set_position(event.done);
            bar.set_message(word(event.phase));
            if matches!(event.phase, PullPhase::Done | PullPhase::Exists) {
                bar.finish();
            }
        })
    }

    fn end(&self) {
        for bar in self.each.lock().unwrap_or_else(PoisonError::into_inner).values() {
            bar.finish();
        }
    }
}

fn new_bar(event: &PullEvent) -> ProgressBar {
    let bar = ProgressBar::new(event.total).with_prefix(output::short(&event.item));
    let style = ProgressStyle::with_template("{prefix} {msg:11} {wide_bar} {bytes}/{total_bytes}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

fn word(phase: PullPhase) -> &'static str {
    match phase {
        PullPhase::Exists => "exists",
        PullPhase::Downloading => "downloading",
        PullPhase::Extracting => "extracting",
        PullPhase::Done => "done",
    }
}
