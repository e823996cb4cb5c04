//! `podstead validate`: manifests through the agent's own reading, without an agent or runtime.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::output;
use crate::manifest::{self, Refusal};
use crate::node::facts;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Manifest files; `-` for standard input
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Name of the node instead of the host name
    #[arg(long)]
    pub hostname_override: Option<String>,
}

/// Checks the files; exit code 4 when one is refused.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let node = facts::node_name(args.hostname_override.as_deref());
    let mut refused = false;
    for file in &args.files {
        match manifest::validate(&read(file)?, file, &node) {
            Ok(pods) => {
                let names: Vec<String> = pods.iter().map(manifest::ManifestPod::key).collect();
                output::line(&format!("{}: ok: {}\n", file.display(), names.join(", ")))?;
            }
            Err(refusals) => {
                refused = true;
                let lines: Vec<String> = refusals.iter().map(Refusal::to_string).collect();
                output::line(&(lines.join("\n") + "\n"))?;
            }
        }
    }
    Ok(if refused { ExitCode::from(4) } else { ExitCode::SUCCESS })
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().take(manifest::MAX_BYTES).read_to_end(&mut bytes).context("read standard input")?;
    } else {
        let open = std::fs::File::open(file).with_context(|| format!("open {}", file.display()))?;
        open.take(manifest::MAX_BYTES)
            .read_to_end(&mut bytes)
            .with_context(|| format!("read {}", file.display()))?;
    }
    Ok(bytes)
}
