//! Removing containers.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use podstead_runtime::{ContainerId, Error, Result};

use super::errors::{blocking, of};
use super::pods::gone;
use super::{Inner, trees};
use crate::launch::claim;
use crate::shim::protocol::kept;

impl Inner {
    /// Removes the container; one that runs is killed first. Its log stays.
    pub(super) async fn remove_container(this: &Arc<Self>, id: &ContainerId) -> Result<()> {
        let doing = of("remove", id);
        if this.our_container(&doing, id)?.is_none() {
            return Ok(());
        }
        let (inner, said, wanted) = (Arc::clone(this), doing.clone(), id.0.clone());
        let work = async move { inner.unmake_container(&said, &wanted).await };
        this.flights.run(&format!("container {id}"), &doing, work).await
    }

    /// Takes away all there is of a container, made or half-made.
    pub(super) async fn unmake_container(self: &Arc<Self>, doing: &str, id: &str) -> Result<()> {
        loop {
            self.kill(&ContainerId(id.to_owned()), Duration::ZERO).await?;
            let (inner, id) = (Arc::clone(self), id.to_owned());
            // A shim may have come up just now: then it is killed as well.
            if blocking(doing, move || inner.erase(&id)).await? {
                return Ok(());
            }
        }
    }

    /// A container that never ran has not used its attempt up: the log that its shim opened is no sign of one.
    fn forget_empty_log(&self, id: &str) -> io::Result<()> {
        let Some((record, whole)) = self.any_container(id)? else { return Ok(()) };
        // One whose removal was cut short looks half-made again, but has an end.
        let has_ended = self.layout.container(id).join(kept::EXIT).exists();
        let never_ran = (!whole && !has_ended) || self.state(&record)?.0.start_was_broken_off();
        let is_empty = |meta: fs::Metadata| meta.is_file() && meta.len() == 0;
        if never_ran && fs::symlink_metadata(&record.log_path).is_ok_and(is_empty) {
            gone(fs::remove_file(&record.log_path))?;
        }
        Ok(())
    }

    fn erase(&self, id: &str) -> io::Result<bool> {
        let (dir, run_dir) = (self.layout.container(id), self.layout.run(id));
        let Some(claimed) = claim(&run_dir)? else { return Ok(false) };
        self.forget_empty_log(id)?;
        // First, so that nobody believes in it any more; the name of the half-made is what the next remover looks for.
        gone(fs::rename(dir.join(kept::RECORD), dir.join(kept::MAKING)))?;
        gone(fs::remove_dir_all(&run_dir))?;
        drop(claimed);
        for name in ["upper", "work", "rootfs"] {
            trees::remove(&dir.join(name))?;
        }
        gone(fs::remove_file(self.layout.hints().join(id)))?;
        // Before the record of its end: without that one, it would look as if it never ran.
        gone(fs::remove_file(dir.join(kept::MAKING)))?;
        gone(fs::remove_dir_all(&dir))?;
        Ok(true)
    }
}

/// The contract's word for a container that is not there.
pub(super) fn missing(doing: &str, id: &ContainerId) -> Error {
    Error::not_found(doing, format!("container {id}"))
}
