//! What the loop's steps and waits are called among a pod's events, in the kubelet's words (`kubelet-static-pods.md 2.16`).
//! Records, and touches nothing else.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use podstead_runtime::PodUid;

use super::{Events, Happening, Type};
use crate::plan::status::{PREEMPTED, PREEMPTING};
use crate::plan::{self, Action, Observed, Plan, Reason, Step, Verb, WaitReason};
use crate::pod::dns::Complaint;

use Type::{Normal, Warning};

/// What is told while an image is made present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// It is there, nothing is pulled.
    Present,
    /// It is pulled.
    Pulling,
    /// It was pulled.
    Pulled {
        /// How long that took.
        took: Duration,
        /// The same with the time until its turn came.
        with_waiting: Duration,
        /// Bytes on disk; 0 when the runtime does not say.
        size: u64,
    },
}

fn say(
    events: &Events,
    pod: &PodUid,
    container: Option<&str>,
    kind: Type,
    reason: impl Into<Cow<'static, str>>,
    message: String,
) {
    let reason = reason.into();
    events.record(Happening {
        pod: pod.clone(),
        container: container.map(str::to_owned),
        kind,
        reason,
        message,
    });
}

/// To be called when a step is taken.
pub fn begun(events: &Events, step: &Step, manifest: Option<&Pod>, observed: &Observed) {
    let uid = step.action.uid();
    let init = manifest.and_then(|pod| pod.spec.as_ref()).map(|spec| {
        let names = spec.init_containers.iter().flatten().map(|c| c.name.clone());
        names.collect::<BTreeSet<_>>()
    });
    if !step.job.full_name.is_empty() {
        events.introduce(uid, &step.job.full_name, init.unwrap_or_default());
    }
    match &step.action {
        Action::RunSandbox { attempt: 1.., .. } => {
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            say(events, uid, None, Normal, "SandboxChanged", message);
        }
        Action::StopContainer { container, id, .. } => {
            let started = observed.probed.get(id).is_none_or(|probed| probed.started);
            let message = match step.because {
                Reason::DefinitionChanged => {
                    format!("Container {container} definition changed, will be restarted")
                }
                Reason::ResizeRestarts => format!("Container {container} resize requires restart"),
                Reason::Unhealthy if started => {
                    format!("Container {container} failed liveness probe, will be restarted")
                }
                Reason::Unhealthy => format!("Container {container} failed startup probe"),
                Reason::HookFailed => "FailedPostStartHook".to_owned(),
                _ => format!("Stopping container {container}"),
            };
            say(events, uid, Some(container), Normal, "Killing", message);
        }
        _ => {}
    }
}

/// To be called when an action is over; `failed` is the reason, as the kubelet spells it, and the message.
pub fn ended(events: &Events, action: &Action, failed: Option<(&str, &str)>) {
    let uid = action.uid();
    match (action, failed) {
        (Action::CreateContainer { container, .. }, None) => {
            say(events, uid, Some(container), Normal, "Created", "Container created".to_owned());
        }
        (Action::StartContainer { container, .. }, None) => {
            say(events, uid, Some(container), Normal, "Started", "Container started".to_owned());
        }
        (Action::EnsureImage { container, image, .. }, Some((reason, message))) => {
            no_image(events, uid, container, image, reason, message);
        }
        (_, Some((_, message))) => failure(events, action, message),
        (_, None) => {}
    }
}

fn no_image(events: &Events, uid: &PodUid, container: &str, image: &str, reason: &str, message: &str) {
    let (event, text) = match reason {
        "ErrImageNeverPull" => {
            let text = format!("Container image {image:?} is not present with pull policy of Never");
            ("ErrImageNeverPull", text)
        }
        "InvalidImageName" | "ImageInspectError" => {
            ("InspectFailed", format!("Failed to inspect image {image:?}: {message}"))
        }
        _ => ("Failed", format!("Failed to pull image {image:?}: {message}")),
    };
    say(events, uid, Some(container), Warning, event, text);
    let reason = if reason.is_empty() { "ErrImagePull" } else { reason };
    say(events, uid, Some(container), Warning, "Failed", format!("Error: {reason}"));
}

