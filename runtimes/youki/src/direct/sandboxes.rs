//! Making, stopping and removing sandboxes.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use podstead_runtime::{ContainerId, Error, Protocol, Result, SandboxId, SandboxSpec, Time, labels};

use super::errors::{blocking, of_sandbox};
use super::layout::make_dir;
use super::records::{SANDBOX, SandboxRecord, is_owned, new_id};
use super::{Inner, pods};
use crate::network::{self, Attachment};
use crate::shim::files::write_json;
use crate::shim::protocol::kept;

impl Inner {
    /// Makes the sandbox unless there is one of its pod and attempt.
    pub(super) async fn run_sandbox(this: &Arc<Self>, spec: &SandboxSpec) -> Result<SandboxId> {
        let doing = format!("run sandbox of pod {}", spec.pod.full_name());
        let mut spec = spec.clone();
        spec.labels.insert(labels::OWNER.into(), this.options.owner.clone());
        let key = format!("sandbox {} {}", spec.pod.uid, spec.attempt);
        let (inner, said) = (Arc::clone(this), doing.clone());
        this.flights.run(&key, &doing, async move { inner.make_sandbox(&said, spec).await }).await
    }

    async fn make_sandbox(self: &Arc<Self>, doing: &str, spec: SandboxSpec) -> Result<SandboxId> {
        let (inner, wanted) = (Arc::clone(self), spec.clone());
        let mine = move |(record, _): &(SandboxRecord, bool)| {
            (&record.spec.pod.uid, record.spec.attempt) == (&wanted.pod.uid, wanted.attempt)
                && is_owned(&record.spec.labels, &inner.options.owner)
        };
        let inner = Arc::clone(self);
        let found: Vec<_> =
            blocking(doing, move || Ok(inner.sandboxes()?.into_iter().filter(mine).collect())).await?;
        for (record, whole) in found {
            if whole {
                return Ok(SandboxId(record.id));
            }
            // Left by a maker that was killed: nobody else makes this key now.
            self.unmake_sandbox(doing, &record.id).await?;
        }
        self.launcher.warm();
        let id = new_id().map_err(|e| Error::failed(doing, e))?;
        let made = self.make_sandbox_as(doing, &id, spec).await;
        if made.is_err()
            && let Err(error) = self.unmake_sandbox(doing, &id).await
        {
            tracing::warn!(%error, "a sandbox that could not be made is not unmade either; it is tried again later");
        }
        made.map(|()| SandboxId(id))
    }

    async fn make_sandbox_as(self: &Arc<Self>, doing: &str, id: &str, spec: SandboxSpec) -> Result<()> {
        let mut record = SandboxRecord {
            id: id.to_owned(),
            spec,
            created_at: Time::now(),
            ips: Vec::new(),
            stopped: false,
            stopping: false,
        };
        let (inner, making) = (Arc::clone(self), record.clone());
        blocking(doing, move || {
            let dir = inner.layout.sandbox(&making.id);
            make_dir(&dir)?;
            write_json(&dir.join(kept::MAKING), &making)?;
            pods::make(&inner.layout, &making.id, &making.spec)
        })
        .await?;
        if record.spec.security.namespaces.user.is_some() {
            let made = self.launcher.users(&self.layout.sandbox_state(id)).await;
            made.map_err(|error| super::errors::launch(doing, &error))?;
        }
        if pods::shares_pids(&record.spec) {
            self.make_pause(doing, id, record.spec.security.namespaces.user.is_some()).await?;
        }
        if !pods::is_host_network(&record.spec) {
            let attachment = attachment(self, &record);
            let outcome = self.network.add(&attachment).await.map_err(|e| Error::failed(doing, e))?;
            record.ips = outcome.pod_ips();
        }
        let inner = Arc::clone(self);
        blocking(doing, move || {
            let dir = inner.layout.sandbox(&record.id);
            write_json(&dir.join(SANDBOX), &record)?;
            pods::gone(fs::remove_file(dir.join(kept::MAKING)))
        })
        .await
    }

    async fn make_pause(self: &Arc<Self>, doing: &str, id: &str, users: bool) -> Result<()> {
        let (inner, of) = (Arc::clone(self), id.to_owned());
        blocking(doing, move || pods::make_pause_dir(&inner.layout, &of, users)).await?;
        let made = self.launcher.pause(&self.layout.pause(id)).await;
        made.map_err(|error| super::errors::launch(doing, &error))?;
        let (inner, of) = (Arc::clone(self), id.to_owned());
        blocking(doing, move || pods::pin_pause(&inner.layout, &of)).await
    }

    /// The sandbox, if it is there and ours.
    pub(super) async fn our_sandbox(
        self: &Arc<Self>,
        doing: &str,
        id: &SandboxId,
    ) -> Result<Option<SandboxRecord>> {
        let (inner, wanted) = (Arc::clone(self), id.0.clone());
        let found = blocking(doing, move || inner.sandbox(&wanted)).await?;
        match found {
            Some((record, _)) if !is_owned(&record.spec.labels, &self.options.owner) => {
                Err(Error::NotOurs { doing: doing.to_owned() })
            }
            found => Ok(found.map(|(record, _)| record)),
        }
    }

