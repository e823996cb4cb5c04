//! `podstead validate`: manifests through the agent's own reading, without an agent or runtime.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::output;
use crate::manifest::{Examination, MAX_BYTES};
use crate::node::facts;

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  podstead validate web.yaml\n  podstead validate /etc/kubernetes/manifests\n  kustomize build . | podstead validate -"
)]
pub struct Args {
    /// Manifest files, or directories of them; `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Name of the node instead of the host name
    #[arg(long)]
    pub hostname_override: Option<String>,
}

/// Checks the files, all of them; exit code 4 when one is refused, else 3 or 1 when one could not be read.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut all = Examination::new(&facts::node_name(args.hostname_override.as_deref()));
    let mut unread = None;
    for file in &args.files {
        if file == Path::new("-") {
            let mut bytes = Vec::new();
            // One byte more than allowed, so that too large a manifest is seen to be one.
            let stdin = std::io::stdin().take(MAX_BYTES + 1).read_to_end(&mut bytes);
            stdin.context("read standard input")?;
            all.bytes(file, &bytes);
        } else if let Err(error) = all.read(file) {
            eprintln!("podstead: cannot read {}: {error}", file.display());
            unread.get_or_insert(if error.kind() == ErrorKind::NotFound { 3 } else { 1 });
        }
    }
    let reports = all.reports();
    for report in &reports {
        output::line(&format!("{report}\n"))?;
    }
    let refused = reports.iter().any(crate::manifest::FileReport::is_bad);
    Ok(if refused { 4.into() } else { unread.unwrap_or(0).into() })
}
