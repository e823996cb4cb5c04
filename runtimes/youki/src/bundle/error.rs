//! Why a container cannot be described. Pure.

/// A container that this runtime cannot, or will not, describe.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither the pod nor the image names a program.
    #[error(
        "container \"{container}\" has no program to run: the pod gives no command, and image \"{image}\" has neither \
         entrypoint nor cmd; set `command`"
    )]
    NoCommand {
        /// Name of the container.
        container: String,
        /// The image as the pod names it.
        image: String,
    },
    /// A value that means nothing, or something dangerous.
    #[error("container \"{container}\": {what} is invalid: {reason}")]
    Invalid {
        /// Name of the container.
        container: String,
        /// Which setting, with its value.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A feature of the contract this runtime does not have.
    #[error("container \"{container}\": {what} is not supported by the direct runtime{because}")]
    Unsupported {
        /// Name of the container.
        container: String,
        /// Which feature.
        what: String,
        /// Empty, or `: ` and the reason.
        because: String,
    },
    /// Something the node does not have.
    #[error("container \"{container}\" wants {what}, which this node does not have")]
    NotOnNode {
        /// Name of the container.
        container: String,
        /// What it wants.
        what: String,
    },
    /// A seccomp profile file that cannot be used. Running without it is no choice.
    #[error("container \"{container}\": seccomp profile {path} is refused: {reason}")]
    Seccomp {
        /// Name of the container.
        container: String,
        /// Path of the file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Makes errors that bear one container's name.
#[derive(Clone, Copy)]
pub(super) struct Blame<'a>(pub &'a str);

impl Blame<'_> {
    pub(super) fn invalid(self, what: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Invalid { container: self.0.to_owned(), what: what.into(), reason: reason.into() }
    }

    pub(super) fn unsupported(self, what: impl Into<String>) -> Error {
        Error::Unsupported { container: self.0.to_owned(), what: what.into(), because: String::new() }
    }

    pub(super) fn unsupported_because(self, what: impl Into<String>, because: &str) -> Error {
        Error::Unsupported {
            container: self.0.to_owned(),
            what: what.into(),
            because: format!(": {because}"),
        }
    }

    pub(super) fn not_on_node(self, what: impl Into<String>) -> Error {
        Error::NotOnNode { container: self.0.to_owned(), what: what.into() }
    }
}