    /// Kills what runs in it and gives its network and namespaces back.
    pub(super) async fn stop_sandbox(this: &Arc<Self>, id: &SandboxId) -> Result<()> {
        let doing = of_sandbox("stop", id);
        if this.our_sandbox(&doing, id).await?.is_none() {
            return Ok(());
        }
        let (inner, said, wanted) = (Arc::clone(this), doing.clone(), id.clone());
        let work = async move {
            // Another call may have stopped or removed it while we waited for our turn.
            if inner.our_sandbox(&said, &wanted).await?.is_none_or(|record| record.stopped) {
                return Ok(());
            }
            inner.quiet_sandbox(&said, &wanted.0).await?;
            // Without the note it is still seen as stopped: nothing of it is up.
            blocking(said, move || {
                pods::unless_full(inner.change_sandbox(&wanted.0, |record| record.stopped = true))
            })
            .await
        };
        this.flights.run(&format!("sandbox {id}"), &doing, work).await
    }

    /// Ends everything that a sandbox has on the node, except its record.
    async fn quiet_sandbox(self: &Arc<Self>, doing: &str, id: &str) -> Result<()> {
        let (inner, of) = (Arc::clone(self), id.to_owned());
        let containers = blocking(doing, move || {
            // Before the look: whoever makes a container writes it down first and then looks at this mark, so that one
            // of us sees the other.
            pods::unless_full(inner.change_sandbox(&of, |record| record.stopping = true))?;
            inner.containers_of(&of)
        });
        for container in containers.await? {
            self.kill(&ContainerId(container), Duration::ZERO).await?;
        }
        self.network.del(id).await.map_err(|e| Error::failed(doing, e))?;
        let (inner, id) = (Arc::clone(self), id.to_owned());
        blocking(doing, move || pods::unmake(&inner.layout, &id)).await
    }

    /// Ids of the sandbox's containers, half-made ones too.
    pub(super) fn containers_of(&self, sandbox: &str) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for id in super::records::ids(&self.layout.containers())? {
            if self.any_container(&id)?.is_some_and(|(record, _)| record.sandbox == sandbox) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// Removes it with its containers.
    pub(super) async fn remove_sandbox(this: &Arc<Self>, id: &SandboxId) -> Result<()> {
        let doing = of_sandbox("remove", id);
        if this.our_sandbox(&doing, id).await?.is_none() {
            return Ok(());
        }
        let (inner, said, wanted) = (Arc::clone(this), doing.clone(), id.0.clone());
        let work = async move { inner.unmake_sandbox(&said, &wanted).await };
        this.flights.run(&format!("sandbox {id}"), &doing, work).await
    }

    pub(super) async fn unmake_sandbox(self: &Arc<Self>, doing: &str, id: &str) -> Result<()> {
        self.quiet_sandbox(doing, id).await?;
        let (inner, of) = (Arc::clone(self), id.to_owned());
        let containers = blocking(doing, move || inner.containers_of(&of)).await?;
        for container in containers {
            // In turn with a removal of the container alone.
            let (inner, said, of) = (Arc::clone(self), doing.to_owned(), container.clone());
            let work = async move { inner.unmake_container(&said, &of).await };
            self.flights.run(&format!("container {container}"), doing, work).await?;
        }
        let dir = self.layout.sandbox(id);
        blocking(doing, move || {
            // The record goes last: whoever comes after a kill in between still sees something to remove.
            for name in ["hosts", "hostname", "resolv.conf", SANDBOX, kept::MAKING] {
                pods::gone(fs::remove_file(dir.join(name)))?;
            }
            pods::gone(fs::remove_dir_all(&dir))
        })
        .await
    }
}

fn attachment(inner: &Inner, record: &SandboxRecord) -> Attachment {
    let spec = &record.spec;
    let port = |p: &podstead_runtime::PortMapping| network::PortMapping {
        host_port: p.host_port,
        container_port: p.container_port,
        protocol: match p.protocol {
            Protocol::Tcp => network::Protocol::Tcp,
            Protocol::Udp => network::Protocol::Udp,
            Protocol::Sctp => network::Protocol::Sctp,
        },
        host_ip: p.host_ip.parse::<IpAddr>().ok(),
    };
    Attachment {
        sandbox: record.id.clone(),
        netns: inner.layout.namespaces(&record.id).join("net"),
        pod_namespace: spec.pod.namespace.clone(),
        pod_name: spec.pod.name.clone(),
        pod_uid: spec.pod.uid.0.clone(),
        ports: spec.port_mappings.iter().map(port).collect(),
        dns: spec.dns.clone().map(|dns| network::Dns {
            nameservers: dns.servers,
            search: dns.searches,
            options: dns.options,
            ..network::Dns::default()
        }),
        ..Attachment::default()
    }
}
