//! Making and starting containers, and what is changed about a running one.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use podstead_runtime::{
    ContainerId, ContainerSpec, Error, LinuxResources, Profile, Result, SandboxId, Time, labels,
};

use super::describe::{Described, cgroup, describe, place_images, rootfs};
use super::errors::{self, blocking, of};
use super::layout::make_dir;
use super::records::{ContainerRecord, SandboxRecord, is_owned, new_id};
use super::removal::missing;
use super::{Inner, facts, pods};
use crate::bundle::{self, Bundle};
use crate::image::{self, Image};
use crate::launch::{self, LaunchError, Shim};
use crate::selinux;
use crate::shim::files::write_json;
use crate::shim::protocol::{Request, ShimSpec, Users, kept, run};

/// A shim that makes the same container for an agent that was killed gets this long, as a new one would.
const ANOTHER: Duration = Duration::from_secs(120);

impl Inner {
    /// Makes the container unless there is one of its sandbox, name and attempt.
    pub(super) async fn create_container(
        this: &Arc<Self>,
        sandbox: &SandboxId,
        spec: &ContainerSpec,
    ) -> Result<ContainerId> {
        let doing = format!("create container {} of sandbox {}", spec.name, errors::short(&sandbox.0));
        let key = format!("container {sandbox} {} {}", spec.name, spec.attempt);
        let (inner, said, sandbox, spec) = (Arc::clone(this), doing.clone(), sandbox.clone(), spec.clone());
        let work = async move { inner.create(&said, &sandbox, spec).await };
        this.flights.run(&key, &doing, work).await
    }

    async fn create(
        self: &Arc<Self>,
        doing: &str,
        sandbox: &SandboxId,
        spec: ContainerSpec,
    ) -> Result<ContainerId> {
        let pod = self.our_sandbox(doing, sandbox).await?;
        let pod = pod.ok_or_else(|| Error::not_found(doing, format!("sandbox {sandbox}")))?;
        if let Some(id) = self.existing(doing, &pod.id, &spec).await? {
            return Ok(ContainerId(id));
        }
        if !pod.takes_containers() || !pods::is_up(&self.layout, &pod.id, &pod.spec) {
            return Err(Error::State { doing: doing.to_owned(), cause: "the sandbox is stopped".into() });
        }
        let wanted = if spec.image_id.is_empty() { &spec.image.image } else { &spec.image_id };
        let image = self.store(doing)?.get(wanted).await;
        let image = image.map_err(|error| no_image(doing, &spec.image.image, &error))?;
        let mounted = self.mounted_images(doing, &spec).await?;
        let id = new_id().map_err(|e| Error::failed(doing, e))?;
        let made = self.make_container(doing, &id, pod, spec, (image, mounted)).await;
        match made {
            Ok(()) => Ok(ContainerId(id)),
            Err(error) => {
                if let Err(left) = self.unmake_container(doing, &id).await {
                    tracing::warn!(error = %left, "a container that could not be made is not unmade either");
                }
                Err(error)
            }
        }
    }

    /// The images that are mounted into the container, in the order of its mounts.
    async fn mounted_images(&self, doing: &str, spec: &ContainerSpec) -> Result<Vec<Image>> {
        let mut all = Vec::new();
        for volume in spec.mounts.iter().filter_map(|m| m.image.as_ref()) {
            let found = self.store(doing)?.get(&volume.image.image).await;
            all.push(found.map_err(|error| no_image(doing, &volume.image.image, &error))?);
        }
        Ok(all)
    }

