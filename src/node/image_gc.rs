//! Image collection (`kubelet-static-pods.md 2.13`): when the images' disk is full, those that this agent pulled and
//! nobody uses go, the longest unused first. Asks the runtime and the file system every five minutes; removes images.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use podstead_runtime::{Image, ImageFs, ImageSpec, Result, Runtime, Snapshot, Time};
use tokio::sync::watch;

use crate::images::memory::{Images, Memory};
use crate::images::name;
use crate::pod::container::with_tag;
use crate::reconcile::View;

/// When images are collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Percent of the disk in use from which images are removed; 100 for never.
    pub high: u8,
    /// Percent down to which they are.
    pub low: u8,
    /// How long after its pull an image stays in any case.
    pub min_age: Duration,
    /// How long an image that nobody uses is kept, however much room there is; zero for ever.
    pub max_age: Duration,
    /// How often it is looked.
    pub period: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        let (min_age, max_age) = (Duration::from_secs(120), Duration::ZERO);
        Self { high: 85, low: 80, min_age, max_age, period: Duration::from_secs(300) }
    }
}

/// How full a file system is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// All of it.
    pub capacity: u64,
    /// What is free for everybody.
    pub available: u64,
}

impl Disk {
    /// Measures the file system of a path.
    pub fn of(path: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Self { capacity: stat.f_blocks * stat.f_frsize, available: stat.f_bavail * stat.f_frsize })
    }

    /// How many bytes must become free; `None` while the disk is not full enough.
    pub fn to_free(self, policy: &Policy) -> Option<u64> {
        let (capacity, available) =
            (u128::from(self.capacity), u128::from(self.available.min(self.capacity)));
        if capacity == 0 || policy.high >= 100 {
            return None;
        }
        let used = 100 - available * 100 / capacity;
        let wanted = capacity * (100 - u128::from(policy.low.min(100))) / 100;
        let missing = wanted.saturating_sub(available);
        (used >= u128::from(policy.high) && missing > 0).then_some(u64::try_from(missing).unwrap_or(u64::MAX))
    }
}

/// What became of one collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Bytes that should have become free, with those of images that were too old.
    pub wanted: u64,
    /// Bytes of the images that were removed.
    pub freed: u64,
    /// Their ids.
    pub removed: Vec<String>,
}

/// Collects images.
#[derive(Debug)]
pub struct Collector<R> {
    runtime: Arc<R>,
    memory: Arc<Memory>,
    policy: watch::Receiver<Policy>,
    measure: fn(&Path) -> io::Result<Disk>,
}

impl<R: Runtime> Collector<R> {
    /// Of the images in this memory.
    pub fn new(runtime: Arc<R>, memory: Arc<Memory>, policy: Policy) -> Self {
        Self::following(runtime, memory, watch::channel(policy).1)
    }

    /// The same by a policy that may change.
    pub fn following(runtime: Arc<R>, memory: Arc<Memory>, policy: watch::Receiver<Policy>) -> Self {
        Self { runtime, memory, policy, measure: Disk::of }
    }

    fn policy(&self) -> Policy {
        self.policy.borrow().clone()
    }

