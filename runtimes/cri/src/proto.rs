//! The generated CRI v1 messages, client and server. No code of ours but what must not be generated.

mod generated {
    #![allow(
        missing_docs,
        clippy::all,
        clippy::pedantic,
        clippy::unwrap_used,
        unused_qualifications,
        rust_2018_idioms
    )]
    tonic::include_proto!("runtime.v1");
}
pub use generated::*;

impl std::fmt::Debug for AuthConfig {
    /// Shows which kind of credential is there, never its value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if !self.registry_token.is_empty() {
            "registry token"
        } else if !self.identity_token.is_empty() {
            "identity token"
        } else if !self.auth.is_empty() || !self.password.is_empty() {
            "user and password"
        } else {
            "nothing"
        };
        f.debug_struct("AuthConfig")
            .field("server_address", &self.server_address)
            .field("holds", &kind)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_do_not_show_in_debug_output() {
        let auth = AuthConfig { username: "u".into(), password: "s3cret".into(), ..Default::default() };
        let request = PullImageRequest { auth: Some(auth), ..Default::default() };
        let shown = format!("{request:?}");
        assert!(!shown.contains("s3cret") && shown.contains("user and password"), "{shown}");
    }
}
