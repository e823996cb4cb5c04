//! `podstead logs`: a container's log without the CRI's prefixes. Reads log files only.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use podstead_runtime::Runtime;

use super::find;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Container: id or its beginning; or pod name
    pub what: String,
    /// Container of the pod
    #[arg(short)]
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

/// Prints the log; with `-f` until the container is over.
pub async fn run<R: Runtime>(runtime: &R, args: &Args) -> anyhow::Result<()> {
    let container = find::observe(runtime, &args.what, args.container.as_deref(), args.previous).await?;
    let path = container.log_path.clone();
    let mut file = std::fs::File::open(&path).with_context(|| format!("open the log {}", path.display()))?;
    let mut printer = Printer::new(args.timestamps);
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let start = args.tail.map_or(0, |n| tail_start(&text, n));
    let mut read = printer.print(&text[start..]);
    let mut running = container.is_running();
    while args.follow && running && read {
        tokio::time::sleep(Duration::from_millis(250)).await;
        // Asked before the last read, so that nothing said before the end is missed.
        running = still_runs(runtime, &container.id).await;
        text.clear();
        file.read_to_end(&mut text)?;
        read = printer.print(&text);
        if rotated(&file, &path) {
            file = std::fs::File::open(&path)?;
            file.seek(SeekFrom::Start(0))?;
        }
    }
    Ok(())
}

async fn still_runs<R: Runtime>(runtime: &R, id: &podstead_runtime::ContainerId) -> bool {
    let seen = runtime.observe().await;
    seen.map_or(true, |s| s.containers.iter().any(|c| c.id == *id && c.is_running()))
}

fn rotated(file: &std::fs::File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => open.ino() != named.ino(),
        _ => false,
    }
}

/// Where the last `n` whole lines begin: parts of a long line (`P`) count with their end (`F`).
fn tail_start(text: &[u8], n: usize) -> usize {
    let mut starts = Vec::new();
    let (mut at, mut fresh) = (0, true);
    for line in text.split_inclusive(|b| *b == b'\n') {
        if fresh {
            starts.push(at);
        }
        fresh = line.splitn(4, |b| *b == b' ').nth(2) != Some(b"P");
        at += line.len();
    }
    if n == 0 { text.len() } else { starts.len().checked_sub(n).map_or(0, |i| starts[i]) }
}

/// Turns `<time> <stream> <P|F> <text>` into the text, on the stream it came from.
struct Printer {
    rest: Vec<u8>,
    timestamps: bool,
    within: bool,
}

impl Printer {
    fn new(timestamps: bool) -> Self {
        Self { rest: Vec::new(), timestamps, within: false }
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
            let stamp = if self.timestamps && !self.within { [time, b" "].concat() } else { Vec::new() };
            self.within = flag == b"P";
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

    #[test]
    fn the_tail_counts_whole_lines() {
        let log = b"t stdout F a\nt stdout P b\nt stdout F c\nt stdout F d\n";
        assert_eq!(&log[tail_start(log, 1)..], b"t stdout F d\n");
        assert_eq!(&log[tail_start(log, 2)..], b"t stdout P b\nt stdout F c\nt stdout F d\n");
        assert_eq!((tail_start(log, 9), tail_start(log, 0)), (0, log.len()));
    }
}