    /// Collects until the loop is gone.
    pub async fn run(self, mut view: watch::Receiver<View>) {
        let mut said = String::new();
        loop {
            let period = self.policy().period;
            let gone = async { while view.changed().await.is_ok() {} };
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                () = gone => return,
            }
            let wanted = Arc::clone(&view.borrow().wanted);
            // Before all manifests were read, nobody knows which images are wanted.
            if !wanted.complete {
                continue;
            }
            let saying = match self.collect(&wanted.pods, Time::now()).await {
                Ok(done) if done.freed < done.wanted => format!(
                    "the images' disk is too full: {} bytes should become free, images of {} bytes could be removed",
                    done.wanted, done.freed
                ),
                Ok(_) => String::new(),
                Err(error) => error.to_string(),
            };
            if !saying.is_empty() && saying != said {
                tracing::warn!("image collection: {saying}");
            }
            said = saying;
        }
    }

    /// Collects once. `pods` are the ones that should run.
    pub async fn collect(&self, pods: &[Arc<Pod>], now: Time) -> Result<Collected> {
        if self.memory.images().is_empty() {
            return Ok(Collected::default());
        }
        let present = self.runtime.images().await?;
        let snapshot = self.runtime.observe().await?;
        let in_use = in_use(&present, &snapshot, pods);
        self.change(move |known| mark(known, &in_use, now)).await;
        let gone: BTreeSet<String> = present.iter().map(|image| image.id.clone()).collect();
        self.change(move |known| known.retain(|id, _| gone.contains(id))).await;
        let policy = self.policy();
        let mut done = Collected::default();
        let known = self.memory.images();
        let (old, others): (Vec<_>, Vec<_>) = candidates(&known, &present, now, policy.min_age)
            .into_iter()
            .partition(|image| is_old(&known, image, now, policy.max_age));
        for image in old {
            self.remove(image, &mut done).await;
        }
        // Only now: what has gone has made room.
        let Some(wanted) = self.missing(self.runtime.image_fs().await?).await? else {
            return Ok(done);
        };
        done.wanted = wanted.saturating_add(done.freed);
        for image in others {
            if done.freed >= done.wanted {
                break;
            }
            self.remove(image, &mut done).await;
        }
        Ok(done)
    }

    async fn remove(&self, image: &Image, done: &mut Collected) {
        match self.runtime.remove_image(&ImageSpec::from(image.id.as_str())).await {
            Ok(()) => {
                tracing::info!(image = image.id, names = ?image.repo_tags, bytes = image.size, "unused image removed");
                done.freed += image.size;
                done.removed.push(image.id.clone());
                let id = image.id.clone();
                self.change(move |known| {
                    known.remove(&id);
                })
                .await;
            }
            Err(error) => tracing::warn!("image collection: {error}"),
        }
    }

    async fn missing(&self, places: Vec<ImageFs>) -> Result<Option<u64>> {
        let (measure, policy) = (self.measure, self.policy());
        let work = move || {
            for place in places {
                let disk = measure(&place.path).map_err(|error| (place.path.clone(), error))?;
                if let Some(bytes) = disk.to_free(&policy) {
                    return Ok(Some(bytes));
                }
            }
            Ok(None)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(missing)) => Ok(missing),
            Ok(Err((path, error))) => {
                Err(podstead_runtime::Error::failed(format!("measure {}", path.display()), error))
            }
            Err(error) => Err(podstead_runtime::Error::failed("measure the images' disk", error)),
        }
    }

    async fn change(&self, change: impl FnOnce(&mut Images) + Send + 'static) {
        let memory = Arc::clone(&self.memory);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || memory.change(change)).await {
            tracing::warn!("cannot write down which images are used: {error}");
        }
    }
}

/// Ids of the images that a container or a manifest has.
fn in_use(present: &[Image], snapshot: &Snapshot, pods: &[Arc<Pod>]) -> BTreeSet<String> {
    let mut wanted: BTreeSet<String> =
        snapshot.containers.iter().map(|container| container.image_id.clone()).collect();
    let named = pods.iter().filter_map(|pod| pod.spec.as_ref()).flat_map(names);
    wanted.extend(named.map(|image| name::normal(&with_tag(image))));
    let is = |image: &&Image| {
        let names = image.repo_tags.iter().chain(&image.repo_digests);
        wanted.contains(&image.id)
            || names.into_iter().any(|n| wanted.contains(n) || wanted.contains(&name::normal(n)))
    };
    present.iter().filter(is).map(|image| image.id.clone()).collect()
}

/// Names of all images of a pod.
fn names(spec: &PodSpec) -> impl Iterator<Item = &str> {
    let init = spec.init_containers.iter().flatten();
    let containers = spec.containers.iter().chain(init).filter_map(|c| c.image.as_deref());
    let volumes = spec.volumes.iter().flatten().filter_map(|v| v.image.as_ref()?.reference.as_deref());
    containers.chain(volumes)
}

fn mark(known: &mut Images, in_use: &BTreeSet<String>, now: Time) {
    for (id, image) in known {
        image.unused_since = if in_use.contains(id) { None } else { Some(image.unused_since.unwrap_or(now)) };
    }
}

/// Whether an image is unused for longer than it may be.
fn is_old(known: &Images, image: &Image, now: Time, max_age: Duration) -> bool {
    let since = known.get(&image.id).and_then(|pulled| pulled.unused_since);
    !max_age.is_zero() && since.is_some_and(|since| now.since(since) > max_age)
}

/// What may be removed, the longest unused first. Not what is pinned, what is young, and what has a name besides those
/// that it was pulled by: somebody else gave it that.
fn candidates<'i>(known: &Images, present: &'i [Image], now: Time, min_age: Duration) -> Vec<&'i Image> {
    let mut found: Vec<(Time, Time, &Image)> = Vec::new();
    for image in present.iter().filter(|image| !image.pinned) {
        let Some(pulled) = known.get(&image.id) else { continue };
        let Some(unused_since) = pulled.unused_since else { continue };
        let own: BTreeSet<String> = pulled.names.iter().map(|n| name::normal(n)).collect();
        let foreign = image.repo_tags.iter().any(|tag| !own.contains(&name::normal(tag)));
        if !foreign && now.since(pulled.pulled_at) >= min_age {
            found.push((unused_since, pulled.pulled_at, image));
        }
    }
    found.sort_by_key(|(unused_since, pulled_at, _)| (*unused_since, *pulled_at));
    found.into_iter().map(|(.., image)| image).collect()
}

