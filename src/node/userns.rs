//! Ranges of ids on the node for pods with a user namespace of their own (`kubelet-static-pods.md 4.4`). Touches the file
//! `userns` in pods' directories, and asks getsubids(1) which ids there are. Blocking.
//!
//! There is no list of its own: a range is taken as long as the directory of its pod is there, so it is kept over
//! restarts, and free when everything of the pod is gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use podstead_runtime::PodUid;
use podstead_runtime::security::{IdMapping, UserNamespace};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::pod::{NodeFacts, files, identity};

/// Ids of a pod unless the node says otherwise.
pub const IDS: u32 = 65_536;

/// The record's name, as the kubelet has it.
const RECORD: &str = "userns";

/// Whose subordinate ids pods are given, as the kubelet has it.
const USER: &str = "kubelet";

static ALLOCATING: Mutex<()> = Mutex::new(());

/// A pod cannot be given ids.
#[derive(Debug, Error)]
pub enum UsersError {
    /// A record says nothing that can be believed: nobody is given ids until it does, since they might be taken.
    #[error(
        "{}: it does not say which ids its pod has ({cause}); end that pod, then remove the file", path.display()
    )]
    Damaged {
        /// The record.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A record cannot be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// The record.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The ids of the user `kubelet` are not such as pods need.
    #[error("{0}")]
    Pool(String),
    /// All are taken.
    #[error(
        "cannot find an empty slot to allocate a user namespace: all ids from {first} to {last} are taken, {each} by each pod"
    )]
    Full {
        /// The first id of all.
        first: u32,
        /// The last.
        last: u32,
        /// Ids of a pod.
        each: u32,
    },
}

/// The record, in the kubelet's form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Record {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

/// Ids in a row: the first, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    length: u32,
}

impl Range {
    /// The first id after it. The last of all, 4294967295, is nobody's.
    fn end(self) -> Option<u32> {
        self.first.checked_add(self.length)
    }

    fn meets(self, other: Self) -> bool {
        let before = |a: Self, b: Self| a.end().is_some_and(|end| end <= b.first);
        !before(self, other) && !before(other, self)
    }
}

/// The pod's user namespace: what its record says, else the first ids that no pod has, which are then recorded. The pod's
/// directory must be there.
pub fn of_pod(node: &NodeFacts, uid: &PodUid) -> Result<UserNamespace, UsersError> {
    let each = node.security.ids_per_pod.max(IDS);
    allocate(node, uid, each, || pool(each))
}

fn allocate(
    node: &NodeFacts,
    uid: &PodUid,
    each: u32,
    pool: impl FnOnce() -> Result<Range, UsersError>,
) -> Result<UserNamespace, UsersError> {
    let _turn = ALLOCATING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = identity::pod_dir(node, uid).join(RECORD);
    if let Some(own) = read(&path)? {
        return Ok(namespace(own));
    }
    let taken = taken(node)?;
    let pool = pool()?;
    let last = pool.end().unwrap_or(u32::MAX) - 1;
    let slots = (0..pool.length / each).map(|n| Range { first: pool.first + n * each, length: each });
    // One that would hold the last id of all is none.
    let mut free = slots.filter(|slot| slot.end().is_some() && !taken.iter().any(|other| slot.meets(*other)));
    let own = free.next().ok_or(UsersError::Full { first: pool.first, last, each })?;
    let mapping = Mapping { host_id: own.first, container_id: 0, length: own.length };
    let record = Record { uid_mappings: vec![mapping], gid_mappings: vec![mapping] };
    let bytes = serde_json::to_vec(&record).unwrap_or_default();
    files::write_atomically(&path, &bytes, 0o644).map_err(|source| UsersError::Io {
        what: "write",
        path,
        source,
    })?;
    Ok(namespace(own))
}

fn namespace(range: Range) -> UserNamespace {
    let ids = vec![IdMapping { container_id: 0, host_id: range.first, length: range.length }];
    UserNamespace { uids: ids.clone(), gids: ids }
}

