//! Files and directories as an agent would take them, once and without an agent: for `podstead validate`. Reads them,
//! changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::claims;
use super::desired::{FileReport, FileState, texts};
use super::parse::{ManifestPod, judge};
use super::read::{self, ReadError};
use super::refusal::Refusal;
use super::trust::{Trust, Waivers};

/// What is to be said of one file.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What became of it.
    pub report: FileReport,
    /// Its text; empty where it could not be read.
    pub text: String,
    /// Why it is refused, with places.
    pub refusals: Vec<Refusal>,
    /// What is allowed and hardly meant.
    pub warnings: Vec<Refusal>,
}

/// Collects what was read, and judges it as a whole: two files may claim one pod.
#[derive(Debug)]
pub struct Examination {
    node: String,
    findings: Vec<Finding>,
    good: BTreeMap<PathBuf, Vec<Arc<ManifestPod>>>,
}

impl Examination {
    /// For a node of this name.
    pub fn new(node: &str) -> Self {
        Self { node: node.to_owned(), findings: Vec::new(), good: BTreeMap::new() }
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
        if self.findings.iter().any(|f| f.report.path == path) {
            return;
        }
        let judged = judge(bytes, path, &self.node);
        let (state, refusals) = match judged.verdict {
            Ok(pods) => {
                let names = pods.iter().map(ManifestPod::key).collect();
                self.good.insert(path.to_owned(), pods.into_iter().map(Arc::new).collect());
                (FileState::Accepted { pods: names }, Vec::new())
            }
            Err(refusals) => (FileState::Refused { errors: texts(&refusals) }, refusals),
        };
        let report = FileReport::bare(path.to_owned(), state);
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.findings.push(Finding { report, text, refusals, warnings: judged.warnings });
    }

    fn report(&mut self, path: &Path, state: FileState) {
        let report = FileReport::bare(path.to_owned(), state);
        let (refusals, warnings) = (Vec::new(), Vec::new());
        self.findings.push(Finding { report, text: String::new(), refusals, warnings });
    }

    /// What is to be said of each file, in the order they were read.
    pub fn findings(mut self) -> Vec<Finding> {
        let good = self.good.iter().map(|(path, pods)| (path.as_path(), &pods[..]));
        let mut duplicates = claims::settle(good, &HashMap::new()).duplicates;
        for report in self.findings.iter_mut().map(|f| &mut f.report) {
            if let Some(found) = duplicates.remove(&report.path) {
                report.state = FileState::Duplicate { claim: found.claim, with: found.with, kept: false };
            }
        }
        self.findings
    }

    /// The pods of all files that are taken, in the order of the files' names.
    pub fn pods(&self) -> Vec<Arc<ManifestPod>> {
        let good = self.good.iter().map(|(path, pods)| (path.as_path(), &pods[..]));
        claims::settle(good, &HashMap::new()).pods
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
        let lines: Vec<String> = all.findings().iter().map(|f| f.report.to_string()).collect();
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
        let findings = all.findings();
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].report.to_string(), format!("{}: ok: default/a-node", path.display()));
    }
}
