//! `podstead plan`: what an agent with these manifests would do, against the running node. Changes nothing.

mod outlook;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use podstead_runtime::{PodUid, Time};
use similar::TextDiff;

use super::output::{self, Format};
use super::{excerpt, pods};
use crate::backend::Backend;
use crate::config::RuntimeFlags;
use crate::manifest::{CONFIG_HASH, CONFIG_SEEN, Examination, FileState, Finding};
use crate::node::facts;
use crate::pod::{NodeFacts, admission, selector};
use crate::probe::Verdicts;
use crate::publish::NodeRoom;
use crate::{desired, observe, plan};

use outlook::{Outlook, Verdict};

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  podstead plan /etc/kubernetes/manifests             what would change just now\n  podstead plan --into /etc/kubernetes/manifests --diff new.yaml\n                                                      what would change if this file were put there"
)]
pub struct Args {
    /// The agent's manifest directories, or, with --into, new or changed files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The files are judged as if they were in this directory, beside what is there
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
    /// Show what changes in the pods' manifests
    #[arg(long)]
    pub diff: bool,
    /// Name of the node instead of the running agent's, or the host name
    #[arg(long)]
    pub hostname_override: Option<String>,
    /// Output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Shows what would happen; exit code 4 when a manifest is refused.
pub async fn run(flags: &RuntimeFlags, args: &Args) -> anyhow::Result<ExitCode> {
    let (name, running) = pods::known(flags).await?;
    let node = args.hostname_override.as_deref().map_or(name, |name| facts::node_name(Some(name)));
    let manifests = examine(args, &node)?;
    let pods: Vec<Pod> = manifests.pods().iter().map(|pod| pod.pod.clone()).collect();
    let findings = manifests.findings();
    let refused = findings.iter().any(|f| f.report.is_bad());
    let published = pods::published(flags);
    let room = published.as_ref().map(|p| &p.room);
    let table = plan::Desired {
        pods: pods.iter().map(|pod| (uid(pod), wanted(pod, &node, room))).collect(),
        // An agent keeps the last good version of what it cannot read now.
        complete: !refused && !findings.iter().any(|f| matches!(f.report.state, FileState::Settling)),
        // What there is room for depends on the agent's flags: without one, it is not foreseen.
        room: room.map(NodeRoom::allocatable),
    };
    let facts = Arc::new(NodeFacts { root_dir: flags.root_dir.clone(), ..NodeFacts::default() });
    let runtime = Backend::look(flags).await?;
    let observed = observe::observe(&runtime, &facts, &table, &Verdicts::default()).await?;
    let all = outlook::outlook(&table, &observed, Time::now());
    match args.output {
        Format::Table => show(args, &findings, &all, &running, &pods)?,
        format => output::data(format, &all)?,
    }
    Ok(if refused { 4.into() } else { ExitCode::SUCCESS })
}

/// A pod as it is wanted, with what the node's labels say to it; sysctls and the like are the agent's own affair.
fn wanted(pod: &Pod, node: &str, room: Option<&NodeRoom>) -> plan::Pod {
    let elsewhere =
        |room: &&NodeRoom| pod.spec.as_ref().is_some_and(|spec| !selector::wants(spec, node, &room.labels));
    let refused = room.filter(elsewhere).map(|_| plan::Refusal {
        reason: "NodeAffinity".to_owned(),
        message: admission::ANOTHER_NODE.to_owned(),
    });
    plan::Pod { refused, ..desired::planned(pod) }
}

fn uid(pod: &Pod) -> PodUid {
    PodUid(pod.metadata.uid.clone().unwrap_or_default())
}

/// Reads what the agent would have: the files themselves, or a directory with them put into it.
fn examine(args: &Args, node: &str) -> anyhow::Result<Examination> {
    let mut all = Examination::new(node);
    let reading = |path: &Path| format!("read {}", path.display());
    if let Some(into) = &args.into {
        for file in &args.files {
            let name = file.file_name().with_context(|| format!("{} is no file", file.display()))?;
            let bytes = std::fs::read(file).with_context(|| reading(file))?;
            all.bytes(&std::path::absolute(into)?.join(name), &bytes);
        }
        all.read(&std::path::absolute(into)?).with_context(|| reading(into))?;
    } else {
        for file in &args.files {
            all.read(&std::path::absolute(file)?).with_context(|| reading(file))?;
        }
    }
    Ok(all)
}

fn show(
    args: &Args,
    findings: &[Finding],
    all: &[Outlook],
    running: &[Pod],
    pods: &[Pod],
) -> anyhow::Result<()> {
    let colours = output::fancy(&std::io::stdout());
    for finding in findings.iter().filter(|f| f.report.is_bad()) {
        if finding.refusals.is_empty() || !std::io::stdout().is_terminal() {
            output::line(&format!("{}\n", finding.report))?;
            continue;
        }
        for refusal in &finding.refusals {
            let shown = excerpt::excerpt(&finding.text, refusal, excerpt::Severity::Error, colours);
            output::line(&format!("{shown}\n\n"))?;
        }
    }
    let rows =
        all.iter().map(|o| vec![word(o.verdict).to_owned(), o.pod.clone(), o.why.join("; ")]).collect();
    output::table(&["ACTION", "POD", "WHY"], rows)?;
    if args.diff {
        for one in all.iter().filter(|o| !matches!(o.verdict, Verdict::Keep)) {
            let find = |list: &[Pod], uid: &str| {
                list.iter().find(|p| p.metadata.uid.as_deref() == Some(uid)).cloned()
            };
            let before = find(running, one.instead_of.as_deref().unwrap_or(&one.uid));
            let after = find(pods, &one.uid).filter(|_| one.verdict != Verdict::Stop);
            output::line(&difference(&one.pod, before.as_ref(), after.as_ref(), colours))?;
        }
    }
    Ok(())
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Keep => "keep",
        Verdict::Change => "change",
        Verdict::Start => "start",
        Verdict::Replace => "replace",
        Verdict::Stop => "stop",
        Verdict::Wait => "wait",
    }
}

