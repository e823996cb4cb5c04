//! Where the last lines of a log begin, also when they reach back into files that were rotated. Reads files only.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read, Seek, SeekFrom};

use super::history::Old;

/// How much is read at first to find the last lines.
const BLOCK: u64 = 16 * 1024;

/// Where in a log something begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// Which file: those that were rotated, the oldest first, then the present one.
    pub file: usize,
    /// Bytes of it, as they were before it was compressed.
    pub offset: u64,
}

/// Where the last `n` whole lines begin. The present file alone is looked at when it has more than that.
pub(super) fn find(present: &mut (impl Read + Seek), olds: &mut [Old], n: usize) -> io::Result<Start> {
    let file = olds.len();
    let offset = tail_start(present, n)?;
    if offset > 0 || n == 0 || olds.is_empty() {
        return Ok(Start { file, offset });
    }
    // All files from their beginning: what a line began as stands in the file before.
    let mut lines = Lines::default();
    let mut last = VecDeque::new();
    let mut note = |start| {
        last.push_back(start);
        if last.len() > n {
            last.pop_front();
        }
    };
    for (file, old) in olds.iter_mut().enumerate() {
        let Ok(text) = old.read() else { continue };
        // One that is damaged counts as far as it can be read, as it is printed.
        let _ = lines.starts(text, |offset| note(Start { file, offset }));
    }
    present.seek(SeekFrom::Start(0))?;
    lines.starts(present, |offset| note(Start { file, offset }))?;
    Ok(last.front().copied().unwrap_or(Start { file, offset: 0 }))
}

/// Goes through files one after the other.
#[derive(Default)]
struct Lines {
    /// Whether standard output, standard error are within a long line.
    within: [bool; 2],
}

impl Lines {
    fn starts(&mut self, text: impl Read, mut note: impl FnMut(u64)) -> io::Result<()> {
        let mut text = BufReader::with_capacity(64 << 10, text);
        let (mut line, mut at) = (Vec::new(), 0);
        while text.read_until(b'\n', &mut line)? > 0 {
            let within = &mut self.within[usize::from(is_stderr(&line))];
            if !*within {
                note(at);
            }
            *within = is_part(&line);
            at += line.len() as u64;
            line.clear();
        }
        Ok(())
    }
}

fn word(line: &[u8], n: usize) -> &[u8] {
    line.splitn(4, |b| *b == b' ').nth(n).unwrap_or_default()
}

fn is_stderr(line: &[u8]) -> bool {
    word(line, 1) == b"stderr"
}

/// Whether the line goes on in another.
fn is_part(line: &[u8]) -> bool {
    word(line, 2) == b"P"
}

/// Where the last `n` whole lines begin: parts of a long line (`P`) count with their end (`F`). Reads from the end
/// backwards, since logs are long.
fn tail_start(file: &mut (impl Read + Seek), n: usize) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    // What is known of the log's end, and where it begins in the file.
    let (mut text, mut from) = (Vec::new(), end);
    loop {
        let starts = line_starts(&text, from == 0);
        if n == 0 {
            return Ok(end);
        }
        if let Some(first) = starts.len().checked_sub(n) {
            return Ok(from + starts[first] as u64);
        }
        if from == 0 {
            return Ok(0);
        }
        // Doubled each time: the text is looked through again from its beginning.
        let step = from.min((text.len() as u64).max(BLOCK));
        from -= step;
        file.seek(SeekFrom::Start(from))?;
        let mut longer = Vec::new();
        file.by_ref().take(step).read_to_end(&mut longer)?;
        longer.append(&mut text);
        text = longer;
    }
}

/// Where whole lines begin in a piece of a log. Standard output and error are told apart: one may speak within a long
/// line of the other. Unless the piece is the log's beginning, a stream's first lines may belong to one that began
/// earlier, so only what follows an end (`F`) of that stream counts.
fn line_starts(text: &[u8], beginning: bool) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut fresh = [beginning; 2];
    // The piece's first line is cut off anywhere.
    let (mut at, mut whole) = (0, beginning);
    for line in text.split_inclusive(|b| *b == b'\n') {
        if whole {
            let fresh = &mut fresh[usize::from(is_stderr(line))];
            if *fresh {
                starts.push(at);
            }
            *fresh = !is_part(line);
        }
        whole = true;
        at += line.len();
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(log: &[u8], n: usize) -> &[u8] {
        let start = tail_start(&mut io::Cursor::new(log), n).expect("in memory");
        &log[usize::try_from(start).expect("small")..]
    }

    #[test]
    fn the_tail_counts_whole_lines() {
        let log = b"t stdout F a\nt stdout P b\nt stdout F c\nt stdout F d\n";
        assert_eq!(tail(log, 1), b"t stdout F d\n");
        assert_eq!(tail(log, 2), b"t stdout P b\nt stdout F c\nt stdout F d\n");
        assert_eq!((tail(log, 9), tail(log, 0)), (&log[..], &b""[..]));
        assert_eq!(tail(b"", 3), b"");
        // What the other stream says within a long line ends it not.
        let log = b"t stdout F a\nt stdout P b\nt stderr F x\nt stdout F c\nt stdout F d\n";
        assert_eq!(tail(log, 1), b"t stdout F d\n");
        assert_eq!(tail(log, 3), &log[13..]);
    }

    #[test]
    fn the_tail_of_a_long_log_is_found_from_its_end() {
        let mut log = Vec::new();
        for n in 0..9_000 {
            let flag = if n % 3 == 2 { "F" } else { "P" };
            log.extend_from_slice(format!("2026-11-24T15:35:40.296009567Z stdout {flag} {n}\n").as_bytes());
        }
        for n in [1, 7, 100, 1_000, 2_999] {
            let text = String::from_utf8_lossy(tail(&log, n)).into_owned();
            assert_eq!(text.lines().count(), 3 * n, "{n}");
            assert!(text.lines().next().is_some_and(|l| l.ends_with(&format!(" {}", 9_000 - 3 * n))), "{n}");
        }
        assert_eq!((tail(&log, 3_000), tail(&log, 5_000)), (&log[..], &log[..]));
    }

    #[test]
    fn the_tail_reaches_back_into_files_that_were_rotated() {
        let dir = tempfile::tempdir().expect("a directory");
        let old = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("write");
            Old::open(&path).expect("open").expect("there")
        };
        let found = |present: &str, n| {
            let mut olds =
                [old("a", "t stdout F 0\nt stdout F 1\n"), old("b", "t stderr F 2\nt stdout P 3\n")];
            let start = find(&mut io::Cursor::new(present.as_bytes()), &mut olds, n).expect("readable");
            (start.file, start.offset)
        };
        // The first line is the end of one that began in the file before.
        let present = "t stdout F 3\nt stdout F 4\n";
        let all: Vec<_> = (0..7).map(|n| found(present, n)).collect();
        assert_eq!(all, [(2, 26), (2, 13), (1, 13), (1, 0), (0, 13), (0, 0), (0, 0)]);
        assert_eq!(found("", 1), (1, 13));
    }
}
