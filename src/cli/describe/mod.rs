//! `podstead describe`: all about one pod, to read: as a running agent knows it, or, without one, as the runtime has it.

mod containers;
mod pod;
mod tabs;
mod volumes;

use k8s_openapi::api::core::v1::Pod;
use podstead_runtime::{PodUid, Time};

use super::find::{Ambiguous, NotFound};
use super::output::{self, Format};
use super::pods;
use crate::config::RuntimeFlags;
use crate::events;

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  podstead describe etcd-node1           everything about a pod, and what happened to \
                        it\n  podstead describe -o yaml etcd-node1   the same for machines: the pod, then its v1 Events"
)]
pub struct Args {
    /// Name, `namespace/name` or uid of a pod, or the beginning of a name that no other pod's begins with
    pub pod: String,
    /// Output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Prints it.
pub async fn run(flags: &RuntimeFlags, args: &Args) -> anyhow::Result<()> {
    let (node, all) = pods::known(flags).await?;
    let pod = find(&all, &args.pod)?;
    let uid = PodUid(pod.metadata.uid.clone().unwrap_or_default());
    let book = events::read(&flags.root_dir).unwrap_or_else(|error| {
        tracing::warn!("the pods' events cannot be read: {error}");
        events::Book::default()
    });
    let page = book.pages.get(&uid).cloned().unwrap_or_default();
    if args.output == Format::Table {
        return output::line(&tabs::align(&pod::text(pod, &page, Time::now())));
    }
    let mut items = vec![serde_json::to_value(pod)?];
    for event in events::api::events(&uid, &page, &node) {
        items.push(serde_json::to_value(event)?);
    }
    output::data(args.output, &serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": items }))
}

/// The pod that `what` means: a whole name or uid before the beginning of a name, as with kubectl.
fn find<'a>(pods: &'a [Pod], what: &str) -> anyhow::Result<&'a Pod> {
    let (namespace, name) = what.split_once('/').map_or((None, what), |(ns, name)| (Some(ns), name));
    let full = |pod: &Pod| {
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        (of(&pod.metadata.namespace), of(&pod.metadata.name))
    };
    let within = |pod: &&Pod| namespace.is_none_or(|ns| full(pod).0 == ns);
    let exact = |pod: &&Pod| within(pod) && full(pod).1 == name || pod.metadata.uid.as_deref() == Some(what);
    let mut found: Vec<&Pod> = pods.iter().filter(exact).collect();
    if found.is_empty() && !name.is_empty() {
        found = pods.iter().filter(|pod| within(pod) && full(pod).1.starts_with(name)).collect();
    }
    match found[..] {
        [one] => Ok(one),
        [] => Err(NotFound(format!("no pod {what:?}; `podstead pods` lists them")).into()),
        _ => {
            let names = found.iter().map(|pod| full(pod)).map(|(ns, name)| format!("{ns}/{name}"));
            let names = names.collect::<Vec<_>>().join(", ");
            Err(Ambiguous(format!("several pods are {what:?}: {names}; say which")).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_found_by_its_name_its_uid_or_the_beginning_of_its_name() {
        let pods: Vec<Pod> = ["a/web-node", "b/web-node", "a/web-node-2", "a/db-node"]
            .iter()
            .map(|full| {
                let (namespace, name) = full.split_once('/').unwrap();
                let uid = full.replace('/', "-");
                serde_yaml::from_str(&format!(
                    "metadata: {{name: {name}, namespace: {namespace}, uid: uid-{uid}}}"
                ))
                .unwrap()
            })
            .collect();
        let found = |what: &str| {
            find(&pods, what).map(|p| p.metadata.uid.clone().unwrap()).map_err(|e| e.to_string())
        };
        for (what, uid) in [
            ("db-node", "uid-a-db-node"),
            ("db", "uid-a-db-node"),
            ("a/web-node", "uid-a-web-node"),
            ("uid-b-web-node", "uid-b-web-node"),
            ("b/w", "uid-b-web-node"),
        ] {
            assert_eq!(found(what), Ok(uid.to_owned()), "{what}");
        }
        for (what, said) in [("web-node", "a/web-node, b/web-node"), ("a/w", "a/web-node-2"), ("x", "no pod")]
        {
            assert!(found(what).unwrap_err().contains(said), "{what}");
        }
        assert!(found("").is_err());
    }
}