/// The defaulted manifests as a unified diff; nothing when they are the same.
fn difference(name: &str, before: Option<&Pod>, after: Option<&Pod>, colours: bool) -> String {
    let (before, after) = (text(before), text(after));
    let diff = TextDiff::from_lines(&before, &after);
    let unified = diff
        .unified_diff()
        .context_radius(3)
        .header(&format!("{name} now"), &format!("{name} then"))
        .to_string();
    let paint = |line: &str| match line.chars().next().filter(|_| colours) {
        Some('+') => format!("\u{1b}[32m{line}\u{1b}[0m\n"),
        Some('-') => format!("\u{1b}[31m{line}\u{1b}[0m\n"),
        _ => format!("{line}\n"),
    };
    let lines: Vec<String> = unified.lines().map(|line| paint(&excerpt::clean(line))).collect();
    if lines.is_empty() { String::new() } else { format!("\n{}", lines.concat()) }
}

/// A pod without what only the agent or the moment put into it.
fn text(pod: Option<&Pod>) -> String {
    let Some(mut pod) = pod.cloned() else { return String::new() };
    pod.status = None;
    pod.metadata.uid = None;
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.remove(CONFIG_HASH);
        annotations.remove(CONFIG_SEEN);
    }
    serde_yaml::to_string(&pod).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_what_a_person_changed() {
        let pod = |image: &str, uid: &str| -> Pod {
            let text = format!(
                "{{metadata: {{name: a, uid: {uid}, annotations: {{kubernetes.io/config.hash: {uid}}}}}, spec: {{containers: [{{name: c, image: {image}}}]}}}}"
            );
            serde_yaml::from_str(&text).unwrap()
        };
        let shown = difference("default/a", Some(&pod("i:1", "x")), Some(&pod("i:2", "y")), false);
        assert!(shown.contains("--- default/a now\n+++ default/a then\n"), "{shown}");
        assert!(shown.contains("-  - image: i:1\n+  - image: i:2\n"), "{shown}");
        assert!(!shown.contains("uid") && !shown.contains("hash"), "{shown}");
        assert_eq!(difference("a", Some(&pod("i:1", "x")), Some(&pod("i:1", "y")), false), "");
        assert!(difference("a", None, Some(&pod("i:1", "x")), true).contains("\u{1b}[32m+"));
    }
}
