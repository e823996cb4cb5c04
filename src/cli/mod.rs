//! The command line: one file per command. Only this room and `main` print.

pub mod config;
pub mod describe;
pub mod excerpt;
pub mod exec;
pub mod find;
pub mod images;
pub mod inspect;
pub mod logs;
pub mod manifests;
pub mod node;
pub mod output;
pub mod plan;
pub mod pods;
pub mod progress;
pub mod ps;
pub mod run;
pub mod stop;
pub mod validate;
pub mod version;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{Environment, LayerError, Layers, RuntimeFlags, SettingFlags};

/// Keeps Kubernetes static pods running on a node.
#[derive(Parser, Debug)]
#[command(name = "podstead", version, about, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 done; 1 failed; 2 the command line is wrong; 3 not found, or not clear which is \
                        meant; 4 a manifest was refused; 5 the runtime is not reachable; 6 a registry refused \
                        access; `exec` exits as its command did."
)]
pub struct Cli {
    /// Which runtime, and where its things are.
    #[command(flatten)]
    pub runtime: RuntimeFlags,
    /// Where settings are.
    #[command(flatten)]
    pub sources: SettingFlags,
    /// How much to log: 0 little, 2 steps, 4 everything
    #[arg(short, long, default_value_t = 1, global = true)]
    pub v: u8,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the agent: keep the pods of the manifests running
    Run(Box<crate::config::RunFlags>),
    /// Show the settings of the agent, and who said each of them
    Config(Box<config::Args>),
    /// List containers
    Ps(ps::Args),
    /// List pods
    Pods(pods::Args),
    /// Show what the node has and what pods take of it
    Node(node::Args),
    /// Show all about a pod, and what happened to it
    Describe(describe::Args),
    /// Print a container's log
    Logs(logs::Args),
    /// Run a command in a container
    Exec(exec::Args),
    /// Show everything known of a container or sandbox
    Inspect(inspect::Args),
    /// Stop containers
    Stop(stop::Args),
    /// Images: list, pull, import, remove
    Images(images::Args),
    /// List the sources and files of manifests, and what became of each
    Manifests(manifests::Args),
    /// Show what manifests would change on the node, and change nothing
    Plan(plan::Args),
    /// Check manifests as the agent would
    Validate(validate::Args),
    /// Print versions of podstead and the runtime
    Version(version::Args),
}

/// The command line with everything that variables and files add to it.
#[derive(Debug)]
pub struct Started {
    /// What is to be done.
    pub cli: Cli,
    /// Who said what.
    pub layers: Layers,
}

impl Started {
    /// Reads the files and puts all together. The first word is the program's name.
    pub fn read(argv: &[OsString], environment: &Environment) -> Result<Self, LayerError> {
        let layers = Layers::read(&Cli::command(), argv, environment)?;
        let cli = Cli::from_arg_matches(&layers.matches)?;
        Ok(Self { cli, layers })
    }
}

/// The exit code an error deserves; documented in the help text.
pub fn exit_code(error: &anyhow::Error) -> std::process::ExitCode {
    use podstead_runtime::Error;
    if error.is::<find::NotFound>() || error.is::<find::Ambiguous>() {
        return 3.into();
    }
    match error.downcast_ref::<Error>() {
        Some(Error::NotFound { .. }) => 3.into(),
        Some(Error::Unavailable { .. } | Error::Deadline { .. }) => 5.into(),
        Some(Error::Denied { .. }) => 6.into(),
        Some(Error::Invalid { .. }) => 2.into(),
        _ if error.downcast_ref::<crate::config::ConfigError>().is_some() => 2.into(),
        _ if error.downcast_ref::<LayerError>().is_some() => 2.into(),
        _ => 1.into(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use podstead_runtime::Error;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_flag_stands_in_its_documentation() {
        let page = include_str!("../../docs/cli.md");
        let mut missing = Vec::new();
        for command in Cli::command().get_subcommands() {
            if !page.contains(&format!("\n## {}\n", command.get_name())) {
                missing.push(command.get_name().to_owned());
            }
            let own = command.get_arguments().filter(|a| !a.is_hide_set());
            missing
                .extend(own.filter_map(|a| a.get_long()).filter(|l| !mentions(page, l)).map(str::to_owned));
        }
        let global = Cli::command();
        let flags = global.get_arguments().filter(|a| !a.is_hide_set()).filter_map(|a| a.get_long());
        missing.extend(flags.filter(|l| !mentions(page, l)).map(str::to_owned));
        assert!(missing.is_empty(), "not in docs/cli.md: {missing:?}");
    }

    fn mentions(page: &str, long: &str) -> bool {
        // These have a letter, which is how people know them.
        ["all", "output", "stdin", "tty", "timeout"].contains(&long) || page.contains(&format!("--{long}"))
    }

    #[test]
    fn exit_codes_tell_what_kind_of_failure_it_was() {
        let code = |error: anyhow::Error| format!("{:?}", exit_code(&error));
        let expect = |n: u8| format!("{:?}", std::process::ExitCode::from(n));
        assert_eq!(code(find::NotFound(String::new()).into()), expect(3));
        assert_eq!(code(find::Ambiguous(String::new()).into()), expect(3));
        assert_eq!(code(Error::not_found("x", "y").into()), expect(3));
        assert_eq!(code(Error::invalid("x", "y").into()), expect(2));
        let denied = Error::Denied { doing: String::new(), cause: String::new() };
        assert_eq!(code(denied.into()), expect(6));
        assert_eq!(code(Error::Deadline { doing: String::new(), seconds: 1 }.into()), expect(5));
        let away = Error::Unavailable { doing: String::new(), cause: String::new() };
        assert_eq!(code(anyhow::Error::from(away).context("while starting")), expect(5));
        assert_eq!(code(crate::config::ConfigError::NoManifestPath.into()), expect(2));
        assert_eq!(code(anyhow::anyhow!("anything else")), expect(1));
    }
}
