//! Events as v1 Events, for people and later the API server. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time as ApiTime};
use podstead_runtime::{PodUid, Time};

use super::{Page, Record, Type};

/// The events of a pod, the earliest first.
pub fn events(uid: &PodUid, page: &Page, node: &str) -> Vec<api::Event> {
    page.records.iter().map(|record| event(uid, page, record, node)).collect()
}

fn event(uid: &PodUid, page: &Page, record: &Record, node: &str) -> api::Event {
    let (namespace, name) = page.name.split_once('/').unwrap_or(("", &page.name));
    let field = record.container.as_ref().map(|container| {
        let list = if page.init.contains(container) { "initContainers" } else { "containers" };
        format!("spec.{list}{{{container}}}")
    });
    api::Event {
        metadata: ObjectMeta {
            // As an API server's clients name them: unique, and told apart by time.
            name: Some(format!("{name}.{:x}", record.first.0)),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: api::ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.0.clone()),
            field_path: field,
            ..api::ObjectReference::default()
        },
        type_: Some(
            match record.kind {
                Type::Normal => "Normal",
                Type::Warning => "Warning",
            }
            .to_owned(),
        ),
        reason: Some(record.reason.clone()),
        message: Some(record.message.clone()),
        count: i32::try_from(record.count).ok(),
        first_timestamp: time(record.first),
        last_timestamp: time(record.last),
        source: Some(api::EventSource {
            component: Some("podstead".to_owned()),
            host: Some(node.to_owned()).filter(|n| !n.is_empty()),
        }),
        ..api::Event::default()
    }
}

fn time(time: Time) -> Option<ApiTime> {
    Timestamp::from_nanosecond(i128::from(time.known()?.0)).ok().map(ApiTime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_its_pod_its_container_and_its_times() {
        let record = Record {
            container: Some("setup".into()),
            kind: Type::Warning,
            reason: "BackOff".into(),
            message: "m".into(),
            count: 3,
            first: Time::from_secs(60),
            last: Time::from_secs(90),
        };
        let plain = Record { container: Some("web".into()), ..record.clone() };
        let page = Page {
            name: "default/web-node".into(),
            init: ["setup".to_owned()].into(),
            records: [record, plain].into(),
        };
        let all = events(&"u1".into(), &page, "node");
        let text = serde_json::to_string(&all[0]).unwrap();
        for part in [
            r#""apiVersion":"v1","kind":"Event""#,
            r#""involvedObject":{"apiVersion":"v1","fieldPath":"spec.initContainers{setup}","kind":"Pod","name":"web-node","namespace":"default","uid":"u1"}"#,
            r#""count":3,"firstTimestamp":"1970-01-01T00:01:00Z""#,
            r#""lastTimestamp":"1970-01-01T00:01:30Z""#,
            r#""source":{"component":"podstead","host":"node"},"type":"Warning""#,
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(all[1].involved_object.field_path.as_deref(), Some("spec.containers{web}"));
    }
}
