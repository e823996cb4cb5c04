//! Volumes of a pod on the host (`kubelet-static-pods.md 4.1`). Touches only the pod's directory, and host paths whose
//! type says "create".

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Pod, PodSpec, Volume};
use podstead_runtime::PodUid;
use rustix::mount::MountFlags;

use super::ownership::{self, Access};
use super::{FilesError, atomic, failed, make_dir, mountinfo};
use crate::pod::objects::LocalObjects;
use crate::pod::volumes::{self, EMPTY_DIR, Medium, Source};
use crate::pod::{NodeFacts, identity};

static WRITING: Mutex<()> = Mutex::new(());

/// Makes the pod's volumes. What is in them stays.
pub(super) fn prepare(node: &NodeFacts, pod: &Pod) -> Result<(), FilesError> {
    let uid = identity::identity(pod).uid;
    let none = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&none);
    for volume in spec.volumes.iter().flatten() {
        match volumes::source(node, &uid, spec, volume) {
            Some(Source::EmptyDir { path, medium }) => {
                let ready = identity::pod_dir(node, &uid).join("plugins").join(EMPTY_DIR).join(&volume.name);
                empty_dir(&uid, &path, medium, group(pod), &ready)?;
            }
            Some(Source::HostPath { path, kind }) => host_path(&uid, &path, &kind)?,
            Some(Source::Files { path }) => {
                make_dir(&uid, &path, 0o755)?;
                ownership::set(&path, 0o755, group(pod), Access::Read).map_err(failed(
                    &uid,
                    "give the group",
                    &path,
                ))?;
                write(node, pod, &uid, volume, &path)?;
            }
            Some(Source::Image { .. }) | None => {}
        }
    }
    Ok(())
}

/// Writes files of the pod's volumes anew whose content changed, while the pod goes on; whether any did. A volume that
/// was not made yet, or is gone, stays so.
pub fn refresh(node: &NodeFacts, pod: &Pod) -> Result<bool, FilesError> {
    let uid = identity::identity(pod).uid;
    let none = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&none);
    let mut changed = false;
    for volume in spec.volumes.iter().flatten() {
        if let Some(Source::Files { path }) = volumes::source(node, &uid, spec, volume)
            && path.is_dir()
        {
            changed |= write(node, pod, &uid, volume, &path)?;
        }
    }
    Ok(changed)
}

fn group(pod: &Pod) -> Option<u32> {
    let group = pod.spec.as_ref()?.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

fn write(
    node: &NodeFacts,
    pod: &Pod,
    uid: &PodUid,
    volume: &Volume,
    path: &Path,
) -> Result<bool, FilesError> {
    let Some(payload) = volumes::payload(node, pod, volume, &LocalObjects::default()) else {
        return Ok(false);
    };
    let payload = payload.map_err(|error| FilesError::Volume {
        pod: uid.clone(),
        problem: format!("MountVolume.SetUp failed for volume {:?}: {error}", volume.name),
    })?;
    // Two writers would take each other's new version away.
    let _turn = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    atomic::write(path, &payload, group(pod)).map_err(failed(uid, "write the files of the volume", path))
}

/// Makes an emptyDir. `ready` is a directory whose file of that name says that it was made: its permissions are the
/// pod's from then on. What is mounted is mounted anew after a reboot.
fn empty_dir(
    uid: &PodUid,
    path: &Path,
    medium: Medium,
    group: Option<u32>,
    ready: &Path,
) -> Result<(), FilesError> {
    let mark = ready.join("ready");
    let mounted = match medium {
        Medium::Disk => true,
        _ if path.is_dir() => {
            mountinfo::is_mount_point(path).map_err(failed(uid, "see what is mounted at", path))?
        }
        _ => false,
    };
    if mounted && mark.exists() && path.is_dir() {
        return Ok(());
    }
    make_dir(uid, path, 0o750)?;
    // Explicit, so that the process's umask does not matter.
    fs::set_permissions(path, Permissions::from_mode(0o777)).map_err(failed(uid, "open to all", path))?;
    let mut mode = 0o777;
    if !mounted {
        mode = 0o1777;
        match medium {
            Medium::Disk => {}
            Medium::Memory { size } => memory(path, size).map_err(failed(uid, "mount a tmpfs on", path))?,
            Medium::HugePages { page, size } => huge_pages(uid, path, page, size)?,
        }
    }
    ownership::set(path, mode, group, Access::Write).map_err(failed(uid, "give the group", path))?;
    make_dir(uid, ready, 0o750)?;
    fs::File::create(&mark).map(drop).map_err(failed(uid, "write", &mark))
}

fn memory(path: &Path, size: Option<u64>) -> io::Result<()> {
    let size = size.map(|size| format!("size={size}"));
    let mount = |more: Option<&str>| {
        let options = [size.as_deref(), more].into_iter().flatten().collect::<Vec<_>>().join(",");
        let options = CString::new(options)?;
        Ok(rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), Some(options.as_c_str()))?)
    };
    // Linux 6.4; older kernels do not know the word.
    mount(Some("noswap")).or_else(|_: io::Error| mount(None))
}

