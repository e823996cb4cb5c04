//! Who may depend on whom (ARCHITECTURE.md, "What may know what"). Reads `cargo metadata`, and for what one crate cannot
//! show, the sources of the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const AGENT: &str = "podstead";
const CONTRACT: &str = "podstead-runtime";
/// What agent and runtimes share beside the contract; it knows none of them.
const TOOLS: [&str; 1] = ["podstead-trees"];
const RUNTIMES: [&str; 3] = ["podstead-cri", "podstead-youki", "podstead-fake"];

/// What only a runtime may know.
const WIRE: [&str; 11] = [
    "tonic",
    "tonic_prost",
    "prost",
    "prost_types",
    "k8s_cri",
    "oci_spec",
    "oci_client",
    "libcontainer",
    "libcgroups",
    "libseccomp",
    "tungstenite",
];

/// All that the contract may need: plain data, one trait, and a time.
const CONTRACT_MAY_USE: [&str; 5] = ["futures-core", "serde", "thiserror", "jiff", "tokio"];

/// All that the decision may use.
const PLAN_MAY_USE: [&str; 9] = [
    "std::collections",
    "std::fmt",
    "std::time::Duration",
    "std::net::IpAddr",
    "std::cmp",
    "std::iter",
    "std::mem",
    "podstead_runtime",
    "serde",
];

/// Clock, log, I/O, concurrency, chance: not even by a full path.
const PLAN_MUST_NOT_SAY: [&str; 22] = [
    "async",
    "await",
    "tokio",
    "futures_util",
    "tracing",
    "log",
    "println",
    "eprintln",
    "dbg",
    "Instant",
    "SystemTime",
    "now()",
    "jiff",
    "rand",
    "Mutex",
    "RwLock",
    "AtomicU64",
    "std::fs",
    "std::io",
    "std::env",
    "std::process",
    "std::thread",
];

/// Fails with what was found and what to do about it.
fn judge(found: &[String], remedy: &str) {
    assert!(found.is_empty(), "\n\n{}\n\nWhat to do: {remedy}\n", found.join("\n"));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Direct dependencies of each package of the workspace, with their kind (`normal`, `dev`, `build`).
fn dependencies() -> BTreeMap<String, Vec<(String, String)>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let text = |value: &Value| value.as_str().unwrap_or("normal").to_owned();
    let packages = metadata["packages"].as_array().expect("packages").iter();
    packages
        .map(|package| {
            let all = package["dependencies"].as_array().expect("dependencies").iter();
            (text(&package["name"]), all.map(|d| (text(&d["name"]), text(&d["kind"]))).collect())
        })
        .collect()
}

fn is_test(path: &Path) -> bool {
    path.file_stem().and_then(|s| s.to_str()).is_some_and(|s| s == "tests" || s.ends_with("_tests"))
}

/// The sources below a directory, without those that are tests.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") && !is_test(&path) {
            found.push(path);
        }
    }
    found
}

/// The lines of a file that are no comments, numbered, up to its tests.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = std::fs::read_to_string(path).expect("a source file");
    let all = text.lines().enumerate().map(|(n, line)| (n + 1, line.to_owned()));
    all.take_while(|(_, line)| line.trim() != "mod tests {")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .collect()
}

/// Whether the line says the word, not as a part of a longer one and not within quotes.
fn says(line: &str, word: &str) -> bool {
    let bare: String = line.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    bare.match_indices(word)
        .any(|(at, _)| !part(bare[..at].chars().next_back()) && !part(bare[at + word.len()..].chars().next()))
}

fn shown(path: &Path, line: usize) -> String {
    format!("{}:{line}", path.strip_prefix(root()).unwrap_or(path).display())
}

#[test]
fn the_agents_rooms_know_no_runtime_but_the_contract() {
    let doors = [root().join("src/backend.rs"), root().join("src/main.rs")];
    let ours: Vec<String> = RUNTIMES.iter().map(|r| r.replace('-', "_")).collect();
    let forbidden: Vec<&str> = WIRE.iter().copied().chain(ours.iter().map(String::as_str)).collect();
    let mut found = Vec::new();
    for path in sources(&root().join("src")).iter().filter(|p| !doors.contains(p)) {
        for (number, line) in code(path) {
            for word in forbidden.iter().filter(|word| says(&line, word)) {
                found.push(format!("{} names {word}: {}", shown(path, number), line.trim()));
            }
        }
    }
    judge(
        &found,
        "say what you need in runtimes/contract as plain data or as a verb of `Runtime`, implement it in the runtimes, and \
         use that. Only src/backend.rs and src/main.rs choose a runtime by name.",
    );
}

