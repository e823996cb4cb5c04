//! Flags that are known, and words of a kubelet's command line in their light. Pure.

use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, Command};

use super::foreign::{self, Foreign};
use super::origin::Origin;
use super::words;
use crate::manifest::nearest;

/// Our flags, by their names.
pub struct Known<'c> {
    args: Vec<&'c Arg>,
}

/// One flag in a line of words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its name without dashes.
    pub name: String,
    /// Its value; `true` for a switch without one.
    pub value: String,
}

/// A kubelet's flag that does nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// The flag with its dashes, or the field's path.
    pub name: String,
    /// Why nothing.
    pub why: &'static str,
    /// Who said it.
    pub origin: Origin,
}

/// Words that are no flags of ours or the kubelet's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWord {
    /// Not closed.
    #[error("{0}")]
    Quotes(&'static str),
    /// No flag.
    #[error("word {at}{} is no flag; flags begin with --, and a value with blanks stands in quotes", after.as_ref().map(|flag| format!(", after --{flag},")).unwrap_or_default())]
    NoFlag {
        /// Its place in the line, from 1. The word itself may be the end of a secret.
        at: usize,
        /// The flag before it.
        after: Option<String>,
    },
    /// A flag that nobody knows.
    #[error("unknown flag --{name}{}", near.as_ref().map(|near| format!(", did you mean --{near}?")).unwrap_or_default())]
    Unknown {
        /// Its name.
        name: String,
        /// The one that was probably meant.
        near: Option<String>,
    },
    /// A flag at the end that wants a value.
    #[error("--{0} needs a value")]
    NoValue(String),
}

/// What a flag is to us.
enum Meaning<'c> {
    Ours(&'c Arg),
    Foreign(&'static Foreign),
}

impl<'c> Known<'c> {
    /// The flags of the program and of its subcommand `run`.
    pub fn of(command: &'c Command) -> Self {
        let run = command.find_subcommand("run").into_iter().flat_map(Command::get_arguments);
        let args = command.get_arguments().chain(run).filter(|arg| arg.get_long().is_some());
        Self { args: args.collect() }
    }

    /// All of them.
    pub fn args(&self) -> impl Iterator<Item = &'c Arg> {
        self.args.iter().copied()
    }

    /// The flag of this name.
    pub fn arg(&self, name: &str) -> Option<&'c Arg> {
        self.args().find(|arg| arg.get_long() == Some(name))
    }

    fn meaning(&self, name: &str) -> Option<Meaning<'c>> {
        let ours = self.arg(name).map(Meaning::Ours);
        ours.or_else(|| foreign::find(name).map(Meaning::Foreign))
    }

    fn unknown(&self, name: &str) -> BadWord {
        let ours = self.args().filter_map(Arg::get_long);
        let near = nearest(name, ours.chain(foreign::TABLE.iter().map(|flag| flag.name)));
        BadWord::Unknown { name: name.to_owned(), near }
    }

    /// Reads a line of flags as it would stand behind `kubelet`.
    pub fn line(&self, line: &str, origin: &Origin) -> Result<(Vec<Word>, Vec<Idle>), BadWord> {
        let (mut flags, mut idle) = (Vec::new(), Vec::new());
        let mut words = words::split(line).map_err(BadWord::Quotes)?.into_iter();
        let (mut at, mut after) = (0, None::<String>);
        while let Some(word) = words.next() {
            at += 1;
            let Some((name, value)) = part(&word) else { return Err(BadWord::NoFlag { at, after }) };
            after = Some(name.clone());
            let Some(meaning) = self.meaning(&name) else { return Err(self.unknown(&name)) };
            let value = match value {
                Some(value) => value,
                None if meaning.wants_value() => {
                    at += 1;
                    words.next().ok_or_else(|| BadWord::NoValue(name.clone()))?
                }
                None => "true".to_owned(),
            };
            match meaning {
                Meaning::Ours(_) => flags.push(Word { name, value }),
                Meaning::Foreign(flag) => {
                    idle.push(Idle { name: format!("--{name}"), why: flag.why, origin: origin.clone() });
                }
            }
        }
        Ok((flags, idle))
    }

    /// Takes the kubelet's flags that do nothing here out of a command line, and writes `_` in names as `-`. What else is
    /// wrong in it is clap's to say.
    pub fn clean(&self, words: &[OsString]) -> (Vec<OsString>, Vec<Idle>) {
        let (mut kept, mut idle) = (Vec::new(), Vec::new());
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            if word == "--" {
                kept.push(word.clone());
                break;
            }
            let parted = word.to_str().filter(|word| word.starts_with("--")).and_then(part);
            match parted.and_then(|(name, value)| Some((self.meaning(&name)?, name, value))) {
                Some((Meaning::Foreign(flag), name, value)) => {
                    if value.is_none() && flag.value {
                        rest.next();
                    }
                    idle.push(Idle { name: format!("--{name}"), why: flag.why, origin: Origin::Flag });
                }
                Some((Meaning::Ours(_), name, Some(value))) => kept.push(format!("--{name}={value}").into()),
                Some((Meaning::Ours(_), name, None)) => kept.push(format!("--{name}").into()),
                None => kept.push(word.clone()),
            }
        }
        kept.extend(rest.cloned());
        (kept, idle)
    }

    /// Where the subcommand stands in a command line, the program's name being the first word.
    pub fn subcommand(&self, argv: &[OsString]) -> Option<usize> {
        let mut words = argv.iter().enumerate().skip(1);
        while let Some((at, word)) = words.next() {
            match OsStr::to_str(word).and_then(part) {
                None => return Some(at),
                Some((name, None)) if self.meaning(&name).is_some_and(|flag| flag.wants_value()) => {
                    words.next();
                }
                Some(_) => {}
            }
        }
        None
    }
}

