//! Real pods in tests of your own: `sudo -E cargo test -- --ignored` (the README says what that needs).

use podstead::testing::Node;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const IMAGE: &str = "docker.io/library/busybox:1.36";

const HELLO: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: hello
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: greeter
    image: docker.io/library/busybox:1.36
    command: [sh, -c, "echo hello from $(hostname); exec sleep 100000"]
"#;

const ONCE: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: once
spec:
  restartPolicy: Never
  containers:
  - name: job
    image: docker.io/library/busybox:1.36
    command: [sh, -c, "echo working; exit 3"]
"#;

/// A node of our own. Pods pull their images themselves; this only serves those without a network.
async fn node() -> Result<Node, Box<dyn std::error::Error>> {
    let node = Node::direct().start().await?;
    if let Some(archive) = std::env::var_os("BUSYBOX") {
        node.import_as(archive, IMAGE).await?;
    }
    Ok(node)
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_killed_container_runs_again() -> Outcome {
    let node = node().await?;
    let pod = node.apply("hello", HELLO)?;
    let containers = pod.running().await?;
    assert_eq!(containers[0].attempt, 0);

    let log = pod.logged("greeter", |log| log.contains("hello")).await?;
    assert_eq!(log, "hello from hello-node\n");

    let listed = pod.exec("greeter", &["ls", "/"]).await?;
    assert_eq!(listed.code, 0);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("etc"));

    pod.kill("greeter").await?;
    let again = pod.running_again("greeter", 1).await?;
    assert_ne!(again.id, containers[0].id, "a new container, in the same pod");
    assert_eq!(again.sandbox, containers[0].sandbox);

    node.remove("hello")?;
    node.empty().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_job_ends_with_its_code() -> Outcome {
    let node = node().await?;
    let pod = node.apply("once", ONCE)?;
    assert_eq!(pod.exited("job").await?, 3);
    assert_eq!(pod.logs("job").await?, "working\n");
    Ok(())
}
