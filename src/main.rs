//! The podstead binary: flags, one match, the command. Hidden entries branch off before any thread exists.

use std::ffi::OsString;
use std::process::ExitCode;

use podstead::backend::Backend;
use podstead::cli::{self, Command, Started};
use podstead::config::{Environment, LayerError};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> ExitCode {
    if let Some(code) = podstead_youki::shim::dispatch() {
        return code;
    }
    let argv: Vec<_> = std::env::args_os().collect();
    let started = match Started::read(&argv, &Environment::of_process()) {
        Ok(started) => started,
        Err(LayerError::CommandLine(error)) => error.exit(),
        Err(error) => {
            eprintln!("podstead: {error}");
            return 2.into();
        }
    };
    let filter = log(started.cli.v);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).thread_keep_alive(std::time::Duration::from_secs(2)).enable_all();
    let outcome = match runtime.build() {
        Ok(runtime) => runtime.block_on(command(&started, &argv, &filter)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("podstead: {error:#}");
            cli::exit_code(&error)
        }
    }
}

/// The filter of a `-v`.
fn level(verbosity: u8) -> &'static str {
    match verbosity {
        0 => "warn",
        1 => "info",
        2..4 => "info,podstead=debug,podstead_cri=debug,podstead_youki=debug",
        _ => "debug,podstead=trace,podstead_cri=trace,podstead_youki=trace",
    }
}

/// Changes what is logged; `None` where `PODSTEAD_LOG` says it for good.
type Filter = Option<reload::Handle<Targets, Registry>>;

// `Targets` and not `EnvFilter`, whose regular expressions take a MiB and some milliseconds of every command.
fn log(verbosity: u8) -> Filter {
    let named = std::env::var("PODSTEAD_LOG").ok().map(|text| (text.parse::<Targets>(), text));
    let (filter, fixed) = match &named {
        Some((Ok(filter), _)) => (filter.clone(), true),
        // Invariant: every level above is a filter; a test below tries them.
        _ => (level(verbosity).parse().unwrap_or_default(), false),
    };
    let (filter, handle) = reload::Layer::new(filter);
    let colours = cli::output::fancy(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer();
    let lines = lines.with_writer(std::io::stderr).with_ansi(colours).with_target(false);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    if let Some((Err(error), text)) = named {
        tracing::warn!("PODSTEAD_LOG={text:?} is no filter such as info,podstead_cri=trace: {error}");
    }
    (!fixed).then_some(handle)
}

fn set_verbosity(filter: &Filter, verbosity: u8) {
    let wanted: Targets = level(verbosity).parse().unwrap_or_default();
    if let Some(Err(error)) = filter.as_ref().map(|filter| filter.reload(wanted)) {
        tracing::warn!("the log's verbosity stays: {error}");
    }
}

async fn command(started: &Started, argv: &[OsString], filter: &Filter) -> anyhow::Result<ExitCode> {
    let cli = &started.cli;
    let looked = async || Backend::look(&cli.runtime).await;
    match &cli.command {
        Command::Run(flags) => {
            let verbosity = |v| set_verbosity(filter, v);
            cli::run::run(started, flags, argv, &verbosity).await?;
        }
        Command::Config(args) => cli::config::run(started, args)?,
        Command::Ps(args) => cli::ps::run(&looked().await?, args).await?,
        Command::Pods(args) => cli::pods::run(&cli.runtime, args).await?,
        Command::Node(args) => cli::node::run(&cli.runtime, args)?,
        Command::Describe(args) => cli::describe::run(&cli.runtime, args).await?,
        Command::Logs(args) => cli::logs::run(&looked().await?, args).await?,
        Command::Exec(args) => {
            let code = cli::exec::run(&looked().await?, args).await?;
            // A reader of standard input may still wait for a key; nothing is owed to it.
            std::process::exit(code);
        }
        Command::Inspect(args) => cli::inspect::run(&looked().await?, args).await?,
        Command::Stop(args) => cli::stop::run(&looked().await?, args).await?,
        Command::Images(args) => {
            let backend = if args.makes() { Backend::open(&cli.runtime).await? } else { looked().await? };
            cli::images::run(&backend, &cli.runtime, args).await?;
        }
        Command::Manifests(args) => cli::manifests::run(&cli.runtime, args)?,
        Command::Plan(args) => return cli::plan::run(&cli.runtime, args).await,
        Command::Validate(args) => return cli::validate::run(args),
        Command::Version(args) => cli::version::run(looked().await, args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verbosity_is_a_filter() {
        for verbosity in 0..6 {
            assert!(level(verbosity).parse::<Targets>().is_ok(), "{verbosity}");
        }
    }
}
