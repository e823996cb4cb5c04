//! Finds the container a person means: an id or its beginning, a pod, a pod and a container, a container's name.
//!
//! Whole names come before beginnings of ids: a container named `c` must not lose to an id that begins with `c`.

use podstead_runtime::{Container, ContainerState, Runtime, Sandbox, Snapshot};

/// Nothing fits the words given; exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotFound(pub String);

/// Several things fit the words given; exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Ambiguous(pub String);

fn ambiguous<T>(text: String) -> anyhow::Result<T> {
    Err(Ambiguous(text).into())
}

fn not_found<T>(text: String) -> anyhow::Result<T> {
    Err(NotFound(text).into())
}

/// The one container that `what` means. `name` narrows a pod to one of its containers; of several instances the newest
/// counts, with `previous` the one before it (before the one whose id was given).
pub fn container<'a>(
    snapshot: &'a Snapshot,
    what: &str,
    name: Option<&str>,
    previous: bool,
) -> anyhow::Result<&'a Container> {
    let mut instances = if let Some(exact) = snapshot.containers.iter().find(|c| c.id.as_str() == what) {
        up_to(snapshot, exact)
    } else if let Some(sandbox) = pod(snapshot, what)? {
        in_pod(snapshot, sandbox, name)?
    } else if let Some(named) = by_name(snapshot, what)? {
        named
    } else {
        by_beginning(snapshot, what, name)?
    };
    instances.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
    // Of one that waits for its next start, the last instance is the one before it.
    let only = instances
        .first()
        .filter(|c| instances.len() == 1 && matches!(c.state, ContainerState::Exited { .. }));
    match instances.get(usize::from(previous)).or(only) {
        Some(container) => Ok(container),
        None if instances.is_empty() => {
            not_found(format!("no container or pod {what:?}; `podstead ps -a` lists what there is"))
        }
        None => not_found(format!("{what}: container {} has no earlier instance", instances[0].name)),
    }
}

/// The newest sandbox of the pod with this name, `name` or `namespace/name`.
fn pod<'a>(snapshot: &'a Snapshot, what: &str) -> anyhow::Result<Option<&'a Sandbox>> {
    let (namespace, name) = what.split_once('/').map_or((None, what), |(ns, pod)| (Some(ns), pod));
    let fits = |s: &&Sandbox| s.pod.name == name && namespace.is_none_or(|ns| s.pod.namespace == ns);
    let all: Vec<&Sandbox> = snapshot.sandboxes.iter().filter(fits).collect();
    let mut namespaces: Vec<&str> = all.iter().map(|s| s.pod.namespace.as_str()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    if namespaces.len() > 1 {
        let choices: Vec<String> = namespaces.iter().map(|ns| format!("{ns}/{name}")).collect();
        return ambiguous(format!("several namespaces have a pod {name}: say {}", choices.join(" or ")));
    }
    Ok(all.into_iter().max_by_key(|s| (s.created_at, s.attempt)))
}

/// The pod's containers, all of one name: `name`, or the only one there is.
fn in_pod<'a>(
    snapshot: &'a Snapshot,
    sandbox: &Sandbox,
    name: Option<&str>,
) -> anyhow::Result<Vec<&'a Container>> {
    let pod = &sandbox.pod.name;
    let all: Vec<&Container> =
        snapshot.containers.iter().filter(|c| c.pod_uid() == sandbox.pod.uid).collect();
    let mut names: Vec<&str> = all.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    match name {
        _ if all.is_empty() => not_found(format!("pod {pod} has no container yet")),
        Some(name) if !names.contains(&name) => {
            not_found(format!("pod {pod} has no container {name:?}; it has {}", names.join(", ")))
        }
        Some(name) => Ok(all.into_iter().filter(|c| c.name == name).collect()),
        None if names.len() > 1 => {
            ambiguous(format!("pod {pod} has several containers ({}): name one with -c", names.join(", ")))
        }
        None => Ok(all),
    }
}

fn by_name<'a>(snapshot: &'a Snapshot, what: &str) -> anyhow::Result<Option<Vec<&'a Container>>> {
    let found: Vec<&Container> = snapshot.containers.iter().filter(|c| c.name == what).collect();
    let mut pods: Vec<_> = found.iter().map(|c| c.pod_uid()).collect();
    pods.sort();
    pods.dedup();
    match pods.len() {
        0 => Ok(None),
        1 => Ok(Some(found)),
        n => ambiguous(format!("{n} pods have a container {what:?}: name the pod, or give an id")),
    }
}

/// By the beginning of a container's id, or of a sandbox's, which stands for its pod.
fn by_beginning<'a>(
    snapshot: &'a Snapshot,
    what: &str,
    name: Option<&str>,
) -> anyhow::Result<Vec<&'a Container>> {
    if what.is_empty() {
        return Ok(Vec::new());
    }
    let containers: Vec<&Container> =
        snapshot.containers.iter().filter(|c| c.id.as_str().starts_with(what)).collect();
    match containers[..] {
        [] => match sandbox_by_beginning(snapshot, what)? {
            Some(sandbox) => in_pod(snapshot, sandbox, name),
            None => Ok(Vec::new()),
        },
        [one] => Ok(up_to(snapshot, one)),
        _ => ambiguous(format!(
            "{what} is the beginning of {} container ids; give more of it",
            containers.len()
        )),
    }
}

fn sandbox_by_beginning<'a>(snapshot: &'a Snapshot, what: &str) -> anyhow::Result<Option<&'a Sandbox>> {
    let found: Vec<&Sandbox> =
        snapshot.sandboxes.iter().filter(|s| s.id.as_str().starts_with(what)).collect();
    match found[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => ambiguous(format!("{what} is the beginning of {} sandbox ids; give more of it", found.len())),
    }
}

