//! `podstead inspect`: everything the runtime knows of a container or sandbox.

use podstead_runtime::Runtime;

use super::find;
use super::output::{self, Format};

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Container or sandbox: id or its beginning; pod name
    pub what: String,
    /// Container of the pod
    #[arg(short)]
    pub container: Option<String>,
    /// Output
    #[arg(short, long, value_enum, default_value = "json")]
    pub output: Format,
}

/// Prints the object.
pub async fn run<R: Runtime>(runtime: &R, args: &Args) -> anyhow::Result<()> {
    let snapshot = runtime.observe().await?;
    let what = args.what.as_str();
    let sandbox = snapshot.sandboxes.iter().find(|s| s.id.as_str().starts_with(what) || s.pod.name == what);
    if let (Some(sandbox), None) = (sandbox, &args.container) {
        let own: Vec<_> = snapshot.containers.iter().filter(|c| c.sandbox == sandbox.id).collect();
        return output::data(args.output, &serde_json::json!({ "sandbox": sandbox, "containers": own }));
    }
    let container = find::container(&snapshot, what, args.container.as_deref(), false)?;
    let sandbox = snapshot.sandboxes.iter().find(|s| s.id == container.sandbox);
    output::data(args.output, &serde_json::json!({ "container": container, "sandbox": sandbox }))
}
