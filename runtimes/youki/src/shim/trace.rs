//! What libcontainer says while it makes a container: into a file, never into the container's streams. The chain of
//! causes of a failure inside the container reaches us only this way.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use super::executor::TARGET;

/// Longer messages are cut: they end up in statuses and logs.
const LONGEST: usize = 600;

/// Sends warnings and errors of this process and of the containers it clones into the file.
pub(crate) fn to_file(path: &Path) -> io::Result<()> {
    let file: File = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(Arc::new(file))
        .finish();
    tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)
}

/// The error with its causes, and what the log says about the program or, failing that, first.
pub(crate) fn explain(error: &dyn std::error::Error, log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    if let Some(told) = told(&text) {
        return told;
    }
    let mut chain = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !chain.last().is_some_and(|last| last.contains(&text)) {
            chain.push(text);
        }
        cause = error.source();
    }
    let mut whole = chain.join(": ");
    if let Some(first) = text.lines().find_map(|line| line.split_once(" ERROR ").map(|(_, rest)| rest)) {
        whole = format!("{whole} ({})", first.trim());
    }
    cut(&whole)
}

/// What our own executor said about the program.
fn told(text: &str) -> Option<String> {
    let marker = format!("{TARGET}: ");
    text.lines().find_map(|line| line.split_once(&marker)).map(|(_, message)| cut(message.trim()))
}

fn cut(text: &str) -> String {
    let end = text.char_indices().nth(LONGEST).map_or(text.len(), |(at, _)| at);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_about_the_program_comes_first() {
        let text = format!(
            "2026-01-01T00:00:00Z ERROR libcontainer::process: failed\n\
             2026-01-01T00:00:00Z ERROR init{{}}: {TARGET}: cannot execute \"x\": no such file\n"
        );
        assert_eq!(told(&text).as_deref(), Some("cannot execute \"x\": no such file"));
        assert_eq!(told("2026 ERROR other: failed"), None);
    }
}
