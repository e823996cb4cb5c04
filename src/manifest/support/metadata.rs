//! Rows of what a manifest is and what its pod is called. Pure data.

use super::Support::{self, Dropped, Never, Parts, Supported};

const SERVER: &str = "set by an API server";

pub(super) const METADATA: &[(&str, Support)] = &[
    ("apiVersion", Supported),
    ("kind", Supported),
    ("metadata", Parts),
    ("metadata.name", Supported),
    ("metadata.namespace", Supported),
    ("metadata.labels", Supported),
    ("metadata.annotations", Supported),
    ("metadata.uid", Supported),
    ("metadata.creationTimestamp", Dropped(SERVER)),
    ("metadata.deletionGracePeriodSeconds", Dropped(SERVER)),
    ("metadata.deletionTimestamp", Never("a static pod ends when its file is taken away")),
    ("metadata.finalizers", Dropped("nothing deletes a static pod through an API server")),
    ("metadata.generateName", Dropped("names are not generated for static pods")),
    ("metadata.generation", Dropped(SERVER)),
    ("metadata.managedFields", Dropped(SERVER)),
    ("metadata.ownerReferences", Dropped("a static pod belongs to its file")),
    ("metadata.resourceVersion", Dropped(SERVER)),
    ("metadata.selfLink", Dropped(SERVER)),
    ("spec", Parts),
];
