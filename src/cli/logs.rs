//! `podstead logs`: a container's log without the CRI's prefixes. Reads log files only.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use podstead_runtime::Runtime;

use super::find;
use super::follow::Followed;

/// How much is read at first to find the last lines.
const BLOCK: u64 = 16 * 1024;

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  podstead logs web-node1              the log of the pod's only container\n  podstead logs -f --tail 20 -c web web-node1\n  podstead logs -p 4818809b7846e       the instance before this one"
)]
pub struct Args {
    /// Container: id or its beginning; or pod name
    pub what: String,
    /// Container of the pod
    #[arg(short, long)]
    pub container: Option<String>,
    /// Go on as the log grows
    #[arg(short, long)]
    pub follow: bool,
    /// The instance before the present one
    #[arg(short, long)]
    pub previous: bool,
    /// Only this many lines from the end
    #[arg(long)]
    pub tail: Option<usize>,
    /// Print times
    #[arg(short, long)]
    pub timestamps: bool,
}

/// Prints the log; with `-f` until the container is over. The next instance has a log of its own.
pub async fn run<R: Runtime>(runtime: &R, args: &Args) -> anyhow::Result<()> {
    let container = find::observe(runtime, &args.what, args.container.as_deref(), args.previous).await?;
    let path = container.log_path.clone();
    let mut running = container.is_running();
    let mut file = open(&path, running).await?;
    if let Some(lines) = args.tail {
        let start = tail_start(&mut file, lines).with_context(|| format!("read {}", path.display()))?;
        file.seek(SeekFrom::Start(start))?;
    }
    let mut printer = Printer::new(args.timestamps);
    let mut followed = Followed::new(&path, file);
    let mut read = followed.look(false, |file| printer.print_all(file))?;
    while args.follow && running && read {
        tokio::time::sleep(Duration::from_millis(250)).await;
        // Asked before the last read, so that nothing said before the end is missed.
        running = still_runs(runtime, &container.id).await;
        read = followed.look(!running, |file| printer.print_all(file))?;
    }
    Ok(())
}

/// Opens the log. While it is rotated there is none for a moment.
async fn open(path: &Path, running: bool) -> anyhow::Result<File> {
    let mut tries = if running { 20 } else { 0 };
    loop {
        match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && tries > 0 => tries -= 1,
            opened => return opened.with_context(|| format!("open the log {}", path.display())),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn still_runs<R: Runtime>(runtime: &R, id: &podstead_runtime::ContainerId) -> bool {
    let seen = runtime.observe().await;
    seen.map_or(true, |s| s.containers.iter().any(|c| c.id == *id && c.is_running()))
}

/// Where the last `n` whole lines begin: parts of a long line (`P`) count with their end (`F`). Reads from the end
/// backwards, since logs are long.
fn tail_start(file: &mut (impl Read + Seek), n: usize) -> std::io::Result<u64> {
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
            let mut words = line.splitn(4, |b| *b == b' ').skip(1);
            let fresh = &mut fresh[usize::from(words.next() == Some(b"stderr"))];
            if *fresh {
                starts.push(at);
            }
            *fresh = words.next() != Some(b"P");
        }
        whole = true;
        at += line.len();
    }
    starts
}

/// Turns `<time> <stream> <P|F> <text>` into the text, on the stream it came from.
struct Printer {
    rest: Vec<u8>,
    timestamps: bool,
    /// Whether standard output, standard error are within a long line.
    within: [bool; 2],
}

impl Printer {
    fn new(timestamps: bool) -> Self {
        Self { rest: Vec::new(), timestamps, within: [false; 2] }
    }

    /// Prints what the file still has, a block at a time; whether anybody still reads.
    fn print_all(&mut self, file: &mut File) -> std::io::Result<bool> {
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
        self.rest.extend_from_slice(text);
        let whole = self.rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
        for line in lines.split_inclusive(|b| *b == b'\n') {
            let parts: Vec<&[u8]> = line.splitn(4, |b| *b == b' ').collect();
            let [time, stream, flag, body] = parts[..] else { continue };
            let to: &mut dyn Write = if stream == b"stderr" { &mut err } else { &mut out };
            let body = if flag == b"P" { body.strip_suffix(b"\n").unwrap_or(body) } else { body };
            let within = &mut self.within[usize::from(stream == b"stderr")];
            let stamp = if self.timestamps && !*within { [time, b" "].concat() } else { Vec::new() };
            *within = flag == b"P";
            if to.write_all(&stamp).and_then(|()| to.write_all(body)).is_err() {
                return false;
            }
        }
        out.flush().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(log: &[u8], n: usize) -> &[u8] {
        let start = tail_start(&mut std::io::Cursor::new(log), n).expect("in memory");
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
}