    /// `images`: the container's own, and those that are mounted into it.
    async fn make_container(
        self: &Arc<Self>,
        doing: &str,
        id: &str,
        pod: SandboxRecord,
        spec: ContainerSpec,
        images: (Image, Vec<Image>),
    ) -> Result<()> {
        let (inner, said, id, sandbox) = (Arc::clone(self), doing.to_owned(), id.to_owned(), pod.id.clone());
        let run_dir = self.layout.run(&id);
        let prepared = blocking(doing, move || {
            let (image, mounted) = images;
            let prepare = || {
                inner.prepare(&said, &id, &pod, &spec, (&image, &mounted))?;
                // Now that it is written down who uses the images: until now they could be removed.
                for image in std::iter::once(&image).chain(&mounted) {
                    let held = inner.store(&said)?.hold(&image.id);
                    held.map_err(|error| no_image(&said, &spec.image.image, &error))?;
                }
                inner.still_takes(&said, &pod.id)
            };
            Ok(prepare())
        });
        prepared.await??;
        let made = self.launcher.make(&run_dir).await;
        made.map_err(|error| errors::launch(doing, &error))?;
        // Whoever stopped the sandbox meanwhile may have looked before there was anything to kill.
        let (inner, said) = (Arc::clone(self), doing.to_owned());
        blocking(doing, move || Ok(inner.still_takes(&said, &sandbox))).await?
    }

    /// Whether the sandbox was left alone since its container was written down. Blocks.
    fn still_takes(&self, doing: &str, sandbox: &str) -> Result<()> {
        let found = self.sandbox(sandbox).map_err(|e| Error::failed(doing, e))?;
        if found.is_some_and(|(record, _)| record.takes_containers()) {
            return Ok(());
        }
        Err(Error::State { doing: doing.to_owned(), cause: "the sandbox was stopped meanwhile".into() })
    }

