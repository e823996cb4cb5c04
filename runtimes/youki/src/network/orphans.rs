//! Plugins that outlived the process that ran them: killed before their sandbox's network is taken away, because what
//! they would still set up belongs to nobody. Reads `/proc`; ends processes that bear this client's mark.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::Error;
use crate::launch::Process;

/// In the environment of every plugin, and so of what it starts: tells whose it is, and of which sandbox.
pub(super) const MARK: &str = "PODSTEAD_CNI_RECORD";
/// Looks for them, 2 ms apart.
const LOOKS: u32 = 2500;

/// The mark's value: the record of the attachment, so that no other client's plugins are taken for ours.
pub(super) fn mark(record_dir: &Path, sandbox: &str) -> OsString {
    let dir = record_dir.canonicalize().unwrap_or_else(|_| PathBuf::from(record_dir));
    dir.join(format!("{sandbox}.json")).into_os_string()
}

/// Whether a plugin runs for the sandbox, whoever waits for it. Blocks.
pub(super) fn any(record_dir: &Path, sandbox: &str) -> Result<bool, Error> {
    let found = find(&marked(record_dir, sandbox));
    found.map(|all| !all.is_empty()).map_err(|source| failed(sandbox, source))
}

fn marked(record_dir: &Path, sandbox: &str) -> Vec<u8> {
    [MARK.as_bytes(), b"=", mark(record_dir, sandbox).as_bytes()].concat()
}

fn failed(sandbox: &str, source: io::Error) -> Error {
    Error::Orphans { sandbox: sandbox.to_owned(), source }
}

/// Kills them until none is left. Only in the sandbox's turn: then none has a client that waits for it. Blocks.
pub(super) fn end(record_dir: &Path, sandbox: &str) -> Result<(), Error> {
    let (marked, failed) = (marked(record_dir, sandbox), |source| failed(sandbox, source));
    for look in 0..LOOKS {
        // One that is dying may have started another just before.
        let found = find(&marked).map_err(failed)?;
        if found.is_empty() {
            return Ok(());
        }
        if look == 0 {
            tracing::warn!(sandbox, count = found.len(), "CNI plugins that nobody waits for are ended");
        }
        found.iter().try_for_each(|process| process.signal(libc::SIGKILL)).map_err(failed)?;
        std::thread::sleep(Duration::from_millis(2));
    }
    Err(failed(io::Error::new(io::ErrorKind::TimedOut, "they do not die")))
}

/// Those that run now, held.
fn find(mark: &[u8]) -> io::Result<Vec<Process>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if is_plugin(pid, mark) {
            // Looked at again while it is held: it is this one or none.
            all.extend(Process::open(pid)?.filter(|_| is_plugin(pid, mark)));
        }
    }
    Ok(all)
}

/// Whether the process bears the mark and is still part of a plugin's run. A daemon that a plugin began, perhaps for
/// other pods too, has made itself a session of its own; a plugin is in that of its client.
fn is_plugin(pid: i32, mark: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|b| *b == 0).any(|setting| setting == mark))
        && !is_daemon(pid)
}

/// Whether its process group is the first of its session.
fn is_daemon(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name: state, parent, group, session.
    let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().skip(2);
    let (group, session) = (fields.next(), fields.next());
    group.is_some() && group == session
}
