//! The node as pods see it, for the command line. Pure.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::config::Config;
use crate::node::capacity::{Amounts, Reservations, quantity};
use crate::plan::{PODS, Plan, Room};
use crate::quantity::Amount;

/// What a node is and has, amounts as Kubernetes writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeRoom {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// All there is.
    pub capacity: BTreeMap<String, String>,
    /// What pods may have together.
    pub allocatable: BTreeMap<String, String>,
    /// What those that have a place have asked for.
    pub requested: BTreeMap<String, String>,
}

impl NodeRoom {
    /// The room that pods have together, as the decision counts it.
    pub fn allocatable(&self) -> Room {
        let amount = |(resource, text): (&String, &String)| {
            let amount: Amount = text.parse().ok()?;
            let number = if resource == "cpu" { amount.thousandths() } else { amount.whole() };
            Some((resource.clone(), number))
        };
        Room(self.allocatable.iter().filter_map(amount).collect())
    }
}

/// What it is told from.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    labels: BTreeMap<String, String>,
    reserved: Reservations,
}

impl Source {
    /// Of the node with this configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            name: config.node_name.clone(),
            labels: config.labels.clone(),
            reserved: config.reserved.clone(),
        }
    }

    /// With this capacity, and the pods that this plan has given a place.
    pub fn look(&self, capacity: &Amounts, plan: &Plan) -> NodeRoom {
        let allocatable = self.reserved.allocatable(capacity);
        let of = |resource: &String| {
            let claims = plan.placed.values().map(|claim| claim.of(resource));
            (resource.clone(), claims.fold(0_i64, i64::saturating_add))
        };
        let pods = PODS.to_owned();
        let requested = allocatable.keys().chain([&pods]).map(of).collect();
        NodeRoom {
            name: self.name.clone(),
            labels: self.labels.clone(),
            capacity: texts(capacity),
            allocatable: texts(&allocatable),
            requested: texts(&requested),
        }
    }
}

fn texts(amounts: &Amounts) -> BTreeMap<String, String> {
    amounts.iter().map(|(resource, amount)| (resource.clone(), quantity(resource, *amount))).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_pods_with_a_place_ask_for_is_added_up() {
        let source = Source {
            name: "n".into(),
            labels: BTreeMap::new(),
            reserved: Reservations { max_pods: 3, ..Reservations::default() },
        };
        let claim = |text: &str| text.parse().unwrap();
        let placed = [("a".into(), claim("cpu=500")), ("b".into(), claim("cpu=750 memory=1024"))].into();
        let capacity = source.reserved.capacity(Path::new("/"));
        let seen = source.look(&capacity, &Plan { placed, ..Plan::default() });
        assert_eq!((seen.capacity["pods"].as_str(), seen.requested["pods"].as_str()), ("3", "2"));
        assert_eq!((seen.requested["cpu"].as_str(), seen.requested["memory"].as_str()), ("1250m", "1Ki"));
        assert_eq!(seen.requested["ephemeral-storage"], "0");
    }

    #[test]
    fn what_is_published_can_be_counted_again() {
        let amounts = [("cpu", 1500), ("memory", 3 << 30), ("pods", 110)].map(|(r, n)| (r.to_owned(), n));
        let told = amounts.iter().map(|(resource, n)| (resource.clone(), quantity(resource, *n))).collect();
        let room = NodeRoom { allocatable: told, ..NodeRoom::default() };
        assert_eq!(room.allocatable(), Room(amounts.into()));
    }
}
