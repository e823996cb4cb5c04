//! `podstead run`: the agent until TERM or INT.

use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::agent;
use crate::backend::Backend;
use crate::config::{Config, RunFlags, RuntimeFlags};
use crate::manifest::UrlConfig;

/// Runs the agent.
pub async fn run(runtime: &RuntimeFlags, flags: &RunFlags) -> anyhow::Result<()> {
    let config = Config::new(flags, runtime)?;
    let backend = Arc::new(Backend::open(runtime).await?);
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let agent = agent::start(&config, Arc::clone(&backend)).context("start the agent")?;
    // Beside the pods: nothing of theirs waits for it.
    let beginning = tokio::spawn(async move { backend.begin().await });
    tracing::info!(
        node = config.node_name,
        manifests = manifests(&config),
        runtime = ?runtime.runtime,
        "podstead {} runs",
        env!("CARGO_PKG_VERSION")
    );
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("ending; containers go on");
    beginning.abort();
    agent.stop().await;
    Ok(())
}

/// The sources, as they are shown.
fn manifests(config: &Config) -> String {
    let paths = config.sources.paths.iter().map(|path| path.display().to_string());
    let url = config.sources.url.iter().map(UrlConfig::shown);
    paths.chain(url).collect::<Vec<_>>().join(", ")
}
