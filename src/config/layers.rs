//! The command line, the environment and the files to one command line, and who said what of it. Reads the files.
//!
//! Flags are stronger than the kubelet's variables (`KUBELET_ARGS` and its companions), these than other variables, these
//! than drop-ins, these than the file (`kubelet-static-pods.md 6`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use thiserror::Error;

use super::document::{Document, Given};
use super::fields::{self, Effect, Kind};
use super::known::{BadWord, Idle, Known, Word, collects, takes_value};
use super::origin::Origin;
use super::words;
use crate::manifest::{MAX_BYTES, Refusal};

/// The variables that hold flags in the units of Fedora and kubeadm, the later ones stronger.
pub const VARIABLES: &[&str] = &[
    "KUBE_LOGTOSTDERR",
    "KUBE_LOG_LEVEL",
    "KUBELET_API_SERVER",
    "KUBELET_ADDRESS",
    "KUBELET_PORT",
    "KUBELET_HOSTNAME",
    "KUBE_ALLOW_PRIV",
    "KUBELET_KUBECONFIG_ARGS",
    "KUBELET_CONFIG_ARGS",
    "KUBELET_KUBEADM_ARGS",
    "KUBELET_ARGS",
    "KUBELET_EXTRA_ARGS",
];

/// What is read besides the command line.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The process's variables.
    pub variables: BTreeMap<String, String>,
}

impl Environment {
    /// Of this process; what is no text is left out.
    pub fn of_process() -> Self {
        let text =
            |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self { variables: std::env::vars_os().filter_map(text).collect() }
    }
}

/// The settings cannot be read.
#[derive(Debug, Error)]
pub enum LayerError {
    /// The command line is wrong, or asks for help.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unread {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A configuration file is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Refusal>),
    /// A file of variables is wrong.
    #[error("{path}:{line}: {why}")]
    Assignment {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A variable holds no flags.
    #[error("{origin}: {why}")]
    Words {
        /// Where.
        origin: Origin,
        /// What is wrong.
        why: BadWord,
    },
    /// A value is none for its flag.
    #[error("{origin}: {what}: {why}")]
    Value {
        /// Where.
        origin: Origin,
        /// The field, or the flag.
        what: String,
        /// What is wrong.
        why: String,
    },
}

/// What one flag is given by a layer below the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    values: Vec<String>,
    origin: Origin,
}

type Settings = BTreeMap<String, Setting>;

/// Everything that was said, as one command line.
#[derive(Debug)]
pub struct Layers {
    /// The values.
    pub matches: ArgMatches,
    /// Who said them, by flag; a flag that is not in it has its default.
    pub origins: BTreeMap<String, Origin>,
    /// What was said and does nothing.
    pub idle: Vec<Idle>,
}

impl Layers {
    /// Reads all of it. The first word of `argv` is the program's name.
    pub fn read(command: &Command, argv: &[OsString], environment: &Environment) -> Result<Self, LayerError> {
        let known = Known::of(command);
        let at = known.subcommand(argv);
        let whole = at.is_some_and(|at| argv[at] == "run" || argv[at] == "config");
        let (argv, mut idle) = if whole { known.clean(argv) } else { (argv.to_vec(), Vec::new()) };
        let plain = command.clone().try_get_matches_from(&argv)?;
        let mut origins = said(&known, &plain);
        let (kubelet, more) = variables(&known, &plain, environment)?;
        idle.extend(more);
        let path = |flag: &str| first(&plain, &origins, &kubelet, flag).map(PathBuf::from);
        let (files, more) = files(path("config").as_deref(), path("config-dir").as_deref())?;
        idle.extend(more);
        let mut injected = Settings::new();
        for (name, setting) in kubelet.into_iter().chain(files) {
            let ours = known.arg(&name).is_some_and(|arg| whole || arg.is_global_set());
            if !ours || injected.contains_key(&name) {
                continue;
            }
            // Other variables give way to those of the kubelet, which stand for its command line.
            let stronger = match origins.get(&name) {
                Some(Origin::Flag) => true,
                Some(_) => !is_variable(&setting.origin),
                None => false,
            };
            if !stronger {
                injected.insert(name, setting);
            }
        }
        let matches = if injected.is_empty() {
            plain
        } else {
            let all = with(&known, &argv, &injected);
            let matches = command.clone().try_get_matches_from(all);
            matches.map_err(|error| blame(command, &known, &injected).unwrap_or(error.into()))?
        };
        origins.extend(injected.into_iter().map(|(name, setting)| (name, setting.origin)));
        Ok(Self { matches, origins, idle })
    }
}

