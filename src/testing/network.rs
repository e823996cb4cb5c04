//! A private pod network for a test's node: a bridge of its own with its own range of addresses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::NodeError;

/// The network's names and places.
#[derive(Debug)]
pub struct Network {
    bridge: String,
    subnet: (u8, u8),
    dir: PathBuf,
}

impl Network {
    /// Names follow from the node's, so that nodes in parallel do not meet.
    pub fn new(node: &str, dir: &Path) -> Self {
        let hash = Sha256::digest(dir.join(node).as_os_str().as_encoded_bytes());
        let bridge = format!("pst{}", hex::encode(&hash[..5]));
        Self { bridge, subnet: (hash[5] % 64 + 128, hash[6]), dir: dir.join("cni") }
    }

    /// Writes the configuration and answers its directory.
    pub fn write(&self) -> Result<PathBuf, NodeError> {
        let net_d = self.dir.join("net.d");
        let (second, third) = self.subnet;
        let list = serde_json::json!({
            "cniVersion": "1.0.0",
            "name": self.bridge,
            "plugins": [
                {
                    "type": "bridge", "bridge": self.bridge, "isGateway": true, "ipMasq": false,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": self.dir.join("leases"),
                        "ranges": [[{ "subnet": format!("10.{second}.{third}.0/24") }]],
                        "routes": [{ "dst": "0.0.0.0/0" }]
                    }
                },
                { "type": "portmap", "capabilities": { "portMappings": true } }
            ]
        });
        let path = net_d.join("10-test.conflist");
        fs::create_dir_all(&net_d)
            .and_then(|()| fs::write(&path, list.to_string()))
            .map_err(|source| NodeError::File { path, source })?;
        Ok(net_d)
    }

    /// Addresses that are still given out.
    pub fn leases(&self) -> Vec<String> {
        let entries =
            fs::read_dir(self.dir.join("leases").join(&self.bridge)).into_iter().flatten().flatten();
        let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("10.")).map(|ip| format!("address {ip}")).collect()
    }

    /// Removes the bridge, when there was one.
    pub fn remove(&self) {
        if Path::new("/sys/class/net").join(&self.bridge).exists() {
            let mut command = Command::new("ip");
            let _ = command.args(["link", "delete", &self.bridge]).stderr(Stdio::null()).status();
        }
    }
}
