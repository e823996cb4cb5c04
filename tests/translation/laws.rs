//! Laws of the translation for random pods, and the published schema for random and golden ones.

use podstead::pod::security;
use podstead_runtime::CgroupDriver;
use proptest::prelude::*;
use proptest::strategy::BoxedStrategy;
use serde_json::{Value as Json, json};

use crate::random::{Scope, pod};
use crate::schema;
use crate::way::{Made, MadeContainer, World, made, sandbox_request, wanted};

fn scope() -> Scope {
    Scope { image: "registry.example/app:1".into(), host_dir: "/srv/it".into(), real: false }
}

/// Nodes that differ in everything that the translation asks of them.
fn world() -> BoxedStrategy<World> {
    let flags = proptest::collection::vec(any::<bool>(), 8);
    let set = |flags: Vec<bool>| {
        let mut world = World::default();
        let node = &mut world.node;
        node.cgroup_driver = if flags[0] { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs };
        node.seccomp_default = flags[1];
        node.recursive_read_only = true;
        node.security = security::Facts { apparmor: true, strict_groups: true, ..node.security.clone() };
        if flags[2] {
            node.dns.servers = vec!["10.254.0.10".parse().unwrap()];
            node.dns.domain = "kube.local".into();
        }
        let direct = &mut world.direct;
        direct.cgroup_v2 = flags[3];
        direct.apparmor = true;
        direct.swap_limits = flags[4];
        direct.selinux = flags[5];
        direct.min_oom_score_adj = flags[6].then_some(-100);
        if flags[7] {
            world.image.user = Some("web".into());
            world.image.entrypoint = vec!["/entry".into()];
        }
        world
    };
    flags.prop_map(set).boxed()
}

/// What the kubelet, too, finds only when it makes the sandbox or the container.
fn late(why: &str) -> bool {
    ["runAsNonRoot", "non-root", "setHostnameAsFQDN", "no command"].iter().any(|known| why.contains(known))
}

