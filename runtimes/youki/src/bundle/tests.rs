//! Golden cases: `fixtures/oci/<case>.json` holds what a container is made from and the configuration that comes of
//! it, and `arch` where only one has it. `PODSTEAD_REGENERATE=1 cargo test -p podstead-youki bundle` writes the `bundle` part of every case anew; read
//! the difference before it is committed.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::image::user::User;

/// The input of a case, every part optional.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Given {
    container: ContainerSpec,
    sandbox: SandboxSpec,
    image: Image,
    namespaces: NamespacePaths,
    files: PodFiles,
    node: NodeFacts,
    localhost_seccomp: Option<Value>,
    /// Uid, gid, home: applied when present.
    resolved: Option<(u32, u32, Vec<u32>, String)>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Image {
    user: Option<String>,
    env: Vec<String>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    working_dir: Option<String>,
}

fn built(given: Given) -> Result<Bundle, Error> {
    let image = ImageConfig {
        user: given.image.user,
        env: given.image.env,
        entrypoint: given.image.entrypoint,
        cmd: given.image.cmd,
        working_dir: given.image.working_dir,
        ..ImageConfig::default()
    };
    let profile = given.localhost_seccomp.map(|profile| profile.to_string());
    let mut bundle = build(&Input {
        container: &given.container,
        sandbox: &given.sandbox,
        image: &image,
        rootfs: Path::new("/run/podstead/c1/rootfs"),
        namespaces: &given.namespaces,
        files: &given.files,
        cgroup_path: "/kubepods/besteffort/pod1/c1",
        node: &given.node,
        localhost_seccomp: profile.as_deref(),
    })?;
    if let Some((uid, gid, additional_gids, home)) = given.resolved {
        let user = User { uid, gid, additional_gids, home: Some(home) };
        apply_user(bundle.spec.process_mut().as_mut().unwrap(), &user, &bundle.user);
    }
    Ok(bundle)
}

/// Capabilities are sets and come in any order.
fn sorted(mut value: Value) -> Value {
    if let Some(capabilities) = value.pointer_mut("/spec/process/capabilities").and_then(Value::as_object_mut)
    {
        for set in capabilities.values_mut().filter_map(Value::as_array_mut) {
            set.sort_by_key(ToString::to_string);
        }
    }
    value
}

fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/oci");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = files.filter(|f| f.extension().is_some_and(|e| e == "json")).collect();
    cases.sort();
    cases
}

#[test]
fn every_case_comes_out_as_written() {
    let regenerate = std::env::var_os("PODSTEAD_REGENERATE").is_some();
    let cases = cases();
    assert!(cases.len() >= 10, "cases are missing: {cases:?}");
    for path in cases {
        let mut case: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        if case["arch"].as_str().is_some_and(|arch| arch != std::env::consts::ARCH) {
            continue;
        }
        let given: Given = serde_json::from_value(case["given"].clone())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let bundle = built(given).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let text = serde_json::to_value(&bundle).unwrap();
        assert_eq!(serde_json::from_value::<Bundle>(text.clone()).unwrap(), bundle, "read back");
        let found = sorted(text);
        if regenerate {
            case["bundle"] = found;
            std::fs::write(&path, serde_json::to_string_pretty(&case).unwrap() + "\n").unwrap();
        } else {
            let difference = first_difference("", &case["bundle"], &found);
            assert!(difference.is_none(), "{}: {}", path.display(), difference.unwrap());
        }
    }
}

fn first_difference(at: &str, wanted: &Value, found: &Value) -> Option<String> {
    match (wanted, found) {
        (Value::Object(a), Value::Object(b)) => a.keys().chain(b.keys()).find_map(|key| {
            let null = Value::Null;
            first_difference(&format!("{at}/{key}"), a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null))
        }),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(i, (a, b))| first_difference(&format!("{at}/{i}"), a, b))
        }
        _ => (wanted != found).then(|| format!("at {at} the case has {wanted}, but there is {found}")),
    }
}

fn from(given: Value) -> Result<Bundle, Error> {
    let mut given: Given = serde_json::from_value(given).unwrap();
    given.container.name = "c".into();
    given.container.command = vec!["true".into()];
    built(given)
}

fn environment(given: Value) -> Vec<String> {
    from(given).unwrap().spec.process().as_ref().unwrap().env().clone().unwrap()
}

#[test]
fn later_variables_take_the_place_of_earlier_ones() {
    let env = environment(json!({
        "image": {"env": ["A=image", "PATH=/img", "broken", "=x", "B=image"]},
        "sandbox": {"hostname": "web-0"},
        "container": {"env": [{"name": "B", "value": "pod"}, {"name": "C", "value": "1"}, {"name": "A", "value": "x=y"}]},
    }));
    assert_eq!(env, ["A=x=y", "PATH=/img", "B=pod", "HOSTNAME=web-0", "C=1"]);
}

#[test]
fn there_is_always_a_path_and_the_pod_may_say_its_own_host_name() {
    let env = environment(
        json!({"container": {"env": [{"name": "HOSTNAME", "value": "mine"}]}, "node": {"hostname": "node1"}}),
    );
    assert!(
        env[0].starts_with("PATH=/usr/local/sbin:") && env[1] == "HOSTNAME=mine" && env.len() == 2,
        "{env:?}"
    );
}

