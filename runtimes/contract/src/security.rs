//! Security settings of sandboxes and containers: CRI's LinuxSandboxSecurityContext and LinuxContainerSecurityContext.

use serde::{Deserialize, Serialize};

use crate::ContainerId;

/// Paths hidden from containers unless they say otherwise (`kubelet-static-pods.md 4.4`).
pub const DEFAULT_MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths that containers may only read, likewise.
pub const DEFAULT_READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Every capability of Linux without its `CAP_`, by number from 0.
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Whose namespace something lives in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// The pod's.
    #[default]
    Pod,
    /// The container's own (pid only).
    Container,
    /// The node's.
    Node,
    /// Another container's (pid only).
    Target(ContainerId),
}

/// One range of a user namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside.
    pub container_id: u32,
    /// First id outside.
    pub host_id: u32,
    /// How many.
    pub length: u32,
}

/// A user namespace's ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    /// Users.
    pub uids: Vec<IdMapping>,
    /// Groups.
    pub gids: Vec<IdMapping>,
}

/// The namespaces of a pod or container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Network (and UTS).
    pub network: NamespaceMode,
    /// Process ids.
    pub pid: NamespaceMode,
    /// System V and POSIX IPC.
    pub ipc: NamespaceMode,
    /// A user namespace of the pod's; `None` for the node's.
    pub user: Option<UserNamespace>,
}

/// A seccomp or AppArmor profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// The runtime's own.
    RuntimeDefault,
    /// None.
    #[default]
    Unconfined,
    /// Seccomp: absolute path of a profile file. AppArmor: name of a loaded profile.
    Localhost(String),
}

/// SELinux label parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelinuxOptions {
    /// User.
    pub user: String,
    /// Role.
    pub role: String,
    /// Type.
    pub kind: String,
    /// Level.
    pub level: String,
}

/// Whether groups of the image's `/etc/group` count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupsPolicy {
    /// They are added.
    #[default]
    Merge,
    /// They are not.
    Strict,
}

/// Security of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSecurity {
    /// Namespaces.
    pub namespaces: Namespaces,
    /// SELinux label.
    pub selinux: Option<SelinuxOptions>,
    /// User of the sandbox process.
    pub run_as_user: Option<i64>,
    /// Group of the sandbox process.
    pub run_as_group: Option<i64>,
    /// Read-only root of the sandbox process.
    pub readonly_rootfs: bool,
    /// Groups.
    pub supplemental_groups: Vec<i64>,
    /// Whether the image's groups are added.
    pub groups_policy: GroupsPolicy,
    /// Whether any container of the pod is privileged.
    pub privileged: bool,
    /// Seccomp profile of the sandbox process.
    pub seccomp: Profile,
    /// AppArmor profile of the sandbox process; `None` leaves it to the runtime, as nodes without AppArmor want.
    pub apparmor: Option<Profile>,
}

/// Security of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSecurity {
    /// Namespaces.
    pub namespaces: Namespaces,
    /// Capabilities added to the default set; `ALL` for all.
    pub add_capabilities: Vec<String>,
    /// Capabilities taken from it; `ALL` for all.
    pub drop_capabilities: Vec<String>,
    /// Ambient capabilities.
    pub ambient_capabilities: Vec<String>,
    /// All capabilities and devices, nothing masked.
    pub privileged: bool,
    /// SELinux label.
    pub selinux: Option<SelinuxOptions>,
    /// Numeric user; `None` for the image's.
    pub run_as_user: Option<i64>,
    /// User by name, looked up in the image; empty for none.
    pub run_as_username: String,
    /// Numeric group.
    pub run_as_group: Option<i64>,
    /// Read-only root file system.
    pub readonly_rootfs: bool,
    /// Groups.
    pub supplemental_groups: Vec<i64>,
    /// Whether the image's groups are added.
    pub groups_policy: GroupsPolicy,
    /// Set `no_new_privs`.
    pub no_new_privs: bool,
    /// Paths hidden from the container.
    pub masked_paths: Vec<String>,
    /// Paths it may only read.
    pub readonly_paths: Vec<String>,
    /// Seccomp profile.
    pub seccomp: Profile,
    /// AppArmor profile; `None` leaves it to the runtime, as nodes without AppArmor want.
    pub apparmor: Option<Profile>,
}