fn translated(world: &World, manifest: &Json) -> Result<Option<Made>, TestCaseError> {
    let pod = wanted(&manifest.to_string()).map_err(|why| TestCaseError::fail(format!("refused: {why}")))?;
    match made(world, &pod) {
        Ok(made) => Ok(Some(made)),
        Err(why) if late(&why) => Ok(None),
        Err(why) => Err(TestCaseError::fail(format!("not translated: {why}"))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Neither does any panic: that would fail the test.
    #[test]
    fn every_accepted_pod_is_translated_for_both_runtimes(world in world(), manifest in pod(&scope())) {
        if let Some(made) = translated(&world, &manifest)? {
            sandbox_request(&world, &made.sandbox).map_err(TestCaseError::fail)?;
            prop_assert!(!made.containers.is_empty());
        }
    }

    #[test]
    fn the_translation_is_a_function(world in world(), manifest in pod(&scope())) {
        if let (Some(a), Some(b)) = (translated(&world, &manifest)?, translated(&world, &manifest)?) {
            prop_assert_eq!(&a.sandbox, &b.sandbox);
            for (a, b) in a.containers.iter().zip(&b.containers) {
                prop_assert_eq!((&a.spec, &a.bundle, &a.request), (&b.spec, &b.bundle, &b.request));
            }
        }
    }

    #[test]
    fn both_runtimes_are_asked_for_the_same(world in world(), manifest in pod(&scope())) {
        for c in translated(&world, &manifest)?.iter().flat_map(|made| &made.containers) {
            same(c)?;
        }
    }
}

/// Mounts, variables, limits and user of the CRI's request are those of the configuration.
fn same(made: &MadeContainer) -> Result<(), TestCaseError> {
    let oci = serde_json::to_value(&made.bundle.spec).unwrap();
    let mounts = oci["mounts"].as_array().unwrap();
    for mount in &made.request.mounts {
        let at = mount.container_path.trim_end_matches('/').replace("//", "/");
        let found = mounts.iter().find(|m| m["destination"].as_str() == Some(&at));
        let found = found.ok_or_else(|| TestCaseError::fail(format!("{at} is not mounted: {oci}")))?;
        let has = |option: &str| found["options"].as_array().unwrap().iter().any(|o| o == option);
        prop_assert_eq!((has("ro"), has("rro")), (mount.readonly, mount.recursive_read_only), "{}", at);
    }
    let env = oci["process"]["env"].as_array().unwrap();
    for variable in &made.request.envs {
        let text = format!("{}={}", variable.key, String::from_utf8_lossy(&variable.value));
        prop_assert!(env.contains(&json!(text)), "{} is not in {:?}", text, env);
    }
    let linux = made.request.linux.clone().unwrap();
    let (resources, security) = (linux.resources.unwrap(), linux.security_context.unwrap());
    let of = |at: &str| oci.pointer(at).and_then(Json::as_i64).unwrap_or(0);
    prop_assert_eq!(of("/linux/resources/cpu/shares"), resources.cpu_shares);
    prop_assert_eq!(of("/linux/resources/cpu/quota"), resources.cpu_quota);
    prop_assert_eq!(of("/linux/resources/memory/limit"), resources.memory_limit_in_bytes);
    prop_assert_eq!(oci["process"]["noNewPrivileges"] == true, security.no_new_privs);
    prop_assert_eq!(oci["root"]["readonly"] == true, security.readonly_rootfs);
    if let Some(user) = security.run_as_user {
        prop_assert_eq!(of("/process/user/uid"), user.value);
    }
    Ok(())
}

#[test]
fn every_configuration_of_an_accepted_pod_is_as_the_published_schema_wants_it() {
    let Some(schema) = schema::published() else { return missing() };
    let config = ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let law = |(world, manifest): (World, Json)| {
        for container in translated(&world, &manifest)?.iter().flat_map(|made| &made.containers) {
            let config = serde_json::to_value(&container.bundle.spec).unwrap();
            let wrong = schema::wrong(&schema, &config);
            prop_assert!(wrong.is_empty(), "{}: {wrong:?}", container.spec.name);
        }
        Ok(())
    };
    runner.run(&(world(), pod(&scope())), law).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_published_schema_finds_a_broken_configuration() {
    let Some(schema) = schema::published() else { return missing() };
    let pod =
        wanted("{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: i}]}}");
    let world = World {
        node: podstead::pod::NodeFacts { seccomp_default: true, ..World::default().node },
        ..World::default()
    };
    let made = made(&world, &pod.unwrap()).unwrap();
    let sound = serde_json::to_value(&made.containers[0].bundle.spec).unwrap();
    assert_eq!(schema::wrong(&schema, &sound), [""; 0]);
    for (place, value) in [
        ("/linux/namespaces/0/type", json!("moon")),
        ("/linux/resources/cpu/shares", json!("many")),
        ("/linux/rootfsPropagation", json!("rshared")),
        ("/linux/seccomp/defaultAction", json!("SCMP_ACT_MAYBE")),
        ("/mounts/0/destination", json!(7)),
        ("/mounts/0/options", json!("ro")),
        ("/process/cwd", Json::Null),
        ("/process/capabilities/bounding", json!([1])),
        ("/root/path", Json::Null),
    ] {
        let mut broken = sound.clone();
        *broken.pointer_mut(place).unwrap_or_else(|| panic!("{place}")) = value;
        let wrong = schema::wrong(&schema, &broken);
        let there = |one: &String| {
            one.split(':')
                .next()
                .is_some_and(|at| at.len() > 1 && (place.starts_with(at) || at.starts_with(place)))
        };
        assert!(!wrong.is_empty() && wrong.iter().all(there), "{place}: {wrong:?}");
    }
}

fn missing() {
    use std::io::Write as _;
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED {test}: the published schema is not installed; `make deps` does it"
    );
}
