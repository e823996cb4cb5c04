//! Events of pods as plain data: told once, counted after, bounded. No I/O, no clock.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use podstead_runtime::{PodUid, Time};
use serde::{Deserialize, Serialize};

/// As many different events are kept of a pod; the oldest go first.
const MOST: usize = 50;
/// Events of a pod that is gone stay as long as an API server keeps them.
const AFTERLIFE: Duration = Duration::from_secs(3600);
/// As many pods that are gone are remembered, whatever their age.
const MOST_GONE: usize = 100;
/// Bytes of a message, as an API server takes them.
const MAX_MESSAGE: usize = 1024;

/// Whether somebody should worry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Type {
    /// No.
    Normal,
    /// Perhaps.
    Warning,
}

/// Something that happened to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// The pod.
    pub pod: PodUid,
    /// The container, if it is about one.
    pub container: Option<String>,
    /// Whether somebody should worry.
    pub kind: Type,
    /// As the kubelet spells it (`kubelet-static-pods.md 2.16`).
    pub reason: Cow<'static, str>,
    /// For people.
    pub message: String,
}

/// What is kept of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The container, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Whether somebody should worry.
    #[serde(rename = "type")]
    pub kind: Type,
    /// As the kubelet spells it.
    pub reason: String,
    /// For people.
    pub message: String,
    /// How often it happened.
    pub count: u32,
    /// When first.
    pub first: Time,
    /// When last.
    pub last: Time,
}

/// All that is kept of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// `namespace/name`; empty while nobody said.
    pub name: String,
    /// Names of its init containers.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub init: BTreeSet<String>,
    /// What happened, the latest at the end.
    pub records: VecDeque<Record>,
}

/// All events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Book {
    /// By pod.
    pub pages: BTreeMap<PodUid, Page>,
}

impl Book {
    /// Says who a pod is.
    pub fn introduce(&mut self, uid: &PodUid, name: &str, init: BTreeSet<String>) {
        let page = self.pages.entry(uid.clone()).or_default();
        name.clone_into(&mut page.name);
        page.init = init;
    }

    /// Writes down what happened: the same thing again is counted. Answers whether it is new.
    pub fn add(&mut self, what: Happening, now: Time) -> bool {
        let records = &mut self.pages.entry(what.pod).or_default().records;
        let message = cut(what.message);
        let same = |r: &Record| {
            r.reason == what.reason
                && r.message == message
                && r.container == what.container
                && r.kind == what.kind
        };
        let known = records.iter().position(same).and_then(|at| records.remove(at));
        let new = known.is_none();
        let record = match known {
            Some(old) => Record { count: old.count.saturating_add(1), last: now, ..old },
            None => Record {
                container: what.container,
                kind: what.kind,
                reason: what.reason.into_owned(),
                message,
                count: 1,
                first: now,
                last: now,
            },
        };
        records.push_back(record);
        if records.len() > MOST {
            records.pop_front();
        }
        new
    }

    /// Drops the pages of pods that are gone, some time after the last thing that happened to them. Answers whether
    /// there were any.
    pub fn forget(&mut self, there: impl Fn(&PodUid) -> bool, now: Time) -> bool {
        let before = self.pages.len();
        let last = |page: &Page| page.records.back().map_or(Time(0), |r| r.last);
        self.pages.retain(|uid, page| there(uid) || now.since(last(page)) < AFTERLIFE);
        let mut gone: Vec<(Time, PodUid)> = self
            .pages
            .iter()
            .filter(|(uid, _)| !there(uid))
            .map(|(uid, page)| (last(page), uid.clone()))
            .collect();
        gone.sort();
        for (_, uid) in gone.iter().take(gone.len().saturating_sub(MOST_GONE)) {
            self.pages.remove(uid);
        }
        self.pages.len() != before
    }
}

fn cut(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happening(pod: &str, reason: &'static str, message: &str) -> Happening {
        Happening {
            pod: pod.into(),
            container: None,
            kind: Type::Normal,
            reason: reason.into(),
            message: message.to_owned(),
        }
    }

    fn shown(book: &Book, pod: &str) -> Vec<String> {
        let one = |r: &Record| format!("{} {} x{}", r.reason, r.message, r.count);
        book.pages.get(&pod.into()).map(|p| p.records.iter().map(one).collect()).unwrap_or_default()
    }

    #[test]
    fn the_same_again_is_counted_and_becomes_the_latest() {
        let mut book = Book::default();
        for (at, message) in [(1, "a"), (2, "b"), (3, "a"), (9, "a")] {
            book.add(happening("p", "Killing", message), Time::from_secs(at));
        }
        assert_eq!(shown(&book, "p"), ["Killing b x1", "Killing a x3"]);
        let last = &book.pages[&"p".into()].records[1];
        assert_eq!((last.first, last.last), (Time::from_secs(1), Time::from_secs(9)));
        let of = |container: &str, kind| Happening {
            container: Some(container.into()),
            kind,
            ..happening("p", "Killing", "a")
        };
        book.add(of("c", Type::Normal), Time(1));
        book.add(of("d", Type::Normal), Time(1));
        book.add(of("d", Type::Warning), Time(1));
        assert_eq!(shown(&book, "p").len(), 5, "another container or type is another event");
    }

    #[test]
    fn a_pod_has_so_many_events_and_no_more_and_messages_are_cut() {
        let mut book = Book::default();
        for n in 0..MOST + 7 {
            book.add(happening("p", "Failed", &n.to_string()), Time::from_secs(1));
        }
        let all = shown(&book, "p");
        assert_eq!((all.len(), all[0].as_str()), (MOST, "Failed 7 x1"));
        book.add(happening("q", "Failed", &"\u{e4}".repeat(600)), Time(1));
        book.add(happening("q", "Failed", &format!("x{}", "\u{e4}".repeat(600))), Time(1));
        let lengths: Vec<usize> = book.pages[&"q".into()].records.iter().map(|r| r.message.len()).collect();
        assert_eq!(lengths, [1024, 1023]);
    }

    #[test]
    fn pods_that_are_gone_are_forgotten_after_an_hour_and_others_never() {
        let mut book = Book::default();
        book.add(happening("gone", "Killing", ""), Time::from_secs(100));
        book.add(happening("there", "Started", ""), Time::from_secs(100));
        let there = |uid: &PodUid| uid.as_str() == "there";
        assert!(!book.forget(there, Time::from_secs(3699)));
        assert_eq!(book.pages.len(), 2);
        assert!(book.forget(there, Time::from_secs(3700)));
        assert_eq!(book.pages.keys().map(PodUid::as_str).collect::<Vec<_>>(), ["there"]);
        for n in 0..MOST_GONE + 5 {
            book.add(happening(&format!("g{n:03}"), "Killing", ""), Time::from_secs(200));
        }
        book.forget(there, Time::from_secs(201));
        assert_eq!(book.pages.len(), MOST_GONE + 1);
        assert!(!book.pages.contains_key(&"g004".into()) && book.pages.contains_key(&"g005".into()));
    }
}
