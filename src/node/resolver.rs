//! The node's resolver settings. Reads the one file that `--resolv-conf` names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use podstead_runtime::DnsConfig;
use thiserror::Error;

use crate::pod::dns;

/// The settings cannot be read.
#[derive(Debug, Error)]
#[error("cannot read the node's resolver settings {path} (--resolv-conf): {source}")]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// The system's words.
    pub source: io::Error,
}

/// The settings as they are now. No file, also where none is given, is one that says nothing.
pub fn read(path: Option<&Path>) -> Result<DnsConfig, Unreadable> {
    let Some(path) = path else { return Ok(DnsConfig::default()) };
    match fs::read(path) {
        Ok(bytes) => Ok(dns::parse(&String::from_utf8_lossy(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(DnsConfig::default()),
        Err(source) => Err(Unreadable { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_says_nothing_and_an_unreadable_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        assert_eq!(read(None).unwrap(), DnsConfig::default());
        assert_eq!(read(Some(&path)).unwrap(), DnsConfig::default());
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(read(Some(&path)).unwrap().servers, ["192.0.2.1"]);
        assert!(read(Some(dir.path())).unwrap_err().to_string().contains("--resolv-conf"));
    }
}
