//! Pinned namespaces on the real kernel. Needs root.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    time::Instant,
};

use podstead_youki::namespace::{self, Error, Spec};

struct Unpin<'a>(&'a Path);

impl Drop for Unpin<'_> {
    fn drop(&mut self) {
        let _ = namespace::unpin(self.0);
    }
}

fn all() -> Spec {
    Spec { net: true, ipc: true, uts: true, ..Spec::default() }
}

fn mounts_below(dir: &Path) -> usize {
    let dir = dir.to_str().unwrap();
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|line| line.contains(dir)).count()
}

#[test]
fn pinned_namespaces_are_new_kept_and_let_go() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("pod/ns");
    let _unpin = Unpin(&dir);
    let spec = Spec {
        hostname: Some("web-0".into()),
        sysctls: vec![
            ("net.ipv4.ip_unprivileged_port_start".into(), "0".into()),
            ("kernel.shm_rmid_forced".into(), "1".into()),
            ("fs/mqueue/msg_max".into(), "17".into()),
        ],
        ..all()
    };
    let host = fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").unwrap();
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let start = Instant::now();
    let pinned = namespace::pin(&dir, &spec).unwrap();
    println!("pin: {:?}", start.elapsed());
    assert!(pinned.fresh);
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);

    let net = pinned.net.clone().unwrap();
    for (kind, path) in
        [("net", &net), ("ipc", pinned.ipc.as_ref().unwrap()), ("uts", pinned.uts.as_ref().unwrap())]
    {
        let own = fs::metadata(format!("/proc/self/ns/{kind}")).unwrap().ino();
        assert_ne!(fs::metadata(path).unwrap().ino(), own, "{kind} is the node's");
    }
    let port =
        namespace::enter_net(&net, || fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start"));
    assert_eq!(port.unwrap().unwrap().trim(), "0");
    let out = std::process::Command::new("nsenter")
        .arg(format!("--uts={}", pinned.uts.as_ref().unwrap().display()))
        .arg(format!("--ipc={}", pinned.ipc.as_ref().unwrap().display()))
        .args([
            "cat",
            "/proc/sys/kernel/hostname",
            "/proc/sys/kernel/shm_rmid_forced",
            "/proc/sys/fs/mqueue/msg_max",
        ])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "web-0\n1\n17\n");
    assert_eq!(
        fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").unwrap(),
        host,
        "the node's own was changed"
    );
    assert_eq!(
        fs::read_to_string("/proc/sys/kernel/hostname").unwrap(),
        hostname,
        "the node's own was changed"
    );

    let addresses = namespace::addresses(&net).unwrap();
    assert!(
        addresses.iter().any(|a| a.interface == "lo" && a.ip.to_string() == "127.0.0.1" && a.prefix == 8)
    );
    assert!(addresses.iter().all(|a| !a.is_global()), "{addresses:?}");
    let connected = namespace::enter_net(&net, || {
        let listener = TcpListener::bind("127.0.0.1:80").unwrap();
        std::net::TcpStream::connect(listener.local_addr().unwrap()).is_ok()
    });
    assert!(connected.unwrap(), "loopback is not up");

    let inode = fs::metadata(&net).unwrap().ino();
    let again = namespace::pin(&dir, &spec).unwrap();
    assert!(!again.fresh);
    assert_eq!(fs::metadata(&net).unwrap().ino(), inode);

    namespace::unpin(&dir).unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    assert_eq!(mounts_below(&dir), 0);
    namespace::unpin(&dir).unwrap();
    namespace::unpin(&temp.path().join("never")).unwrap();
}

#[test]
fn a_half_made_set_is_made_again() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("ns");
    let _unpin = Unpin(&dir);
    namespace::pin(&dir, &Spec { net: true, ..Spec::default() }).unwrap();
    let first = fs::metadata(dir.join("net")).unwrap().ino();
    fs::write(dir.join("ipc"), "").unwrap();
    let other = temp.path().join("other");
    fs::write(&other, "kept").unwrap();
    symlink(&other, dir.join("uts")).unwrap();

    let pinned = namespace::pin(&dir, &all()).unwrap();
    assert!(pinned.fresh);
    assert_ne!(fs::metadata(dir.join("net")).unwrap().ino(), first);
    assert_eq!(mounts_below(&dir), 3);
    assert_eq!(fs::read_to_string(&other).unwrap(), "kept");
    assert!(!fs::symlink_metadata(dir.join("uts")).unwrap().is_symlink());
}

#[test]
fn a_failure_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("ns");
    let spec = Spec { sysctls: vec![("net.ipv4.no_such_thing".into(), "1".into())], ..all() };
    let error = namespace::pin(&dir, &spec).unwrap_err();
    assert!(matches!(&error, Error::Sysctl { name, .. } if name == "net.ipv4.no_such_thing"), "{error}");
    assert!(!error.retryable());
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    assert_eq!(mounts_below(&dir), 0);
}

#[test]
fn links_and_plain_files_are_not_namespaces() {
    let temp = tempfile::tempdir().unwrap();
    let real = temp.path().join("real");
    let _unpin = Unpin(&real);
    namespace::pin(&real, &Spec { net: true, ..Spec::default() }).unwrap();
    let link = temp.path().join("link");
    symlink(&real, &link).unwrap();
    assert!(namespace::unpin(&link).is_err());
    assert!(namespace::pin(&link, &all()).is_err());
    assert_eq!(mounts_below(&real), 1);

    // A link in the place of a pin is removed, what it points to stays pinned.
    let second = temp.path().join("second");
    fs::create_dir(&second).unwrap();
    symlink(real.join("net"), second.join("net")).unwrap();
    namespace::unpin(&second).unwrap();
    assert_eq!(mounts_below(&real), 1);
    assert!(!second.join("net").exists());

    let plain = temp.path().join("plain");
    fs::write(&plain, "").unwrap();
    assert!(matches!(namespace::enter_net(&plain, || ()).unwrap_err(), Error::NotNamespace(_)));
    let panicked = namespace::enter_net(&real.join("net"), || panic!("on purpose"));
    assert!(matches!(panicked.unwrap_err(), Error::Panicked(_)));
}
