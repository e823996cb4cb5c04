//! The runtime's default seccomp profile: what it allows, by purpose. Everything else answers EPERM. Pure.
//!
//! It allows what the default profile of the CRI runtimes allows, so that a program that runs there runs here.

use oci_spec::runtime::{Arch, LinuxSeccompAction as Action, LinuxSeccompOperator as Operator};

use super::{Condition, Filter, Rule};
use crate::bundle::capability::Granted;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// Sockets to the hypervisor, which no network policy sees.
const AF_VSOCK: u64 = 40;
/// The CLONE_NEW* flags of clone(2) that make namespaces: cgroup, uts, ipc, user, pid, net, mount.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// Execution domains that change nothing of security; the last one only asks.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Space-separated names, allowed to all.
const ALLOWED: &[&str] = &[
    // Files: open, read, write.
    "access creat close close_range dup dup2 dup3 faccessat faccessat2 fadvise64 fadvise64_64 fallocate fcntl \
     fcntl64 fdatasync flock fsync ftruncate ftruncate64 lseek _llseek open openat openat2 pread64 preadv preadv2 \
     pwrite64 pwritev pwritev2 read readahead readv sync sync_file_range syncfs truncate truncate64 write writev \
     copy_file_range sendfile sendfile64 splice tee vmsplice cachestat ioctl pipe pipe2 memfd_create memfd_secret",
    // Files: names, owners, modes, times.
    "chdir chmod chown chown32 fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fstat fstat64 fstatat64 \
     fstatfs fstatfs64 futimesat getcwd getdents getdents64 lchown lchown32 link linkat lstat lstat64 mkdir mkdirat \
     mknod mknodat name_to_handle_at newfstatat readlink readlinkat rename renameat renameat2 rmdir stat stat64 \
     statfs statfs64 statx symlink symlinkat umask unlink unlinkat utime utimensat utimensat_time64 utimes listmount \
     statmount",
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr \
     lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat",
    // Waiting for files.
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
     eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch _newselect poll ppoll \
     ppoll_time64 pselect6 pselect6_time64 select io_cancel io_destroy io_getevents io_pgetevents \
     io_pgetevents_time64 io_setup io_submit",
    // Memory.
    "brk madvise map_shadow_stack membarrier mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap mseal msync \
     munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages",
    // Processes and threads.
    "capget capset execve execveat exit exit_group fork vfork futex futex_requeue futex_time64 futex_wait \
     futex_waitv futex_wake getcpu getpgid getpgrp getpid getppid getpriority getrlimit get_robust_list getrusage \
     getsid get_thread_area gettid ioprio_get ioprio_set kill pidfd_open pidfd_send_signal prctl prlimit64 \
     process_mrelease ptrace process_vm_readv process_vm_writev rseq sched_getaffinity sched_getattr sched_getparam \
     sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval \
     sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
     seccomp landlock_add_rule landlock_create_ruleset landlock_restrict_self setpgid setpriority setrlimit \
     set_robust_list setsid set_thread_area set_tid_address tgkill tkill ugetrlimit uretprobe wait4 waitid waitpid",
    // Users and groups.
    "getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 getresuid \
     getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 \
     setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32",
    // Signals.
    "pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
     rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signal signalfd signalfd4 sigprocmask \
     sigreturn",
    // Sockets, but for making one.
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 \
     recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair",
    // System V and POSIX IPC.
    "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 \
     mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget",
    // Time. Setting the clock still wants its capability.
    "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
     clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete \
     timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime \
     timerfd_gettime64 timerfd_settime timerfd_settime64 times",
    // The rest.
    "getrandom sysinfo uname",
];

/// Allowed on one architecture (any of the given) only.
const BY_ARCHITECTURE: &[(&[Arch], &str)] = &[
    (&[Arch::ScmpArchX86_64, Arch::ScmpArchX32], "arch_prctl"),
    (&[Arch::ScmpArchX86_64, Arch::ScmpArchX32, Arch::ScmpArchX86], "modify_ldt"),
    (
        &[Arch::ScmpArchArm, Arch::ScmpArchAarch64],
        "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    ),
];

/// Allowed to who holds the capability.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("BPF", "bpf"),
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    ("PERFMON", "perf_event_open"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYSLOG", "syslog"),
];

/// The profile for these architectures and capabilities.
pub(super) fn filter(architectures: Vec<Arch>, granted: &Granted) -> Filter {
    let mut rules: Vec<Rule> = ALLOWED.iter().map(|names| allow(names, &[])).collect();
    let socket = Condition { argument: 0, operator: Operator::ScmpCmpNe, value: AF_VSOCK, masked: 0 };
    rules.push(allow("socket", &[socket]));
    for value in PERSONALITIES {
        let exactly = Condition { argument: 0, operator: Operator::ScmpCmpEq, value, masked: 0 };
        rules.push(allow("personality", &[exactly]));
    }
    for (on, names) in BY_ARCHITECTURE {
        if on.iter().any(|one| architectures.contains(one)) {
            rules.push(allow(names, &[]));
        }
    }
    for (capability, names) in BY_CAPABILITY {
        if granted.has(capability) {
            rules.push(allow(names, &[]));
        }
    }
    if !granted.has("SYS_ADMIN") {
        let no_namespace =
            Condition { argument: 0, operator: Operator::ScmpCmpMaskedEq, value: NEW_NAMESPACES, masked: 0 };
        rules.push(allow("clone", &[no_namespace]));
        // Its flags are behind a pointer no filter can read: C libraries fall back to clone when it is not there.
        rules.push(Rule { errno: Some(ENOSYS), action: Action::ScmpActErrno, ..allow("clone3", &[]) });
    }
    Filter {
        default_action: Action::ScmpActErrno,
        default_errno: Some(EPERM),
        architectures,
        flags: Vec::new(),
        rules,
    }
}

fn allow(names: &str, conditions: &[Condition]) -> Rule {
    Rule {
        names: names.split_ascii_whitespace().map(str::to_owned).collect(),
        action: Action::ScmpActAllow,
        errno: None,
        conditions: conditions.to_vec(),
    }
}
