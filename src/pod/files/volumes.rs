//! Volumes of a pod on the host (`kubelet-static-pods.md 4.1`). Touches only `<root>/pods/<uid>/volumes`, and host paths
//! whose type says "create".

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use podstead_runtime::PodUid;

use super::{FilesError, failed, make_dir};
use crate::pod::NodeFacts;
use crate::pod::volumes::{self, Source};

/// Makes the pod's volumes.
pub(super) fn prepare(node: &NodeFacts, uid: &PodUid, pod: &Pod) -> Result<(), FilesError> {
    let spec = pod.spec.as_ref();
    for volume in spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        match volumes::source(node, uid, volume) {
            Some(Source::EmptyDir { path }) => empty_dir(uid, &path)?,
            Some(Source::HostPath { path, kind }) => host_path(uid, &path, &kind)?,
            None => {}
        }
    }
    Ok(())
}

fn empty_dir(uid: &PodUid, path: &Path) -> Result<(), FilesError> {
    make_dir(uid, path, 0o750)?;
    // Explicit, so that the process's umask does not matter.
    fs::set_permissions(path, Permissions::from_mode(0o777)).map_err(failed(uid, "open to all", path))
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

    use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Volume};

    use super::super::tests::{place, pod};
    use super::super::{prepare, remains, remove};
    use super::*;

    fn host_volume(path: &Path, kind: &str) -> Volume {
        let source = HostPathVolumeSource { path: path.display().to_string(), type_: Some(kind.into()) };
        Volume { name: "v".into(), host_path: Some(source), ..Volume::default() }
    }

    #[test]
    fn preparing_twice_keeps_contents_and_removing_leaves_nothing() {
        let (_dir, node) = place();
        let volume = Volume {
            name: "data".into(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        };
        let pod = pod(vec![volume]);
        prepare(&node, &pod).unwrap();
        let uid = PodUid::from("u1");
        let Some(Source::EmptyDir { path }) =
            volumes::source(&node, &uid, &pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0])
        else {
            panic!("an emptyDir")
        };
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o777);
        fs::write(path.join("kept"), "x").unwrap();
        prepare(&node, &pod).unwrap();
        assert!(path.join("kept").exists());
        let found = remains(&node).unwrap();
        assert_eq!(found[0].0, uid);
        assert_eq!(found[0].1.as_ref().unwrap().pod.full_name(), "default/web-node");
        remove(&node, &uid).unwrap();
        remove(&node, &uid).unwrap();
        assert_eq!(remains(&node).unwrap(), []);
    }

    #[test]
    fn host_paths_are_what_their_type_demands_or_are_made() {
        let (dir, node) = place();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "x").unwrap();
        let try_it = |path: &Path, kind: &str| prepare(&node, &pod(vec![host_volume(path, kind)]));
        try_it(&at("made"), "DirectoryOrCreate").unwrap();
        try_it(&at("touched"), "FileOrCreate").unwrap();
        assert!(at("made").is_dir() && at("touched").is_file());
        try_it(&at("absent"), "").unwrap();
        for (name, kind) in [
            ("absent", "Directory"),
            ("absent", "File"),
            ("file", "Directory"),
            ("made", "File"),
            ("file", "Socket"),
        ] {
            let error = try_it(&at(name), kind).unwrap_err();
            assert!(matches!(error, FilesError::HostPath { .. }), "{name} as {kind}: {error}");
        }
        assert!(!at("absent").exists());
    }
}