/// What all pods have that left a directory.
fn taken(node: &NodeFacts) -> Result<Vec<Range>, UsersError> {
    let pods = node.root_dir.join("pods");
    let unreadable = |source| UsersError::Io { what: "list", path: pods.clone(), source };
    let mut all = Vec::new();
    for entry in fs::read_dir(&pods).map_err(unreadable)? {
        all.extend(read(&entry.map_err(unreadable)?.path().join(RECORD))?);
    }
    Ok(all)
}

/// What a record says; `None` when there is none.
fn read(path: &Path) -> Result<Option<Range>, UsersError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => return Err(UsersError::Io { what: "read", path: path.to_owned(), source }),
    };
    let damaged = |cause: String| UsersError::Damaged { path: path.to_owned(), cause };
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    let ([uids], [gids]) = (&record.uid_mappings[..], &record.gid_mappings[..]) else {
        return Err(damaged("it has not one range of users and one of groups".into()));
    };
    let range = Range { first: uids.host_id, length: uids.length };
    if uids != gids || uids.container_id != 0 || range.first < IDS || range.length < IDS {
        return Err(damaged("its ranges are none that pods are given".into()));
    }
    range.end().map(|_| Some(range)).ok_or_else(|| damaged("its range ends after the last id".into()))
}

/// The ids that pods are given: those of the user `kubelet` (subuid(5), subgid(5)) if there is one and getsubids(1) is,
/// else all but the first.
fn pool(each: u32) -> Result<Range, UsersError> {
    let all = Range { first: each, length: u32::MAX - each + 1 };
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if !known.lines().any(|line| line.split(':').next() == Some(USER)) {
        return Ok(all);
    }
    let ask = |arguments: &[&str]| match Command::new("getsubids").args(arguments).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(output) if output.status.success() => Ok(Some(output.stdout)),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let failed =
        |error| UsersError::Pool(format!("error retrieving additional ids for user {USER:?}: {error}"));
    let (Some(users), Some(groups)) = (ask(&[USER]).map_err(failed)?, ask(&["-g", USER]).map_err(failed)?)
    else {
        return Ok(all);
    };
    if users != groups {
        return Err(UsersError::Pool(format!("mismatched subuids and subgids for user {USER:?}")));
    }
    subordinate(&String::from_utf8_lossy(&users), each).map_err(UsersError::Pool)
}

