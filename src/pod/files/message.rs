//! Termination messages (`kubelet-static-pods.md 2.10`): a file for each instance to write into, and what it left there, or
//! in its log. Touches only these files, and reads the container's log.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use podstead_runtime::{Container, PodUid, labels};

use super::{FilesError, failed, make_dir};
use crate::pod::{NodeFacts, identity};

/// Longest message of one container, bytes.
const LONGEST: usize = 4096;
/// Longest of a pod's containers together, bytes.
const LONGEST_OF_POD: usize = 12 << 10;
/// How many earlier instances of a container keep their files.
const KEPT: u32 = 3;
/// As much of a log counts as a message: bytes, and lines.
const FROM_LOG: (usize, usize) = (2048, 80);

/// Where an instance's message is: `<pod>/containers/<container>/<attempt, 8 hex digits>`.
pub fn message_path(node: &NodeFacts, uid: &PodUid, container: &str, attempt: u32) -> PathBuf {
    identity::pod_dir(node, uid).join("containers").join(container).join(format!("{attempt:08x}"))
}

/// Makes the file that the container may write; whoever it runs as.
pub fn make_message(
    node: &NodeFacts,
    uid: &PodUid,
    container: &str,
    attempt: u32,
) -> Result<PathBuf, FilesError> {
    let path = message_path(node, uid, container, attempt);
    if let Some(dir) = path.parent() {
        make_dir(uid, dir, 0o750)?;
        forget(dir, attempt.saturating_sub(KEPT));
    }
    let made = OpenOptions::new().create(true).append(true).custom_flags(careful()).open(&path);
    made.map_err(failed(uid, "make the termination message", &path))?;
    fs::set_permissions(&path, Permissions::from_mode(0o666)).map_err(failed(uid, "open to all", &path))?;
    Ok(path)
}

/// Removes the files of attempts before `first`, which nobody asks about any more.
fn forget(dir: &Path, first: u32) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let attempt = name.to_str().filter(|n| n.len() == 8).and_then(|n| u32::from_str_radix(n, 16).ok());
        if attempt.is_some_and(|attempt| attempt < first) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// What an instance that ended with `code` left as its message; `of` containers share the pod's allowance.
pub fn read_message(node: &NodeFacts, container: &Container, code: i32, of: usize) -> String {
    let limit = LONGEST.min(LONGEST_OF_POD / of.max(1));
    let path = message_path(node, &container.pod_uid(), &container.name, container.attempt);
    let text = beginning(&path, limit);
    let policy = container.annotations.get(labels::TERMINATION_POLICY);
    let falls_back = policy.is_some_and(|policy| policy == "FallbackToLogsOnError");
    if text.is_empty() && falls_back && code != 0 {
        return end_of_log(&container.log_path, limit.min(FROM_LOG.0), FROM_LOG.1);
    }
    text
}

/// No link is followed, and nothing is waited for.
fn careful() -> i32 {
    use rustix::fs::OFlags;
    i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0)
}

/// Opens what is a regular file: the container may have put something else in its place.
fn open(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(careful()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::ErrorKind::InvalidInput.into()) }
}

fn beginning(path: &Path, limit: usize) -> String {
    let Ok(file) = open(path) else { return String::new() };
    let mut bytes = Vec::new();
    let _ = file.take(limit as u64).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last lines of a log without the CRI's prefixes.
fn end_of_log(path: &Path, bytes: usize, lines: usize) -> String {
    // Each line bears a time, a stream and a mark; parts of long lines do so, too.
    const WINDOW: u64 = 64 << 10;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
        let mut window = Vec::new();
        file.take(WINDOW).read_to_end(&mut window)?;
        Ok(window)
    };
    let Ok(window) = read() else { return String::new() };
    let text = String::from_utf8_lossy(&window);
    let mut message = String::new();
    let content = |line: &str| -> Option<(String, bool)> {
        let mut parts = line.splitn(4, ' ');
        let (_, _, mark, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        Some((text.to_owned(), mark == "P"))
    };
    for (text, goes_on) in text.lines().filter_map(content) {
        message.push_str(&text);
        if !goes_on {
            message.push('\n');
        }
    }
    let kept: Vec<&str> = message.lines().collect();
    let mut last = kept[kept.len().saturating_sub(lines)..].join("\n");
    let mut cut = last.len().saturating_sub(bytes);
    while !last.is_char_boundary(cut) {
        cut += 1;
    }
    last.drain(..cut);
    last
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::super::tests::place;
    use super::*;

    fn over(log: &Path, policy: &str) -> Container {
        Container {
            name: "c".into(),
            attempt: 10,
            labels: [(labels::POD_UID.to_owned(), "u1".to_owned())].into(),
            annotations: [(labels::TERMINATION_POLICY.to_owned(), policy.to_owned())].into(),
            log_path: log.to_owned(),
            ..Container::default()
        }
    }

    #[test]
    fn a_message_is_what_the_container_wrote_and_no_more_than_the_pod_may_say() {
        let (dir, node) = place();
        let path = make_message(&node, &"u1".into(), "c", 10).unwrap();
        assert!(path.ends_with("pods/u1/containers/c/0000000a"), "{path:?}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        fs::write(&path, "x".repeat(10_000)).unwrap();
        let container = over(&dir.path().join("none"), "File");
        assert_eq!(read_message(&node, &container, 1, 1).len(), 4096);
        assert_eq!(read_message(&node, &container, 1, 6).len(), 2048);
        make_message(&node, &"u1".into(), "c", 10).unwrap();
        assert_eq!(read_message(&node, &container, 1, 1).len(), 4096, "made twice, nothing is lost");
    }

    #[test]
    fn a_failed_container_without_a_message_has_the_end_of_its_log() {
        let (dir, node) = place();
        let log = dir.path().join("0.log");
        let mut text = String::new();
        for n in 0..100 {
            let _ = writeln!(text, "2026-11-28T00:00:00.0Z stdout F line {n}");
        }
        text += "2026-11-28T00:00:00.0Z stderr P long \n2026-11-28T00:00:00.0Z stderr F end\n";
        fs::write(&log, text).unwrap();
        let message = |policy: &str, code| read_message(&node, &over(&log, policy), code, 1);
        let told = message("FallbackToLogsOnError", 1);
        assert!(told.starts_with("line 21\n") && told.ends_with("line 99\nlong end"), "{told}");
        assert_eq!(message("FallbackToLogsOnError", 0), "");
        assert_eq!(message("File", 1), "");
    }

    #[test]
    fn files_of_instances_long_gone_go_and_a_pipe_in_place_of_one_is_not_waited_for() {
        let (dir, node) = place();
        for attempt in 0..6 {
            make_message(&node, &"u1".into(), "c", attempt).unwrap();
        }
        let there = |attempt| message_path(&node, &"u1".into(), "c", attempt).exists();
        assert_eq!([1, 2, 5].map(there), [false, true, true]);
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read_message(&node, &over(&pipe, "FallbackToLogsOnError"), 1, 1), "");
    }

    #[test]
    fn a_link_in_place_of_a_message_is_not_followed() {
        let (dir, node) = place();
        let path = message_path(&node, &"u1".into(), "c", 10);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(dir.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), &path).unwrap();
        assert!(make_message(&node, &"u1".into(), "c", 10).is_err());
        assert_eq!(read_message(&node, &over(&path, "File"), 1, 1), "");
    }
}
