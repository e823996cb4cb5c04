//! `podstead stop`: ends containers by hand. A running agent starts them again, as their pod's restart policy says.

use std::time::Duration;

use podstead_runtime::{Runtime, labels};

use super::{find, output};

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  podstead stop web-node1              a running agent starts it again\n  podstead stop -t 0 4818809b7846e     at once"
)]
pub struct Args {
    /// Containers: id or its beginning, or pod name
    #[arg(required = true)]
    pub what: Vec<String>,
    /// Container of the pod
    #[arg(short, long)]
    pub container: Option<String>,
    /// Seconds between the stop signal and the kill [default: the pod's grace]
    #[arg(short, long)]
    pub timeout: Option<u64>,
}

/// Stops the containers and prints their ids.
pub async fn run<R: Runtime>(runtime: &R, args: &Args) -> anyhow::Result<()> {
    for what in &args.what {
        let container = find::observe(runtime, what, args.container.as_deref(), false).await?;
        let own = container.annotations.get(labels::TERMINATION_GRACE).and_then(|g| g.parse().ok());
        let grace = Duration::from_secs(args.timeout.or(own).unwrap_or(30));
        runtime.stop_container(&container.id, grace).await?;
        output::line(&format!("{}\n", container.id))?;
    }
    Ok(())
}
