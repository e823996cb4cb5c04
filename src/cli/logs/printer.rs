//! What a log's lines look like to people. Prints.

use std::io::{self, Read, Write};

use jiff::Timestamp;

/// Turns `<time> <stream> <P|F> <text>` into the text, on the stream it came from.
pub(super) struct Printer {
    rest: Vec<u8>,
    timestamps: bool,
    /// Lines that began earlier are left out.
    since: Option<Timestamp>,
    /// What standard output, standard error are within.
    within: [Within; 2],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Nothing,
    /// A long line that is printed.
    Line,
    /// A long line that is left out.
    LeftOut,
}

impl Printer {
    pub(super) fn new(timestamps: bool, since: Option<Timestamp>) -> Self {
        Self { rest: Vec::new(), timestamps, since, within: [Within::Nothing; 2] }
    }

    /// Prints what the file still has, a block at a time; whether anybody still reads.
    pub(super) fn print_all(&mut self, file: &mut impl Read) -> io::Result<bool> {
        let mut block = vec![0; 64 * 1024];
        loop {
            match file.read(&mut block)? {
                0 => return Ok(true),
                n if !self.print(&block[..n]) => return Ok(false),
                _ => {}
            }
        }
    }

    /// Prints what has its end; whether anybody still reads.
    fn print(&mut self, text: &[u8]) -> bool {
        self.print_to(text, &mut io::stdout().lock(), &mut io::stderr().lock())
    }

    fn print_to(&mut self, text: &[u8], out: &mut impl Write, err: &mut impl Write) -> bool {
        self.rest.extend_from_slice(text);
        let whole = self.rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        for line in lines.split_inclusive(|b| *b == b'\n') {
            let parts: Vec<&[u8]> = line.splitn(4, |b| *b == b' ').collect();
            let [time, stream, flag, body] = parts[..] else { continue };
            let to: &mut dyn Write = if stream == b"stderr" { err } else { out };
            let body = if flag == b"P" { body.strip_suffix(b"\n").unwrap_or(body) } else { body };
            let within = &mut self.within[usize::from(stream == b"stderr")];
            let begins = *within == Within::Nothing;
            let left_out = if begins { is_before(time, self.since) } else { *within == Within::LeftOut };
            *within = match (flag == b"P", left_out) {
                (false, _) => Within::Nothing,
                (true, false) => Within::Line,
                (true, true) => Within::LeftOut,
            };
            if left_out {
                continue;
            }
            let stamp = if self.timestamps && begins { [time, b" "].concat() } else { Vec::new() };
            if to.write_all(&stamp).and_then(|()| to.write_all(body)).is_err() {
                return false;
            }
        }
        out.flush().is_ok()
    }
}

/// Whether a time is before another. One that cannot be read is not.
fn is_before(time: &[u8], since: Option<Timestamp>) -> bool {
    let time = || std::str::from_utf8(time).ok()?.parse::<Timestamp>().ok();
    since.is_some_and(|since| time().is_some_and(|time| time < since))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(log: &str, since: Option<&str>) -> String {
        let since = since.map(|time| time.parse().expect("a time"));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut printer = Printer::new(false, since);
        // However it is cut into pieces.
        for piece in log.as_bytes().chunks(7) {
            assert!(printer.print_to(piece, &mut out, &mut err));
        }
        format!("{}{}", String::from_utf8_lossy(&out), String::from_utf8_lossy(&err))
    }

    #[test]
    fn lines_that_began_earlier_are_left_out() {
        let log = "2026-01-01T00:00:01Z stdout F a\n2026-01-01T00:00:02Z stdout P b\n2026-01-01T00:00:02.5Z stderr F e\n\
                   2026-01-01T01:00:03+01:00 stdout F c\n2026-01-01T00:00:03Z stdout F d\nsoon stdout F f\n";
        assert_eq!(printed(log, None), "a\nbc\nd\nf\ne\n");
        assert_eq!(printed(log, Some("2026-01-01T00:00:02.5Z")), "d\nf\ne\n");
        assert_eq!(printed(log, Some("2026-01-01T00:00:03Z")), "d\nf\n");
        assert_eq!(printed(log, Some("2026-01-01T00:00:02Z")), "bc\nd\nf\ne\n");
    }
}