fn failure(events: &Events, action: &Action, message: &str) {
    let (reason, message) = match action.verb() {
        Verb::Prepare => ("FailedMount", message.to_owned()),
        Verb::RunSandbox => ("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}")),
        Verb::Create | Verb::Start => ("Failed", format!("Error: {message}")),
        Verb::PostStart => ("FailedPostStartHook", format!("PostStartHook failed: {message}")),
        Verb::Stop | Verb::StopSandbox => ("FailedKillPod", format!("error killing pod: {message}")),
        // Collecting what is over concerns nobody who looks at the pod; it is in the log.
        _ => return,
    };
    let container = match action {
        Action::CreateContainer { container, .. }
        | Action::StartContainer { container, .. }
        | Action::PostStart { container, .. }
        | Action::StopContainer { container, .. } => Some(container.as_str()),
        _ => None,
    };
    say(events, action.uid(), container, Warning, reason, message);
}

/// To be called when a preStop hook failed, which holds up nothing.
pub fn pre_stop_failed(events: &Events, pod: &PodUid, container: &str, message: &str) {
    let text = format!("PreStopHook failed: {message}");
    say(events, pod, Some(container), Warning, "FailedPreStopHook", text);
}

/// To be called when a pod's names are not as its manifest asks for.
pub fn names(events: &Events, pod: &PodUid, complaints: Vec<Complaint>) {
    for Complaint { reason, message } in complaints {
        say(events, pod, None, Warning, reason, message);
    }
}

/// What to tell of an image while it is made present for a container.
pub fn image<'a>(
    events: &'a Events,
    pod: &'a PodUid,
    container: &'a str,
    image: &'a str,
) -> impl Fn(Image) + Send + Sync + 'a {
    move |what| {
        let (reason, message) = match what {
            Image::Present => ("Pulled", format!("Container image {image:?} already present on machine")),
            Image::Pulling => ("Pulling", format!("Pulling image {image:?}")),
            Image::Pulled { took, with_waiting, size } => {
                let seconds = |time: Duration| format!("{:.3}s", time.as_secs_f64());
                let (took, waited) = (seconds(took), seconds(with_waiting));
                let size = if size > 0 { format!(" Image size: {size} bytes.") } else { String::new() };
                let text =
                    format!("Successfully pulled image {image:?} in {took} ({waited} including waiting).");
                ("Pulled", text + &size)
            }
        };
        say(events, pod, Some(container), Normal, reason, message);
    }
}

