//! `podstead ps`: containers, in crictl's columns.

use podstead_runtime::{Container, ContainerState, Runtime, Snapshot, Time};

use super::output::{self, Format};

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  podstead ps -a                the containers, also those that are over\n  podstead ps -o json           as data"
)]
pub struct Args {
    /// Show all containers, not only those that run
    #[arg(short, long)]
    pub all: bool,
    /// Output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Lists the containers.
pub async fn run<R: Runtime>(runtime: &R, args: &Args) -> anyhow::Result<()> {
    let snapshot = runtime.observe().await?;
    let mut shown: Vec<&Container> =
        snapshot.containers.iter().filter(|c| args.all || c.is_running()).collect();
    shown.sort_by_key(|c| (std::cmp::Reverse(c.created_at), c.id.clone()));
    if args.output != Format::Table {
        return output::data(args.output, &serde_json::json!({ "containers": shown }));
    }
    let now = Time::now();
    let rows = shown.iter().map(|c| row(&snapshot, c, now)).collect();
    output::table(&["CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD"], rows)
}

fn row(snapshot: &Snapshot, c: &Container, now: Time) -> Vec<String> {
    let pod = snapshot.sandboxes.iter().find(|s| s.id == c.sandbox).map(|s| s.pod.name.clone());
    vec![
        output::short(c.id.as_str()),
        c.image.clone(),
        output::ago(c.created_at, now),
        state(&c.state).to_owned(),
        c.name.clone(),
        c.attempt.to_string(),
        output::short(c.sandbox.as_str()),
        pod.unwrap_or_else(|| "unknown".to_owned()),
    ]
}

/// A container's state in one word.
pub fn state(state: &ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "Created",
        ContainerState::Running { .. } => "Running",
        ContainerState::Exited { .. } => "Exited",
        ContainerState::Unknown => "Unknown",
    }
}
