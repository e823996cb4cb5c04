//! The container's log in the CRI's format: `<RFC 3339> <stream> <P|F> <text>` per line, long lines in parts. Writes to
//! one file, opened anew on request.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use podstead_runtime::Time;

/// Longer lines are cut, each part but the last marked `P` (as CRI servers do).
pub(crate) const PART: usize = 16 << 10;

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Cuts one stream into lines.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: Stream,
    pending: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Takes what was read; whole lines and full parts are appended to `out` as entries read at `now`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], now: Time, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = PART - self.pending.len();
            let end = bytes.iter().take(room).position(|b| *b == b'\n');
            match end {
                Some(end) => {
                    self.entry("F", &bytes[..end], now, out);
                    bytes = &bytes[end + 1..];
                }
                // Exactly full: the line may end here, so the newline decides between P and F.
                None if bytes.len() > room => {
                    let part = &bytes[..room];
                    let whole = bytes[room] == b'\n';
                    self.entry(if whole { "F" } else { "P" }, part, now, out);
                    bytes = &bytes[room + usize::from(whole)..];
                }
                None => {
                    self.pending.extend_from_slice(bytes);
                    return;
                }
            }
        }
    }

    /// The stream is over: what has no newline yet is a last line.
    pub(crate) fn finish(&mut self, now: Time, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.entry("F", &[], now, out);
        }
    }

    fn entry(&mut self, tag: &str, rest: &[u8], now: Time, out: &mut Vec<u8>) {
        // Writing to memory does not fail.
        let _ = write!(out, "{now} {} {tag} ", self.stream.name());
        out.append(&mut self.pending);
        out.extend_from_slice(rest);
        out.push(b'\n');
    }
}

/// The open log file.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    /// The last write failed.
    failing: bool,
    /// It did so within an entry.
    cut: bool,
}

impl LogFile {
    /// Opens or makes the file (0640, as CRI servers do: log shippers read it by group).
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: append(path)?, failing: false, cut: false })
    }

    /// Goes on in a new file at the same path.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file = append(&self.path)?;
        (self.failing, self.cut) = (false, false);
        Ok(())
    }

    /// Appends entries. A full disk loses them, which is told once; the container goes on.
    pub(crate) fn append(&mut self, entries: &[u8]) {
        // A cut entry ends here; else readers would take it and the next for one.
        let ended = if self.cut { self.file.write_all(b"\n") } else { Ok(()) };
        let outcome = ended.and_then(|()| {
            self.cut = false;
            self.write(entries)
        });
        if let Err(error) = &outcome
            && !self.failing
        {
            tracing::error!(log = %self.path.display(), %error, "log entries are lost");
        }
        self.failing = outcome.is_err();
    }

    fn write(&mut self, entries: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while written < entries.len() {
            match self.file.write(&entries[written..]) {
                Ok(count) if count > 0 => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => {
                    self.cut = written > 0 && entries[written - 1] != b'\n';
                    return outcome.and(Err(io::ErrorKind::WriteZero.into()));
                }
            }
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    // Whoever can write the directory may have put anything there: a pipe without reader would hold us up.
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let file = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Time = Time(1_500_000_000);

    fn fed(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::new(Stream::Stdout);
        let mut out = Vec::new();
        for chunk in chunks {
            lines.feed(chunk, AT, &mut out);
        }
        lines.finish(AT, &mut out);
        String::from_utf8_lossy(&out)
            .lines()
            .map(|l| l.splitn(3, ' ').nth(2).unwrap_or_default().to_owned())
            .collect()
    }

    #[test]
    fn an_entry_has_time_stream_and_tag() {
        let mut out = Vec::new();
        Lines::new(Stream::Stderr).feed(b"hello\n", AT, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "1970-01-01T00:00:01.500000000Z stderr F hello\n");
    }

    #[test]
    fn only_regular_files_are_logs() {
        let dir = tempfile::tempdir().expect("a directory");
        let (pipe, link) = (dir.path().join("pipe"), dir.path().join("link"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        std::os::unix::fs::symlink("/etc/passwd", &link).expect("a link");
        assert!(LogFile::open(&pipe).is_err() && LogFile::open(&link).is_err());
        assert!(LogFile::open(&dir.path().join("log")).is_ok());
    }

    #[test]
    fn an_entry_that_was_cut_ends_before_the_next() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let mut log = LogFile::open(&path).expect("open");
        log.append(b"one\n");
        let whole = std::mem::replace(&mut log.file, File::open("/dev/null").expect("unwritable"));
        log.append(b"lost\n");
        log.file = whole;
        log.append(b"two\nthr");
        // As a disk does that is full in the middle of an entry.
        log.cut = true;
        log.append(b"four\n");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "one\ntwo\nthr\nfour\n");
    }

    #[test]
    fn a_line_may_arrive_in_pieces() {
        assert_eq!(fed(&[b"he", b"llo\nwor", b"ld\n"]), ["F hello", "F world"]);
    }

    #[test]
    fn a_last_line_without_newline_is_kept() {
        assert_eq!(fed(&[b"a\nb"]), ["F a", "F b"]);
        assert_eq!(fed(&[b"\n\n"]), ["F ", "F "]);
    }

    #[test]
    fn long_lines_are_parts_and_only_the_last_is_full() {
        let long = vec![b'x'; PART + 10];
        let entries = fed(&[&long, b"\nafter\n"]);
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[0].len(), 2 + PART);
        assert!(entries[0].starts_with("P xxx"));
        assert_eq!(entries[1], "F xxxxxxxxxx");
        assert_eq!(entries[2], "F after");
    }

    #[test]
    fn a_line_of_exactly_one_part_is_one_entry() {
        let mut exact = vec![b'x'; PART];
        exact.push(b'\n');
        let entries = fed(&[&exact]);
        assert_eq!(entries.len(), 1);
        assert!(entries[0].starts_with("F x"));
        let entries = fed(&[&exact[..PART], b"\n"]);
        assert_eq!(entries.len(), 1, "the newline may arrive later");
    }
}