/// To be called after each round: tells of waits that are new, and drops what is about pods that are gone.
pub fn round(events: &Events, desired: &plan::Desired, observed: &Observed, plan: &Plan) {
    let (sandboxes, containers) = (&observed.snapshot.sandboxes, &observed.snapshot.containers);
    events.forget(|uid| {
        desired.pods.contains_key(uid)
            || observed.leftovers.contains_key(uid)
            || sandboxes.iter().any(|s| s.pod.uid == *uid)
            || containers.iter().any(|c| c.pod_uid() == *uid)
    });
    let waits = plan.waits.iter().flat_map(|(uid, waits)| waits.iter().map(move |wait| (uid, wait)));
    let told = waits.clone().filter_map(|(uid, wait)| {
        let reason = match &wait.because {
            WaitReason::CrashLoop(_) => Cow::from("BackOff"),
            WaitReason::Failed { verb: Verb::EnsureImage, .. } => "ImagePullBackOff".into(),
            WaitReason::NetworkNotReady(_) => "NetworkNotReady".into(),
            WaitReason::Refused(refusal) => refusal.reason.clone().into(),
            _ => return None,
        };
        Some(((uid.clone(), wait.container.clone(), reason), wait.until))
    });
    let preempted = plan.preempted.iter().map(|uid| ((uid.clone(), None, PREEMPTING.into()), None));
    for (uid, container, reason) in events.new_waits(told.chain(preempted).collect()) {
        if let Some(pod) = desired.pods.get(&uid) {
            let init = pod.init.iter().map(|c| c.name.clone()).collect();
            events.introduce(&uid, &pod.identity.full_name(), init);
        }
        if reason == PREEMPTING {
            say(events, &uid, None, Warning, reason, PREEMPTED.to_owned());
            continue;
        }
        let same = |(of, wait): &(&PodUid, &plan::Wait)| **of == uid && wait.container == container;
        let name = container.as_deref();
        for (_, wait) in waits.clone().filter(same) {
            match (&wait.because, &*reason) {
                (WaitReason::CrashLoop(_), "BackOff") => {
                    let text = crash_loop(desired, &uid, name.unwrap_or_default());
                    say(events, &uid, name, Warning, "BackOff", text);
                }
                (WaitReason::Failed { verb: Verb::EnsureImage, message, .. }, "ImagePullBackOff") => {
                    let pod = desired.pods.get(&uid);
                    let found = pod.and_then(|p| p.all().find(|c| Some(c.name.as_str()) == name));
                    let image = found.map_or("", |c| c.image.as_str());
                    let text = format!("Back-off pulling image {image:?}: {message}");
                    say(events, &uid, name, Normal, "BackOff", text);
                    say(events, &uid, name, Warning, "Failed", "Error: ImagePullBackOff".to_owned());
                }
                (WaitReason::NetworkNotReady(why), "NetworkNotReady") => {
                    let text = format!("network is not ready: {why}");
                    say(events, &uid, None, Warning, "NetworkNotReady", text);
                }
                (WaitReason::Refused(refusal), reason) if refusal.reason == reason => {
                    let refusal = refusal.clone();
                    say(events, &uid, None, Warning, refusal.reason, refusal.message);
                }
                _ => {}
            }
        }
    }
}

fn crash_loop(desired: &plan::Desired, uid: &PodUid, container: &str) -> String {
    let pod = desired.pods.get(uid).map(|p| p.identity.clone()).unwrap_or_default();
    format!("Back-off restarting failed container {container} in pod {}_{}({uid})", pod.name, pod.namespace)
}

#[cfg(test)]
mod tests {
    use podstead_runtime::{PodIdentity, Time};

    use super::*;
    use crate::plan::{JobKey, Scope, Wait};

    fn told(events: &Events) -> Vec<String> {
        let book = events.book();
        let all = book.pages.values().flat_map(|page| page.records.iter());
        let of = |c: &Option<String>| c.as_ref().map(|c| format!("{{{c}}} ")).unwrap_or_default();
        all.map(|r| format!("{:?} {} {}{} x{}", r.kind, r.reason, of(&r.container), r.message, r.count))
            .collect()
    }

    fn uid() -> PodUid {
        "u".into()
    }

    fn stop(because: Reason) -> Step {
        let action = Action::StopContainer {
            uid: uid(),
            container: "web".into(),
            id: "id".into(),
            grace: Duration::from_secs(2),
            hook: false,
        };
        let job = JobKey { uid: uid(), full_name: "default/web-n".into(), scope: Scope::Pod };
        Step { action, because, job }
    }

    fn ensure() -> Action {
        Action::EnsureImage { uid: uid(), container: "web".into(), attempt: 0, image: "i:1".into() }
    }

    #[test]
    fn what_is_left_out_of_a_pods_names_is_a_warning() {
        let events = Events::default();
        let complaint = Complaint { reason: "DNSConfigForming", message: "too many".into() };
        names(&events, &uid(), vec![complaint]);
        let book = events.book();
        let told: Vec<_> = book.pages[&uid()].records.iter().map(|r| (r.kind, r.reason.as_str())).collect();
        assert_eq!(told, [(Warning, "DNSConfigForming")]);
    }

