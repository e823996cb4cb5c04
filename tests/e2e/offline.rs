//! What the command line does without a node: validation, versions, help, a runtime that is not there.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cli::told;
use crate::support::BINARY;

fn podstead(args: &[&str]) -> (i32, String, String) {
    told(Command::new(BINARY).args(args).stdin(Stdio::null()).output().expect("run podstead"))
}

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/manifests").join(name).display().to_string()
}

#[test]
fn validate_names_file_line_and_column() {
    let dir = tempfile::tempdir().expect("a directory");
    let broken = dir.path().join("broken.yaml");
    let pod =
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: c\n    imagee: i\n";
    std::fs::write(&broken, pod).expect("write");
    let broken = broken.display().to_string();
    let good = fixture("static-web.yaml");
    let (code, out, err) = podstead(&["validate", "--hostname-override", "Node1", &good, &broken]);
    assert_eq!((code, &*err), (4, ""));
    let said: Vec<&str> = out.lines().collect();
    assert_eq!(said[0], format!("{good}: ok: default/static-web-node1"));
    assert!(said[1].starts_with(&format!("{broken}:8:5: spec.containers[0].imagee: unknown field")), "{out}");
    assert!(said[1].ends_with("did you mean \"image\"?"), "{out}");

    // One that is missing does not hide the others, and a refusal weighs more.
    let none = dir.path().join("none.yaml").display().to_string();
    let (code, out, err) = podstead(&["validate", &none, &good]);
    assert_eq!((code, out.lines().count()), (3, 1));
    assert!(err.contains("none.yaml: No such file"), "{err}");
    assert_eq!(podstead(&["validate", &none, &broken]).0, 4);

    // A directory is read as the agent reads it.
    std::fs::write(dir.path().join("web.yaml~"), "x: [").expect("write");
    let (code, out, _) = podstead(&["validate", &dir.path().display().to_string()]);
    assert!(code == 4 && out.lines().count() == 2 && out.contains("web.yaml~: ignored"), "{out}");
}

#[test]
fn validate_warns_and_speaks_to_people_and_machines() {
    let odd = fixture("warned/everything.yaml");
    let (code, out, _) = podstead(&["validate", &odd]);
    assert_eq!(code, 0, "a warning refuses nothing");
    assert!(out.contains("everything.yaml:8:3: warning: spec.schedulerName: has no effect"), "{out}");
    assert_eq!(podstead(&["validate", "--deny-warnings", &odd]).0, 4);
    let (code, out, _) = podstead(&["validate", "--no-warnings", &odd]);
    assert_eq!((code, out.lines().count()), (0, 1), "{out}");

    let (_, out, _) = podstead(&["validate", "-o", "full", &odd]);
    assert!(out.contains("warning: spec.schedulerName: has no effect"), "{out}");
    assert!(out.contains("8 |   schedulerName: mine\n  |   ^^^^^^^^^^^^^"), "{out}");

    let (code, out, _) = podstead(&["validate", "-o", "json", &odd, &fixture("refused/life.yaml")]);
    let all: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &all[0]["state"], &all[1]["state"]), (4, &"Accepted".into(), &"Refused".into()));
    assert_eq!(all[0]["warnings"][0]["at"]["line"], 6);
    assert!(all[1]["errors"].as_array().is_some_and(|errors| errors.len() > 5), "{out}");
}

#[test]
fn validate_reads_standard_input() {
    let mut child = Command::new(BINARY)
        .args(["validate", "--hostname-override", "n", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start");
    let text = std::fs::read(fixture("static-web.yaml")).expect("read");
    child.stdin.take().expect("piped").write_all(&text).expect("write");
    let (code, out, _) = told(child.wait_with_output().expect("wait"));
    assert_eq!((code, &*out), (0, "-: ok: default/static-web-n\n"));
}

#[test]
fn every_fixture_is_judged_as_it_says() {
    let (code, out, _) = podstead(&["validate", &fixture("good/minimal.yaml"), &fixture("good/list.json")]);
    assert_eq!(code, 0, "{out}");
    for entry in std::fs::read_dir(fixture("refused")).expect("list").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "yaml" || e == "json") {
            let (code, out, _) = podstead(&["validate", &path.display().to_string()]);
            let (file, rest) =
                out.split_once(".yaml:").or_else(|| out.split_once(".json:")).unwrap_or_default();
            assert!(code == 4 && !file.is_empty(), "{}: {out}", path.display());
            assert!(rest.starts_with(|c: char| c.is_ascii_digit()), "a line: {out}");
        }
    }
}

