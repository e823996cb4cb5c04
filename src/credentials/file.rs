//! One file of credentials. Reads it, and tells what is wrong with it without telling what is in it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use podstead_runtime::Auth;
use serde_json::{Map, Value};
use thiserror::Error;

use super::Format;

/// No file of credentials comes near this many bytes.
const MAX: u64 = 4 << 20;

/// Padding is optional: both are in use.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a file says.
#[derive(Debug)]
pub(super) enum Read {
    /// Registries and who one is there.
    Entries(Vec<(String, Auth)>),
    /// There is no file.
    Absent,
    /// It is a file of another kind.
    NoAuths,
}

/// A file cannot be used.
#[derive(Debug, Error)]
pub(super) enum FileError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// It is not what it should be. A parser's own words could quote a password.
    #[error("{path} is no JSON object (line {line}, column {column})")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// Where.
        column: usize,
    },
}

/// Reads a file. Entries that make no sense are left out, with a warning.
pub(super) fn read(path: &Path, format: Format) -> Result<Read, FileError> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX).read_to_end(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Absent),
        Err(source) => return Err(FileError::Io { path: path.to_owned(), source }),
    }
    let mut all: Map<String, Value> = serde_json::from_slice(&text).map_err(|error| FileError::Json {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
    })?;
    if format == Format::Json {
        match all.remove("auths") {
            Some(Value::Object(auths)) => all = auths,
            _ => return Ok(Read::NoAuths),
        }
    }
    let mut entries = Vec::new();
    for (registry, entry) in all {
        match auth(&entry) {
            Ok(Some(auth)) => entries.push((registry, auth)),
            Ok(None) => {}
            Err(why) => tracing::warn!(file = %path.display(), registry, "credentials left out: {why}"),
        }
    }
    Ok(Read::Entries(entries))
}

/// `auth`, base64 of `user:password`, else `username` and `password`; nothing for an entry that has neither, as those
/// of a helper program.
fn auth(entry: &Value) -> Result<Option<Auth>, &'static str> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    let both = text("auth").trim();
    if both.is_empty() {
        let (username, password) = (text("username").to_owned(), text("password").to_owned());
        return Ok((!username.is_empty()).then_some(Auth::Basic { username, password }));
    }
    let decoded = BASE64.decode(both).map_err(|_| "\"auth\" is not base64")?;
    let decoded = String::from_utf8(decoded).map_err(|_| "\"auth\" is not base64 of text")?;
    let (username, password) = decoded.split_once(':').ok_or("\"auth\" is not base64 of user:password")?;
    Ok(Some(Auth::Basic { username: username.to_owned(), password: password.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str, format: Format) -> Result<Read, FileError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path(), format)
    }

    fn entries(text: &str, format: Format) -> Vec<String> {
        let Read::Entries(all) = read_text(text, format).unwrap() else { panic!("entries") };
        let told = |(registry, auth): (String, Auth)| match auth {
            Auth::Basic { username, password } => format!("{registry} {username}:{password}"),
            other => panic!("{other:?}"),
        };
        all.into_iter().map(told).collect()
    }

    #[test]
    fn credentials_are_written_in_several_ways() {
        // "web:secret" and "u:p:q", with and without padding.
        let text = r#"{"auths": {
            "a": {"auth": "d2ViOnNlY3JldA=="}, "b": {"auth": "d2ViOnNlY3JldA"}, "c": {"auth": " dTpwOnE= "},
            "d": {"username": "u", "password": "p", "email": "x"}, "e": {}, "f": {"username": "", "password": "x"},
            "g": {"username": "u", "password": "p", "auth": "d2ViOnNlY3JldA=="}
        }, "credsStore": "desktop"}"#;
        let want = ["a web:secret", "b web:secret", "c u:p:q", "d u:p", "g web:secret"];
        assert_eq!(entries(text, Format::Json), want);
        assert_eq!(entries(r#"{"a": {"auth": "d2ViOnNlY3JldA=="}}"#, Format::Dockercfg), ["a web:secret"]);
    }

    #[test]
    fn an_entry_that_makes_no_sense_takes_no_other_with_it() {
        let text = r#"{"auths": {"a": {"auth": "!"}, "b": {"auth": "d2Vi"}, "c": 7, "d": {"auth": "d2ViOnNlY3JldA"}}}"#;
        assert_eq!(entries(text, Format::Json), ["d web:secret"]);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_without_its_secrets() {
        for text in [r#"{"auths": {"a": {"auth": "hunter2"}"#, r#""hunter2""#, "hunter2"] {
            let error = read_text(text, Format::Json).unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(told.contains("line 1") && !told.contains("hunter2"), "{told}");
        }
        assert!(matches!(read_text("{}", Format::Json).unwrap(), Read::NoAuths));
        assert!(matches!(read(Path::new("/nonexistent/x"), Format::Json).unwrap(), Read::Absent));
        assert!(matches!(read(Path::new("/"), Format::Json), Err(FileError::Io { .. })));
    }
}
