//! Who a container runs as: `name or uid[:group or gid]` looked up in the image's own passwd and group files.
//!
//! Reads files only inside the given root, bounded; the rest is pure.

use std::path::Path;

use super::disk::read_bounded;
use super::error::{Error, Result};
use super::inroot::Root;

/// Larger passwd or group files are refused.
const MAX_BYTES: u64 = 8 << 20;

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Groups of the user in the group file, sorted; empty when a group was asked for. Never holds `gid`.
    pub additional_gids: Vec<u32>,
    /// Home directory, if the user has an entry. For `HOME`.
    pub home: Option<String>,
}

/// Looks up a user in a mounted root file system. An empty `spec` is root. Blocks.
///
/// A number needs no entry (its group is then 0); a name does. As the image-spec's `User` field wants it.
pub fn lookup_user(rootfs: &Path, spec: &str) -> Result<User> {
    let root = Root::open(rootfs).map_err(|e| Error::io("opening", rootfs, e))?;
    let passwd = read(&root, rootfs, "etc/passwd")?;
    let group = read(&root, rootfs, "etc/group")?;
    resolve(&passwd, &group, spec)
}

fn read(root: &Root, rootfs: &Path, name: &str) -> Result<String> {
    let place = rootfs.join(name);
    let file = match root.open_file(Path::new(name)) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(String::new());
        }
        Err(e) => return Err(Error::io("opening", place, e)),
    };
    if !file.metadata().is_ok_and(|m| m.is_file()) {
        return Err(Error::corrupt(format!("/{name} of the image"), "it is not a regular file"));
    }
    let bytes = read_bounded(&format!("/{name} of the image"), &place, file, MAX_BYTES)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Lines that cannot be read are passed over, as getpwnam does.
fn passwd_lines(text: &str) -> impl Iterator<Item = PasswdLine<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|n| !n.is_empty() && !n.starts_with('#'))?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        Some(PasswdLine { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

fn group_lines(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|n| !n.is_empty() && !n.starts_with('#'))?;
        let gid = id(fields.nth(1)?)?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

/// An id as files and specs write it: decimal, and not the one that means "none".
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && *n != u32::MAX)
}

/// The lookup itself, on the text of the two files.
pub fn resolve(passwd: &str, group: &str, spec: &str) -> Result<User> {
    let (user, wanted_group) = spec.split_once(':').unwrap_or((spec, ""));
    let user = if user.is_empty() { "0" } else { user };
    let number = id(user);
    let missing = |kind: &str, name: &str| Error::NotFound {
        what: format!("{kind} \"{}\"", name.escape_debug()),
        place: format!("in /etc/{} of the image", if kind == "user" { "passwd" } else { "group" }),
    };
    // A name made of digits is still a name if there is an entry for it.
    let by_name = || passwd_lines(passwd).find(|l| l.name == user);
    let entry = by_name().or_else(|| passwd_lines(passwd).find(|l| Some(l.uid) == number));
    let (uid, own_gid) = match (&entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => return Err(missing("user", user)),
    };
    let home = entry.as_ref().map(|e| e.home.to_owned()).filter(|h| !h.is_empty());
    if !wanted_group.is_empty() {
        let named = group_lines(group).find(|(name, ..)| *name == wanted_group).map(|(_, gid, _)| gid);
        let gid = named.or_else(|| id(wanted_group)).ok_or_else(|| missing("group", wanted_group))?;
        return Ok(User { uid, gid, additional_gids: Vec::new(), home });
    }
    let member =
        |members: &str| entry.as_ref().is_some_and(|e| members.split(',').any(|m| m.trim() == e.name));
    let mut additional: Vec<u32> = group_lines(group)
        .filter(|(_, gid, members)| *gid != own_gid && member(members))
        .map(|(_, gid, _)| gid)
        .collect();
    additional.sort_unstable();
    additional.dedup();
    Ok(User { uid, gid: own_gid, additional_gids: additional, home })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ErrorKind;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# c\nbroken\nweb:x:33:44:w:/var/www:/bin/sh\n1000:x:7:7::/:\n";
    const GROUP: &str = "root:x:0:\nweb:x:44:\nlog:x:4:web,root\nadm:x:5:other, web\n\nbad:x:zz:web\n";

    fn user(uid: u32, gid: u32, more: &[u32], home: Option<&str>) -> User {
        User { uid, gid, additional_gids: more.to_vec(), home: home.map(Into::into) }
    }

    #[test]
    fn names_and_numbers_are_looked_up() {
        let of = |spec| resolve(PASSWD, GROUP, spec).unwrap();
        assert_eq!(of(""), user(0, 0, &[4], Some("/root")));
        assert_eq!(of("web"), user(33, 44, &[4, 5], Some("/var/www")));
        assert_eq!(of("33"), user(33, 44, &[4, 5], Some("/var/www")));
        assert_eq!(of("web:log"), user(33, 4, &[], Some("/var/www")));
        assert_eq!(of("web:99"), user(33, 99, &[], Some("/var/www")));
        assert_eq!(of("4242"), user(4242, 0, &[], None));
        assert_eq!(of("4242:7"), user(4242, 7, &[], None));
        assert_eq!(of("1000"), user(7, 7, &[], Some("/")), "a name of digits");
    }

    #[test]
    fn unknown_names_and_impossible_numbers_are_errors() {
        for spec in ["nobody", "web:nogroup", "4294967295", "-1", "+1", "0x1", "99999999999"] {
            assert_eq!(resolve(PASSWD, GROUP, spec).unwrap_err().kind(), ErrorKind::NotFound, "{spec}");
        }
    }

    #[test]
    fn a_passwd_link_out_of_the_root_reads_inside_it() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tmp.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/../../etc/shells-of-the-image", tmp.path().join("etc/passwd")).unwrap();
        std::fs::write(tmp.path().join("etc/shells-of-the-image"), "in:x:5:6::/:\n").unwrap();
        assert_eq!(lookup_user(tmp.path(), "in").unwrap().uid, 5);
        std::fs::remove_file(tmp.path().join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", tmp.path().join("etc/passwd")).unwrap();
        assert_eq!(lookup_user(tmp.path(), "5").unwrap().gid, 0, "a dangling link is no file");
    }

    #[test]
    fn a_fifo_or_a_device_in_place_of_passwd_is_refused_and_never_waited_for() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tmp.path().join("etc")).unwrap();
        let path = tmp.path().join("etc/passwd");
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
        assert_eq!(lookup_user(tmp.path(), "root").unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