/// This instance and those before it.
fn up_to<'a>(snapshot: &'a Snapshot, last: &Container) -> Vec<&'a Container> {
    let same = |c: &&Container| c.pod_uid() == last.pod_uid() && c.name == last.name;
    let earlier =
        |c: &&Container| c.id == last.id || (c.attempt, c.created_at) < (last.attempt, last.created_at);
    snapshot.containers.iter().filter(same).filter(earlier).collect()
}

/// The sandbox that `what` means, when it means one: its id, a pod, or the beginning of an id that no container's
/// begins with.
pub fn sandbox<'a>(snapshot: &'a Snapshot, what: &str) -> anyhow::Result<Option<&'a Sandbox>> {
    if let Some(exact) = snapshot.sandboxes.iter().find(|s| s.id.as_str() == what) {
        return Ok(Some(exact));
    }
    if let Some(pod) = pod(snapshot, what)? {
        return Ok(Some(pod));
    }
    let of_container = |c: &Container| c.name == what || c.id.as_str().starts_with(what);
    if what.is_empty() || snapshot.containers.iter().any(of_container) {
        return Ok(None);
    }
    sandbox_by_beginning(snapshot, what)
}

/// Reads the runtime and finds the container.
pub async fn observe<R: Runtime>(
    runtime: &R,
    what: &str,
    name: Option<&str>,
    previous: bool,
) -> anyhow::Result<Container> {
    let snapshot = runtime.observe().await?;
    container(&snapshot, what, name, previous).cloned()
}

#[cfg(test)]
mod tests {
    use podstead_runtime::PodIdentity;

    use super::*;

    fn sandbox_of(id: &str, name: &str, namespace: &str) -> Sandbox {
        let pod =
            PodIdentity { name: name.into(), namespace: namespace.into(), uid: format!("uid-{id}").into() };
        Sandbox { id: id.into(), pod, ..Sandbox::default() }
    }

    fn snapshot() -> Snapshot {
        let container = |id: &str, sandbox: &str, name: &str, attempt| Container {
            id: id.into(),
            sandbox: sandbox.into(),
            name: name.into(),
            attempt,
            labels: [(podstead_runtime::labels::POD_UID.to_owned(), format!("uid-{sandbox}"))].into(),
            ..Container::default()
        };
        Snapshot {
            sandboxes: vec![
                sandbox_of("d1", "web-node", "default"),
                sandbox_of("d2", "db-node", "default"),
                sandbox_of("d3", "twin-node", "a"),
                sandbox_of("d4", "twin-node", "b"),
                sandbox_of("d5", "fresh-node", "a"),
            ],
            containers: vec![
                container("aa22", "d1", "web", 2),
                container("aa11", "d1", "web", 1),
                container("aa00", "d1", "web", 0),
                container("bb00", "d1", "log", 0),
                container("cc00", "d2", "a", 0),
                container("dd00", "d3", "same", 0),
                container("de00", "d4", "same", 0),
            ],
        }
    }

    #[test]
    fn ids_pods_and_names_find_one() {
        let all = snapshot();
        let id = |what: &str, name, previous| container(&all, what, name, previous).map(|c| c.id.0.clone());
        for (what, name, previous, found) in [
            ("aa0", None, false, "aa00"),
            ("aa22", None, true, "aa11"),
            ("aa1", None, true, "aa00"),
            ("web-node", Some("web"), false, "aa22"),
            ("default/web-node", Some("web"), true, "aa11"),
            ("db-node", None, false, "cc00"),
            ("log", None, false, "bb00"),
            ("b/twin-node", None, false, "de00"),
            // A container's whole name, though ids begin with it.
            ("a", None, false, "cc00"),
            // A sandbox's id stands for its pod.
            ("d2", None, false, "cc00"),
        ] {
            assert_eq!(id(what, name, previous).unwrap(), found, "{what} {name:?} {previous}");
        }
    }

    #[test]
    fn what_is_missing_or_unclear_is_said() {
        let all = snapshot();
        let error = |what: &str, name, previous| container(&all, what, name, previous).unwrap_err();
        for (what, name, previous, text) in [
            ("web-node", Some("x"), false, "has no container \"x\"; it has log, web"),
            ("zzz", None, false, "ps -a"),
            ("", None, false, "ps -a"),
            ("fresh-node", None, false, "no container yet"),
            ("aa00", None, true, "no earlier instance"),
            ("db-node", None, true, "no earlier instance"),
        ] {
            let error = error(what, name, previous);
            assert!(error.is::<NotFound>() && error.to_string().contains(text), "{what}: {error}");
        }
        for (what, text) in [
            ("web-node", "log, web"),
            ("twin-node", "a/twin-node or b/twin-node"),
            ("same", "2 pods"),
            ("aa", "3 container ids"),
            ("d", "2 container ids"),
        ] {
            let error = error(what, None, false);
            assert!(error.is::<Ambiguous>() && error.to_string().contains(text), "{what}: {error}");
        }
    }

    #[test]
    fn a_sandbox_is_found_by_its_id_or_pod() {
        let all = snapshot();
        let id = |what: &str| sandbox(&all, what).unwrap().map(|s| s.id.as_str());
        assert_eq!((id("d2"), id("web-node"), id("b/twin-node")), (Some("d2"), Some("d1"), Some("d4")));
        assert_eq!((id("aa"), id("web"), id("zzz"), id("")), (None, None, None, None));
        assert!(sandbox(&all, "twin-node").unwrap_err().is::<Ambiguous>());
    }
}
