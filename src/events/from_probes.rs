//! What probes that did not simply pass are called among a pod's events. Records, and touches nothing else.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Events, Happening, Type};
use crate::probe::{Note, Notes, Trouble};

/// Takes the notes of probes.
pub fn notes(events: &Events) -> Notes {
    let events = events.clone();
    Arc::new(move |note: &Note| {
        events.record(Happening {
            pod: note.pod.clone(),
            container: Some(note.container.clone()),
            kind: Type::Warning,
            reason: Cow::Borrowed(match note.trouble {
                Trouble::Warned => "ProbeWarning",
                Trouble::Failed | Trouble::Errored => "Unhealthy",
            }),
            message: note.message.trim_end().to_owned(),
        });
    })
}
