//! How a command ended, as the streaming server says it on its error channel: a Kubernetes v1 Status as JSON.

use serde_json::Value;

/// The end of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It ran, and this is its exit code.
    Exit(i32),
    /// It could not be run; the server's words.
    Failed(String),
}

/// Most that is kept of an error channel.
pub(super) const MAX_STATUS: usize = 64 << 10;

/// Reads a Status; `None` while the text is not complete.
pub(super) fn parse(text: &[u8]) -> Option<Ended> {
    let status: Value = serde_json::from_slice(text).ok()?;
    if status["status"] == "Success" {
        return Some(Ended::Exit(0));
    }
    let message = status["message"].as_str().unwrap_or("the server gives no reason").to_owned();
    let code = status["details"]["causes"]
        .as_array()
        .filter(|_| status["reason"] == "NonZeroExitCode")
        .and_then(|causes| causes.iter().find(|cause| cause["reason"] == "ExitCode"))
        .and_then(|cause| cause["message"].as_str()?.parse().ok());
    Some(code.map_or(Ended::Failed(message), Ended::Exit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_how_the_command_ended() {
        assert_eq!(parse(br#"{"metadata":{},"status":"Success"}"#), Some(Ended::Exit(0)));
        let nonzero =
            br#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code",
            "reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"42"}]}}"#;
        assert_eq!(parse(nonzero), Some(Ended::Exit(42)));
        let failure = br#"{"status":"Failure","message":"no such file","reason":"InternalError","code":500}"#;
        assert_eq!(parse(failure), Some(Ended::Failed("no such file".into())));
        assert_eq!(parse(br#"{"status":"Succ"#), None, "half of it");
    }
}
