//! `podstead run`: the agent until TERM or INT; HUP has it read its settings again.

use std::ffi::OsString;
use std::sync::Arc;

use anyhow::Context;
use clap::CommandFactory;
use tokio::signal::unix::{SignalKind, signal};

use super::{Cli, Command, Started, config};
use crate::agent::{self, Agent};
use crate::backend::Backend;
use crate::config::{Change, Config, Effective, Environment, Idle, RunFlags, changes, effective};
use crate::manifest::UrlConfig;

/// How the verbosity of a running agent's log is changed.
pub type Verbosity<'a> = &'a (dyn Fn(u8) + Send + Sync);

/// Runs the agent. `argv` is read again with its files when HUP comes.
pub async fn run(
    started: &Started,
    flags: &RunFlags,
    argv: &[OsString],
    verbosity: Verbosity<'_>,
) -> anyhow::Result<()> {
    // First of all: before it is awaited, this signal ends the process.
    let mut reload = signal(SignalKind::hangup())?;
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let config = config::check(started, flags)?;
    say_idle(&started.layers.idle);
    let runtime = &started.cli.runtime;
    let backend = Arc::new(Backend::open(runtime).await?);
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
    let mut running = effective(&Cli::command(), &started.layers);
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = reload.recv() => match again(&agent, argv, verbosity, &mut running) {
                Ok(()) => {}
                Err(error) => {
                    tracing::error!("the settings were not read again, those from before stay: {error:#}");
                }
            }
        }
    }
    tracing::info!("ending; containers go on");
    beginning.abort();
    agent.stop().await;
    Ok(())
}

/// Reads all settings again and takes over what can change now.
fn again(
    agent: &Agent,
    argv: &[OsString],
    verbosity: Verbosity<'_>,
    running: &mut [Effective],
) -> anyhow::Result<()> {
    let started = Started::read(argv, &Environment::of_process())?;
    let Command::Run(flags) = &started.cli.command else { return Ok(()) };
    let config = config::check(&started, flags)?;
    let now = effective(&Cli::command(), &started.layers);
    let changes = changes(running, &now);
    if changes.iter().any(|change| change.live) {
        agent.reconfigure(&config.live());
        verbosity(started.cli.v);
    }
    for setting in running.iter_mut() {
        if let Some(change) = changes.iter().find(|change| change.live && change.flag == setting.flag) {
            setting.values.clone_from(&change.now);
        }
    }
    if changes.is_empty() {
        tracing::info!("the settings were read again; nothing changed");
    }
    changes.iter().for_each(say);
    Ok(())
}

fn say(change: &Change) {
    let (flag, was, now) = (&change.flag, change.was.join(","), change.now.join(","));
    if change.live {
        tracing::info!("--{flag} is {now:?} now, it was {was:?}");
    } else {
        tracing::warn!("--{flag} stays {was:?} until the agent is started again, then it will be {now:?}");
    }
}

/// One line about all that does nothing.
fn say_idle(idle: &[Idle]) {
    if !idle.is_empty() {
        let names: Vec<&str> = idle.iter().map(|idle| idle.name.as_str()).collect();
        tracing::info!("no effect here: {}; `podstead config` says why", names.join(", "));
    }
}

/// The sources, as they are shown.
fn manifests(config: &Config) -> String {
    let paths = config.sources.paths.iter().map(|path| path.display().to_string());
    let url = config.sources.url.iter().map(UrlConfig::shown);
    paths.chain(url).collect::<Vec<_>>().join(", ")
}
