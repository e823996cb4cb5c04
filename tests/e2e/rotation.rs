//! Logs that grow are rotated, and nothing in them is lost to those who read.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use podstead::node::log_rotation::{COMPRESSED, Policy};
use podstead::testing::Node;

use crate::cli::{command, in_time, ok, told};
use crate::support::{Host, busybox, on_both, with_images};

on_both!(a_growing_log_is_rotated_and_readers_lose_nothing, logs_of_instances_that_are_gone_go);

async fn node(host: &Host) -> Node {
    let rotation = Policy { max_size: 60_000, max_files: 3, period: Duration::from_millis(100) };
    let builder = host.builder().config(move |config| config.log_rotation = Some(rotation.clone()));
    with_images(builder.start().await.expect("start the node")).await
}

/// The numbers in a text of lines `line N ...`.
fn numbers(text: &str) -> Vec<u32> {
    let words = text.lines().filter_map(|line| line.split("line ").nth(1));
    words.map(|rest| rest.split(' ').next().and_then(|n| n.parse().ok()).expect("a number")).collect()
}

/// Where the numbers from `first` to 1999 are not one after the other.
fn gaps(numbers: &[u32], first: u32) -> String {
    let mut all = vec![first.wrapping_sub(1)];
    all.extend(numbers);
    all.push(2000);
    let gaps = all.windows(2).filter(|pair| pair[0].wrapping_add(1) != pair[1]);
    gaps.map(|pair| format!("{} {}", pair[0], pair[1])).collect::<Vec<_>>().join(", ")
}

async fn a_growing_log_is_rotated_and_readers_lose_nothing(host: &Host) {
    let node = node(host).await;
    let script = "i=0\nwhile [ $i -lt 2000 ]; do\n  echo line $i of a log that is rotated while somebody reads it\n  \
                  i=$((i+1))\n  [ $((i % 10)) = 0 ] && sleep 0.05\ndone\necho over\nexec sleep 1000";
    let pod = node.apply("talk", &busybox("talk", script)).expect("apply");
    pod.running().await.expect("runs");
    let follower =
        command(&node, &["logs", "-f", "talk-node"]).stdout(Stdio::piped()).spawn().expect("follow");
    pod.logged("c", |log| log.ends_with("over\n")).await.expect("all is said");
    let dir = pod.container("c").await.expect("seen").log_path;
    let dir = dir.parent().expect("a directory").to_owned();
    let names: BTreeSet<String> = std::fs::read_dir(&dir)
        .expect("list")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let [now, zipped, plain] = names[..] else { panic!("three files: {names:?}") };
    assert_eq!(now, "0.log");
    assert!(zipped.starts_with("0.log.2") && zipped.ends_with(COMPRESSED), "{zipped}");
    assert!(plain.starts_with("0.log.2") && !plain.ends_with(COMPRESSED), "{plain}");
    let mut old = String::new();
    let file = std::fs::File::open(dir.join(zipped)).expect("open");
    flate2::read::GzDecoder::new(file).read_to_string(&mut old).expect("unzip");
    let kept = [
        old,
        std::fs::read_to_string(dir.join(plain)).expect("read"),
        std::fs::read_to_string(dir.join(now)).expect("read"),
    ];
    let kept = numbers(&kept.concat());
    let first = *kept.first().expect("something");
    assert!(first > 0, "the oldest are gone");
    assert_eq!(gaps(&kept, first), "", "and of the rest nothing is missing");
    // Who asks reads the rotated files, too, and only as far back as asked for.
    let all = ok(&node, &["logs", "talk-node"]);
    assert!(all.ends_with("over\n"));
    assert_eq!(numbers(&all), kept, "all that is kept");
    let here = numbers(&std::fs::read_to_string(dir.join(now)).expect("read")).len();
    for count in [here / 2, here + 1, here + 2, kept.len() - 1, kept.len() + 50] {
        // The last line is no number.
        let tail = ok(&node, &["logs", "--tail", &(count + 1).to_string(), "talk-node"]);
        assert_eq!(numbers(&tail), kept[kept.len().saturating_sub(count)..], "{count} lines");
    }
    let stamped = ok(&node, &["logs", "-t", "talk-node"]);
    let (half, _) =
        stamped.lines().nth(kept.len() / 2).and_then(|line| line.split_once(' ')).expect("a time");
    let since = ok(&node, &["logs", "--since-time", half, "talk-node"]);
    assert_eq!(numbers(&since), kept[kept.len() / 2..]);
    assert_eq!(ok(&node, &["logs", "--since", "0.001s", "talk-node"]), "");
    assert_eq!(numbers(&ok(&node, &["logs", "--since", "1h", "talk-node"])), kept);

    pod.kill("c").await.expect("end it");
    let (code, out, err) = told(in_time(follower).await);
    assert_eq!(code, 0, "{err}");
    assert_eq!(gaps(&numbers(&out), 0), "", "who followed saw all of it");
    let link = std::fs::read_dir(node.dir().join("links")).expect("links").count();
    assert!(link > 0, "the link to the log stays");
    node.remove("talk").expect("remove");
    node.empty().await.expect("nothing is left");
}

async fn logs_of_instances_that_are_gone_go(host: &Host) {
    let node = node(host).await;
    // With a uid of its own, so that an edit makes another instance and not another pod.
    let edited = |attempt: u32| {
        let manifest = busybox("crash", &format!("echo this is {attempt}; exec sleep 1000"));
        manifest.replace("name: crash\n", "name: crash\n  uid: 6f0e8d8a-0001\n")
    };
    let pod = node.apply("crash", &edited(0)).expect("apply");
    for attempt in 0..4 {
        node.apply("crash", &edited(attempt)).expect("edit");
        let told = format!("this is {attempt}\n");
        pod.logged("c", |log| log == told).await.expect("runs");
    }
    let logs = pod.container("c").await.expect("seen").log_path;
    let logs = logs.parent().expect("a directory").to_owned();
    for _ in 0..600 {
        if !logs.join("0.log").exists() && !logs.join("1.log").exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut names: Vec<String> = std::fs::read_dir(&logs)
        .expect("list")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert!(names == ["2.log", "3.log"] || names == ["3.log"], "{names:?}");
}
