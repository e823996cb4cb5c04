//! Wake-ups for the agent: the server's events where it sends them, else listings of our own.
//!
//! Events are optional: CRI-O ends the stream at once with success unless `enable_pod_events` is set, and when it
//! is set sends no headers before the first event; containerd 1.6 knows no such call (`cri-servers.md`). A server
//! without them is listed once a second while something of ours runs, and rarely otherwise.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_core::future::BoxFuture;
use futures_util::{StreamExt, stream};
use podstead_runtime::{Hint, PodUid, labels};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Code, Response, Status, Streaming};

use crate::client::Inner;
use crate::{call, proto};

/// Between listings while something runs; also between attempts to reach a server that is away.
const BUSY: Duration = Duration::from_secs(1);
/// Between listings while nothing does.
const IDLE: Duration = Duration::from_secs(10);
/// An event stream that lived this long works, even if no event came.
const SETTLED: Duration = Duration::from_secs(1);

type Events = Streaming<proto::ContainerEventResponse>;
type Opening = BoxFuture<'static, Result<Response<Events>, Status>>;

enum Mode {
    /// The events were asked for and the server has not answered; `since` when.
    Opening { call: Opening, since: Instant, settled: bool },
    /// Events arrive.
    Events { events: Box<Events>, since: Instant },
    /// We list. `seen` is the last listing, `at` when.
    Listing { seen: Picture, at: Instant },
    /// The server does not answer.
    Away,
}

/// Ids and states of all that is ours, by pod.
type Picture = BTreeMap<PodUid, Vec<(String, i32)>>;

struct Watch {
    inner: Arc<Inner>,
    ready: VecDeque<Hint>,
    mode: Mode,
    activity: watch::Receiver<u64>,
    busy_until: Instant,
}

/// The stream of hints: [`Hint::Everything`] first and after each reconnect. It does nothing unless polled.
pub(crate) fn stream(inner: Arc<Inner>) -> Pin<Box<dyn Stream<Item = Hint> + Send + 'static>> {
    let first = async move {
        let activity = inner.activity.subscribe();
        let watch = Watch {
            mode: open(&inner),
            inner,
            ready: VecDeque::from([Hint::Everything]),
            activity,
            busy_until: Instant::now(),
        };
        stream::unfold(watch, |mut watch| async move { Some((watch.next().await, watch)) })
    };
    stream::once(first).flatten().boxed()
}

fn open(inner: &Inner) -> Mode {
    let mut client = inner.runtime();
    let limit = Some(inner.limit());
    let call: Opening = Box::pin(async move {
        let server =
            client.version(call::request(proto::VersionRequest::default(), limit)).await?.into_inner();
        if loses_events(&server.runtime_name, &server.runtime_version) {
            return Err(Status::unimplemented("each event reaches one listener only"));
        }
        client.get_container_events(call::request(proto::GetEventsRequest {}, None)).await
    });
    Mode::Opening { call, since: Instant::now(), settled: false }
}

/// Whether this server's events cannot be relied on: containerd before 2.0.
fn loses_events(name: &str, version: &str) -> bool {
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    name == "containerd" && major.is_some_and(|major| major < 2)
}

impl Watch {
    async fn next(&mut self) -> Hint {
        loop {
            if let Some(hint) = self.ready.pop_front() {
                return hint;
            }
            // Each step leaves `self.mode` as it was until it is done, so that a dropped poll loses nothing.
            match &mut self.mode {
                Mode::Opening { .. } => self.step_opening().await,
                Mode::Events { .. } => self.step_events().await,
                Mode::Listing { .. } => self.step_listing().await,
                Mode::Away => self.step_away().await,
            }
        }
    }

    async fn step_opening(&mut self) {
        let Mode::Opening { call, since, settled } = &mut self.mode else { return };
        let answer = tokio::select! {
            answer = call => answer,
            () = sleep_until(*since + SETTLED), if !*settled => {
                // The server took the call and waits for an event to send: subscribed from here on.
                *settled = true;
                self.ready.push_back(Hint::Everything);
                return;
            }
        };
        let lived = *settled;
        match answer {
            Ok(events) => {
                self.ready.push_back(Hint::Everything);
                let since = *since;
                self.mode = Mode::Events { events: Box::new(events.into_inner()), since };
            }
            Err(status) if status.code() == Code::Unimplemented || (is_refusal(&status) && !lived) => {
                self.list_from_now().await;
            }
            Err(_) => self.mode = Mode::Away,
        }
    }

    async fn step_events(&mut self) {
        let Mode::Events { events, since } = &mut self.mode else { return };
        match events.message().await {
            Ok(Some(event)) => self.ready.extend(hint(&self.inner, &event)),
            Ok(None) if since.elapsed() < SETTLED => {
                tracing::debug!("the CRI server sends no events; listing instead");
                self.list_from_now().await;
            }
            Err(status) if since.elapsed() < SETTLED && is_refusal(&status) => self.list_from_now().await,
            Ok(None) | Err(_) => self.mode = Mode::Away,
        }
    }

    /// Begins to list. What happened before this first picture is covered by the hint.
    async fn list_from_now(&mut self) {
        match picture(&self.inner).await {
            Ok(seen) => {
                self.mode = Mode::Listing { seen, at: Instant::now() };
                self.ready.push_back(Hint::Everything);
            }
            Err(_) => self.mode = Mode::Away,
        }
    }