fn is_variable(origin: &Origin) -> bool {
    matches!(origin, Origin::Environment { .. } | Origin::EnvironmentFile { .. })
}

/// The matches of the subcommand, in which the flags of every command are as well.
pub fn innermost(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| inner)
}

/// What the command line and the variables of single flags say.
fn said(known: &Known<'_>, matches: &ArgMatches) -> BTreeMap<String, Origin> {
    let matches = innermost(matches);
    let mut origins = BTreeMap::new();
    for arg in known.args() {
        let id = arg.get_id().as_str();
        let origin = match matches.try_contains_id(id).ok().and_then(|_| matches.value_source(id)) {
            Some(ValueSource::CommandLine) => Origin::Flag,
            Some(ValueSource::EnvVariable) => {
                let variable = arg.get_env().unwrap_or_default().to_string_lossy().into_owned();
                Origin::Environment { variable }
            }
            _ => continue,
        };
        origins.insert(arg.get_long().unwrap_or_default().to_owned(), origin);
    }
    origins
}

/// The strongest value of one of the flags that say which files there are.
fn first(
    matches: &ArgMatches,
    origins: &BTreeMap<String, Origin>,
    kubelet: &Settings,
    flag: &str,
) -> Option<String> {
    let plain = || innermost(matches).get_raw(&flag.replace('-', "_"))?.next()?.to_str().map(str::to_owned);
    let given = kubelet.get(flag).and_then(|setting| setting.values.last().cloned());
    let value = if origins.get(flag) == Some(&Origin::Flag) { plain() } else { given.or_else(plain) };
    value.filter(|path| !path.is_empty())
}

/// The kubelet's variables, of the environment and of `--env-file`.
fn variables(
    known: &Known<'_>,
    matches: &ArgMatches,
    environment: &Environment,
) -> Result<(Settings, Vec<Idle>), LayerError> {
    let mut lines: BTreeMap<String, (String, Origin)> = BTreeMap::new();
    for (variable, value) in &environment.variables {
        let origin = Origin::Environment { variable: variable.clone() };
        lines.insert(variable.clone(), (value.clone(), origin));
    }
    let files = innermost(matches).get_raw("env_file").into_iter().flatten();
    for path in files.map(Path::new) {
        let text = text(path)?;
        let bad = |bad: words::BadLine| LayerError::Assignment {
            path: path.to_owned(),
            line: bad.line,
            why: bad.why,
        };
        for given in words::environment(&text).map_err(bad)? {
            let (file, variable) = (path.to_owned(), given.name.clone());
            let origin = Origin::EnvironmentFile { file, line: given.line, variable };
            lines.insert(given.name, (given.value, origin));
        }
    }
    let (mut settings, mut idle) = (Settings::new(), Vec::new());
    for (line, origin) in VARIABLES.iter().filter_map(|name| lines.get(*name)) {
        let words = known.line(line, origin);
        let (flags, more) = words.map_err(|why| LayerError::Words { origin: origin.clone(), why })?;
        idle.extend(more);
        for Word { name, value } in flags {
            let list = known.arg(&name).is_some_and(collects);
            let setting = settings.entry(name).or_insert(Setting { values: vec![], origin: origin.clone() });
            // As on one command line: lists grow, of all else the last one counts.
            if !list {
                setting.values.clear();
            }
            setting.values.push(value);
            setting.origin = origin.clone();
        }
    }
    Ok((settings, idle))
}

