//! Where a setting came from. Pure data.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// Where a setting came from, the strongest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Origin {
    /// The command line.
    Flag,
    /// A variable of the environment.
    Environment {
        /// Its name.
        variable: String,
    },
    /// A variable in a file of variables.
    EnvironmentFile {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// The variable.
        variable: String,
    },
    /// A file of `--config-dir`.
    DropIn {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
    },
    /// The file of `--config`.
    File {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
    },
    /// The node says so: its host name, its addresses.
    Found,
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::EnvironmentFile { file, line, variable } => {
                write!(f, "{}:{line} {variable}", file.display())
            }
            Self::DropIn { file, line } | Self::File { file, line } => {
                write!(f, "{}:{line}", file.display())
            }
            Self::Found => f.write_str("found"),
            Self::Default => f.write_str("default"),
        }
    }
}
