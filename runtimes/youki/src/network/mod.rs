//! The network of pods, by plugins of the Container Network Interface (specification 0.3.0 to 1.1). Runs plugins
//! from the node's directories, reads the node's network configuration, keeps records in a directory of its own.
//! Pods in the node's network namespace never come here.
//!
//! Operations on one sandbox take turns, in all processes; those on different sandboxes run beside each other.

mod config;
mod error;
mod exec;
mod orphans;
mod portmap;
mod record;
mod request;
mod result;
mod turn;

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value};

pub use self::{
    config::{ConfList, Selection, VERSIONS, select},
    error::{Error, Fault, PluginError},
    request::{Attachment, Bandwidth, INTERFACE, PortMapping, Protocol},
    result::{Cidr, Dns, Interface, Ip, Outcome, Route},
};
use self::{
    exec::{Run, Target},
    record::Record,
    request::plugin_config,
};

/// Where things are on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The network configurations.
    pub conf_dir: PathBuf,
    /// The plugins' programs; the first directory that has one counts.
    pub bin_dirs: Vec<PathBuf>,
    /// The records of attached sandboxes. They should survive a reboot, because the plugins' own do.
    pub record_dir: PathBuf,
    /// How long one run of one plugin may take. An attachment that fails by it may take twice as long, because it
    /// is undone.
    pub deadline: Duration,
}

impl Settings {
    /// The usual directories, and a deadline of 60 s.
    pub fn new(record_dir: impl Into<PathBuf>) -> Self {
        Self {
            conf_dir: "/etc/cni/net.d".into(),
            bin_dirs: ["/opt/cni/bin", "/usr/libexec/cni", "/usr/lib/cni"].map(PathBuf::from).into(),
            record_dir: record_dir.into(),
            deadline: Duration::from_secs(60),
        }
    }
}

/// Whether pods can be attached now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// They can.
    Ready {
        /// The network's name.
        network: String,
        /// The file it is configured by.
        file: PathBuf,
        /// Files that come before it and are not valid, and why.
        skipped: Vec<(PathBuf, String)>,
    },
    /// They cannot; the text says why and what to do.
    NotReady(String),
}

/// What CHECK found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The plugins found the network as they made it.
    Passed,
    /// The configuration forbids CHECK or is of a version before 0.4.0.
    NotSupported,
}

/// The client. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Network(Arc<Settings>);

/// A chosen network whose programs are all there.
struct Usable {
    file: PathBuf,
    list: ConfList,
    programs: Vec<PathBuf>,
    skipped: Vec<(PathBuf, String)>,
}

