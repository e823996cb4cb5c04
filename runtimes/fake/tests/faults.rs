//! Faults do what they say.

use std::time::Duration;

use podstead_fake::{Fake, Fault, Verb};
use podstead_runtime::{
    ContainerSpec, ContainerState, Error, ImageSpec, PodIdentity, Retry, Runtime, SandboxSpec, Time,
};

fn sandbox() -> SandboxSpec {
    let pod = PodIdentity { name: "web-n".into(), namespace: "default".into(), uid: "u".into() };
    SandboxSpec { pod, ..SandboxSpec::default() }
}

#[tokio::test]
async fn a_fault_before_the_effect_leaves_nothing() {
    let fake = Fake::new();
    fake.fault(Verb::RunSandbox, Fault::Before(Error::failed("running", "no")));
    assert!(fake.run_sandbox(&sandbox()).await.is_err());
    assert!(fake.observe().await.expect("observe").sandboxes.is_empty());
    assert!(fake.run_sandbox(&sandbox()).await.is_ok(), "only the next call fails");
}

#[tokio::test]
async fn a_lost_reply_leaves_the_effect_and_a_second_call_finds_it() {
    let fake = Fake::new();
    fake.fault(Verb::RunSandbox, Fault::After(Error::failed("running", "reply lost")));
    assert!(fake.run_sandbox(&sandbox()).await.is_err());
    let seen = fake.observe().await.expect("observe").sandboxes;
    assert_eq!(fake.run_sandbox(&sandbox()).await.as_ref().ok(), seen.first().map(|s| &s.id));
}

#[tokio::test]
async fn an_unreachable_runtime_answers_nothing() {
    let fake = Fake::new();
    fake.set_unreachable(true);
    assert_eq!(fake.observe().await.expect_err("unreachable").retry(), Retry::Soon);
    fake.set_unreachable(false);
    assert!(fake.observe().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ignores_its_signal_is_killed_when_the_grace_is_over() {
    let fake = Fake::with_clock(|| Time::from_secs(100));
    fake.world(|w| w.add_image("img"));
    fake.set_term("c", Duration::from_secs(60));
    let id = fake.run_sandbox(&sandbox()).await.expect("sandbox");
    let spec = ContainerSpec { name: "c".into(), image: ImageSpec::from("img"), ..ContainerSpec::default() };
    let container = fake.create_container(&id, &spec, &sandbox()).await.expect("create");
    fake.start_container(&container).await.expect("start");
    let begun = tokio::time::Instant::now();
    fake.stop_container(&container, Duration::from_secs(30)).await.expect("stop");
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
    let state = fake.observe().await.expect("observe").containers.remove(0).state;
    assert!(matches!(state, ContainerState::Exited { code: 137, .. }), "{state:?}");
}
