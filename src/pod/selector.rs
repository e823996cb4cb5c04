//! Whether a pod wants a node of this name with these labels: `nodeSelector` and required node affinity
//! (`kubelet-static-pods.md 5.5`). Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

/// Whether the pod wants this node. Preferences are a scheduler's affair.
pub fn wants(spec: &PodSpec, node: &str, labels: &BTreeMap<String, String>) -> bool {
    let chosen = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    chosen && required.is_none_or(|r| r.node_selector_terms.iter().any(|term| matches(term, node, labels)))
}

/// All of a term; an empty one matches nothing.
fn matches(term: &NodeSelectorTerm, node: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = |field: &NodeSelectorRequirement| (field.key == "metadata.name").then_some(node);
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|e| holds(e, labels.get(&e.key).map(String::as_str)))
        && fields.iter().all(|field| holds(field, name(field)))
}

fn holds(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = found.is_some_and(|found| values.iter().any(|value| value == found));
    let numbers = || Some((found?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => numbers().is_some_and(|(found, bound)| found > bound),
        "Lt" => numbers().is_some_and(|(found, bound)| found < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(spec: &str) -> bool {
        let spec: PodSpec = serde_yaml::from_str(&format!("{{containers: [], {spec}}}")).unwrap();
        let labels = [("kubernetes.io/os", "linux"), ("disk", "ssd"), ("cores", "8")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        wants(&spec, "n1", &labels)
    }

    fn required(terms: &str) -> bool {
        wanted(&format!(
            "affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{terms}]}}}}}}"
        ))
    }

    #[test]
    fn every_pair_of_the_selector_is_a_label_of_the_node() {
        assert!(wanted("nodeSelector: {}"));
        assert!(wanted("nodeSelector: {kubernetes.io/os: linux, disk: ssd}"));
        assert!(!wanted("nodeSelector: {kubernetes.io/os: linux, disk: hdd}"));
        assert!(!wanted("nodeSelector: {gpu: yes}"));
    }

    #[test]
    fn every_operator_means_what_it_says() {
        for (requirement, holds) in [
            ("key: disk, operator: In, values: [hdd, ssd]", true),
            ("key: disk, operator: In, values: [hdd]", false),
            ("key: gpu, operator: In, values: [a]", false),
            ("key: disk, operator: NotIn, values: [hdd]", true),
            ("key: disk, operator: NotIn, values: [ssd]", false),
            ("key: gpu, operator: NotIn, values: [a]", true),
            ("key: disk, operator: Exists", true),
            ("key: gpu, operator: Exists", false),
            ("key: disk, operator: DoesNotExist", false),
            ("key: gpu, operator: DoesNotExist", true),
            ("key: cores, operator: Gt, values: [\"7\"]", true),
            ("key: cores, operator: Gt, values: [\"8\"]", false),
            ("key: cores, operator: Lt, values: [\"9\"]", true),
            ("key: cores, operator: Lt, values: [\"8\"]", false),
            ("key: disk, operator: Gt, values: [\"1\"]", false),
            ("key: gpu, operator: Lt, values: [\"1\"]", false),
        ] {
            assert_eq!(
                required(&format!("{{matchExpressions: [{{{requirement}}}]}}")),
                holds,
                "{requirement}"
            );
        }
    }

    #[test]
    fn one_term_is_enough_and_all_of_it_must_hold() {
        let (yes, no) = ("{key: disk, operator: Exists}", "{key: gpu, operator: Exists}");
        assert!(!required(&format!("{{matchExpressions: [{yes}, {no}]}}")));
        assert!(required(&format!("{{matchExpressions: [{no}]}}, {{matchExpressions: [{yes}]}}")));
        assert!(!required("{}"), "an empty term matches nothing");
        assert!(!required(""));
    }

    #[test]
    fn the_nodes_name_is_a_field() {
        let field = |operator: &str, name: &str| {
            format!("{{matchFields: [{{key: metadata.name, operator: {operator}, values: [{name}]}}]}}")
        };
        assert!(required(&field("In", "n1")) && !required(&field("In", "n2")));
        assert!(required(&field("NotIn", "n2")) && !required(&field("NotIn", "n1")));
    }

    #[test]
    fn preferences_hold_nobody_back() {
        assert!(wanted(
            "affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: \
             {matchExpressions: [{key: gpu, operator: Exists}]}}]}}"
        ));
    }
}