#[test]
fn the_agent_depends_on_no_wire_format_and_no_container_library() {
    let wire: Vec<String> = WIRE.iter().map(|w| w.replace('_', "-")).collect();
    let all = dependencies();
    let normal = all[AGENT].iter().filter(|(_, kind)| kind == "normal");
    let found: Vec<String> = normal
        .filter(|(name, _)| wire.contains(name))
        .map(|(name, _)| format!("{AGENT} depends on {name}"))
        .collect();
    judge(&found, "move what needs it into runtimes/cri or runtimes/youki, behind the contract.");
}

#[test]
fn the_contract_stays_light() {
    let all = dependencies();
    let found: Vec<String> = all[CONTRACT]
        .iter()
        .filter(|(name, _)| !CONTRACT_MAY_USE.contains(&name.as_str()))
        .map(|(name, kind)| format!("{CONTRACT} has the {kind} dependency {name}"))
        .collect();
    judge(
        &found,
        "the contract is plain data and one trait, and everybody who writes a runtime compiles it: do without the crate. If \
         it cannot be avoided, extend CONTRACT_MAY_USE here and say why in the commit.",
    );
}

#[test]
fn runtimes_know_the_contract_and_nothing_else_of_ours() {
    let all = dependencies();
    let packages: BTreeSet<&str> = all.keys().map(String::as_str).collect();
    let expected: BTreeSet<&str> = RUNTIMES.iter().copied().chain([AGENT, CONTRACT]).chain(TOOLS).collect();
    assert_eq!(packages, expected, "a package came or went: say in this test what it may depend on");
    let mut found = Vec::new();
    for runtime in RUNTIMES.iter().chain([&CONTRACT]).chain(&TOOLS) {
        let may = |name: &str| RUNTIMES.contains(runtime) && (name == CONTRACT || TOOLS.contains(&name));
        for (name, kind) in &all[*runtime] {
            if packages.contains(name.as_str()) && !may(name) {
                found.push(format!("{runtime} has the {kind} dependency {name}"));
            }
        }
    }
    judge(
        &found,
        "a runtime must be usable without the agent and without the other runtimes. What two of them share belongs in \
         runtimes/contract if it is part of the promise, in a package of its own that knows neither (as runtimes/trees), else \
         twice where it is small.",
    );
}

#[test]
fn the_decision_is_pure() {
    let mut found = Vec::new();
    for path in sources(&root().join("src/plan")) {
        for (number, line) in code(&path) {
            let at = shown(&path, number);
            let used = line.trim().trim_start_matches("pub ").strip_prefix("use ");
            let outside = used.filter(|u| u.starts_with("std") || u.starts_with("crate") || u.contains("::"));
            let own = |u: &str| {
                let first = u.split("::").next().unwrap_or_default();
                first == "super"
                    || u.starts_with("crate::plan::")
                    || root().join(format!("src/plan/{first}.rs")).exists()
            };
            if let Some(u) = outside.filter(|u| !own(u) && !PLAN_MAY_USE.iter().any(|may| u.starts_with(may)))
            {
                found.push(format!("{at} uses {u}"));
            }
            for word in PLAN_MUST_NOT_SAY.iter().filter(|word| says(&line, word)) {
                found.push(format!("{at} says {word}: {}", line.trim()));
            }
        }
    }
    judge(
        &found,
        "src/plan decides from its arguments alone, so that a decision can be repeated, written down and simulated. Read the \
         clock or the world in src/observe.rs and pass it in; put effects in src/execute.rs; what a log line would say \
         belongs in a `Reason` or a `WaitReason`.",
    );
}

#[test]
fn the_word_search_sees_words_and_not_parts_of_them() {
    assert!(says("let t = Time::now();", "now()"));
    assert!(says("use tonic::Status;", "tonic"));
    assert!(!says("let catalogue = logs;", "log"));
    assert!(!says("let x = \"tonic\";", "tonic"));
}
