//! Files of variables in a pod's volumes (`kubelet-static-pods.md 4.3`). Reads only, and only below the volume's root.

use std::io::{self, Read as _};
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use rustix::fs::OFlags;

use super::below;
use crate::pod::env::{EnvFiles, files_needed};
use crate::pod::{NodeFacts, envfile, identity, volumes};

/// Larger files are refused: containers write them.
const MAX_BYTES: u64 = 1 << 20;

/// Reads the files of variables that a container refers to.
pub fn read_env_files(node: &NodeFacts, pod: &Pod, container: &Container) -> EnvFiles {
    let none = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&none);
    let uid = identity::identity(pod).uid;
    let mut all = EnvFiles::new();
    for (name, path) in files_needed(container) {
        let volume = spec.volumes.iter().flatten().find(|v| v.name == name);
        let source = volume.and_then(|v| volumes::source(node, &uid, spec, v));
        let Some(root) = source.as_ref().and_then(volumes::Source::path) else { continue };
        let text = match read(root, Path::new(&path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(below::explain(&error)),
            Ok(text) => envfile::parse(&text).map(Some).map_err(|error| error.to_string()),
        };
        all.insert((name, path), text);
    }
    all
}

fn read(root: &Path, path: &Path) -> io::Result<String> {
    let root = below::root(root)?;
    // Containers may have put a pipe there.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = std::fs::File::from(below::open(&root, path, flags)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::tests::place;
    use super::*;

    #[test]
    fn files_are_read_below_the_volume_only() {
        let (dir, node) = place();
        let text = "metadata: {uid: u1}\nspec: {volumes: [{name: v, emptyDir: {}}], containers: []}";
        let pod: Pod = serde_yaml::from_str(text).unwrap();
        let root = node.root_dir.join("pods/u1/volumes/kubernetes.io~empty-dir/v");
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("good"), "A='1'\n").unwrap();
        fs::write(root.join("bad"), "A=1\n").unwrap();
        fs::write(root.join("large"), vec![b'\n'; 2 << 20]).unwrap();
        fs::write(root.join("binary"), [0xff, 0xfe]).unwrap();
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(dir.path().join("secret"), "A='1'\n").unwrap();
        symlink("good", root.join("link")).unwrap();
        symlink(dir.path().join("secret"), root.join("out")).unwrap();
        let read = |volume: &str, path: &str| {
            let text = format!(
                "{{name: c, env: [{{name: A, valueFrom: {{fileKeyRef: {{volumeName: {volume}, path: {path}, key: A}}}}}}]}}"
            );
            let container: Container = serde_yaml::from_str(&text).unwrap();
            read_env_files(&node, &pod, &container).remove(&(volume.to_owned(), path.to_owned()))
        };
        for path in ["good", "link"] {
            assert_eq!(read("v", path).unwrap().unwrap().unwrap()["A"], "1", "{path}");
        }
        assert_eq!(read("v", "none"), Some(Ok(None)));
        assert_eq!(read("w", "good"), None);
        for (path, wanted) in [
            ("bad", "line 1: the value must stand in single quotes"),
            ("large", "larger than 1 MiB"),
            ("binary", "UTF-8"),
            ("dir", "not a regular file"),
            ("out", "it leads out of the volume"),
        ] {
            let problem = read("v", path).unwrap().unwrap_err();
            assert!(problem.contains(wanted), "{path}: {problem}");
        }
    }
}