    #[test]
    fn a_pods_life_reads_as_the_kubelet_tells_it() {
        let events = Events::default();
        let (uid, mut observed) = (uid(), Observed::default());
        let tell = image(&events, &uid, "web", "i:1");
        tell(Image::Pulling);
        let (took, with_waiting) = (Duration::from_millis(1500), Duration::from_secs(3));
        tell(Image::Pulled { took, with_waiting, size: 42 });
        tell(Image::Present);
        let create = Action::CreateContainer {
            uid: uid.clone(),
            sandbox: "s".into(),
            container: "web".into(),
            attempt: 0,
            image_id: String::new(),
            annotations: std::collections::BTreeMap::default(),
        };
        ended(&events, &create, None);
        let start = Action::StartContainer { uid: uid.clone(), container: "web".into(), id: "id".into() };
        ended(&events, &start, None);
        ended(&events, &start, Some(("", "start container id: no such file")));
        begun(&events, &stop(Reason::PodGone), None, &observed);
        begun(&events, &stop(Reason::DefinitionChanged), None, &observed);
        begun(&events, &stop(Reason::Unhealthy), None, &observed);
        observed.probed.insert("id".into(), plan::Probed { started: false, alive: false, ready: false });
        begun(&events, &stop(Reason::Unhealthy), None, &observed);
        ended(&events, &stop(Reason::PodGone).action, Some(("", "it hangs")));
        let mut again = stop(Reason::NoSandbox);
        for attempt in [0, 1, 2] {
            again.action = Action::RunSandbox { uid: uid.clone(), attempt };
            begun(&events, &again, None, &observed);
        }
        ended(&events, &again.action, Some(("", "no CNI")));
        let hook = Action::PostStart { uid: uid.clone(), container: "web".into(), id: "id".into() };
        ended(&events, &hook, Some(("PostStartHookError", "no")));
        pre_stop_failed(&events, &uid, "web", "no");
        ended(&events, &Action::PreparePod { uid: uid.clone() }, Some(("", "hostPath /x is no directory")));
        ended(&events, &Action::CleanPod { uid: uid.clone() }, Some(("", "busy")));
        assert_eq!(
            told(&events),
            [
                "Normal Pulling {web} Pulling image \"i:1\" x1",
                "Normal Pulled {web} Successfully pulled image \"i:1\" in 1.500s (3.000s including waiting). Image \
                 size: 42 bytes. x1",
                "Normal Pulled {web} Container image \"i:1\" already present on machine x1",
                "Normal Created {web} Container created x1",
                "Normal Started {web} Container started x1",
                "Warning Failed {web} Error: start container id: no such file x1",
                "Normal Killing {web} Stopping container web x1",
                "Normal Killing {web} Container web definition changed, will be restarted x1",
                "Normal Killing {web} Container web failed liveness probe, will be restarted x1",
                "Normal Killing {web} Container web failed startup probe x1",
                "Warning FailedKillPod {web} error killing pod: it hangs x1",
                "Normal SandboxChanged Pod sandbox changed, it will be killed and re-created. x2",
                "Warning FailedCreatePodSandBox Failed to create pod sandbox: no CNI x1",
                "Warning FailedPostStartHook {web} PostStartHook failed: no x1",
                "Warning FailedPreStopHook {web} PreStopHook failed: no x1",
                "Warning FailedMount hostPath /x is no directory x1",
            ]
        );
        assert_eq!(events.book().pages[&uid].name, "default/web-n");
    }

