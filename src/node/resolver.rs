//! The node's resolver settings. Reads the file that `--resolv-conf` names, and systemd-resolved's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use podstead_runtime::DnsConfig;
use podstead_runtime::resolver::{BEHIND_THE_STUB, is_out_of_reach};
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

/// The settings as they are now. No file, also where none is given, is one that says nothing. A resolver on the node's
/// loopback is out of reach of a pod with a network of its own: that gets the servers behind it.
pub fn read(path: Option<&Path>, own_network: bool) -> Result<DnsConfig, Unreadable> {
    let Some(path) = path else { return Ok(DnsConfig::default()) };
    let node = parse(path)?;
    if !own_network || !is_out_of_reach(&node.servers) {
        return Ok(node);
    }
    let behind = parse(Path::new(BEHIND_THE_STUB)).ok();
    let behind = behind.filter(|behind| !behind.servers.is_empty() && !is_out_of_reach(&behind.servers));
    Ok(behind.unwrap_or(node))
}

fn parse(path: &Path) -> Result<DnsConfig, Unreadable> {
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
        assert_eq!(read(None, true).unwrap(), DnsConfig::default());
        assert_eq!(read(Some(&path), true).unwrap(), DnsConfig::default());
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(read(Some(&path), true).unwrap().servers, ["192.0.2.1"]);
        fs::write(&path, "nameserver 127.0.0.53\n").unwrap();
        assert!(is_out_of_reach(&read(Some(&path), false).unwrap().servers), "the node itself reaches it");
        assert!(read(Some(dir.path()), true).unwrap_err().to_string().contains("--resolv-conf"));
    }
}