    async fn step_listing(&mut self) {
        let Mode::Listing { seen, at } = &mut self.mode else { return };
        loop {
            let runs = seen.values().flatten().any(|(_, state)| *state == RUNNING);
            let busy = runs || Instant::now() < self.busy_until;
            tokio::select! {
                () = sleep_until(*at + if busy { BUSY } else { IDLE }) => break,
                Ok(()) = self.activity.changed() => self.busy_until = Instant::now() + IDLE,
            }
        }
        match picture(&self.inner).await {
            Ok(now) => {
                self.ready.extend(changed(seen, &now).map(Hint::Pod));
                *seen = now;
                *at = Instant::now();
            }
            Err(error) if error.retry() == podstead_runtime::Retry::Soon => self.mode = Mode::Away,
            Err(_) => *at = Instant::now(),
        }
    }

    /// Waits for the server. One that was restarted may send events now, so they are asked for anew.
    async fn step_away(&mut self) {
        sleep(BUSY).await;
        let limit = Some(self.inner.limit());
        let mut client = self.inner.runtime();
        let request = call::request(proto::VersionRequest::default(), limit);
        if call::within(|| "reconnect".into(), limit, client.version(request)).await.is_ok() {
            self.mode = open(&self.inner);
            self.ready.push_back(Hint::Everything);
        }
    }
}

/// State of running containers in a picture; sandboxes are told apart by [`SANDBOX`].
const RUNNING: i32 = proto::ContainerState::ContainerRunning as i32;
/// Added to the states of sandboxes.
const SANDBOX: i32 = 1000;

async fn picture(inner: &Inner) -> podstead_runtime::Result<Picture> {
    let sandboxes = proto::PodSandboxFilter { label_selector: inner.mark(), ..Default::default() };
    let containers = proto::ContainerFilter { label_selector: inner.mark(), ..Default::default() };
    let (sandboxes, containers) =
        tokio::try_join!(inner.list_sandboxes(Some(sandboxes)), inner.list_containers(Some(containers)))?;
    let mut picture = Picture::new();
    for sandbox in sandboxes.into_iter().filter(|sandbox| inner.bears_mark(&sandbox.labels)) {
        let uid = PodUid(sandbox.metadata.map(|metadata| metadata.uid).unwrap_or_default());
        picture.entry(uid).or_default().push((sandbox.id, SANDBOX + sandbox.state));
    }
    for container in containers.into_iter().filter(|container| inner.bears_mark(&container.labels)) {
        let uid = PodUid(container.labels.get(labels::POD_UID).cloned().unwrap_or_default());
        picture.entry(uid).or_default().push((container.id, container.state));
    }
    for objects in picture.values_mut() {
        objects.sort();
    }
    Ok(picture)
}

/// Pods that differ between two pictures.
fn changed<'a>(before: &'a Picture, now: &'a Picture) -> impl Iterator<Item = PodUid> + use<'a> {
    let gone = before.keys().filter(|uid| !now.contains_key(*uid));
    let different =
        now.iter().filter(|(uid, objects)| before.get(*uid) != Some(*objects)).map(|(uid, _)| uid);
    gone.chain(different).cloned()
}

/// What an event means: its pod, when the server says whose it is; nothing, when that is not ours.
fn hint(inner: &Inner, event: &proto::ContainerEventResponse) -> Option<Hint> {
    if let Some(sandbox) = &event.pod_sandbox_status {
        let uid = sandbox.metadata.as_ref().map(|metadata| PodUid(metadata.uid.clone()));
        return inner.bears_mark(&sandbox.labels).then(|| uid.map_or(Hint::Everything, Hint::Pod));
    }
    inner.is_known(&event.container_id).then_some(Hint::Everything)
}

/// An answer, not a broken connection: this server has no events.
fn is_refusal(status: &Status) -> bool {
    std::error::Error::source(status).is_none() && status.code() != Code::Unavailable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictured(pods: &[(&str, &[(&str, i32)])]) -> Picture {
        pods.iter()
            .map(|(uid, objects)| {
                (PodUid::from(*uid), objects.iter().map(|(id, state)| ((*id).to_owned(), *state)).collect())
            })
            .collect()
    }

    #[test]
    fn containerd_1_is_listed_whatever_it_offers() {
        assert!(loses_events("containerd", "v1.7.24"));
        assert!(loses_events("containerd", "1.7.24~ds1"));
        for (name, version) in [("containerd", "v2.1.9"), ("containerd", "dev"), ("cri-o", "1.37.0")] {
            assert!(!loses_events(name, version), "{name} {version}");
        }
    }

    #[test]
    fn a_pod_changed_when_an_object_came_went_or_changed_its_state() {
        let before = pictured(&[("same", &[("a", 1)]), ("gone", &[("b", 1)]), ("died", &[("c", 1)])]);
        let now = pictured(&[("same", &[("a", 1)]), ("died", &[("c", 2)]), ("new", &[("d", 0)])]);
        let changed: Vec<String> = changed(&before, &now).map(|uid| uid.0).collect();
        assert_eq!(changed, ["gone", "died", "new"]);
    }
}