fn huge_pages(uid: &PodUid, path: &Path, page: Option<u64>, size: Option<u64>) -> Result<(), FilesError> {
    if let Some(page) = page {
        let pool = PathBuf::from(format!("/sys/kernel/mm/hugepages/hugepages-{}kB", page / 1024));
        if !pool.exists() {
            return Err(FilesError::Volume {
                pod: uid.clone(),
                problem: format!("{}: the node has no huge pages of {} KiB", path.display(), page / 1024),
            });
        }
    }
    let page = page.map(|page| format!("pagesize={page}"));
    let size = size.map(|size| format!("size={size}"));
    let options = [page, size].into_iter().flatten().collect::<Vec<_>>().join(",");
    let mount = CString::new(options).map_err(io::Error::from).and_then(|options| {
        let flags = MountFlags::empty();
        Ok(rustix::mount::mount("nodev", path, "hugetlbfs", flags, Some(options.as_c_str()))?)
    });
    mount.map_err(failed(uid, "mount huge pages on", path))
}

fn host_path(uid: &PodUid, path: &Path, kind: &str) -> Result<(), FilesError> {
    let found = match fs::metadata(path) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(uid, "look at", path)(error)),
    };
    let wrong = |problem: String| FilesError::HostPath { pod: uid.clone(), path: path.to_owned(), problem };
    match (kind, found.as_ref().map(fs::Metadata::file_type)) {
        ("", _) => Ok(()),
        ("DirectoryOrCreate", None) => make_dir(uid, path, 0o755),
        ("FileOrCreate", None) => {
            let made = fs::OpenOptions::new().write(true).create_new(true).open(path);
            made.map_err(failed(uid, "make the file", path))?;
            fs::set_permissions(path, Permissions::from_mode(0o644)).map_err(failed(uid, "chmod", path))
        }
        (_, None) => Err(wrong(format!("it does not exist, and type {kind} does not make it"))),
        (_, Some(is)) => {
            let fits = match kind {
                "Directory" | "DirectoryOrCreate" => is.is_dir(),
                "File" | "FileOrCreate" => is.is_file(),
                "Socket" => is.is_socket(),
                "CharDevice" => is.is_char_device(),
                "BlockDevice" => is.is_block_device(),
                _ => false,
            };
            if fits {
                Ok(())
            } else {
                Err(wrong(format!("it is not a {}", kind.trim_end_matches("OrCreate"))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::tests::{is_root, place, pod};
    use super::super::{prepare, remains, remove};
    use super::*;

    fn volume(source: &str) -> Volume {
        serde_yaml::from_str(&format!("{{name: v, {source}}}")).unwrap()
    }

    fn path(node: &NodeFacts, pod: &Pod) -> PathBuf {
        let spec = pod.spec.as_ref().unwrap();
        let source = volumes::source(node, &"u1".into(), spec, &spec.volumes.as_ref().unwrap()[0]).unwrap();
        source.path().unwrap().to_owned()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn preparing_twice_keeps_contents_and_removing_leaves_nothing() {
        let (_dir, node) = place();
        let pod = pod(vec![volume("emptyDir: {}")]);
        prepare(&node, &pod).unwrap();
        let path = path(&node, &pod);
        assert_eq!(mode(&path), 0o777);
        fs::write(path.join("kept"), "x").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        prepare(&node, &pod).unwrap();
        assert!(path.join("kept").exists());
        assert_eq!(mode(&path), 0o700, "the pod's own by now");
        let found = remains(&node).unwrap();
        let uid = PodUid::from("u1");
        assert_eq!(found[0].0, uid);
        assert_eq!(found[0].1.as_ref().unwrap().pod.full_name(), "default/web-node");
        remove(&node, &uid).unwrap();
        remove(&node, &uid).unwrap();
        assert_eq!(remains(&node).unwrap(), []);
    }

    #[test]
    fn a_volume_whose_making_was_interrupted_is_made_again() {
        let (_dir, node) = place();
        let pod = pod(vec![volume("emptyDir: {}")]);
        let path = path(&node, &pod);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
        prepare(&node, &pod).unwrap();
        assert_eq!(mode(&path), 0o777);
    }

    #[test]
    fn memory_has_its_size_survives_preparing_and_goes_with_the_pod() {
        if !is_root() {
            return;
        }
        let (_dir, node) = place();
        let mut pod = pod(vec![volume("emptyDir: {medium: Memory, sizeLimit: 1Mi}")]);
        pod.spec.as_mut().unwrap().security_context = Some(serde_yaml::from_str("{fsGroup: 4711}").unwrap());
        prepare(&node, &pod).unwrap();
        let path = path(&node, &pod);
        assert!(mountinfo::is_mount_point(&path).unwrap());
        let found = rustix::fs::statvfs(&path).unwrap();
        assert_eq!(found.f_blocks * found.f_frsize, 1 << 20);
        assert_eq!((mode(&path), fs::metadata(&path).unwrap().gid()), (0o3777, 4711));
        fs::write(path.join("kept"), "x").unwrap();
        prepare(&node, &pod).unwrap();
        assert!(path.join("kept").exists());
        // As after a reboot.
        rustix::mount::unmount(&path, rustix::mount::UnmountFlags::empty()).unwrap();
        prepare(&node, &pod).unwrap();
        assert!(mountinfo::is_mount_point(&path).unwrap() && !path.join("kept").exists());
        remove(&node, &"u1".into()).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn huge_pages_are_there_or_refused_with_their_size() {
        if !is_root() {
            return;
        }
        let (_dir, node) = place();
        let with = |size: &str| {
            let mut pod = pod(vec![volume(&format!("emptyDir: {{medium: HugePages-{size}}}"))]);
            let text = format!("{{name: c, resources: {{limits: {{hugepages-{size}: {size}}}}}}}");
            pod.spec.as_mut().unwrap().containers = vec![serde_yaml::from_str(&text).unwrap()];
            prepare(&node, &pod)
        };
        let error = with("3Mi").unwrap_err().to_string();
        assert!(error.contains("the node has no huge pages of 3072 KiB"), "{error}");
        if Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
            with("2Mi").unwrap();
        }
        remove(&node, &"u1".into()).unwrap();
    }

    #[test]
    fn files_of_the_downward_api_follow_the_manifest() {
        let (_dir, node) = place();
        let mut pod = pod(vec![volume(
            "downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}",
        )]);
        assert!(!refresh(&node, &pod).unwrap(), "nothing is made before the pod is");
        prepare(&node, &pod).unwrap();
        let file = path(&node, &pod).join("labels");
        assert_eq!(fs::read_to_string(&file).unwrap(), "");
        let open = fs::File::open(&file).unwrap();
        pod.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        assert!(refresh(&node, &pod).unwrap());
        assert!(!refresh(&node, &pod).unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "a=\"b\"");
        assert_eq!(io::read_to_string(open).unwrap(), "", "who had it open sees the old one whole");
    }

    #[test]
    fn host_paths_are_what_their_type_demands_or_are_made() {
        let (dir, node) = place();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "x").unwrap();
        let try_it = |path: &Path, kind: &str| {
            let source = format!("hostPath: {{path: {}, type: \"{kind}\"}}", path.display());
            prepare(&node, &pod(vec![volume(&source)]))
        };
        try_it(&at("made"), "DirectoryOrCreate").unwrap();
        try_it(&at("touched"), "FileOrCreate").unwrap();
        assert!(at("made").is_dir() && at("touched").is_file());
        assert_eq!((mode(&at("made")) & 0o700, mode(&at("touched"))), (0o700, 0o644));
        try_it(&at("absent"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (path, kind) in [
            (at("socket"), "Socket"),
            ("/dev/null".into(), "CharDevice"),
            (at("file"), "FileOrCreate"),
            (at("made"), "DirectoryOrCreate"),
            (at("made"), "Directory"),
            (at("file"), "File"),
        ] {
            try_it(&path, kind).unwrap();
        }
        for (path, kind) in [
            (at("absent"), "Directory"),
            (at("absent"), "File"),
            (at("absent"), "Socket"),
            (at("file"), "Directory"),
            (at("made"), "File"),
            (at("made"), "FileOrCreate"),
            (at("file"), "Socket"),
            ("/dev/null".into(), "BlockDevice"),
            (at("file"), "CharDevice"),
        ] {
            let error = try_it(&path, kind).unwrap_err();
            assert!(matches!(error, FilesError::HostPath { .. }), "{} as {kind}: {error}", path.display());
        }
        assert!(!at("absent").exists());
    }
}
