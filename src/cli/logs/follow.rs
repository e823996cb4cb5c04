//! A log that is read while it is written and rotated. Reads files only.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::node::log_rotation::{COMPRESSED, rotated};

/// The file that is read, and those that came after it.
#[derive(Debug)]
pub(super) struct Followed {
    path: PathBuf,
    file: File,
    next: VecDeque<File>,
}

impl Followed {
    /// Begins with this file, opened by this path.
    pub(super) fn new(path: &Path, file: File) -> Self {
        Self { path: path.to_owned(), file, next: VecDeque::new() }
    }

    /// Looks for newer files, then gives what is new to `print`, which says whether it wants more. A file that has been
    /// renamed is given up at the look after the one that saw it: its last lines may be written while the next one is
    /// there already. `last`: there will be no other look.
    pub(super) fn look(
        &mut self,
        last: bool,
        mut print: impl FnMut(&mut File) -> io::Result<bool>,
    ) -> io::Result<bool> {
        let known = !self.next.is_empty();
        let newest = self.next.back().unwrap_or(&self.file);
        let newer = newer(newest, &self.path)?;
        self.next.extend(newer);
        if !print(&mut self.file)? {
            return Ok(false);
        }
        let known = if known || last { self.next.len() } else { 0 };
        for next in self.next.drain(..known) {
            self.file = next;
            if !print(&mut self.file)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The files that came after one, as far as they can be read: rotated ones, then the present one.
fn newer(file: &File, path: &Path) -> io::Result<Vec<File>> {
    let own = file.metadata()?.ino();
    // While it is rotated there is none for a moment.
    let Ok(present) = File::open(path) else { return Ok(Vec::new()) };
    if present.metadata()?.ino() == own {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let all = rotated(path).unwrap_or_default();
    for old in all.values().filter(|old| !old.as_os_str().as_encoded_bytes().ends_with(COMPRESSED.as_bytes()))
    {
        let Ok(opened) = File::open(old) else { continue };
        if opened.metadata()?.ino() == own {
            found.clear();
        } else {
            found.push(opened);
        }
    }
    found.push(present);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;

    use super::*;

    fn look(followed: &mut Followed, last: bool) -> String {
        let mut text = String::new();
        followed.look(last, |file| file.read_to_string(&mut text).map(|_| true)).unwrap();
        text
    }

    fn append(path: &Path, text: &str) {
        use std::io::Write as _;
        let file = fs::OpenOptions::new().append(true).create(true).open(path);
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn nothing_is_lost_when_a_log_is_rotated_and_written_for_a_moment_more() {
        let dir = tempfile::tempdir().unwrap();
        let (log, first) = (dir.path().join("0.log"), dir.path().join("0.log.1"));
        append(&log, "a");
        let mut followed = Followed::new(&log, File::open(&log).unwrap());
        assert_eq!(look(&mut followed, false), "a");
        fs::rename(&log, &first).unwrap();
        append(&first, "b");
        assert_eq!(look(&mut followed, false), "b", "there is no other yet");
        append(&log, "d");
        assert_eq!(look(&mut followed, false), "");
        append(&first, "c");
        assert_eq!(look(&mut followed, false), "cd");
        append(&log, "e");
        assert_eq!(look(&mut followed, false), "e");
    }

    #[test]
    fn several_rotations_between_two_looks_are_read_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        append(&at("0.log.0"), "old");
        append(&at("0.log"), "a");
        let mut followed = Followed::new(&at("0.log"), File::open(at("0.log")).unwrap());
        for (name, text) in [("0.log.1", "b"), ("0.log.2", "c"), ("0.log.3", "d")] {
            fs::rename(at("0.log"), at(name)).unwrap();
            append(&at("0.log"), text);
        }
        append(&at("0.log.0.gz"), "no text");
        assert_eq!(look(&mut followed, true), "abcd");
        let mut cut = Followed::new(&at("0.log"), File::open(at("0.log.2")).unwrap());
        let given_up = cut.look(true, |_| Ok(false)).unwrap();
        assert!(!given_up, "who does not want more gets no more");
    }
}
