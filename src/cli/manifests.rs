//! `podstead manifests`: every source and file of manifests with its condition, as a running agent knows it, or, without
//! one, by reading. Reads the agent's file, or the sources themselves.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use jiff::Timestamp;
use podstead_runtime::Time;

use super::output::{self, Format};
use crate::agent;
use crate::config::{self, RuntimeFlags, Waiver};
use crate::manifest::{FileReport, FileState, SourceKind, SourceReport, SourcesConfig, UrlConfig, look};
use crate::node::facts;
use crate::publish_manifests::{self, Manifests};

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  podstead manifests                                     as the running agent knows them\n  \
                  podstead manifests --pod-manifest-path /etc/kubernetes/manifests   by reading"
)]
pub struct Args {
    /// Output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Directories or files to read instead of asking the agent, as `podstead run` takes them
    #[arg(long)]
    pub pod_manifest_path: Vec<PathBuf>,
    /// Doubtful manifest files to take all the same, when reading
    #[arg(long, value_enum, value_delimiter = ',')]
    pub allow_manifests: Vec<Waiver>,
    /// Name of the node instead of the host name, when reading
    #[arg(long)]
    pub hostname_override: Option<String>,
}

/// Lists them.
pub fn run(flags: &RuntimeFlags, args: &Args) -> anyhow::Result<()> {
    let all = known(flags, args)?;
    if args.output != Format::Table {
        return output::data(args.output, &all);
    }
    let now = Time::now();
    let sources = all.sources.iter().map(|source| source_row(source, now)).collect();
    output::table(&["SOURCE", "KIND", "CONDITION", "SINCE", "DOCUMENT"], sources)?;
    output::line("\n")?;
    let files = all.files.iter().map(|file| file_row(file, now)).collect();
    output::table(&["FILE", "CONDITION", "REVISION", "SINCE", "PODS"], files)?;
    let errors = all.sources.iter().filter_map(|source| {
        let error = source.error.as_ref()?;
        Some(format!("{}: {}; the pods known so far are kept", source.name.display(), error.message))
    });
    let files = all.files.iter().filter(|file| file.is_bad()).map(ToString::to_string);
    for (index, line) in errors.chain(files).enumerate() {
        output::line(&format!("{}{line}\n", if index == 0 { "\n" } else { "" }))?;
    }
    Ok(())
}

fn known(flags: &RuntimeFlags, args: &Args) -> anyhow::Result<Manifests> {
    let last = publish_manifests::read(&publish_manifests::path(&flags.state_dir));
    let runs = agent::is_running(&flags.state_dir);
    if !args.pod_manifest_path.is_empty() {
        let node = facts::node_name(args.hostname_override.as_deref());
        let config = SourcesConfig {
            paths: args.pod_manifest_path.clone(),
            url: None,
            node,
            file_check_frequency: Duration::MAX,
            waived: config::waived(&args.allow_manifests),
            root_dir: flags.root_dir.clone(),
        };
        return read(&config);
    }
    match last {
        Some(all) if runs => Ok(all),
        Some(last) => {
            eprintln!("podstead: no agent runs; its sources are read as it would read them");
            let paths = last.sources.iter().filter(|source| source.kind != SourceKind::Url);
            let url = last.sources.iter().find(|source| source.kind == SourceKind::Url);
            read(&SourcesConfig {
                paths: paths.map(|source| source.name.clone()).collect(),
                url: url.and_then(|source| UrlConfig::plain(source.name.to_str()?)),
                node: last.node,
                file_check_frequency: Duration::MAX,
                waived: last.waived,
                root_dir: flags.root_dir.clone(),
            })
        }
        None if runs => bail!("the agent has not read its manifests yet"),
        None => bail!(
            "no agent runs on {}; name what to read with --pod-manifest-path",
            flags.state_dir.display()
        ),
    }
}

fn read(config: &SourcesConfig) -> anyhow::Result<Manifests> {
    Ok(Manifests::of(&config.node, config.waived, &look(config)?))
}

fn since(then: Option<Timestamp>, now: Time) -> String {
    let nanos = then.and_then(|then| i64::try_from(then.as_nanosecond()).ok());
    nanos.map_or_else(|| "-".to_owned(), |nanos| output::age(Time(nanos), now))
}

fn source_row(source: &SourceReport, now: Time) -> Vec<String> {
    let kind = match source.kind {
        SourceKind::Directory => "directory",
        SourceKind::File => "file",
        SourceKind::Url => "url",
        SourceKind::Missing | SourceKind::Unknown => "-",
    };
    let condition = match (&source.error, source.kind) {
        (Some(_), _) => "Error",
        (None, SourceKind::Missing) => "Missing",
        (None, _) => "Read",
    };
    let document = source.document.as_ref().map(|document| {
        let place = if document.from_disk { ", from disk" } else { "" };
        let revision: String = document.sha256.chars().take(12).collect();
        format!("{revision}, {} old{place}", since(Some(document.fetched), now))
    });
    vec![
        source.name.display().to_string(),
        kind.to_owned(),
        condition.to_owned(),
        since(source.error.as_ref().map(|error| error.since), now),
        document.unwrap_or_else(|| "-".to_owned()),
    ]
}

fn file_row(file: &FileReport, now: Time) -> Vec<String> {
    let (condition, what) = match &file.state {
        FileState::Accepted { pods } => ("Accepted", pods.join(", ")),
        FileState::KeptLastGood { errors, .. } => ("KeptLastGood", count(errors)),
        FileState::Refused { errors } => ("Refused", count(errors)),
        FileState::Ignored { reason } => ("Ignored", reason.clone()),
        FileState::Duplicate { claim, with, .. } => {
            ("Duplicate", format!("{claim}, also {}", with.display()))
        }
        FileState::Masked { by } => ("Masked", format!("by {}", by.display())),
        FileState::Disabled => ("Disabled", "by a link to /dev/null".to_owned()),
        FileState::Settling => ("Settling", String::new()),
    };
    vec![
        file.path.display().to_string(),
        condition.to_owned(),
        file.revision.clone().unwrap_or_else(|| "-".to_owned()),
        since(file.since, now),
        what,
    ]
}

fn count(errors: &[String]) -> String {
    match errors.len() {
        1 => "1 error".to_owned(),
        n => format!("{n} errors"),
    }
}
