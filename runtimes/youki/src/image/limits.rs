//! How much the store takes from a registry or an archive before it refuses.

/// Bounds against hostile or broken images.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest manifest or index, in bytes. Registries accept 4 MiB by the distribution-spec.
    pub manifest_bytes: u64,
    /// Largest image configuration, in bytes.
    pub config_bytes: u64,
    /// A layer may unpack to `layer_floor + layer_ratio * compressed size` bytes. Deflate cannot exceed 1032, real
    /// layers stay below 20; zstd knows no bound at all.
    pub layer_ratio: u64,
    /// See [`Limits::layer_ratio`]. In bytes.
    pub layer_floor: u64,
    /// Whatever its compressed size, a layer unpacks to no more bytes than this.
    pub layer_bytes: u64,
    /// Files, directories, links and whiteouts in one layer. Bounds inodes.
    pub layer_entries: u64,
    /// Bytes that the paths of one layer's directories take in memory while it is unpacked. Bounds memory.
    pub layer_paths: u64,
    /// Layers of one pull or import that are fetched at the same time.
    pub parallel: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: 4 << 20,
            config_bytes: 8 << 20,
            layer_ratio: 50,
            layer_floor: 1 << 30,
            layer_bytes: 64 << 30,
            layer_entries: 2_000_000,
            layer_paths: 64 << 20,
            parallel: 3,
        }
    }
}

impl Limits {
    /// Bytes a layer of this compressed size may unpack to.
    pub(crate) fn unpacked(&self, compressed: u64) -> u64 {
        compressed.saturating_mul(self.layer_ratio).saturating_add(self.layer_floor).min(self.layer_bytes)
    }
}