#[test]
fn a_runtime_that_is_not_there_is_said_so() {
    let away = ["--runtime", "cri", "--container-runtime-endpoint", "unix:///nonexistent.sock"];
    for command in
        [&["ps"][..], &["images", "ls"], &["logs", "x"], &["images", "pull", "localhost/x:1"], &["stop", "x"]]
    {
        let (code, out, err) = podstead(&[&away[..], command].concat());
        assert_eq!((code, &*out), (5, ""), "{command:?}: {err}");
        let err = err.trim_start_matches("localhost/x:1: downloading\n");
        assert!(err.starts_with("podstead: ") && err.contains("/nonexistent.sock"), "{command:?}: {err}");
    }
    let (code, out, _) = podstead(&[&away[..], &["version"]].concat());
    assert!(code == 0 && out.contains("not reachable"), "{out}");
    let (code, _, err) = podstead(&["--container-runtime-endpoint", "http://somewhere", "ps"]);
    assert!(code == 2 && err.contains("http://somewhere"), "{code} {err}");
}

#[test]
fn a_wrong_command_line_is_two() {
    for args in [
        &["ps", "--no-such-flag"][..],
        &["frobnicate"],
        &["logs"],
        &["exec", "x"],
        &["run"],
        &["ps", "-o", "xml"],
        &["inspect", "-o", "table", "x"],
        &["images", "pull", "--creds", "nobody", "x"],
        &["--runtime", "docker", "ps"],
    ] {
        let (code, _, err) = podstead(args);
        assert!(code == 2 && !err.is_empty(), "{args:?}: {code} {err}");
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in ["run", "ps", "pods", "logs", "exec", "inspect", "stop", "validate", "version"] {
        let (code, out, _) = podstead(&[command, "--help"]);
        assert_eq!(code, 0);
        assert!(out.contains(&format!("podstead {command}")) && out.contains("Example"), "{command}: {out}");
    }
    for command in ["ls", "pull", "import", "rm"] {
        let (code, out, _) = podstead(&["images", command, "--help"]);
        assert!(code == 0 && out.contains("Example"), "images {command}: {out}");
    }
    // A password given in the environment is not shown.
    let mut help = Command::new(BINARY);
    let help =
        help.args(["images", "pull", "--help"]).env("PODSTEAD_CREDS", "me:hunter2").output().expect("run");
    assert!(!told(help).1.contains("hunter2"));
}

#[test]
fn what_the_agent_saw_last_is_shown_with_a_word_why_it_is_old() {
    let dir = tempfile::tempdir().expect("a directory");
    let agent = dir.path().join("agent");
    std::fs::create_dir(&agent).expect("mkdir");
    let published = r#"{"node": "n", "pods": [{"metadata": {"name": "web-n", "namespace": "default"}}],
                        "error": "list sandboxes: connection refused"}"#;
    std::fs::write(agent.join("pods.json"), published).expect("write");
    let lock = std::fs::File::create(agent.join("lock")).expect("create");
    lock.lock().expect("as a running agent holds it");
    let state_dir = dir.path().display().to_string();
    let (code, out, err) = podstead(&["pods", "--state-dir", &state_dir]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("web-n"), "{out}");
    assert!(err.starts_with("podstead: the runtime cannot be read"), "{err}");
    assert!(err.trim_end().ends_with("connection refused"), "{err}");
}