#[cfg(test)]
mod tests {
    use podstead_fake::Fake;
    use podstead_runtime::Container;

    use super::*;
    use crate::images::memory::Pulled;

    fn policy(high: u8, low: u8) -> Policy {
        Policy { high, low, ..Policy::default() }
    }

    #[test]
    fn a_full_disk_is_freed_down_to_the_low_mark() {
        let free = |available, policy: &Policy| Disk { capacity: 1000, available }.to_free(policy);
        assert_eq!(free(160, &policy(85, 80)), None);
        // Whole percents, as the kubelet counts.
        assert_eq!(free(159, &policy(85, 80)), Some(41));
        assert_eq!(free(0, &policy(85, 80)), Some(200));
        assert_eq!(free(0, &policy(100, 80)), None, "100 is never");
        assert_eq!(free(2000, &policy(85, 80)), None, "more available than there is");
        assert_eq!(free(1000, &policy(0, 0)), None, "an empty disk");
        assert_eq!(Disk { capacity: 0, available: 0 }.to_free(&policy(85, 80)), None);
        assert!(Disk::of(Path::new("/")).unwrap().capacity > 0);
    }

    fn image(id: &str, tags: &[&str]) -> Image {
        Image {
            id: id.into(),
            repo_tags: tags.iter().map(|&t| t.to_owned()).collect(),
            size: 100,
            ..Image::default()
        }
    }

    fn pulled(name: &str, pulled_at: i64, unused_since: Option<i64>) -> Pulled {
        Pulled {
            names: BTreeSet::from([name.to_owned()]),
            pulled_at: Time::from_secs(pulled_at),
            unused_since: unused_since.map(Time::from_secs),
        }
    }

    #[test]
    fn the_longest_unused_goes_first_and_what_is_not_ours_to_remove_stays() {
        let present = [
            image("young", &["r.example/young:1"]),
            image("newer", &["r.example/newer:1"]),
            image("older", &["docker.io/library/older:1"]),
            image("used", &["r.example/used:1"]),
            image("named", &["r.example/named:1", "r.example/mine:1"]),
            image("imported", &["r.example/imported:1"]),
            image("moved", &[]),
            Image { pinned: true, ..image("pinned", &["r.example/pinned:1"]) },
        ];
        let known = Images::from([
            ("young".to_owned(), pulled("r.example/young:1", 900, Some(901))),
            ("newer".to_owned(), pulled("r.example/newer:1", 1, Some(800))),
            ("older".to_owned(), pulled("older:1", 2, Some(700))),
            ("used".to_owned(), pulled("r.example/used:1", 3, None)),
            ("named".to_owned(), pulled("r.example/named:1", 4, Some(5))),
            ("moved".to_owned(), pulled("r.example/web:1", 5, Some(750))),
            ("pinned".to_owned(), pulled("r.example/pinned:1", 6, Some(7))),
            ("gone".to_owned(), pulled("r.example/gone:1", 7, Some(8))),
        ]);
        let found = candidates(&known, &present, Time::from_secs(1000), Duration::from_secs(120));
        let ids: Vec<&str> = found.iter().map(|image| image.id.as_str()).collect();
        assert_eq!(ids, ["older", "moved", "newer"]);
    }

    #[test]
    fn in_use_is_what_a_container_or_a_manifest_has() {
        let present = [
            image("a", &["docker.io/library/a:latest"]),
            image("b", &["r.example/b:1"]),
            Image { repo_digests: vec!["r.example/c@sha256:00".into()], ..image("c", &[]) },
            image("d", &["r.example/d:1"]),
            image("e", &["r.example/e:1"]),
        ];
        let spec = "spec: {containers: [{name: a, image: a}], initContainers: [{name: d, image: \"r.example/d:1\"}], \
                    volumes: [{name: v, image: {reference: \"r.example/e:2\"}}]}";
        let pod: Pod = serde_yaml::from_str(spec).unwrap();
        let container = |image_id: &str| Container { image_id: image_id.into(), ..Container::default() };
        let containers = vec![container("b"), container("r.example/c@sha256:00")];
        let snapshot = Snapshot { sandboxes: vec![], containers };
        let found = in_use(&present, &snapshot, &[Arc::new(pod)]);
        let ids: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(ids, ["a", "b", "c", "d"]);
    }

