//! Turns at one sandbox's network, among all processes that use the same records: a lock on one byte of one file, let go
//! of by the kernel when its holder ends, however it ends. Plugins do not inherit it. Touches that file only.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::Path,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
};
use tokio::time::{Instant, sleep};

use super::{Error, Network, orphans};

/// The file in the records' directory.
const FILE: &str = "turns.lock";
/// Deadlines of a plugin's run that may pass before one's turn must have come.
const PATIENCE: u32 = 8;
/// A holder for whom no plugin has run for so long does not work: it was stopped, or its tasks are not run any more, as in
/// a program that is about to end. It is not waited for.
const IDLE: Duration = Duration::from_secs(2);

/// Held as long as the operation takes; without the lock where its holder does not work.
#[derive(Debug)]
pub(super) struct Turn(#[expect(dead_code)] File);

impl Network {
    /// Waits until nobody else is at this sandbox's network.
    pub(super) async fn turn(&self, sandbox: &str) -> Result<Turn, Error> {
        let file = self.blocking(|settings| open(&settings.record_dir)).await?;
        let (until, mut idle_since) = (Instant::now() + self.0.deadline * PATIENCE, Instant::now());
        let mut pause = Duration::from_millis(5);
        while !take(&file, sandbox).map_err(|source| self.turn_error(source))? {
            if Instant::now() > until {
                return Err(Error::Busy(sandbox.to_owned()));
            }
            let of = sandbox.to_owned();
            if self.blocking(move |settings| orphans::any(&settings.record_dir, &of)).await? {
                idle_since = Instant::now();
            } else if idle_since.elapsed() > IDLE {
                tracing::warn!(
                    sandbox,
                    "whoever changes the sandbox's network does not go on; it is not waited for"
                );
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
        Ok(Turn(file))
    }

    fn turn_error(&self, source: io::Error) -> Error {
        Error::File { doing: "locking", path: self.0.record_dir.join(FILE), source }
    }
}

fn open(dir: &Path) -> Result<File, Error> {
    let path = dir.join(FILE);
    let opened =
        DirBuilder::new().recursive(true).mode(0o700).create(dir).and_then(|()| {
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)
        });
    opened.map_err(|source| Error::File { doing: "opening", path, source })
}

/// Two sandboxes may share a byte; then they wait for each other, too.
fn take(file: &File, sandbox: &str) -> io::Result<bool> {
    // FNV-1a: the same in every version of this program.
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let byte = sandbox.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    let lock = libc::flock {
        l_type: libc::c_short::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: 0,
        l_start: i64::try_from(byte >> 2).unwrap_or_default(),
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(file.as_raw_fd(), FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
