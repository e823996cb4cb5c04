//! `podstead logs`: a container's log without the CRI's prefixes, with what of it was rotated. Reads log files only.

mod follow;
mod history;
mod printer;
mod tail;

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use podstead_runtime::Runtime;

use super::find;
use follow::Followed;
use history::Old;
use printer::Printer;
use tail::Start;

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
    /// Only this many lines from the end; -1: all that are kept
    #[arg(long, value_name = "N", default_value_t = -1, allow_hyphen_values = true, hide_default_value = true)]
    pub tail: i64,
    /// Only lines younger than this
    #[arg(long, value_name = "DURATION", value_parser = crate::config::duration)]
    pub since: Option<Duration>,
    /// Only lines from this time on, as 2026-11-24T15:35:40Z
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    pub since_time: Option<Timestamp>,
    /// Print times
    #[arg(short, long)]
    pub timestamps: bool,
}

/// Prints the log; with `-f` until the container is over. The next instance has a log of its own.
pub async fn run<R: Runtime>(runtime: &R, args: &Args) -> anyhow::Result<()> {
    let since = since(args, Timestamp::now())?;
    let container = find::observe(runtime, &args.what, args.container.as_deref(), args.previous).await?;
    let path = container.log_path.clone();
    let mut running = container.is_running();
    let mut file = open(&path, running).await?;
    let reading = || format!("read {}", path.display());
    let mut olds = history::before(&file, &path).with_context(reading)?;
    let mut start = Start { file: 0, offset: 0 };
    // Any other number means all, as with kubectl.
    if let Ok(lines) = usize::try_from(args.tail) {
        start = tail::find(&mut file, &mut olds, lines).with_context(reading)?;
    }
    let mut printer = Printer::new(args.timestamps, since);
    let more = print_olds(&mut olds, start, since, &mut printer).with_context(reading)?;
    let offset = if start.file == olds.len() { start.offset } else { 0 };
    file.seek(SeekFrom::Start(offset))?;
    let mut followed = Followed::new(&path, file);
    let mut read = more && followed.look(false, |file| printer.print_all(file))?;
    while args.follow && running && read {
        tokio::time::sleep(Duration::from_millis(250)).await;
        // Asked before the last read, so that nothing said before the end is missed.
        running = still_runs(runtime, &container.id).await;
        read = followed.look(!running, |file| printer.print_all(file))?;
    }
    Ok(())
}

/// The time from which on lines are wanted.
fn since(args: &Args, now: Timestamp) -> anyhow::Result<Option<Timestamp>> {
    match args.since {
        Some(age) => Ok(Some(now.checked_sub(age).context("--since")?)),
        None => Ok(args.since_time),
    }
}

/// Prints what was rotated, from there on; whether anybody still reads. A file that is damaged is printed as far as it
/// can be read.
fn print_olds(
    olds: &mut [Old],
    start: Start,
    since: Option<Timestamp>,
    printer: &mut Printer,
) -> io::Result<bool> {
    for (index, old) in olds.iter_mut().enumerate().skip(start.file) {
        let too_old = |since: Timestamp| {
            Ok::<_, io::Error>(Timestamp::try_from(old.modified()?).is_ok_and(|at| at < since))
        };
        if since.map(too_old).transpose()?.unwrap_or(false) {
            continue;
        }
        let mut text = old.read()?;
        if index == start.file {
            io::copy(&mut text.by_ref().take(start.offset), &mut io::sink())?;
        }
        match printer.print_all(&mut text) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => tracing::warn!("a rotated file of the log cannot be read to its end: {error}"),
        }
    }
    Ok(true)
}

/// Opens the log. While it is rotated there is none for a moment.
async fn open(path: &Path, running: bool) -> anyhow::Result<File> {
    let mut tries = if running { 20 } else { 0 };
    loop {
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries > 0 => tries -= 1,
            opened => return opened.with_context(|| format!("open the log {}", path.display())),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn still_runs<R: Runtime>(runtime: &R, id: &podstead_runtime::ContainerId) -> bool {
    let seen = runtime.observe().await;
    seen.map_or(true, |s| s.containers.iter().any(|c| c.id == *id && c.is_running()))
}