    #[test]
    fn unused_is_counted_from_the_first_look_and_a_use_ends_it() {
        let mut known = Images::from([
            ("a".to_owned(), pulled("a:1", 1, None)),
            ("b".to_owned(), pulled("b:1", 1, Some(5))),
            ("c".to_owned(), pulled("c:1", 1, Some(5))),
        ]);
        mark(&mut known, &BTreeSet::from(["c".to_owned()]), Time::from_secs(9));
        let since = |id: &str| known[id].unused_since;
        assert_eq!(since("a"), Some(Time::from_secs(9)));
        assert_eq!(since("b"), Some(Time::from_secs(5)));
        assert_eq!(since("c"), None);
    }

    #[tokio::test]
    async fn a_collection_removes_no_more_than_it_must_and_remembers() {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new();
        let memory = Arc::new(Memory::open(dir.path()));
        let names =
            ["older", "newer", "newest", "wanted", "imported"].map(|name| format!("r.example/{name}:1"));
        for (n, name) in names.iter().enumerate() {
            let id = fake.world(|w| w.add_image(name));
            if n < 4 {
                memory.pulled(&id, name, Time::from_secs(1)).unwrap();
                let unused = Some(Time::from_secs(2 + i64::try_from(n).unwrap()));
                memory.change(|known| known.get_mut(&id).unwrap().unused_since = unused).unwrap();
            }
        }
        let pod = "spec: {containers: [{name: c, image: \"r.example/wanted:1\"}]}";
        let pods = [Arc::new(serde_yaml::from_str(pod).unwrap())];
        let full = Collector {
            measure: |_| Ok(Disk { capacity: 100, available: 2 }),
            ..Collector::new(Arc::new(fake.clone()), Arc::clone(&memory), policy(85, 80))
        };
        let left =
            || fake.world(|w| w.images().into_iter().map(|i| i.repo_tags[0].clone()).collect::<Vec<_>>());
        let young = full.collect(&pods, Time::from_secs(100)).await.unwrap();
        assert_eq!((young.removed.len(), left().len()), (0, 5));
        // 18 are missing, an image has 10.
        let done = full.collect(&pods, Time::from_secs(1000)).await.unwrap();
        assert_eq!((done.wanted, done.freed, done.removed.len()), (18, 20, 2));
        assert_eq!(left(), [&*names[4], &*names[2], &*names[3]]);
        let known = Memory::open(dir.path()).images();
        let ids: Vec<&str> = known.keys().map(String::as_str).collect();
        assert_eq!(ids, ["sha256:r.example/newest:1", "sha256:r.example/wanted:1"]);
        assert_eq!(known["sha256:r.example/wanted:1"].unused_since, None);
        // Nothing wanted is removed, and nothing that was not pulled, however full the disk is.
        let last = full.collect(&pods, Time::from_secs(2000)).await.unwrap();
        assert_eq!((last.freed, left()), (10, vec![names[4].clone(), names[3].clone()]));
        assert_eq!(full.collect(&pods, Time::from_secs(3000)).await.unwrap().freed, 0);
    }

    #[tokio::test]
    async fn what_is_unused_for_too_long_goes_also_while_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new();
        let memory = Arc::new(Memory::open(dir.path()));
        for (name, unused) in [("old", 10), ("new", 11), ("imported", 0)] {
            let name = format!("r.example/{name}:1");
            let id = fake.world(|w| w.add_image(&name));
            if unused > 0 {
                memory.pulled(&id, &name, Time::from_secs(1)).unwrap();
                let unused = Some(Time::from_secs(unused));
                memory.change(|known| known.get_mut(&id).unwrap().unused_since = unused).unwrap();
            }
        }
        let (sender, policy) =
            watch::channel(Policy { min_age: Duration::from_secs(1), ..Policy::default() });
        let roomy = Collector {
            measure: |_| Ok(Disk { capacity: 100, available: 90 }),
            ..Collector::following(Arc::new(fake.clone()), Arc::clone(&memory), policy)
        };
        let now = Time::from_secs(111);
        assert_eq!(roomy.collect(&[], now).await.unwrap(), Collected::default(), "0 is for ever");
        sender.send_modify(|policy| policy.max_age = Duration::from_secs(100));
        let done = roomy.collect(&[], now).await.unwrap();
        assert_eq!((done.wanted, done.removed), (0, vec!["sha256:r.example/old:1".to_owned()]));
        assert_eq!(
            roomy.collect(&[], now).await.unwrap().removed.len(),
            0,
            "the limit itself is not over it"
        );
    }

    #[tokio::test]
    async fn without_anything_pulled_nobody_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new();
        let memory = Arc::new(Memory::open(dir.path()));
        let collector = Collector::new(Arc::new(fake.clone()), memory, Policy::default());
        fake.set_unreachable(true);
        assert_eq!(collector.collect(&[], Time::from_secs(1)).await.unwrap(), Collected::default());
    }
}