impl Network {
    /// A client; touches nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(settings))
    }

    /// Whether a pod can be attached now. Since version 1.1 this asks the plugins too.
    pub async fn status(&self) -> Status {
        let usable = match self.usable().await {
            Ok(usable) => usable,
            Err(error) => return Status::NotReady(error.to_string()),
        };
        if usable.list.at_least("1.1.0") {
            for (plugin, program) in usable.list.plugins.iter().zip(&usable.programs) {
                let config = plugin_config(&usable.list, plugin, None, None);
                if let Err(error) = self.run(program, plugin, "STATUS", None, &config).await {
                    return Status::NotReady(error.to_string());
                }
            }
        }
        Status::Ready { network: usable.list.name, file: usable.file, skipped: usable.skipped }
    }

    /// Attaches a sandbox to the node's network. What an earlier attempt left for the same sandbox is undone first;
    /// to keep an attachment, use [`Network::outcome`]. After a failure everything is undone; what could not be is
    /// left to [`Network::del`].
    pub async fn add(&self, attachment: &Attachment) -> Result<Outcome, Error> {
        attachment.validate()?;
        let _turn = self.turn(&attachment.sandbox).await?;
        self.detach(&attachment.sandbox).await?;
        let usable = self.usable().await?;
        let mut record = Record::new(attachment.clone(), usable.list);
        self.store(&record).await?;
        let mut added = 0;
        let ended = self.add_each(&mut record, &usable.programs, &mut added).await;
        let ended = match ended {
            Ok(outcome) => self.store(&record).await.map(|()| outcome),
            failed => failed,
        };
        if ended.is_err() {
            match self.undo(&record, added).await {
                Ok(()) => self.forget(&attachment.sandbox).await?,
                Err(error) => tracing::warn!(sandbox = attachment.sandbox, %error, "network not undone yet"),
            }
        }
        ended
    }

    /// Asks the plugins whether the sandbox's network is as they made it. A failure alone is no reason to take a pod
    /// down. portmap's false alarms are none.
    pub async fn check(&self, sandbox: &str) -> Result<Check, Error> {
        let _turn = self.turn(sandbox).await?;
        let record = self.load(sandbox).await?.ok_or_else(|| Error::NotAttached(sandbox.to_owned()))?;
        let result = record.result.as_ref().ok_or_else(|| Error::NotAttached(sandbox.to_owned()))?;
        if record.list.disable_check || !record.list.at_least("0.4.0") {
            return Ok(Check::NotSupported);
        }
        let args = record.attachment.args();
        let target = Target { sandbox, netns: &record.attachment.netns, args: &args };
        for plugin in &record.list.plugins {
            let program = self.program(&record.list, plugin).await?;
            let config = plugin_config(&record.list, plugin, Some(&record.attachment), Some(result));
            if let Err(error) = self.run(&program, plugin, "CHECK", Some(target), &config).await {
                let ips = self.parse_recorded(sandbox, result)?.ips;
                if !portmap::is_false_alarm(&error, ips.iter().map(|ip| ip.address.ip)) {
                    return Err(error);
                }
                tracing::debug!(sandbox, %error, "a false alarm: the rules are there");
            }
        }
        Ok(Check::Passed)
    }

    /// Detaches a sandbox, with the configuration it was attached with, last plugin first. A plugin's failure does
    /// not keep the others from running; the first failure is returned and the call can be made again. Success when
    /// there is nothing (left) to do. The network namespace may be gone already, but should be let go of after this,
    /// because some plugins find what they made on the node only by the addresses inside.
    pub async fn del(&self, sandbox: &str) -> Result<(), Error> {
        // Pods in the node's network need no turn, and so no room on the disk for its lock.
        if self.load(sandbox).await?.is_none() {
            return Ok(());
        }
        let _turn = self.turn(sandbox).await?;
        self.detach(sandbox).await
    }

    /// [`Network::del`] in a turn that the caller has.
    async fn detach(&self, sandbox: &str) -> Result<(), Error> {
        let Some(record) = self.load(sandbox).await? else { return Ok(()) };
        self.undo(&record, record.list.plugins.len()).await?;
        self.forget(sandbox).await
    }

    /// What the attachment gave the sandbox, from the record; `None` when it is not attached.
    pub async fn outcome(&self, sandbox: &str) -> Result<Option<Outcome>, Error> {
        let result = self.load(sandbox).await?.and_then(|record| record.result);
        result.map(|result| self.parse_recorded(sandbox, &result)).transpose()
    }

    /// The sandboxes that [`Network::del`] has something to do for, attached or half attached.
    pub async fn attached(&self) -> Result<Vec<String>, Error> {
        self.blocking(|settings| Record::list(&settings.record_dir)).await
    }

    /// Runs ADD of all plugins; `added` counts those that were started.
    async fn add_each(
        &self,
        record: &mut Record,
        programs: &[PathBuf],
        added: &mut usize,
    ) -> Result<Outcome, Error> {
        let (attachment, list) = (&record.attachment, &record.list);
        let args = attachment.args();
        let target = Target { sandbox: &attachment.sandbox, netns: &attachment.netns, args: &args };
        let mut outcome = Outcome::default();
        for (plugin, program) in list.plugins.iter().zip(programs) {
            *added += 1;
            let config = plugin_config(list, plugin, Some(attachment), record.result.as_ref());
            let output = self.run(program, plugin, "ADD", Some(target), &config).await?;
            let bad = |reason| {
                let sandbox = attachment.sandbox.clone();
                let plugin = ConfList::plugin_type(plugin).to_owned();
                Box::new(PluginError { plugin, command: "ADD", sandbox, fault: Fault::Result(reason) })
            };
            let mut result: Value =
                serde_json::from_slice(&output).map_err(|e| bad(format!("not JSON: {e}")))?;
            outcome = Outcome::parse(&result).map_err(bad)?;
            if let Some(result) = result.as_object_mut() {
                // The next plugin must know the version; a result without one is of the version asked for.
                result.entry("cniVersion").or_insert_with(|| list.version.clone().into());
            }
            record.result = Some(result);
        }
        Ok(outcome)
    }

    /// Runs DEL of the first `count` plugins, last first, and returns the first failure.
    async fn undo(&self, record: &Record, count: usize) -> Result<(), Error> {
        let (attachment, list) = (&record.attachment, &record.list);
        // What plugins still make that nobody waits for would be nobody's. Before there is a record none was ever run.
        let of = attachment.sandbox.clone();
        self.blocking(move |settings| orphans::end(&settings.record_dir, &of)).await?;
        let args = attachment.args();
        let held = attachment.netns.clone();
        let held = self.blocking(move |_| Ok(crate::namespace::is_pinned(&held))).await?;
        let netns = if held { attachment.netns.as_path() } else { Path::new("") };
        let target = Target { sandbox: &attachment.sandbox, netns, args: &args };
        let previous = record.result.as_ref().filter(|_| list.at_least("0.4.0"));
        let mut first = Ok(());
        for plugin in list.plugins[..count].iter().rev() {
            let config = plugin_config(list, plugin, Some(attachment), previous);
            let ended = match self.program(list, plugin).await {
                Ok(program) => self.run(&program, plugin, "DEL", Some(target), &config).await.map(drop),
                Err(missing) => Err(missing),
            };
            match ended {
                Err(error) if first.is_err() => {
                    tracing::warn!(sandbox = attachment.sandbox, %error, "another plugin failed to detach");
                }
                ended => first = first.and(ended),
            }
        }
        first
    }

    async fn run(
        &self,
        program: &Path,
        plugin: &Map<String, Value>,
        command: &'static str,
        target: Option<Target<'_>>,
        config: &Value,
    ) -> Result<Vec<u8>, Error> {
        let search =
            self.0.bin_dirs.iter().map(|dir| dir.as_os_str()).collect::<Vec<_>>().join(OsStr::new(":"));
        let plugin = ConfList::plugin_type(plugin);
        let (records, deadline) = (self.0.record_dir.as_path(), self.0.deadline);
        Run { program, plugin, command, target, search: &search, records, deadline }.run(config).await
    }

    async fn usable(&self) -> Result<Usable, Error> {
        self.blocking(|settings| {
            let Selection { chosen, skipped } = select(&settings.conf_dir)?;
            let (file, list) =
                chosen.ok_or_else(|| Error::NoNetwork(no_network(&settings.conf_dir, &skipped)))?;
            let programs =
                list.plugins.iter().map(|p| find(&settings.bin_dirs, &list, p)).collect::<Result<_, _>>()?;
            Ok(Usable { file, list, programs, skipped })
        })
        .await
    }

    async fn program(&self, list: &ConfList, plugin: &Map<String, Value>) -> Result<PathBuf, Error> {
        let (list, plugin) = (list.clone(), plugin.clone());
        self.blocking(move |settings| find(&settings.bin_dirs, &list, &plugin)).await
    }

    async fn load(&self, sandbox: &str) -> Result<Option<Record>, Error> {
        let sandbox = sandbox.to_owned();
        self.blocking(move |settings| Record::load(&settings.record_dir, &sandbox)).await
    }

    async fn store(&self, record: &Record) -> Result<(), Error> {
        let record = record.clone();
        self.blocking(move |settings| record.store(&settings.record_dir)).await
    }

    async fn forget(&self, sandbox: &str) -> Result<(), Error> {
        let sandbox = sandbox.to_owned();
        self.blocking(move |settings| Record::remove(&settings.record_dir, &sandbox)).await
    }

    fn parse_recorded(&self, sandbox: &str, result: &Value) -> Result<Outcome, Error> {
        let path = self.0.record_dir.join(format!("{sandbox}.json"));
        Outcome::parse(result).map_err(|reason| Error::Record { path, reason })
    }

    /// Files are touched on threads that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Settings) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let settings = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&settings)).await.unwrap_or(Err(Error::ShuttingDown))
    }
}

fn no_network(dir: &Path, skipped: &[(PathBuf, String)]) -> String {
    let dir = dir.display();
    let advice = "add a conflist or use hostNetwork";
    if skipped.is_empty() {
        return format!("no CNI network configuration in {dir}; {advice}");
    }
    let files: Vec<String> = skipped.iter().map(|(path, why)| format!("{}: {why}", path.display())).collect();
    format!("no valid CNI network configuration in {dir} ({}); correct it, {advice}", files.join("; "))
}

/// The plugin's program: the first regular executable file of its name.
fn find(dirs: &[PathBuf], list: &ConfList, plugin: &Map<String, Value>) -> Result<PathBuf, Error> {
    let plugin = ConfList::plugin_type(plugin);
    let executable =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    dirs.iter().map(|dir| dir.join(plugin)).find(executable).ok_or_else(|| Error::PluginMissing {
        plugin: plugin.to_owned(),
        network: list.name.clone(),
        searched: dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", "),
    })
}