/// What getsubids(1) said, `0: kubelet 65536 2147483648`, in the kubelet's words where it cannot be used.
fn subordinate(said: &str, each: u32) -> Result<Range, String> {
    let mut lines = said.lines().filter(|line| !line.trim().is_empty());
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err(format!("error parsing {said:?}: the user {USER:?} must have exactly one range of ids"));
    };
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u32>().ok());
    let (Some(first), Some(length), 4) = (number(2), number(3), fields.len()) else {
        return Err(format!("error parsing line {line:?}"));
    };
    if first < each {
        return Err(format!("kubelet user assigned ID {first} must be greater or equal to {each}"));
    }
    if !first.is_multiple_of(each) {
        return Err(format!("kubelet user assigned ID {first} is not a multiple of {each}"));
    }
    if !length.is_multiple_of(each) {
        return Err(format!("kubelet user assigned IDs length {length} is not a multiple of {each}"));
    }
    Ok(Range { first, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, NodeFacts) {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeFacts { root_dir: dir.path().to_owned(), ..NodeFacts::default() };
        (dir, node)
    }

    fn give(node: &NodeFacts, uid: &str, pool: Range) -> Result<u32, String> {
        fs::create_dir_all(node.root_dir.join("pods").join(uid)).unwrap();
        let given = allocate(node, &uid.into(), IDS, || Ok(pool)).map_err(|e| e.to_string())?;
        assert_eq!((&given.uids, given.uids[0].length), (&given.gids, IDS));
        Ok(given.uids[0].host_id)
    }

    const POOL: Range = Range { first: 2 * IDS, length: 2 * IDS };

    #[test]
    fn no_two_pods_have_the_same_ids_and_each_keeps_its_own() {
        let (_dir, node) = place();
        assert_eq!(give(&node, "a", POOL), Ok(131_072));
        assert_eq!(give(&node, "b", POOL), Ok(196_608));
        assert_eq!(give(&node, "a", POOL), Ok(131_072), "another agent reads it");
        let full = give(&node, "c", POOL).unwrap_err();
        assert!(
            full.contains("cannot find an empty slot") && full.contains("from 131072 to 262143"),
            "{full}"
        );
        fs::remove_dir_all(node.root_dir.join("pods/a")).unwrap();
        assert_eq!(give(&node, "c", POOL), Ok(131_072), "what was freed");
        let record = fs::read_to_string(node.root_dir.join("pods/c/userns")).unwrap();
        let mapping = r#"[{"hostId":131072,"containerId":0,"length":65536}]"#;
        assert_eq!(record, format!(r#"{{"uidMappings":{mapping},"gidMappings":{mapping}}}"#));
    }

    #[test]
    fn ranges_of_another_size_are_not_given_away() {
        let (_dir, node) = place();
        let (wide, uid) = (Range { first: 131_072, length: 131_072 }, PodUid::from("wide"));
        fs::create_dir_all(node.root_dir.join("pods/wide")).unwrap();
        allocate(&node, &uid, 131_072, || Ok(wide)).unwrap();
        let pool = Range { first: IDS, length: 4 * IDS };
        assert_eq!(give(&node, "a", pool), Ok(65_536));
        assert_eq!(give(&node, "b", pool), Ok(262_144));
    }

    #[test]
    fn a_damaged_record_stops_giving_until_it_is_gone() {
        for text in [
            "",
            "{}",
            r#"{"uidMappings":[],"gidMappings":[]}"#,
            r#"{"uidMappings":[{"hostId":0,"containerId":0,"length":65536}],"gidMappings":[{"hostId":0,"containerId":0,"length":65536}]}"#,
            r#"{"uidMappings":[{"hostId":65536,"containerId":0,"length":65536}],"gidMappings":[{"hostId":131072,"containerId":0,"length":65536}]}"#,
            r#"{"uidMappings":[{"hostId":4294901760,"containerId":0,"length":65536}],"gidMappings":[{"hostId":4294901760,"containerId":0,"length":65536}]}"#,
        ] {
            let (_dir, node) = place();
            let path = node.root_dir.join("pods/a/userns");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            for uid in ["a", "b"] {
                let error = give(&node, uid, POOL).unwrap_err();
                assert!(
                    error.contains("pods/a/userns") && error.contains("remove the file"),
                    "{text}: {error}"
                );
            }
            fs::remove_file(&path).unwrap();
            assert_eq!(give(&node, "b", POOL), Ok(131_072));
        }
    }

    #[test]
    fn the_last_id_of_all_is_given_to_nobody() {
        let (_dir, node) = place();
        let last = Range { first: u32::MAX - IDS + 1, length: IDS };
        assert!(give(&node, "a", last).unwrap_err().contains("empty slot"));
    }

    #[test]
    fn subordinate_ids_are_whole_pods_ids() {
        assert_eq!(
            subordinate("0: kubelet 65536 2147483648\n", IDS),
            Ok(Range { first: IDS, length: 2_147_483_648 })
        );
        for (said, cause) in [
            ("0: kubelet 0 65536", "must be greater or equal to 65536"),
            ("0: kubelet 65537 65536", "ID 65537 is not a multiple of 65536"),
            ("0: kubelet 65536 70000", "length 70000 is not a multiple of 65536"),
            ("0: kubelet 65536 65536\n1: kubelet 262144 65536", "exactly one"),
            ("", "exactly one"),
            ("0: kubelet x 65536", "error parsing line"),
        ] {
            let error = subordinate(said, IDS).unwrap_err();
            assert!(error.contains(cause), "{said}: {error}");
        }
    }
}
