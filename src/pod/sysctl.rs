//! Kernel parameters of a pod: how they are written, which namespace each belongs to, and which this node allows
//! (`kubelet-static-pods.md 4.4`). Pure.

use thiserror::Error;

/// Allowed everywhere: what one pod sets disturbs no other.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// The API's limit for a name.
const LONGEST: usize = 253;

/// The namespace that gives a pod its own value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Network.
    Net,
}

/// The namespace of a parameter, or of all parameters with this beginning; `None` for the whole node's.
pub fn namespace(name: &str) -> Option<Namespace> {
    if name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| name.starts_with(p))
    {
        return Some(Namespace::Ipc);
    }
    name.starts_with("net.").then_some(Namespace::Net)
}

/// The name with dots between its parts. Whichever of `.` and `/` comes first parts them; the other then stands within
/// a part: `net/ipv4/conf/eno2.100/rp_filter` is `net.ipv4.conf.eno2/100.rp_filter`.
pub fn normalize(name: &str) -> String {
    if name.find(['.', '/']).is_none_or(|at| name.as_bytes()[at] == b'.') {
        return name.to_owned();
    }
    let swap = |c: char| match c {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    name.chars().map(swap).collect()
}

/// Whether the API takes the name: parts of lower case letters, digits, `-` and `_`.
pub fn is_name(name: &str) -> bool {
    name.len() <= LONGEST && name.split(['.', '/']).all(is_part)
}

fn is_part(part: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let body = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    part.chars().all(body) && ends(part.chars().next()) && ends(part.chars().last())
}

/// A pattern of `--allowed-unsafe-sysctls` that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadPattern {
    /// It has not the form.
    #[error("{0:?} is no name of a sysctl, nor the beginning of some with * at its end")]
    Form(String),
    /// Pods have no value of their own, so setting it would change the node.
    #[error(
        "the sysctl {0:?} is not known to be namespaced: a pod can have its own net.*, kernel.shm*, kernel.msg*, \
         kernel.sem and fs.mqueue.* only"
    )]
    NotNamespaced(String),
}

/// What pods may set on this node besides the safe ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed(Vec<String>);

impl Allowed {
    /// Takes the flag's patterns: names, or beginnings of names followed by `*`.
    pub fn parse<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Self, BadPattern> {
        let one = |pattern: &str| {
            let name = normalize(pattern);
            let stem = name.strip_suffix('*').unwrap_or(&name);
            // The stem of a pattern may end within a part, or with the dot after one.
            let sound = stem.trim_end_matches(['.', '-', '_']);
            if !is_name(sound) || stem.len() - sound.len() > 1 || (stem == name && stem != sound) {
                return Err(BadPattern::Form(pattern.to_owned()));
            }
            namespace(stem).map(|_| name.clone()).ok_or_else(|| BadPattern::NotNamespaced(pattern.to_owned()))
        };
        patterns.into_iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a pod may set it, else why not, in the kubelet's words.
    pub fn check(&self, name: &str, host_network: bool, host_ipc: bool) -> Result<(), String> {
        let name = normalize(name);
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(stem) => name.starts_with(stem),
            None => name == *pattern,
        };
        if !SAFE.contains(&name.as_str()) && !self.0.iter().any(fits) {
            return Err(format!("{name:?} not allowlisted"));
        }
        match namespace(&name) {
            Some(Namespace::Ipc) if host_ipc => Err(format!("{name:?} not allowed with host ipc enabled")),
            Some(Namespace::Net) if host_network => {
                Err(format!("{name:?} not allowed with host net enabled"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(patterns: &[&str]) -> Allowed {
        Allowed::parse(patterns.iter().copied()).unwrap()
    }

    #[test]
    fn either_separator_names_the_same_parameter() {
        for (given, dotted) in [
            ("kernel.shm_rmid_forced", "kernel.shm_rmid_forced"),
            ("kernel/shm_rmid_forced", "kernel.shm_rmid_forced"),
            ("net.ipv4.conf.eno2/100.rp_filter", "net.ipv4.conf.eno2/100.rp_filter"),
            ("net/ipv4/conf/eno2.100/rp_filter", "net.ipv4.conf.eno2/100.rp_filter"),
            ("net", "net"),
        ] {
            assert_eq!(normalize(given), dotted, "{given}");
        }
    }

    #[test]
    fn names_have_the_apis_form() {
        for good in ["kernel.shm_rmid_forced", "net/ipv4/tcp_rmem", "a", "net.ipv4.conf.eth0/1.x-y"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a..b", ".a", "a.", "A.b", "a.b_", "a.-b", "a b", "a.*", &"a.".repeat(127)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn what_a_pod_has_of_its_own_is_known_by_its_beginning() {
        for name in ["kernel.sem", "kernel.shmmax", "kernel.msgmnb", "fs.mqueue.msg_max"] {
            assert_eq!(namespace(name), Some(Namespace::Ipc), "{name}");
        }
        assert_eq!(namespace("net.core.somaxconn"), Some(Namespace::Net));
        for name in ["kernel.semx", "vm.swappiness", "fs.file-max", "net", "kernel.sh"] {
            assert_eq!(namespace(name), None, "{name}");
        }
    }

    #[test]
    fn safe_ones_are_allowed_and_others_by_the_flag_only() {
        let none = Allowed::default();
        assert!(none.check("net/ipv4/tcp_syncookies", false, false).is_ok());
        let refused = none.check("kernel.msgmax", false, false).unwrap_err();
        assert_eq!(refused, "\"kernel.msgmax\" not allowlisted");
        let some = allowed(&["kernel.msg*", "net/core/somaxconn", "net.ipv4.*"]);
        for name in ["kernel.msgmax", "net.core.somaxconn", "net.ipv4.ip_forward"] {
            assert!(some.check(name, false, false).is_ok(), "{name}");
        }
        assert!(some.check("net.core.somaxconn2", false, false).is_err());
        assert!(some.check("kernel.shmmax", false, false).is_err());
    }

    #[test]
    fn none_is_allowed_that_would_change_the_node() {
        let some = allowed(&["kernel.msg*"]);
        let refused = some.check("kernel.msgmax", false, true).unwrap_err();
        assert_eq!(refused, "\"kernel.msgmax\" not allowed with host ipc enabled");
        let refused = some.check("net.ipv4.tcp_rmem", true, false).unwrap_err();
        assert_eq!(refused, "\"net.ipv4.tcp_rmem\" not allowed with host net enabled");
    }

    #[test]
    fn patterns_are_namespaced_names_or_beginnings_of_them() {
        let bad = |pattern: &str| Allowed::parse([pattern]).unwrap_err();
        for pattern in ["", "*", "Net.x", "net..*", "net.*.x", "net.a b", "net.x_"] {
            assert_eq!(bad(pattern), BadPattern::Form(pattern.into()));
        }
        for pattern in ["kernel.*", "vm.swappiness", "net*", "kernel.sh*"] {
            assert_eq!(bad(pattern), BadPattern::NotNamespaced(pattern.into()));
        }
        allowed(&["net.ipv4.conf.*", "kernel.shm_*", "kernel.sem"]);
    }
}