/// The configuration file with its drop-ins laid over it.
fn files(file: Option<&Path>, dir: Option<&Path>) -> Result<(Settings, Vec<Idle>), LayerError> {
    let mut document = Document::default();
    if let Some(file) = file {
        let origin = |line| Origin::File { file: file.to_owned(), line };
        document = read(file, origin)?;
    }
    let mut drop_ins = Vec::new();
    if let Some(dir) = dir {
        walk(dir, &mut drop_ins)?;
    }
    for file in drop_ins {
        let origin = |line| Origin::DropIn { file: file.clone(), line };
        document.patch(read(&file, origin)?);
    }
    let (mut settings, mut idle) = (Settings::new(), Vec::new());
    for (path, (given, origin)) in document.fields {
        // Invariant: the reader keeps fields of the table only.
        let Some(field) = fields::field(path) else { continue };
        match field.effect {
            Effect::Flag(flag) | Effect::NonZero(flag) => {
                let values = given.words(field.kind);
                settings.insert(flag.to_owned(), Setting { values, origin });
            }
            Effect::NoEffect(_) | Effect::Awaits(_) => {
                let why = field.idle().unwrap_or_default();
                let names = match (field.kind, given) {
                    (Kind::Gates, Given::Keyed(gates)) => {
                        gates.into_keys().map(|gate| format!("{path}.{gate}")).collect()
                    }
                    _ => vec![path.to_owned()],
                };
                idle.extend(names.into_iter().map(|name| Idle { name, why, origin: origin.clone() }));
            }
        }
    }
    Ok((settings, idle))
}

fn read(file: &Path, origin: impl Fn(usize) -> Origin) -> Result<Document, LayerError> {
    let whole =
        std::path::absolute(file).map_err(|source| LayerError::Unread { path: file.into(), source })?;
    let dir = whole.parent().unwrap_or(Path::new("/"));
    Document::read(&text(file)?, file, dir, origin).map_err(LayerError::Refused)
}

fn text(path: &Path) -> Result<String, LayerError> {
    let unread = |source| LayerError::Unread { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unread)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unread)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > MAX_BYTES) {
        let what = format!("it is larger than {} MiB", MAX_BYTES >> 20);
        return Err(unread(io::Error::new(io::ErrorKind::FileTooLarge, what)));
    }
    Ok(text)
}

/// The files `*.conf` of a directory and of those in it, in the order of their names; as the kubelet walks them.
fn walk(dir: &Path, found: &mut Vec<PathBuf>) -> Result<(), LayerError> {
    let unread = |source| LayerError::Unread { path: dir.to_owned(), source };
    let entries = std::fs::read_dir(dir).map_err(unread)?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>().map_err(unread)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type().map_err(unread)?.is_dir() {
            walk(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "conf") {
            found.push(path);
        }
    }
    Ok(())
}

/// The words of one setting.
fn spelled(known: &Known<'_>, name: &str, setting: &Setting) -> Vec<String> {
    match known.arg(name) {
        Some(arg) if takes_value(arg) => {
            setting.values.iter().map(|value| format!("--{name}={value}")).collect()
        }
        // A switch that is off is as good as unsaid.
        _ => setting.values.iter().filter(|value| *value != "false").map(|_| format!("--{name}")).collect(),
    }
}

/// The command line with more flags, behind the subcommand.
fn with(known: &Known<'_>, argv: &[OsString], injected: &Settings) -> Vec<OsString> {
    let mut all = argv.to_vec();
    let Some(at) = known.subcommand(&all) else { return all };
    let words = injected
        .iter()
        .flat_map(|(name, setting)| spelled(known, name, setting).into_iter().map(OsString::from));
    let rest = all.split_off(at + 1);
    all.extend(words);
    all.extend(rest);
    all
}

/// Which of the settings is none.
fn blame(command: &Command, known: &Known<'_>, injected: &Settings) -> Option<LayerError> {
    for (name, setting) in injected {
        let words = ["podstead".to_owned(), "run".to_owned()].into_iter();
        let words = words.chain(spelled(known, name, setting));
        let Err(error) = command.clone().try_get_matches_from(words) else { continue };
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        let why = first.strip_prefix("error: ").unwrap_or(first).to_owned();
        let what = match (&setting.origin, fields::of_flag(name)) {
            (Origin::File { .. } | Origin::DropIn { .. }, Some(field)) => field.path.to_owned(),
            _ => format!("--{name}"),
        };
        return Some(LayerError::Value { origin: setting.origin.clone(), what, why });
    }
    None
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
