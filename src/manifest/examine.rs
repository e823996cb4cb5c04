//! Files and directories as an agent would take them, once and without an agent: for `podstead validate`. Reads them,
//! changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::claims;
use super::desired::{FileReport, FileState, texts};
use super::parse::{ManifestPod, validate};
use super::read::{self, ReadError};
use super::trust::{Trust, Waivers};

/// Collects what was read, and judges it as a whole: two files may claim one pod.
#[derive(Debug)]
pub struct Examination {
    node: String,
    reports: Vec<FileReport>,
    good: BTreeMap<PathBuf, Vec<Arc<ManifestPod>>>,
}

impl Examination {
    /// For a node of this name.
    pub fn new(node: &str) -> Self {
        Self { node: node.to_owned(), reports: Vec::new(), good: BTreeMap::new() }
    }

    /// Reads a file, whatever its name, or all of a directory that an agent would read.
    pub fn read(&mut self, path: &Path) -> io::Result<()> {
        if !std::fs::metadata(path)?.is_dir() {
            return match read::file(path, &Trust::anywhere(Waivers::ALL)) {
                Ok(content) => {
                    self.bytes(path, &content.bytes);
                    Ok(())
                }
                Err(ReadError::Io(error)) => Err(error),
                Err(ReadError::Gone) => Err(io::ErrorKind::NotFound.into()),
                Err(error) => Err(io::Error::other(error.to_string())),
            };
        }
        // Who may write is the node's affair, and this is about the content.
        let trust = Trust::anywhere(Waivers::ALL);
        for file in read::list(path)? {
            if read::is_hidden(&file) {
                continue;
            }
            match (read::ignored(&file), read::file(&file, &trust)) {
                (Some(reason), _) => self.report(&file, FileState::Ignored { reason: reason.to_owned() }),
                (None, Ok(content)) => self.bytes(&file, &content.bytes),
                (None, Err(ReadError::Gone)) => {}
                (None, Err(ReadError::Disabled)) => self.report(&file, FileState::Disabled),
                (None, Err(error @ ReadError::NotRegular(read::DIRECTORY))) => {
                    self.report(&file, FileState::Ignored { reason: error.to_string() });
                }
                (None, Err(error)) => {
                    self.report(&file, FileState::Refused { errors: vec![error.at(&file)] });
                }
            }
        }
        Ok(())
    }

    /// Takes a manifest that was read elsewhere.
    pub fn bytes(&mut self, path: &Path, bytes: &[u8]) {
        if self.reports.iter().any(|r| r.path == path) {
            return;
        }
        match validate(bytes, path, &self.node) {
            Ok(pods) => {
                let names = pods.iter().map(ManifestPod::key).collect();
                self.good.insert(path.to_owned(), pods.into_iter().map(Arc::new).collect());
                self.report(path, FileState::Accepted { pods: names });
            }
            Err(refusals) => self.report(path, FileState::Refused { errors: texts(&refusals) }),
        }
    }

    fn report(&mut self, path: &Path, state: FileState) {
        self.reports.push(FileReport::bare(path.to_owned(), state));
    }

    /// What became of each file, in the order they were read.
    pub fn reports(mut self) -> Vec<FileReport> {
        let good = self.good.iter().map(|(path, pods)| (path.as_path(), &pods[..]));
        let mut duplicates = claims::settle(good, &HashMap::new()).duplicates;
        for report in &mut self.reports {
            if let Some(found) = duplicates.remove(&report.path) {
                report.state = FileState::Duplicate { claim: found.claim, with: found.with, kept: false };
            }
        }
        self.reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str =
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: i}]}}";

    #[test]
    fn a_directory_is_examined_as_an_agent_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        put("1-good.yaml", POD);
        put("2-twin.yaml", POD);
        put("3-broken.yaml", &POD.replace("image", "imagee"));
        put("4-copy.yaml~", POD);
        put(".hidden", "x: [");
        std::fs::create_dir(dir.path().join("5-sub")).unwrap();
        let mut all = Examination::new("node");
        all.read(dir.path()).unwrap();
        let lines: Vec<String> = all.reports().iter().map(ToString::to_string).collect();
        let text = lines.join("\n").replace(&format!("{}/", dir.path().display()), "");
        let twin = "the pod default/a-node is also claimed by";
        assert!(text.starts_with(&format!("1-good.yaml: {twin} 2-twin.yaml")), "{text}");
        assert!(text.contains(&format!("\n2-twin.yaml: {twin} 1-good.yaml")), "{text}");
        assert!(text.contains("\n3-broken.yaml:1:80: spec.containers[0].imagee: unknown field"), "{text}");
        assert!(text.contains("\n4-copy.yaml~: ignored: a backup copy"), "{text}");
        assert!(text.contains("\n5-sub: ignored: a directory is not a manifest"), "{text}");
        assert_eq!(text.lines().count(), 5, "{text}");
    }

    #[test]
    fn a_file_named_twice_is_no_duplicate_and_a_missing_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bak");
        std::fs::write(&path, POD).unwrap();
        let mut all = Examination::new("node");
        all.read(&path).unwrap();
        all.read(&path).unwrap();
        assert_eq!(all.read(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        let reports = all.reports();
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].to_string(), format!("{}: ok: default/a-node", path.display()));
    }
}
