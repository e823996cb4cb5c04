//! Environment and `$(NAME)` expansion (`kubelet-static-pods.md 4.3`). Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
use podstead_runtime::EnvVar;

/// The container's environment in the order of the manifest; of duplicate names the last wins, in its place.
pub fn environment(container: &Container) -> Vec<EnvVar> {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut list: Vec<EnvVar> = Vec::new();
    for var in container.env.iter().flatten() {
        let value = expand(var.value.as_deref().unwrap_or_default(), &seen);
        seen.insert(var.name.clone(), value.clone());
        list.retain(|earlier| earlier.name != var.name);
        list.push(EnvVar { name: var.name.clone(), value });
    }
    list
}

/// Expands each word with the final environment.
pub fn expand_all(words: Option<&Vec<String>>, env: &[EnvVar]) -> Vec<String> {
    let table: BTreeMap<String, String> = env.iter().map(|v| (v.name.clone(), v.value.clone())).collect();
    words.into_iter().flatten().map(|word| expand(word, &table)).collect()
}

/// `$(NAME)` becomes its value, `$$` a dollar sign; what is unknown stays as it stands.
pub fn expand(text: &str, table: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match table.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[at..rest.len() - tail.len()]),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EnvVar as Var;

    use super::*;

    fn env(vars: &[(&str, &str)]) -> Vec<EnvVar> {
        let var = |(name, value): &(&str, &str)| Var {
            name: (*name).into(),
            value: Some((*value).into()),
            ..Var::default()
        };
        environment(&Container { env: Some(vars.iter().map(var).collect()), ..Container::default() })
    }

    #[test]
    fn earlier_names_expand_and_unknown_ones_stay() {
        let got = env(&[("A", "1"), ("B", "$(A)-$(C)-$$(A)-$A-$(A"), ("C", "3")]);
        assert_eq!(got[1].value, "1-$(C)-$(A)-$A-$(A");
    }

    #[test]
    fn the_last_of_two_wins_and_sees_the_first() {
        let got = env(&[("A", "1"), ("A", "$(A)2")]);
        assert_eq!(got, [EnvVar { name: "A".into(), value: "12".into() }]);
    }

    #[test]
    fn words_expand_with_the_final_environment() {
        let table = [EnvVar { name: "X".into(), value: "é".into() }];
        assert_eq!(expand_all(Some(&vec!["-$(X)-".into(), "$".into()]), &table), ["-é-", "$"]);
    }
}
