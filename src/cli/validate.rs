//! `podstead validate`: manifests through the agent's own reading, without an agent or runtime.

use std::io::{ErrorKind, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;

use super::excerpt::{self, Severity};
use super::output;
use crate::manifest::{Examination, FileState, Finding, MAX_BYTES, Refusal};
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
    /// full with lines of the manifest, short with a line for each remark, json or yaml; full on a terminal, else short
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Form>,
    /// Exit with 4 for warnings, too
    #[arg(long)]
    pub deny_warnings: bool,
    /// Say nothing of warnings
    #[arg(long, conflicts_with = "deny_warnings")]
    pub no_warnings: bool,
}

/// How to print what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    Full,
    /// A line for each remark.
    Short,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// One file, for machines.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Judged<'a> {
    file: &'a Path,
    /// `Accepted`, `Refused`, `Duplicate`, `Ignored`.
    state: &'static str,
    pods: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    errors: &'a [Refusal],
    warnings: &'a [Refusal],
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
    let mut findings = all.findings();
    if args.no_warnings {
        for finding in &mut findings {
            finding.warnings.clear();
        }
    }
    let preset = if std::io::stdout().is_terminal() { Form::Full } else { Form::Short };
    print(args.output.unwrap_or(preset), &findings)?;
    let warned = args.deny_warnings && findings.iter().any(|f| !f.warnings.is_empty());
    let refused = warned || findings.iter().any(|f| f.report.is_bad());
    Ok(if refused { 4.into() } else { unread.unwrap_or(0).into() })
}

fn print(form: Form, findings: &[Finding]) -> anyhow::Result<()> {
    match form {
        Form::Json | Form::Yaml => {
            let all: Vec<Judged<'_>> = findings.iter().map(judged).collect();
            let format = if form == Form::Json { output::Format::Json } else { output::Format::Yaml };
            return output::data(format, &all);
        }
        Form::Short => {
            for finding in findings {
                output::line(&format!("{}\n", finding.report))?;
                for warning in &finding.warnings {
                    output::line(&format!("{}\n", as_warning(warning)))?;
                }
            }
        }
        Form::Full => {
            let colours = output::fancy(&std::io::stdout());
            for finding in findings {
                full(finding, colours)?;
            }
        }
    }
    Ok(())
}

fn full(finding: &Finding, colours: bool) -> anyhow::Result<()> {
    let errors = finding.refusals.iter().map(|one| (one, Severity::Error));
    for (one, severity) in errors.chain(finding.warnings.iter().map(|one| (one, Severity::Warning))) {
        output::line(&format!("{}\n\n", excerpt::excerpt(&finding.text, one, severity, colours)))?;
    }
    // The reasons of a refusal are told by then, if there was a text to show.
    if finding.refusals.is_empty() { output::line(&format!("{}\n", finding.report)) } else { Ok(()) }
}

/// The line of a refusal with the word that it is none.
fn as_warning(warning: &Refusal) -> Refusal {
    let field =
        if warning.field.is_empty() { "warning".to_owned() } else { format!("warning: {}", warning.field) };
    Refusal { field, ..warning.clone() }
}

fn judged(finding: &Finding) -> Judged<'_> {
    let (state, pods): (_, &[String]) = match &finding.report.state {
        FileState::Accepted { pods } => ("Accepted", pods),
        FileState::Refused { .. } | FileState::KeptLastGood { .. } => ("Refused", &[]),
        FileState::Duplicate { .. } => ("Duplicate", &[]),
        FileState::Disabled => ("Disabled", &[]),
        FileState::Ignored { .. } | FileState::Masked { .. } | FileState::Settling => ("Ignored", &[]),
    };
    let told = !matches!(state, "Accepted") && finding.refusals.is_empty();
    Judged {
        file: &finding.report.path,
        state,
        pods,
        message: told.then(|| finding.report.to_string()),
        errors: &finding.refusals,
        warnings: &finding.warnings,
    }
}
