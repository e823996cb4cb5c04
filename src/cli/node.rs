//! `podstead node`: what the node has, what of it is for pods, and what they take.

use std::fmt::Write as _;

use anyhow::Context;

use super::output::{self, Format};
use super::pods;
use crate::config::RuntimeFlags;
use crate::publish::NodeRoom;

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  podstead node                 capacity, room for pods, requests, labels"
)]
pub struct Args {
    /// Output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Prints what the running agent knows of its node.
pub fn run(flags: &RuntimeFlags, args: &Args) -> anyhow::Result<()> {
    let published = pods::published(flags).with_context(|| {
        let state_dir = flags.state_dir.display();
        format!(
            "no agent runs with --state-dir {state_dir}; what of the node is for pods is said by its flags"
        )
    })?;
    let node = published.room;
    if args.output != Format::Table {
        return output::data(args.output, &node);
    }
    output::line(&head(&node))?;
    output::table(&["RESOURCE", "CAPACITY", "ALLOCATABLE", "REQUESTED"], rows(&node))
}

fn head(node: &NodeRoom) -> String {
    let mut text = format!("Name:    {}\n", node.name);
    for (index, (key, value)) in node.labels.iter().enumerate() {
        text += if index == 0 { "Labels:  " } else { "         " };
        let _ = writeln!(text, "{key}={value}");
    }
    text + "\n"
}

fn rows(node: &NodeRoom) -> Vec<Vec<String>> {
    let row = |resource: &String| {
        let of = |table: &std::collections::BTreeMap<String, String>| table.get(resource).cloned();
        let columns = [&node.capacity, &node.allocatable, &node.requested];
        let amounts = columns.into_iter().map(|table| of(table).unwrap_or_else(|| "0".to_owned()));
        std::iter::once(resource.clone()).chain(amounts).collect()
    };
    node.capacity.keys().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_below_each_other_and_resources_in_rows() {
        let table = |text: &str| [("cpu".to_owned(), text.to_owned())].into();
        let labels = [("a", "1"), ("b", "2")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let node = NodeRoom {
            name: "n1".into(),
            labels,
            capacity: table("2"),
            allocatable: table("1500m"),
            ..NodeRoom::default()
        };
        assert_eq!(head(&node), "Name:    n1\nLabels:  a=1\n         b=2\n\n");
        assert_eq!(rows(&node), [["cpu", "2", "1500m", "0"].map(str::to_owned).to_vec()]);
    }
}
