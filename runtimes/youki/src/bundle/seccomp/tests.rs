//! What the default profile and profile files come to.

use podstead_runtime::ContainerSecurity;

use super::*;

fn granted(add: &[&str]) -> Granted {
    let add_capabilities = add.iter().map(|s| (*s).to_owned()).collect();
    let security = ContainerSecurity { add_capabilities, ..ContainerSecurity::default() };
    Granted::of(Blame("c"), &security, None, true).unwrap()
}

fn default(add: &[&str]) -> LinuxSeccomp {
    to_oci(table::filter(architectures("x86_64"), &granted(add)))
}

fn rules<'a>(seccomp: &'a LinuxSeccomp, name: &str) -> Vec<&'a LinuxSyscall> {
    let all = seccomp.syscalls().as_ref().unwrap();
    all.iter().filter(|rule| rule.names().iter().any(|n| n == name)).collect()
}

#[test]
fn the_default_refuses_what_it_does_not_name() {
    let profile = default(&[]);
    assert_eq!(profile.default_action(), LinuxSeccompAction::ScmpActErrno);
    assert_eq!(profile.default_errno_ret(), Some(1));
    for name in [
        "mount",
        "unshare",
        "setns",
        "bpf",
        "reboot",
        "init_module",
        "keyctl",
        "add_key",
        "userfaultfd",
        "io_uring_setup",
        "perf_event_open",
        "settimeofday",
        "open_by_handle_at",
        "kexec_load",
    ] {
        assert!(rules(&profile, name).is_empty(), "{name}");
    }
    for name in [
        "read",
        "execve",
        "openat2",
        "rt_sigreturn",
        "arch_prctl",
        "chroot",
        "capset",
        "prctl",
        "futex_waitv",
    ] {
        assert_eq!(rules(&profile, name).len(), 1, "{name}");
    }
    assert!(rules(&profile, "cacheflush").is_empty(), "another architecture's");
}

#[test]
fn no_call_is_allowed_twice_without_condition() {
    let profile = default(&["SYS_ADMIN"]);
    let mut names: Vec<&String> =
        profile.syscalls().as_ref().unwrap().iter().flat_map(LinuxSyscall::names).collect();
    names.retain(|name| !["personality", "bpf", "perf_event_open", "syslog"].contains(&name.as_str()));
    names.sort();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn capabilities_open_their_calls() {
    assert_eq!(rules(&default(&["SYS_ADMIN"]), "mount").len(), 1);
    assert_eq!(rules(&default(&["SYS_TIME"]), "settimeofday").len(), 1);
    assert_eq!(rules(&default(&["SYS_MODULE"]), "init_module").len(), 1);
    assert!(rules(&default(&["SYS_ADMIN"]), "clone")[0].args().is_none());
}

#[test]
fn clone_makes_no_namespaces_and_clone3_does_not_exist() {
    let profile = default(&[]);
    let clone = rules(&profile, "clone")[0].args().clone().unwrap();
    // Mask in the second operand: see `condition_to_oci`.
    assert_eq!((clone[0].value(), clone[0].value_two()), (0, Some(0x7e02_0000)));
    let clone3 = rules(&profile, "clone3");
    assert_eq!((clone3[0].action(), clone3[0].errno_ret()), (LinuxSeccompAction::ScmpActErrno, Some(38)));
}

fn localhost(text: &str, add: &[&str], kernel: Option<(u32, u32)>) -> Result<LinuxSeccomp, String> {
    let facts = localhost::Facts { granted: &granted(add), kernel, architectures: architectures("x86_64") };
    localhost::filter(text, &facts).map(to_oci)
}

const PROFILE: &str = r#"{
  "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "comment": "x",
  "archMap": [{"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
              {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
  "syscalls": [
    {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
    {"name": "clone", "action": "SCMP_ACT_ALLOW",
     "args": [{"index": 0, "value": 2114060288, "valueTwo": 7, "op": "SCMP_CMP_MASKED_EQ"}]},
    {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
    {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
    {"names": ["arm_call"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
    {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.1"}}
  ]}"#;

#[test]
fn a_profile_file_is_decided_by_capability_architecture_and_kernel() {
    let plain = localhost(PROFILE, &[], None).unwrap();
    assert_eq!(plain.default_errno_ret(), Some(38));
    assert_eq!(plain.architectures().as_deref(), Some(&[Arch::ScmpArchX86_64, Arch::ScmpArchX86][..]));
    let has = |profile: &LinuxSeccomp, name: &str| !rules(profile, name).is_empty();
    assert!(has(&plain, "read") && !has(&plain, "mount") && has(&plain, "clone3"));
    assert!(!has(&plain, "arm_call") && !has(&plain, "new"));
    let clone = rules(&plain, "clone")[0].args().clone().unwrap();
    assert_eq!((clone[0].value(), clone[0].value_two()), (7, Some(2_114_060_288)));
    let admin = localhost(PROFILE, &["SYS_ADMIN"], Some((6, 1))).unwrap();
    assert!(has(&admin, "mount") && !has(&admin, "clone3") && has(&admin, "new"));
}

#[test]
fn a_profile_that_cannot_be_kept_is_refused() {
    let refused = |text: &str| localhost(text, &[], None).err().unwrap_or_else(|| panic!("{text} was taken"));
    assert!(refused("{}").contains("defaultAction"));
    refused("not json");
    refused(r#"{"defaultAction": "SCMP_ACT_MAYBE"}"#);
    assert!(refused(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#).contains("NOTIFY"));
    assert!(refused(r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}"#).contains("listener"));
    let rule = |rest: &str| {
        format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"action": "SCMP_ACT_ERRNO", {rest}}}]}}"#
        )
    };
    assert!(refused(&rule(r#""names": []"#)).contains("no names"));
    refused(&rule(r#""names": ["a"], "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]"#));
    refused(&rule(r#""names": ["a"], "includes": {"minKernel": "x"}"#));
}
