//! Layers made by hand, each with one trap. They need root, as the store does.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tar::{EntryType, Header};

use super::digest::Digest;
use super::error::{Error, ErrorKind};
use super::layer::{LayerSource, unpack};
use super::limits::Limits;
use super::progress::{Phase, Reporter};

/// A tar under construction that checks nothing.
#[derive(Default)]
struct Layer(Vec<u8>);

impl Layer {
    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn header(&mut self, name: &str, kind: EntryType, link: &str, size: u64, edit: impl FnOnce(&mut Header)) {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(size);
        edit(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
    }

    fn file(mut self, name: &str, data: &[u8]) -> Self {
        self.header(name, EntryType::Regular, "", data.len() as u64, |_| {});
        self.0.extend_from_slice(data);
        self.pad();
        self
    }

    fn with(mut self, name: &str, kind: EntryType, edit: impl FnOnce(&mut Header)) -> Self {
        self.header(name, kind, "", 0, edit);
        self
    }

    fn dir(self, name: &str) -> Self {
        self.with(name, EntryType::Directory, |h| h.set_mode(0o755))
    }

    fn link(mut self, name: &str, kind: EntryType, target: &str) -> Self {
        self.header(name, kind, target, 0, |_| {});
        self
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let mut length = body + 1;
            while length != body + length.to_string().len() {
                length += 1;
            }
            write!(data, "{length} {key}=").unwrap();
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.header("pax", EntryType::XHeader, "", data.len() as u64, |_| {});
        self.0.extend_from_slice(&data);
        self.pad();
        self
    }

    fn bytes(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// The layer's directory lies in another one, so that an escape would show.
struct Unpacked {
    tmp: tempfile::TempDir,
}

impl Unpacked {
    fn at(&self, path: &str) -> PathBuf {
        self.tmp.path().join("diff").join(path)
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.at(path)).unwrap()
    }

    fn meta(&self, path: &str) -> std::fs::Metadata {
        std::fs::symlink_metadata(self.at(path)).unwrap()
    }

    fn assert_nothing_outside(&self) {
        let names: Vec<_> =
            std::fs::read_dir(self.tmp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(std::fs::read_dir(self.tmp.path().join("outside")).unwrap().count(), 0);
    }
}

fn try_bytes(bytes: &[u8], diff_id: &Digest, limits: &Limits) -> (Unpacked, Result<(), Error>) {
    let tmp = tempfile::tempdir().unwrap();
    let diff = tmp.path().join("diff");
    std::fs::create_dir(&diff).unwrap();
    std::fs::create_dir(tmp.path().join("outside")).unwrap();
    let source = LayerSource {
        reader: bytes,
        blob: Some((Digest::of(bytes), bytes.len() as u64)),
        compressed: bytes.len() as u64,
        diff_id: diff_id.clone(),
    };
    let meter = Reporter::default().meter(diff_id, Phase::Extracting, 0);
    let result = unpack("layer x", &diff, limits, source, meter, &Arc::new(AtomicBool::new(false)));
    let unpacked = Unpacked { tmp };
    unpacked.assert_nothing_outside();
    (unpacked, result)
}

fn try_layer(layer: Layer) -> (Unpacked, Result<(), Error>) {
    let bytes = layer.bytes();
    try_bytes(&bytes, &Digest::of(&bytes), &Limits::default())
}

fn good(layer: Layer) -> Unpacked {
    let (unpacked, result) = try_layer(layer);
    result.unwrap();
    unpacked
}

fn refused(layer: Layer) -> String {
    let error = try_layer(layer).1.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    error.to_string()
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    xattr::get(path, name).unwrap()
}

#[test]
fn dotdot_in_a_name_is_refused() {
    for name in ["../outside/x", "a/../../outside/x", "..", "a/.."] {
        assert!(refused(Layer::default().dir("a").file(name, b"x")).contains("leads out"), "{name}");
    }
}

#[test]
fn absolute_names_are_inside() {
    assert_eq!(good(Layer::default().file("/etc/x", b"1")).text("etc/x"), "1");
}

#[test]
fn a_file_through_an_absolute_link_lands_inside() {
    let host = tempfile::tempdir().unwrap();
    let target = host.path().to_str().unwrap();
    let u = good(Layer::default().link("out", EntryType::Symlink, target).file("out/x", b"1"));
    assert_eq!(std::fs::read_dir(host.path()).unwrap().count(), 0);
    assert_eq!(u.text(&format!(".{target}/x")), "1");
}

#[test]
fn a_file_through_a_climbing_link_lands_inside() {
    let u = good(Layer::default().link("up", EntryType::Symlink, "../../../../outside").file("up/x", b"1"));
    assert_eq!(u.text("outside/x"), "1");
}

#[test]
fn a_file_replaces_a_link_and_does_not_follow_it() {
    let u = good(Layer::default().link("x", EntryType::Symlink, "../outside/x").file("x", b"1"));
    assert!(u.meta("x").is_file());
}

#[test]
fn links_in_a_ring_are_refused() {
    let ring = Layer::default().link("a", EntryType::Symlink, "b").link("b", EntryType::Symlink, "a");
    refused(ring.file("a/x", b"1"));
}

#[test]
fn a_hard_link_to_a_host_file_through_a_link_is_refused() {
    let host = tempfile::NamedTempFile::new().unwrap();
    let (dir, name) = (host.path().parent().unwrap(), host.path().file_name().unwrap());
    let layer = Layer::default().link("tmp", EntryType::Symlink, dir.to_str().unwrap()).link(
        "x",
        EntryType::Link,
        &format!("tmp/{}", name.to_str().unwrap()),
    );
    refused(layer);
    assert_eq!(host.as_file().metadata().unwrap().nlink(), 1);
}

#[test]
fn a_hard_link_to_a_link_links_the_link() {
    let u =
        good(Layer::default().link("s", EntryType::Symlink, "/etc/passwd").link("h", EntryType::Link, "s"));
    assert!(u.meta("h").is_symlink());
    assert_eq!(u.meta("h").ino(), u.meta("s").ino());
}

#[test]
fn a_hard_link_with_dotdot_is_refused() {
    refused(Layer::default().link("x", EntryType::Link, "../outside"));
}

#[test]
fn hard_links_share_an_inode() {
    let u = good(Layer::default().file("a", b"1").link("d/b", EntryType::Link, "a").link(
        "a",
        EntryType::Link,
        "a",
    ));
    assert_eq!(u.meta("a").ino(), u.meta("d/b").ino());
    assert_eq!(u.meta("a").nlink(), 2);
}

#[test]
fn missing_parents_are_made_0755() {
    let u = good(Layer::default().file("a/b/c", b"1"));
    for dir in ["a", "a/b"] {
        assert_eq!((u.meta(dir).mode() & 0o7777, u.meta(dir).uid()), (0o755, 0));
    }
}

#[test]
fn a_file_is_no_directory() {
    refused(Layer::default().file("a", b"1").file("a/b", b"2"));
}

#[test]
fn the_later_of_two_entries_wins() {
    let u =
        good(Layer::default().file("x", b"old").file("x", b"new").file("d/deep/y", b"1").file("d", b"file"));
    assert_eq!((u.text("x"), u.text("d")), ("new".into(), "file".into()));
    let u =
        good(Layer::default().file("d", b"1").dir("d").file("d/x", b"2").link("d", EntryType::Symlink, "e"));
    assert!(u.meta("d").is_symlink());
}

#[test]
fn a_directory_named_twice_keeps_its_files_and_takes_the_later_mode() {
    let again = |l: Layer| l.with("d/", EntryType::Directory, |h| h.set_mode(0o1777));
    let u = good(again(Layer::default().dir("d").file("d/x", b"1")));
    assert_eq!((u.text("d/x"), u.meta("d").mode() & 0o7777), ("1".into(), 0o1777));
}

#[test]
fn a_whiteout_becomes_a_device_0_0() {
    let u = good(Layer::default().dir("d").file("d/.wh.gone", b""));
    let meta = u.meta("d/gone");
    assert!(meta.file_type().is_char_device() && meta.rdev() == 0);
    assert!(!u.at("d/.wh.gone").exists());
}

#[test]
fn an_opaque_directory_gets_the_mark() {
    let u = good(Layer::default().dir("d").file("d/x", b"1").file("d/.wh..wh..opq", b""));
    assert_eq!(xattr(&u.at("d"), "trusted.overlay.opaque").unwrap(), b"y");
    assert_eq!(u.text("d/x"), "1", "what this layer adds stays");
}

#[test]
fn a_whiteout_hides_only_lower_layers() {
    let u = good(Layer::default().file("f", b"1").file(".wh.f", b"").file(".wh.g", b"").file("g", b"2"));
    assert_eq!((u.text("f"), u.text("g")), ("1".into(), "2".into()));
    for layer in [
        Layer::default().dir("d").file("d/x", b"1").file(".wh.d", b""),
        Layer::default().file(".wh.d", b"").dir("d").file("d/x", b"1"),
        Layer::default().file(".wh.d", b"").file("d/x", b"1"),
    ] {
        let u = good(layer);
        assert_eq!(u.text("d/x"), "1");
        assert_eq!(xattr(&u.at("d"), "trusted.overlay.opaque").unwrap(), b"y");
    }
}

#[test]
fn a_whiteout_of_dotdot_is_refused() {
    for name in [".wh...", ".wh..", ".wh."] {
        refused(Layer::default().file(name, b""));
    }
    let u = good(Layer::default().file(".wh..wh.plnk", b""));
    assert_eq!(std::fs::read_dir(u.at("")).unwrap().count(), 0);
}

#[test]
fn capabilities_and_user_attributes_are_kept_and_all_others_left_out() {
    let cap = b"\x01\0\0\x02\0\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.security.capability", cap),
        ("SCHILY.xattr.user.note", b"hi\nthere"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("uid", b"65000"),
    ];
    let u = good(Layer::default().pax(records).file("ping", b"x"));
    assert_eq!(xattr(&u.at("ping"), "security.capability").unwrap(), cap, "with the newline, after chown");
    assert_eq!(xattr(&u.at("ping"), "user.note").unwrap(), b"hi\nthere");
    assert_eq!(u.meta("ping").uid(), 65000);
    let names: Vec<_> = xattr::list(u.at("ping")).unwrap().collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn setuid_owner_and_times_survive() {
    let layer = Layer::default()
        .with("d", EntryType::Directory, |h| {
            h.set_mode(0o2770);
            h.set_gid(7);
        })
        .pax(&[("mtime", b"1234567890.5")])
        .with("d/su", EntryType::Regular, |h| {
            h.set_mode(0o4755);
            h.set_uid(1234);
        });
    let u = good(layer);
    let su = u.meta("d/su");
    assert_eq!(
        (su.mode() & 0o7777, su.uid(), su.mtime(), su.mtime_nsec()),
        (0o4755, 1234, 1_234_567_890, 500_000_000)
    );
    let d = u.meta("d");
    assert_eq!((d.mode() & 0o7777, d.gid(), d.mtime()), (0o2770, 7, 1_000_000_000), "set after its entries");
}

#[test]
fn an_owner_that_means_nobody_is_refused() {
    refused(Layer::default().pax(&[("uid", b"4294967295")]).file("x", b""));
    refused(Layer::default().pax(&[("gid", b"99999999999")]).file("x", b""));
}

#[test]
fn devices_and_fifos_are_made() {
    let device = |h: &mut Header| {
        h.set_device_major(1).unwrap();
        h.set_device_minor(3).unwrap();
        h.set_mode(0o666);
    };
    let u = good(
        Layer::default().with("null", EntryType::Char, device).with("disk", EntryType::Block, device).with(
            "pipe",
            EntryType::Fifo,
            |_| {},
        ),
    );
    assert_eq!((u.meta("null").rdev(), u.meta("null").mode() & 0o7777), (0x103, 0o666));
    assert!(u.meta("disk").file_type().is_block_device());
    assert!(u.meta("pipe").file_type().is_fifo());
}

#[test]
fn long_names_of_pax_and_gnu_work() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    assert_eq!(good(Layer::default().pax(&[("path", long.as_bytes())]).file("short", b"1")).text(&long), "1");
    let mut gnu = Layer::default();
    gnu.header("././@LongLink", EntryType::GNULongName, "", long.len() as u64 + 1, |_| {});
    gnu.0.extend_from_slice(long.as_bytes());
    gnu.0.push(0);
    gnu.pad();
    assert_eq!(good(gnu.file("short", b"2")).text(&long), "2");
}

#[test]
fn a_name_with_a_nul_or_too_long_is_refused() {
    refused(Layer::default().pax(&[("path", b"a\0b")]).file("x", b""));
    refused(Layer::default().pax(&[("path", &b"a".repeat(300))]).file("x", b""));
    refused(Layer::default().pax(&[("path", &b"a/".repeat(1000))]).file("x", b""));
}

#[test]
fn links_cannot_make_a_tree_too_deep_to_remove() {
    let mut layer = Layer::default();
    let deep = "d/".repeat(45);
    for i in 0..10 {
        let name = format!("l{i}");
        let target = if i == 0 { deep.clone() } else { format!("l{}/{deep}", i - 1) };
        layer = layer.link(&name, EntryType::Symlink, &target);
    }
    refused(layer.file("l9/x", b""));
}

#[test]
fn unknown_and_sparse_entries_are_refused() {
    refused(Layer::default().with("x", EntryType::new(b'Z'), |_| {}));
    refused(Layer::default().with("x", EntryType::GNUSparse, |_| {}));
    refused(Layer::default().pax(&[("GNU.sparse.major", b"1")]).file("x", b""));
}

#[test]
fn another_diff_id_is_refused() {
    let bytes = Layer::default().file("x", b"1").bytes();
    let error = try_bytes(&bytes, &Digest::of(b"other"), &Limits::default()).1.unwrap_err();
    assert!(error.to_string().contains("diffID"), "{error}");
}

#[test]
fn bytes_after_the_end_of_the_archive_count_for_the_diff_id() {
    let mut bytes = Layer::default().file("x", b"1").bytes();
    let diff_id = Digest::of(&bytes);
    bytes.extend_from_slice(&[7; 4096]);
    assert!(try_bytes(&bytes, &diff_id, &Limits::default()).1.is_err());
    assert!(try_bytes(&bytes, &Digest::of(&bytes), &Limits::default()).1.is_ok());
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn gzip_and_zstd_are_told_by_their_first_bytes() {
    let plain = Layer::default().file("x", b"1").bytes();
    for packed in [gzip(&plain), zstd::encode_all(&plain[..], 1).unwrap(), plain.clone()] {
        let (u, result) = try_bytes(&packed, &Digest::of(&plain), &Limits::default());
        result.unwrap();
        assert_eq!(u.text("x"), "1");
    }
}

#[test]
fn a_truncated_layer_is_refused() {
    let plain = Layer::default().file("x", &[b'1'; 5000]).bytes();
    let packed = gzip(&plain);
    for cut in [packed.len() - 1, packed.len() - 9, packed.len() / 2, 5] {
        let error = try_bytes(&packed[..cut], &Digest::of(&plain), &Limits::default()).1.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    assert!(try_bytes(&plain[..3000], &Digest::of(&plain[..3000]), &Limits::default()).1.is_err());
}

#[test]
fn a_bomb_is_refused() {
    let plain = Layer::default().file("x", &vec![0; 4 << 20]).bytes();
    let limits = Limits { layer_ratio: 20, layer_floor: 1 << 20, ..Limits::default() };
    let error = try_bytes(&gzip(&plain), &Digest::of(&plain), &limits).1.unwrap_err();
    assert!(error.to_string().contains("configured limit"), "{error}");
    let limits = Limits { layer_entries: 3, ..Limits::default() };
    let many = (0..4).fold(Layer::default(), |l, i| l.file(&i.to_string(), b"")).bytes();
    assert_eq!(try_bytes(&many, &Digest::of(&many), &limits).1.unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Their times are remembered to the end of the layer; one that comes again is remembered once.
#[test]
fn paths_of_directories_are_bounded() {
    let limits = Limits { layer_paths: 10 * 64, ..Limits::default() };
    let again = (0..40).fold(Layer::default(), |layer, i| layer.dir(&(i % 4).to_string())).bytes();
    try_bytes(&again, &Digest::of(&again), &limits).1.unwrap();
    let many = (0..40).fold(Layer::default(), |layer, i| layer.dir(&i.to_string())).bytes();
    let error = try_bytes(&many, &Digest::of(&many), &limits).1.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("configured limit"), "{error}");
}

#[test]
fn a_cancelled_layer_stops() {
    let bytes = Layer::default().file("x", b"1").bytes();
    let tmp = tempfile::tempdir().unwrap();
    let cancel = Arc::new(AtomicBool::new(false));
    cancel.store(true, Ordering::Relaxed);
    let source = LayerSource {
        reader: &bytes[..],
        blob: None,
        compressed: bytes.len() as u64,
        diff_id: Digest::of(&bytes),
    };
    let meter = Reporter::default().meter(&Digest::of(b""), Phase::Extracting, 0);
    let error = unpack("x", tmp.path(), &Limits::default(), source, meter, &cancel).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn the_directory_may_be_replaced_by_a_link_between_two_of_its_files() {
    let u =
        good(Layer::default().file("d/a", b"1").link("d", EntryType::Symlink, "/e").file("d/b", b"2").link(
            "d/c",
            EntryType::Symlink,
            "x",
        ));
    assert_eq!(u.text("e/b"), "2");
    assert!(u.meta("d").is_symlink() && u.meta("e/c").is_symlink());
    // The helper itself must see links.
    symlink("nowhere", u.tmp.path().join("outside/probe")).unwrap();
    assert!(std::panic::catch_unwind(|| u.assert_nothing_outside()).is_err());
}
