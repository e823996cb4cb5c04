//! Which sysctls a pod may set and where they are written. Parsing is pure; [`apply`] writes below
//! `/proc/sys` in the namespaces of the calling thread.

use std::{fs::OpenOptions, io::Write, path::PathBuf};

use super::{Error, Spec};

/// Kernel limit on what one write to a sysctl file looks at (one page).
const VALUE_MAX: usize = 4096;

/// The file of the sysctl `name`, when the namespaces of `spec` make it the pod's own.
///
/// Either `.` or `/` may separate the parts; the one that comes first decides, so that
/// `net.ipv4.conf.eth0/100.forwarding` and `net/ipv4/conf/eth0.100/forwarding` are the same.
pub(super) fn path(name: &str, spec: &Spec) -> Result<PathBuf, Error> {
    let refuse = |reason| Error::SysctlName { name: name.to_owned(), reason };
    let parts = split(name).ok_or_else(|| refuse("it is not a sysctl name"))?;
    let second = parts.get(1).map_or("", String::as_str);
    match parts[0].as_str() {
        "net" if spec.net => {}
        "net" => return Err(refuse("the pod has no network namespace of its own")),
        "kernel" if ["shm", "msg"].iter().any(|p| second.starts_with(p)) || second == "sem" => {
            ipc_only(spec).map_err(refuse)?;
        }
        "fs" if second == "mqueue" => ipc_only(spec).map_err(refuse)?,
        _ => return Err(refuse("it does not belong to a namespace of the pod")),
    }
    let mut path = PathBuf::from("/proc/sys");
    path.extend(&parts);
    Ok(path)
}

fn ipc_only(spec: &Spec) -> Result<(), &'static str> {
    if spec.ipc { Ok(()) } else { Err("the pod has no ipc namespace of its own") }
}

fn split(name: &str) -> Option<Vec<String>> {
    let dots = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'.');
    let (separator, other, literal) = if dots { ('.', "/", ".") } else { ('/', "/", "/") };
    let parts: Vec<String> = name.split(separator).map(|part| part.replace(other, literal)).collect();
    let sound = |part: &String| {
        !matches!(part.as_str(), "" | "." | "..")
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    };
    (parts.len() >= 2 && name.len() <= 253 && parts.iter().all(sound)).then_some(parts)
}

/// Refuses the names and values that would be refused later, before anything is made.
pub(super) fn validate(spec: &Spec) -> Result<(), Error> {
    for (name, value) in &spec.sysctls {
        path(name, spec)?;
        if value.is_empty() || value.len() >= VALUE_MAX || value.contains(['\0', '\n']) {
            return Err(Error::SysctlName {
                name: name.clone(),
                reason: "its value is not one line of text",
            });
        }
    }
    Ok(())
}

/// Sets the sysctls in the namespaces of the calling thread, in the order given.
pub(super) fn apply(spec: &Spec) -> Result<(), Error> {
    for (name, value) in &spec.sysctls {
        let path = path(name, spec)?;
        OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|source| Error::Sysctl { name: name.clone(), value: value.clone(), source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(net: bool, ipc: bool) -> Spec {
        Spec { net, ipc, ..Spec::default() }
    }

    #[test]
    fn both_separators_name_the_same_file() {
        for name in ["net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"] {
            let path = path(name, &spec(true, false)).unwrap();
            assert_eq!(path, PathBuf::from("/proc/sys/net/ipv4/conf/eth0.100/forwarding"));
        }
    }

    #[test]
    fn only_the_pods_own_namespaces_are_written() {
        let both = spec(true, true);
        for good in ["net.core.somaxconn", "kernel.shm_rmid_forced", "kernel.sem", "fs.mqueue.msg_max"] {
            path(good, &both).unwrap();
        }
        for bad in
            ["kernel.panic", "vm.swappiness", "kernel.hostname", "fs.file-max", "net", "", "kernel.semx"]
        {
            assert!(path(bad, &both).is_err(), "{bad}");
        }
        assert!(path("net.core.somaxconn", &spec(false, true)).is_err());
        assert!(path("kernel.shmmax", &spec(true, false)).is_err());
        assert!(path("fs.mqueue.msg_max", &spec(true, false)).is_err());
    }

    #[test]
    fn no_name_leaves_the_tree() {
        let both = spec(true, true);
        for bad in [
            "net/../kernel/panic",
            "net.//.kernel",
            "net./../.kernel",
            "net/./x",
            "net//x",
            "net/a b",
            "net/a\0",
        ] {
            assert!(path(bad, &both).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_one_line() {
        for bad in ["", "1\n2", "a\0"] {
            let spec = Spec {
                net: true,
                sysctls: vec![("net.core.somaxconn".into(), bad.into())],
                ..Spec::default()
            };
            assert!(!validate(&spec).unwrap_err().retryable());
        }
    }
}