#[test]
fn a_variable_that_is_none_is_refused() {
    for (name, value) in [("", "x"), ("A=B", "x"), ("A", "x\u{0}y")] {
        assert!(from(json!({"container": {"env": [{"name": name, "value": value}]}})).is_err(), "{name:?}");
    }
}

#[test]
fn no_new_privileges_is_left_out_when_false() {
    let of = |on: bool| {
        let bundle =
            from(json!({"container": {"security": {"no_new_privs": on, "seccomp": "RuntimeDefault"}}}));
        bundle.unwrap().spec.process().as_ref().unwrap().no_new_privileges()
    };
    assert_eq!((of(true), of(false)), (Some(true), None));
}

fn destinations(given: Value) -> Vec<String> {
    let spec = from(given).unwrap().spec;
    spec.mounts().as_ref().unwrap().iter().map(|m| m.destination().display().to_string()).collect()
}

#[test]
fn what_the_pod_mounts_itself_is_not_mounted_twice() {
    let files = json!({"hosts": "/p/hosts", "hostname": "/p/hostname", "shm": "/p/shm"});
    let mount = |at: &str| json!({"destination": at, "source": "/s"});
    let all = destinations(json!({"files": files,
        "container": {"mounts": [mount("/etc/hosts/"), mount("/sys"), mount("/dev/shm")]}}));
    assert_eq!(
        all,
        ["/proc", "/dev", "/sys", "/dev/pts", "/dev/mqueue", "/etc/hostname", "/etc/hosts", "/dev/shm"]
    );
}

#[test]
fn nested_mounts_go_from_the_outside_in_whatever_their_order() {
    let mount = |at: &str| json!({"destination": at, "source": "/s"});
    let all = destinations(
        json!({"container": {"mounts": [mount("/a/b/c"), mount("/z"), mount("/a"), mount("/a/b")]}}),
    );
    let own: Vec<&str> =
        all.iter().map(String::as_str).filter(|d| d.starts_with("/a") || *d == "/z").collect();
    assert_eq!(own, ["/z", "/a", "/a/b", "/a/b/c"]);
}

#[test]
fn the_root_propagates_as_much_as_the_strongest_mount() {
    let of = |kinds: &[&str]| {
        let mounts: Vec<Value> = kinds
            .iter()
            .enumerate()
            .map(|(i, kind)| json!({"destination": format!("/m{i}"), "source": "/s", "propagation": kind}))
            .collect();
        let spec = from(json!({"container": {"mounts": mounts}})).unwrap().spec;
        spec.linux().as_ref().unwrap().rootfs_propagation().clone().unwrap()
    };
    assert_eq!(of(&[]), "private");
    assert_eq!(of(&["HostToContainer", "Private"]), "slave");
    assert_eq!(of(&["HostToContainer", "Bidirectional"]), "shared");
}

#[test]
fn what_is_not_supported_is_named() {
    let error = |given: Value| from(given).unwrap_err().to_string();
    let users = json!({"uids": [], "gids": []});
    assert!(
        error(json!({"container": {"security": {"namespaces": {"user": users}}}})).contains("user namespace")
    );
    assert!(
        error(json!({"sandbox": {"security": {"namespaces": {"user": users}}}})).contains("user namespace")
    );
    let target = json!({"security": {"namespaces": {"pid": {"Target": "x1"}}}});
    assert!(error(json!({"container": target})).contains("x1"));
    assert!(error(json!({"container": {"cdi_devices": ["v.d/c=1"]}})).contains("v.d/c=1"));
    let device =
        json!({"devices": [{"container_path": "/dev/x", "host_path": "/dev/x", "permissions": "r"}]});
    assert!(error(json!({"container": device})).contains("/dev/x"));
}

#[test]
fn devices_are_renamed_and_allowed_and_a_directory_stands_for_all_in_it() {
    let node = json!({"devices": [
        {"path": "/dev/snd/a", "major": 116, "minor": 2, "mode": 432},
        {"path": "/dev/snd/b", "major": 116, "minor": 3, "mode": 432},
        {"path": "/dev/sndx", "major": 1, "minor": 1}]});
    let asked = json!({"container_path": "/dev/audio", "host_path": "/dev/snd", "permissions": "rw"});
    let spec = from(json!({"node": node, "container": {"devices": [asked]}})).unwrap().spec;
    let linux = spec.linux().as_ref().unwrap();
    let paths: Vec<_> = linux.devices().as_ref().unwrap().iter().map(|d| d.path().clone()).collect();
    assert_eq!(paths, [PathBuf::from("/dev/audio/a"), PathBuf::from("/dev/audio/b")]);
    let rules = linux.resources().as_ref().unwrap().devices().clone().unwrap();
    assert!(!rules[0].allow() && rules.last().unwrap().to_string() == "c 116:3 rw", "{rules:?}");
    let outside = json!({"container_path": "/dev/../etc/x", "host_path": "/dev/snd", "permissions": "rw"});
    assert!(from(json!({"node": node, "container": {"devices": [outside]}})).is_err());
}