impl Meaning<'_> {
    /// Whether the value is the next word where it does not stand behind `=`.
    fn wants_value(&self) -> bool {
        match self {
            Self::Ours(arg) => takes_value(arg) && !arg.is_require_equals_set(),
            Self::Foreign(flag) => flag.value,
        }
    }
}

/// Whether a flag of ours has a value at all.
pub fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// Whether a flag of ours collects its values.
pub fn collects(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// A flag's name, as we spell it, and its value if it stands behind `=`; `None` for what is no flag.
fn part(word: &str) -> Option<(String, Option<String>)> {
    let body = match word.strip_prefix("--") {
        Some(body) if !body.is_empty() => body,
        Some(_) => return None,
        // The one letter that the kubelet has.
        None => {
            let rest = word.strip_prefix("-v")?;
            let value = rest.strip_prefix('=').unwrap_or(rest);
            return Some(("v".to_owned(), (!value.is_empty()).then(|| value.to_owned())));
        }
    };
    let (name, value) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (body, None),
    };
    Some((name.replace('_', "-"), value))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    const HERE: Origin = Origin::Flag;

    fn line(line: &str) -> Result<(Vec<Word>, Vec<Idle>), String> {
        let command = Cli::command();
        Known::of(&command).line(line, &HERE).map_err(|bad| bad.to_string())
    }

    #[test]
    fn the_words_of_a_kubelets_line_are_its_flags() {
        let text = "--cluster-dns=10.254.0.10 --cluster_domain kube.local --kubeconfig /etc/k --register-node --seccomp-default \
                    --serialize-image-pulls=false -v=2 --logtostderr=true --pod-manifest-path='/etc/my pods'";
        let (flags, idle) = line(text).unwrap();
        let flags: Vec<(&str, &str)> = flags.iter().map(|w| (w.name.as_str(), w.value.as_str())).collect();
        let idle: Vec<&str> = idle.iter().map(|idle| idle.name.as_str()).collect();
        assert_eq!(
            flags,
            [
                ("cluster-dns", "10.254.0.10"),
                ("cluster-domain", "kube.local"),
                ("seccomp-default", "true"),
                ("serialize-image-pulls", "false"),
                ("v", "2"),
                ("pod-manifest-path", "/etc/my pods"),
            ]
        );
        assert_eq!(idle, ["--kubeconfig", "--register-node", "--logtostderr"]);
    }

    #[test]
    fn mistakes_are_named_with_what_was_meant() {
        for (text, why) in [
            ("--cluster-dsn=1", "unknown flag --cluster-dsn, did you mean --cluster-dns?"),
            ("--kubeconfg x", "unknown flag --kubeconfg, did you mean --kubeconfig?"),
            ("--nonsense", "unknown flag --nonsense"),
            ("--cluster-dns", "--cluster-dns needs a value"),
            ("--kubeconfig", "--kubeconfig needs a value"),
            ("--register-node true", "word 2, after --register-node, is no flag"),
            ("-x", "word 1 is no flag"),
            ("--a='", "not closed"),
        ] {
            let bad = line(text).unwrap_err();
            assert!(bad.contains(why), "{text}: {bad}");
        }
    }

    #[test]
    fn a_command_line_is_rid_of_what_does_nothing() {
        let command = Cli::command();
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let (kept, idle) = Known::of(&command).clean(&words(
            "--kubeconfig /k --cluster-dns 10.0.0.1 --register-node=false --file_check_frequency=1s --cert-dir=x --typo y -- --kubeconfig",
        ));
        assert_eq!(kept, words("--cluster-dns 10.0.0.1 --file-check-frequency=1s --typo y -- --kubeconfig"));
        let idle: Vec<&str> = idle.iter().map(|idle| idle.name.as_str()).collect();
        assert_eq!(idle, ["--kubeconfig", "--register-node", "--cert-dir"]);
    }

    #[test]
    fn the_subcommand_is_the_first_word_that_belongs_to_no_flag() {
        let command = Cli::command();
        let known = Known::of(&command);
        let at = |text: &str| {
            let words: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            known.subcommand(&words).map(|at| words[at].clone())
        };
        assert_eq!(at("podstead run --x"), Some("run".into()));
        assert_eq!(at("podstead --runtime direct -v 3 --root-dir=/x ps -a"), Some("ps".into()));
        assert_eq!(at("podstead --help"), None);
    }
}
