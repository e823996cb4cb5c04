//! Pulls from a real registry, and from one that lies. Needs root, docker-registry, skopeo, umoci and openssl.
#![allow(clippy::unwrap_used, missing_docs)]

mod image_support;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use image_support::{Kind, Layout, Liar, Registry, go_arch, merged, names};
use podstead_youki::image::{
    Credentials, Digest, ErrorKind, Phase, PullOptions, Reference, Removed, Reporter, Store, user,
};

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn insecure(host: &str) -> PullOptions {
    PullOptions { insecure: vec![host.to_owned()], ..PullOptions::default() }
}

async fn new_store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("images")).await.unwrap();
    (dir, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_by_tag_and_found_by_every_name() {
    let Some(registry) = Registry::start(Kind::Plain) else { return };
    let layout = Layout::build();
    registry.push(&layout, "1", "team/app:1");
    let (dir, store) = new_store().await;
    let name = format!("{}/team/app:1", registry.host);
    let phases = Arc::new(Mutex::new(Vec::new()));
    let seen = phases.clone();
    let progress = Reporter::new(move |p| seen.lock().unwrap().push((p.layer, p.phase, p.done, p.total)));
    let options = PullOptions { progress, ..insecure(&registry.host) };
    let image = store.pull(&reference(&name), &options).await.unwrap();

    assert_eq!(image.repo_tags, std::slice::from_ref(&name));
    assert_eq!(image.repo_digests.len(), 1);
    assert_eq!(image.layers.len(), 3);
    assert_eq!(merged(&image.layers, "etc/motd").unwrap(), b"hello");
    assert_eq!(merged(&image.layers, "usr/share/old"), None, "whited out by the top layer");
    assert_eq!(merged(&image.layers[1..], "usr/share/old").unwrap(), b"old");
    assert!(image.size > 0 && image.layers.iter().all(|l| l.is_absolute()));
    let c = &image.config;
    assert_eq!((c.user.as_deref(), c.working_dir.as_deref()), (Some("web:log"), Some("/srv")));
    assert_eq!(
        (c.entrypoint.as_slice(), c.cmd.as_slice()),
        (["/bin/app".to_owned()].as_slice(), ["serve".to_owned()].as_slice())
    );
    assert!(c.env.contains(&"A=1".to_owned()) && c.labels["org.example"] == "yes");
    assert_eq!(
        (c.stop_signal.as_deref(), c.volumes.as_slice()),
        (Some("SIGQUIT"), ["/data".to_owned()].as_slice())
    );
    assert_eq!(c.exposed_ports, ["80/tcp"]);

    let digest = image.repo_digests[0].split_once('@').unwrap().1.to_owned();
    let hex = image.id.strip_prefix("sha256:").unwrap().to_owned();
    for query in [&name, &image.repo_digests[0], &image.id, &digest, &hex, &hex[..12].to_owned()] {
        assert_eq!(store.get(query).await.unwrap(), image, "{query}");
    }
    assert_eq!(store.get("team/app:1").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.get("A b").await.unwrap_err().kind(), ErrorKind::InvalidName);
    {
        let phases = phases.lock().unwrap();
        for wanted in [Phase::Downloading, Phase::Extracting, Phase::Exists] {
            let whole = phases
                .iter()
                .filter(|(_, phase, done, total)| *phase == wanted && done == total && *done > 0);
            assert_eq!(
                whole.map(|(layer, ..)| layer).collect::<HashSet<_>>().len(),
                3,
                "{wanted:?} {phases:?}"
            );
        }
    }
    // Again, by digest: nothing is downloaded.
    phases.lock().unwrap().clear();
    let again = store.pull(&reference(&image.repo_digests[0]), &options).await.unwrap();
    assert_eq!(again.id, image.id);
    assert!(phases.lock().unwrap().iter().all(|(_, phase, ..)| *phase == Phase::Exists));
    assert_eq!(names(&dir.path().join("images/layers")).len(), 3);
    assert_eq!(names(&dir.path().join("images/tmp")).len(), 1, "only this store's own");
    assert_eq!(
        names(&dir.path().join("images/tmp").join(&names(&dir.path().join("images/tmp"))[0])).len(),
        0
    );
    assert_eq!(user::resolve("web:x:5:6::/w:\n", "log:x:9:\n", c.user.as_deref().unwrap()).unwrap().gid, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_gives_the_image_of_this_machine() {
    let Some(registry) = Registry::start(Kind::Plain) else { return };
    let layout = Layout::build();
    registry.push(&layout, "1", "app:one");
    registry.push(&layout, "arm", "app:two");
    // The store brings its own; this client comes before it when the test has a process of its own.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let mut entries = Vec::new();
    for (tag, arch) in [("two", "riscv64"), ("one", go_arch())] {
        let url = format!("http://{}/v2/app/manifests/{tag}", registry.host);
        let accept = "application/vnd.oci.image.manifest.v1+json";
        let body = client.get(url).header("Accept", accept).send().await.unwrap().bytes().await.unwrap();
        entries.push(format!(
            r#"{{"mediaType":"{accept}","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{arch}"}}}}"#,
            Digest::of(&body),
            body.len()
        ));
    }
    let kind = "application/vnd.oci.image.index.v1+json";
    let put = |tag: &'static str, entries: &[String]| {
        let index =
            format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","manifests":[{}]}}"#, entries.join(","));
        let request = client.put(format!("http://{}/v2/app/manifests/{tag}", registry.host));
        request.header("Content-Type", kind).body(index).send()
    };
    assert!(put("both", &entries).await.unwrap().status().is_success());
    assert!(put("foreign", &entries[..1]).await.unwrap().status().is_success());

    let (_dir, store) = new_store().await;
    let options = insecure(&registry.host);
    let image = store.pull(&reference(&format!("{}/app:both", registry.host)), &options).await.unwrap();
    assert_eq!(merged(&image.layers, "etc/motd").unwrap(), b"hello");
    assert_eq!(image.repo_digests.len(), 2, "of the index and of the image");
    for digest in &image.repo_digests {
        assert_eq!(store.pull(&reference(digest), &options).await.unwrap().id, image.id);
        assert_eq!(store.get(digest).await.unwrap().id, image.id);
    }
    for tag in ["foreign", "missing"] {
        let name = reference(&format!("{}/app:{tag}", registry.host));
        assert_eq!(store.pull(&name, &options).await.unwrap_err().kind(), ErrorKind::NotFound, "{tag}");
    }
    let name = reference(&format!("{}/app:two", registry.host));
    assert_eq!(
        store.pull(&name, &options).await.unwrap_err().kind(),
        ErrorKind::Corrupt,
        "another machine's"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_only_for_hosts_named_insecure() {
    let Some(registry) = Registry::start(Kind::Plain) else { return };
    let layout = Layout::build();
    registry.push(&layout, "1", "app:1");
    let (_dir, store) = new_store().await;
    let name = reference(&format!("{}/app:1", registry.host));
    for hosts in [vec![], vec!["127.0.0.1".to_owned()], vec!["127.0.0.1:1".to_owned()]] {
        let options = PullOptions { insecure: hosts, ..PullOptions::default() };
        assert_eq!(store.pull(&name, &options).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    store.pull(&name, &insecure(&registry.host)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn https_wants_a_certificate_it_knows() {
    let Some(registry) = Registry::start(Kind::Tls) else { return };
    let layout = Layout::build();
    registry.push(&layout, "1", "app:1");
    let (_dir, store) = new_store().await;
    let name = reference(&format!("{}/app:1", registry.host));
    let error = store.pull(&name, &PullOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("certificate"), "{error}");
    let pem = std::fs::read(registry.dir.path().join("cert.pem")).unwrap();
    let options = PullOptions { extra_roots: vec![pem], ..PullOptions::default() };
    store.pull(&name, &options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_asked_for_and_never_shown() {
    let Some(registry) = Registry::start(Kind::Password) else { return };
    let layout = Layout::build();
    registry.push(&layout, "1", "app:1");
    let (_dir, store) = new_store().await;
    let name = reference(&format!("{}/app:1", registry.host));
    let with = |credentials| PullOptions { credentials, ..insecure(&registry.host) };
    let basic =
        |password: &str| Credentials::Basic { username: "web".to_owned(), password: password.to_owned() };
    for credentials in [Credentials::Anonymous, basic("wrong-hunter2"), Credentials::Bearer("hunter2".into())]
    {
        let error = store.pull(&name, &with(credentials)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    store.pull(&name, &with(basic("secret"))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_registry_changed_behind_its_digest_is_refused() {
    let Some(registry) = Registry::start(Kind::Plain) else { return };
    let layout = Layout::build();
    registry.push(&layout, "1", "app:1");
    let (dir, store) = new_store().await;
    let name = reference(&format!("{}/app:1", registry.host));
    let options = insecure(&registry.host);
    let image = store.pull(&name, &options).await.unwrap();
    let manifest = image.repo_digests[0].split_once('@').unwrap().1.to_owned();
    let bytes = std::fs::read(registry.blob_file(&manifest)).unwrap();
    let parsed: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let layer = parsed["layers"][0]["digest"].as_str().unwrap().to_owned();
    assert!(
        matches!(store.remove(&image.id, &HashSet::new()).await.unwrap(), Removed::Deleted { freed, .. } if freed > 0)
    );

    // The configuration first: what an attempt verified is not fetched again.
    for victim in [&image.id, &layer] {
        let file = registry.blob_file(victim);
        let original = std::fs::read(&file).unwrap();
        let mut changed = original.clone();
        let at = changed.len() / 2;
        changed[at] ^= 1;
        std::fs::write(&file, changed).unwrap();
        let error = store.pull(&name, &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(store.list().await.unwrap().is_empty());
        std::fs::write(&file, original).unwrap();
    }
    assert!(names(&dir.path().join("images/layers")).iter().all(|l| !layer.contains(l.as_str())));
    store.pull(&name, &options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_does_not_match_its_digest_or_never_ends_is_refused() {
    let other = format!("sha256:{}", "b".repeat(64));
    let body = br#"{"schemaVersion":2}"#.to_vec();
    for endless in [false, true] {
        let answer = body.clone();
        let liar = Liar::start(endless, move |_| ("200 OK", vec![], answer.clone()));
        let (_dir, store) = new_store().await;
        for name in [format!("{}/app:1", liar.host), format!("{}/app@{other}", liar.host)] {
            let pull = store.pull(&reference(&name), &insecure(&liar.host)).await.map(|i| i.id);
            let error = pull.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            let wanted = if endless {
                "larger"
            } else if name.contains('@') {
                "digest"
            } else {
                "neither"
            };
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_plain_http_elsewhere_is_not_followed() {
    let target = Liar::start(false, |_| ("200 OK", vec![], b"stolen".to_vec()));
    let location = format!("Location: http://{}/x", target.host);
    let liar = Liar::start(false, move |path| match path {
        "/v2/" => ("200 OK", vec![], vec![]),
        _ => ("307 Temporary Redirect", vec![location.clone()], vec![]),
    });
    let (_dir, store) = new_store().await;
    let error =
        store.pull(&reference(&format!("{}/app:1", liar.host)), &insecure(&liar.host)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("plain http"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_or_absent_registry_is_unavailable() {
    let liar = Liar::start(false, |path| match path {
        "/v2/" => ("200 OK", vec![], vec![]),
        _ => ("503 Service Unavailable", vec![], b"\x1b[31mlater".to_vec()),
    });
    let (_dir, store) = new_store().await;
    let name = reference(&format!("{}/app:1", liar.host));
    let error = store.pull(&name, &insecure(&liar.host)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.to_string().contains('\x1b'), "terminal codes of a registry stay out");
    let nobody = reference("127.0.0.1:1/app:1");
    assert_eq!(
        store.pull(&nobody, &insecure("127.0.0.1:1")).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_pull_leaves_nothing_that_is_believed() {
    let Some(registry) = Registry::start(Kind::Plain) else { return };
    let layout = Layout::build();
    let noise: Vec<u8> = (0..6_000_000u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    layout.insert("1", "/big", Some(&noise));
    registry.push(&layout, "1", "app:1");
    let (dir, store) = new_store().await;
    let name = reference(&format!("{}/app:1", registry.host));
    for millis in [0, 3, 10, 30, 60, 100, 150] {
        let options = insecure(&registry.host);
        let pull = store.pull(&name, &options);
        let _ = tokio::time::timeout(Duration::from_millis(millis), pull).await;
        for image in store.list().await.unwrap() {
            assert_eq!(merged(&image.layers, "big").unwrap(), noise);
        }
    }
    let image = store.pull(&name, &insecure(&registry.host)).await.unwrap();
    assert_eq!(merged(&image.layers, "big").unwrap(), noise);
    // Two at once share the work and agree.
    store.remove(&image.id, &HashSet::new()).await.unwrap();
    let options = insecure(&registry.host);
    let (a, b) = tokio::join!(store.pull(&name, &options), store.pull(&name, &options));
    assert_eq!(a.unwrap(), b.unwrap());
    drop(store);
    assert!(names(&dir.path().join("images/tmp")).is_empty(), "a closed store leaves no working directory");
}
