//! Makes the namespaces of a pod with a user namespace of its own: one process becomes their maker and ends, its parent
//! maps the ids and pins what was made. Also says which ids a container may use.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use podstead_runtime::security::{IdMapping, UserNamespace};
use serde::{Deserialize, Serialize};

use super::error::{Doing as _, Error, Result};
use super::files::read_json;
use super::serve::tell_outcome;
use crate::namespace::{self, Spec};

/// First argument of the process that the namespaces are made around.
pub(super) const INSIDE: &str = "sandbox-users-inside";

/// The file, in the directory that is given, of what is wanted: an [`Order`].
pub(crate) const ORDER: &str = "users.json";

/// What is to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Where it is pinned.
    pub pins: PathBuf,
    /// The namespaces besides.
    pub spec: Spec,
    /// The ids.
    pub users: UserNamespace,
}

/// Makes the namespaces that the directory's order asks for.
pub(super) fn main(dir: &Path) -> ExitCode {
    tell_outcome(make(dir))
}

fn make(dir: &Path) -> Result<()> {
    let file = dir.join(ORDER);
    let order: Order = read_json(&file)
        .doing(|| format!("read {}", file.display()))?
        .ok_or_else(|| Error::Asked(format!("{} is missing or damaged", file.display())))?;
    let mut inside = Command::new("/proc/self/exe");
    inside.arg0("podstead-namespaces").arg(INSIDE).arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut inside = inside.spawn().doing(|| "start the maker of the pod's namespaces".into())?;
    let mut answer = Vec::new();
    if let Some(stdout) = &mut inside.stdout {
        let mut byte = [0];
        // Whoever fails says why and then nothing.
        while !answer.ends_with(b"\n")
            && stdout.read(&mut byte).doing(|| "hear of the namespaces".into())? == 1
        {
            answer.push(byte[0]);
        }
    }
    let outcome = if answer == b"\n" {
        namespace::users::pin_of(&order.pins, &order.spec, &order.users, inside.id())
            .map_err(|error| Error::Asked(error.to_string()))
    } else {
        Err(Error::Asked(String::from_utf8_lossy(&answer).trim().to_owned()))
    };
    // It ends when nobody can tell it more.
    drop(inside.stdin.take());
    let _ = inside.wait();
    outcome
}

/// The namespaces are made around this process; it lives until they are pinned.
pub(super) fn inside(dir: &Path) -> ExitCode {
    let order: Option<Order> = read_json(&dir.join(ORDER)).ok().flatten();
    let made = order.map(|order| namespace::users::unshare_all(&order.spec));
    let mut stdout = std::io::stdout();
    let said = match made {
        Some(Ok(())) => writeln!(stdout),
        Some(Err(error)) => writeln!(stdout, "{error}"),
        None => writeln!(stdout, "{ORDER} is missing or damaged"),
    };
    if said.and_then(|()| stdout.flush()).is_err() {
        return ExitCode::FAILURE;
    }
    let _ = std::io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}

/// The id outside that an id inside stands for.
pub(crate) fn outside(ids: &[IdMapping], id: u32) -> Option<u32> {
    let of = ids.iter().find(|m| id.checked_sub(m.container_id).is_some_and(|past| past < m.length))?;
    of.host_id.checked_add(id - of.container_id)
}

/// As [`outside`], or why the container cannot run.
pub(super) fn mapped(ids: &[IdMapping], what: &str, id: u32) -> Result<u32> {
    outside(ids, id).ok_or_else(|| {
        let last = ids.iter().map(|m| m.container_id.saturating_add(m.length - 1)).max().unwrap_or_default();
        Error::Asked(format!("{what} {id} is not in the pod's user namespace, which ends at {last}"))
    })
}

/// Whether the node can make user namespaces and map owners of the layers of images (Linux 5.19).
pub(crate) fn supported(kernel: Option<(u32, u32)>) -> bool {
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces");
    let allowed = limit.ok().and_then(|text| text.trim().parse::<u64>().ok()).is_some_and(|limit| limit > 0);
    allowed && kernel.is_some_and(|version| version >= (5, 19))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_outside_are_counted_from_the_beginning_of_their_range() {
        let ids = [IdMapping { container_id: 0, host_id: 131_072, length: 65_536 }];
        assert_eq!(outside(&ids, 0), Some(131_072));
        assert_eq!(outside(&ids, 65_535), Some(196_607));
        assert_eq!(outside(&ids, 65_536), None);
        let error = mapped(&ids, "user", 70_000).expect_err("outside").to_string();
        assert_eq!(error, "user 70000 is not in the pod's user namespace, which ends at 65535");
    }
}
