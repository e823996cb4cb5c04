//! Objects of an API server's that local files may hold instead. Data only; nothing fills it yet, and admission refuses
//! manifests that refer to one.

use std::collections::BTreeMap;

/// ConfigMaps and Secrets by namespace and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalObjects {
    /// ConfigMaps: their `data` and `binaryData`.
    pub config_maps: BTreeMap<(String, String), Keys>,
    /// Secrets: their `data`, decoded.
    pub secrets: BTreeMap<(String, String), Keys>,
}

/// The keys of one object, with their values.
pub type Keys = BTreeMap<String, Vec<u8>>;
