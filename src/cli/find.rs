//! Finds the container a person means: an id or its beginning, a pod, a pod and a container, a container's name.

use anyhow::bail;
use podstead_runtime::{Container, Runtime, Snapshot};

/// Nothing fits the words given; exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotFound(pub String);

/// The one container that `what` means. `name` narrows a pod to one of its containers; of several instances the newest
/// counts, with `previous` the one before it.
pub fn container<'a>(
    snapshot: &'a Snapshot,
    what: &str,
    name: Option<&str>,
    previous: bool,
) -> anyhow::Result<&'a Container> {
    let by_id: Vec<&Container> =
        snapshot.containers.iter().filter(|c| c.id.as_str().starts_with(what)).collect();
    if let [one] = by_id[..] {
        return Ok(one);
    }
    if by_id.len() > 1 && what.len() >= 4 {
        bail!("{what} is the beginning of {} container ids; give more of it", by_id.len());
    }
    let mut found = in_pod(snapshot, what, name)?;
    if found.is_empty() {
        found = snapshot.containers.iter().filter(|c| c.name == what).collect();
        one_of_several(what, &found)?;
    }
    found.sort_by_key(|c| (std::cmp::Reverse(c.attempt), std::cmp::Reverse(c.created_at)));
    let wanted = found.into_iter().nth(usize::from(previous));
    wanted.ok_or_else(|| {
        let which = if previous { "previous container" } else { "container or pod" };
        NotFound(format!("no {which} {what:?}; `podstead ps -a` lists what there is")).into()
    })
}

fn in_pod<'a>(snapshot: &'a Snapshot, what: &str, name: Option<&str>) -> anyhow::Result<Vec<&'a Container>> {
    let (namespace, pod) = what.split_once('/').map_or((None, what), |(ns, pod)| (Some(ns), pod));
    let sandboxes: Vec<_> = snapshot
        .sandboxes
        .iter()
        .filter(|s| s.pod.name == pod && namespace.is_none_or(|ns| s.pod.namespace == ns))
        .map(|s| &s.id)
        .collect();
    let all: Vec<&Container> =
        snapshot.containers.iter().filter(|c| sandboxes.contains(&&c.sandbox)).collect();
    let mut names: Vec<&str> = all.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    match name {
        Some(name) if !all.is_empty() && !names.contains(&name) => {
            Err(NotFound(format!("pod {pod} has no container {name:?}; it has {}", names.join(", "))).into())
        }
        Some(name) => Ok(all.into_iter().filter(|c| c.name == name).collect()),
        None if names.len() > 1 => {
            bail!("pod {pod} has several containers ({}): name one with -c", names.join(", "))
        }
        None => Ok(all),
    }
}

fn one_of_several(what: &str, found: &[&Container]) -> anyhow::Result<()> {
    let mut pods: Vec<_> = found.iter().map(|c| c.pod_uid()).collect();
    pods.sort();
    pods.dedup();
    if pods.len() > 1 {
        bail!("{} pods have a container {what:?}: name the pod, or give an id", pods.len());
    }
    Ok(())
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
    use podstead_runtime::{PodIdentity, Sandbox};

    use super::*;

    fn snapshot() -> Snapshot {
        let sandbox = |id: &str, name: &str| Sandbox {
            id: id.into(),
            pod: PodIdentity { name: name.into(), namespace: "default".into(), uid: name.into() },
            ..Sandbox::default()
        };
        let container = |id: &str, sandbox: &str, name: &str, attempt| Container {
            id: id.into(),
            sandbox: sandbox.into(),
            name: name.into(),
            attempt,
            ..Container::default()
        };
        Snapshot {
            sandboxes: vec![sandbox("s1", "web-node"), sandbox("s2", "db-node")],
            containers: vec![
                container("aa11", "s1", "web", 1),
                container("aa00", "s1", "web", 0),
                container("bb00", "s1", "log", 0),
                container("cc00", "s2", "db", 0),
            ],
        }
    }

    #[test]
    fn ids_pods_and_names_find_one() {
        let all = snapshot();
        let id = |what: &str, name, previous| container(&all, what, name, previous).map(|c| c.id.0.clone());
        assert_eq!(id("aa0", None, false).unwrap(), "aa00");
        assert_eq!(id("web-node", Some("web"), false).unwrap(), "aa11");
        assert_eq!(id("default/web-node", Some("web"), true).unwrap(), "aa00");
        assert_eq!(id("db-node", None, false).unwrap(), "cc00");
        assert_eq!(id("log", None, false).unwrap(), "bb00");
    }

    #[test]
    fn what_is_missing_or_unclear_is_said() {
        let all = snapshot();
        let error = |what: &str, name| container(&all, what, name, false).unwrap_err().to_string();
        assert!(error("web-node", None).contains("log, web"));
        assert!(error("web-node", Some("x")).contains("has no container"));
        assert!(error("zzz", None).contains("ps -a"));
        assert!(error("other/db-node", None).contains("no container or pod"), "another namespace");
        let previous = container(&all, "db-node", None, true).unwrap_err();
        assert!(previous.to_string().contains("no previous container"));
        assert!(previous.downcast_ref::<NotFound>().is_some());
        let mut twins = all.clone();
        twins.containers[0].id = "abcd1".into();
        twins.containers[1].id = "abcd2".into();
        let unclear = container(&twins, "abcd", None, false).unwrap_err();
        assert!(unclear.to_string().contains("beginning of 2"), "{unclear}");
        twins.containers[2].name = "db".into();
        for c in &mut twins.containers {
            c.labels.insert(podstead_runtime::labels::POD_UID.into(), c.sandbox.0.clone());
        }
        let several = container(&twins, "db", None, false).unwrap_err();
        assert!(several.to_string().contains("2 pods have a container"), "{several}");
    }
}