    #[test]
    fn an_image_that_cannot_be_had_is_told_with_its_reason() {
        for (reason, first, second) in [
            ("ErrImagePull", "Failed {web} Failed to pull image \"i:1\": no", "ErrImagePull"),
            ("", "Failed {web} Failed to pull image \"i:1\": no", "ErrImagePull"),
            (
                "ErrImageNeverPull",
                "ErrImageNeverPull {web} Container image \"i:1\" is not present with pull policy of Never",
                "ErrImageNeverPull",
            ),
            (
                "InvalidImageName",
                "InspectFailed {web} Failed to inspect image \"i:1\": no",
                "InvalidImageName",
            ),
        ] {
            let events = Events::default();
            ended(&events, &ensure(), Some((reason, "no")));
            let second = format!("Warning Failed {{web}} Error: {second} x1");
            assert_eq!(told(&events), [format!("Warning {first} x1"), second], "{reason}");
        }
    }

    #[test]
    fn a_wait_is_told_once_however_often_it_is_looked_at() {
        let events = Events::default();
        let identity = PodIdentity { name: "web-n".into(), namespace: "default".into(), uid: uid() };
        let web = plan::ContainerPlan { name: "web".into(), image: "i:1".into(), ..Default::default() };
        let pod = plan::Pod { identity, containers: vec![web], ..plan::Pod::default() };
        let desired = plan::Desired { pods: [(uid(), pod)].into(), complete: true, room: None };
        let waiting = |because: WaitReason, until| {
            let wait = Wait { container: Some("web".into()), because, until };
            Plan { waits: [(uid(), vec![wait])].into(), ..Plan::default() }
        };
        let crash = |at| waiting(WaitReason::CrashLoop(Duration::from_secs(10)), Some(Time::from_secs(at)));
        for plan in [crash(10), crash(10), Plan::default(), crash(40), crash(40)] {
            round(&events, &desired, &Observed::default(), &plan);
        }
        let failed = WaitReason::Failed { verb: Verb::EnsureImage, count: 2, message: "no".into() };
        let other = WaitReason::Failed { verb: Verb::RunSandbox, count: 2, message: "no".into() };
        round(&events, &desired, &Observed::default(), &waiting(failed, Some(Time::from_secs(50))));
        round(&events, &desired, &Observed::default(), &waiting(other, Some(Time::from_secs(50))));
        round(
            &events,
            &desired,
            &Observed::default(),
            &waiting(WaitReason::NetworkNotReady("no CNI".into()), None),
        );
        assert_eq!(
            told(&events),
            [
                "Warning BackOff {web} Back-off restarting failed container web in pod web-n_default(u) x2",
                "Normal BackOff {web} Back-off pulling image \"i:1\": no x1",
                "Warning Failed {web} Error: ImagePullBackOff x1",
                "Warning NetworkNotReady network is not ready: no CNI x1",
            ]
        );
    }

    #[test]
    fn a_refusal_is_told_once_for_each_reason_and_so_is_a_preemption() {
        let events = Events::default();
        let identity = PodIdentity { name: "web-n".into(), namespace: "default".into(), uid: uid() };
        let pod = plan::Pod { identity, ..plan::Pod::default() };
        let desired = plan::Desired { pods: [(uid(), pod)].into(), complete: true, room: None };
        let refused = |reason: &str, used: i64| {
            let refusal = plan::Refusal { reason: reason.into(), message: format!("used: {used}") };
            let wait = Wait { container: None, because: WaitReason::Refused(refusal), until: None };
            Plan { waits: [(uid(), vec![wait])].into(), ..Plan::default() }
        };
        let preempted = Plan { preempted: [uid()].into(), ..Plan::default() };
        let rounds = [refused("OutOfcpu", 1), refused("OutOfcpu", 2), refused("NodePorts", 3)];
        for plan in rounds.into_iter().chain([preempted.clone(), preempted]) {
            round(&events, &desired, &Observed::default(), &plan);
        }
        assert_eq!(
            told(&events),
            [
                "Warning OutOfcpu used: 1 x1",
                "Warning NodePorts used: 3 x1",
                "Warning Preempting Preempted in order to admit critical pod x1",
            ]
        );
        assert_eq!(events.book().pages[&uid()].name, "default/web-n");
    }
}
