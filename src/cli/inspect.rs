//! `podstead inspect`: everything the runtime knows of a container or sandbox.

use podstead_runtime::Runtime;

use super::find;
use super::output::{self, DataFormat};

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  podstead inspect web-node1           the pod's sandbox and its containers\n  podstead inspect -o yaml 4818809b7846e"
)]
pub struct Args {
    /// Container or sandbox: id or its beginning; pod name
    pub what: String,
    /// Container of the pod
    #[arg(short, long)]
    pub container: Option<String>,
    /// Output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: DataFormat,
}

/// Prints the object.
pub async fn run<R: Runtime>(runtime: &R, args: &Args) -> anyhow::Result<()> {
    let snapshot = runtime.observe().await?;
    let (what, format) = (args.what.as_str(), args.output.into());
    if args.container.is_none()
        && let Some(sandbox) = find::sandbox(&snapshot, what)?
    {
        let own: Vec<_> = snapshot.containers.iter().filter(|c| c.sandbox == sandbox.id).collect();
        return output::data(format, &serde_json::json!({ "sandbox": sandbox, "containers": own }));
    }
    let container = find::container(&snapshot, what, args.container.as_deref(), false)?;
    let sandbox = snapshot.sandboxes.iter().find(|s| s.id == container.sandbox);
    output::data(format, &serde_json::json!({ "container": container, "sandbox": sandbox }))
}