    /// The id of a container with this key; waits for one that another agent's shim is making, and takes away what
    /// was left half-made.
    async fn existing(
        self: &Arc<Self>,
        doing: &str,
        sandbox: &str,
        spec: &ContainerSpec,
    ) -> Result<Option<String>> {
        let until = tokio::time::Instant::now() + ANOTHER;
        loop {
            let (inner, sandbox) = (Arc::clone(self), sandbox.to_owned());
            let (name, attempt) = (spec.name.clone(), spec.attempt);
            let same =
                move |r: &ContainerRecord| (&r.sandbox, &r.name, r.attempt) == (&sandbox, &name, attempt);
            let found = blocking(doing, move || {
                for id in super::records::ids(&inner.layout.containers())? {
                    if let Some(record) = inner.container(&id)?.filter(|r| same(r)) {
                        // One that ended before it ran is made anew, as if it had stayed half-made.
                        let (state, _) = inner.state(&record)?;
                        let whole = !(state.start_was_broken_off() && state.never_ran());
                        return Ok(Some((id, whole, Shim::Dead)));
                    }
                    if inner.half_made(&id)?.is_some_and(|r| same(&r)) {
                        let shim = launch::shim_of(&inner.layout.run(&id))?;
                        return Ok(Some((id, false, shim)));
                    }
                }
                Ok(None)
            })
            .await?;
            match found {
                None => return Ok(None),
                Some((id, true, _)) => return Ok(Some(id)),
                Some((id, false, Shim::Dead)) => self.unmake_container(doing, &id).await?,
                Some(_) if tokio::time::Instant::now() > until => {
                    return Err(Error::Deadline { doing: doing.to_owned(), seconds: ANOTHER.as_secs() });
                }
                Some(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Writes everything the shim needs. Blocks.
    fn prepare(
        &self,
        doing: &str,
        id: &str,
        pod: &SandboxRecord,
        spec: &ContainerSpec,
        (image, mounted): (&Image, &[Image]),
    ) -> Result<()> {
        let failed = |what: &'static str| move |e: io::Error| Error::failed(doing, format!("{what}: {e}"));
        let (dir, run_dir) = (self.layout.container(id), self.layout.run(id));
        let (cgroup, rootfs) = (cgroup(&pod.spec, id), rootfs(&self.layout, id));
        let (_, images) = place_images(spec, mounted, &run_dir);
        let bundle = self.bundle(doing, (pod, id), spec, (image, mounted))?;
        let log = (!spec.log_path.as_os_str().is_empty() && !pod.spec.log_directory.as_os_str().is_empty())
            .then(|| pod.spec.log_directory.join(&spec.log_path));
        let mut record = ContainerRecord {
            id: id.to_owned(),
            sandbox: pod.id.clone(),
            name: spec.name.clone(),
            attempt: spec.attempt,
            image: spec.image.image.clone(),
            image_id: image.id.clone(),
            mounted_images: mounted.iter().map(|image| image.id.clone()).collect(),
            created_at: Time::now(),
            labels: spec.labels.clone(),
            annotations: spec.annotations.clone(),
            log_path: log.clone().unwrap_or_default(),
            stop_signal: bundle::stop_signal(spec, &image.config).map_err(|e| Error::invalid(doing, e))?,
            cgroup: cgroup.clone(),
        };
        record.labels.insert(labels::OWNER.into(), self.options.owner.clone());
        make_dir(&dir).map_err(failed("make the container's directory"))?;
        write_json(&dir.join(kept::MAKING), &record).map_err(failed("write the container's record"))?;
        for sub in ["upper", "work", "rootfs"] {
            // Its root directory is the container's own, for all its users.
            make_dir(&dir.join(sub)).map_err(failed("make a directory"))?;
            let open = fs::Permissions::from_mode(0o755);
            fs::set_permissions(dir.join(sub), open).map_err(failed("open a directory"))?;
        }
        if let Some(parent) = log.as_deref().and_then(Path::parent) {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(failed("make the log directory"))?;
        }
        for mount in spec.mounts.iter().filter(|m| m.image.is_none() && !m.source.exists()) {
            fs::create_dir_all(&mount.source).map_err(failed("make the source of a mount"))?;
        }
        if let Some(label) = bundle.spec.linux().as_ref().and_then(|l| l.mount_label().as_deref()) {
            self.relabel(pod, spec, label).map_err(failed("label what is mounted"))?;
        }
        let shim = ShimSpec {
            id: id.to_owned(),
            kept: dir.clone(),
            hints: self.layout.hints(),
            log,
            rootfs,
            lower: image.layers.clone(),
            upper: dir.join("upper"),
            work: dir.join("work"),
            stdin: spec.stdin,
            users: pod.spec.security.namespaces.user.clone().map(|ids| Users {
                namespace: crate::namespace::user_pin(&self.layout.namespaces(&pod.id)),
                ids,
            }),
            no_devices: self.node.cgroup_v2 && !spec.security.privileged,
            images,
            bundle,
            cgroup,
        };
        make_dir(&run_dir).map_err(failed("make the shim's directory"))?;
        write_json(&run_dir.join(run::SPEC), &shim).map_err(failed("write the shim's orders"))?;
        write_json(&run_dir.join(run::LOCK), &()).map_err(failed("make the shim's lock"))
    }

    /// On nodes with SELinux: what the container is to use bears a label that it may.
    fn relabel(&self, pod: &SandboxRecord, spec: &ContainerSpec, label: &str) -> io::Result<()> {
        let files = pods::files(&self.layout, &pod.id, &pod.spec);
        let own = [files.hosts, files.hostname, files.resolv_conf];
        // The node's own /dev/shm is not ours to label.
        let shm = files.shm.filter(|shm| *shm == self.layout.shm(&pod.id));
        for file in own.into_iter().flatten().chain(shm) {
            selinux::relabel(&file, selinux::SHARED)?;
        }
        for mount in spec.mounts.iter().filter(|m| m.selinux_relabel && m.image.is_none()) {
            selinux::relabel(&mount.source, label)?;
        }
        Ok(())
    }

    fn bundle(
        &self,
        doing: &str,
        (pod, id): (&SandboxRecord, &str),
        spec: &ContainerSpec,
        (image, mounted): (&Image, &[Image]),
    ) -> Result<Bundle> {
        let profile = match &spec.security.seccomp {
            Profile::Localhost(path) => Some(
                fs::read_to_string(path)
                    .map_err(|e| Error::failed(doing, format!("read the seccomp profile {path}: {e}")))?,
            ),
            _ => None,
        };
        let mut node = self.node.clone();
        if spec.security.privileged || !spec.devices.is_empty() {
            // Now, not when we began: devices come and go.
            node.devices = facts::devices();
        }
        let of = Described {
            root: &self.options.root,
            state_dir: &self.options.state_dir,
            sandbox_id: &pod.id,
            sandbox: &pod.spec,
            id,
            container: spec,
            image,
            mounted,
            node: &node,
            localhost_seccomp: profile.as_deref(),
        };
        describe(&of).map_err(|error| Error::invalid(doing, error))
    }

    /// The container, if it was made and is ours.
    pub(super) fn our_container(
        &self,
        doing: &str,
        id: &ContainerId,
    ) -> Result<Option<Arc<ContainerRecord>>> {
        // A look at one small file, nearly always in memory.
        let found = self.container(&id.0).map_err(|e| Error::failed(doing, e))?;
        match found {
            Some(record) if !is_owned(&record.labels, &self.options.owner) => {
                Err(Error::NotOurs { doing: doing.to_owned() })
            }
            found => Ok(found),
        }
    }

    /// Lets it go.
    pub(super) async fn start_container(&self, id: &ContainerId) -> Result<()> {
        let doing = of("start", id);
        let record = self.our_container(&doing, id)?.ok_or_else(|| missing(&doing, id))?;
        match launch::ask(&self.layout.run(&record.id), Request::Start).await {
            Ok(()) => Ok(()),
            // It was started, and has ended since.
            Err(LaunchError::Gone) if self.layout.container(&id.0).join(kept::EXIT).exists() => Ok(()),
            Err(error) => Err(errors::launch(doing, &error)),
        }
    }

    /// Goes on in a new log file.
    pub(super) async fn reopen_log(&self, id: &ContainerId) -> Result<()> {
        let doing = of("reopen the log of", id);
        let record = self.our_container(&doing, id)?.ok_or_else(|| missing(&doing, id))?;
        match launch::ask(&self.layout.run(&record.id), Request::ReopenLog).await {
            // Nothing is written any more.
            Ok(()) | Err(LaunchError::Gone) => Ok(()),
            Err(error) => Err(errors::launch(doing, &error)),
        }
    }

    /// Changes limits in place, by writing them to its cgroup.
    pub(super) async fn update_resources(&self, id: &ContainerId, resources: &LinuxResources) -> Result<()> {
        let doing = of("update resources of", id);
        let record = self.our_container(&doing, id)?.ok_or_else(|| missing(&doing, id))?;
        let limits = bundle::changed_resources(resources, &self.node);
        blocking(doing, move || apply(&record, &limits)).await
    }
}

/// The image store's failure, with the name that the user knows the image by.
fn no_image(doing: &str, name: &str, error: &image::Error) -> Error {
    match errors::image(doing, error) {
        Error::NotFound { doing, .. } => Error::not_found(doing, format!("image {name}")),
        other => other,
    }
}

fn apply(record: &ContainerRecord, limits: &oci_spec::runtime::LinuxResources) -> io::Result<()> {
    use libcgroups::common::{CgroupConfig, CgroupManager as _, ControllerOpt, create_cgroup_manager};
    let config = CgroupConfig {
        cgroup_path: record.cgroup.clone().into(),
        systemd_cgroup: false,
        container_name: record.id.clone(),
    };
    let manager = create_cgroup_manager(config).map_err(io::Error::other)?;
    let option = ControllerOpt {
        resources: limits,
        disable_oom_killer: false,
        oom_score_adj: None,
        freezer_state: None,
    };
    manager.apply(&option).map_err(io::Error::other)
}
