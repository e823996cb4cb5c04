//! The connection: lazy, over a unix socket, made anew when the server was restarted or its socket replaced.

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// How long connecting may take before a call fails.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// An endpoint that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// Not a unix socket.
    #[error(
        "CRI endpoint {0:?}: only unix sockets are supported; write it as unix:///path/to/the.sock \
         (CRI-O: unix:///var/run/crio/crio.sock, containerd: unix:///run/containerd/containerd.sock)"
    )]
    Scheme(String),
    /// A relative or empty path.
    #[error("CRI endpoint {0:?}: the socket's path must be absolute")]
    Path(String),
}

/// The socket's path in an endpoint: `unix:///path`, `unix:/path` or a bare absolute path.
pub(crate) fn socket_path(endpoint: &str) -> Result<PathBuf, EndpointError> {
    let path = match endpoint.strip_prefix("unix:") {
        Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
        None if endpoint.contains(':') => return Err(EndpointError::Scheme(endpoint.to_owned())),
        None => endpoint,
    };
    if path.len() > 1 && path.starts_with('/') {
        Ok(PathBuf::from(path))
    } else {
        Err(EndpointError::Path(endpoint.to_owned()))
    }
}

/// A channel that connects at its first call, and again at the first call after the connection was lost.
pub(crate) fn lazy(socket: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move {
            match tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(&socket)).await {
                Ok(connected) => connected.map(TokioIo::new).map_err(|error| {
                    std::io::Error::new(error.kind(), format!("{}: {error}", socket.display()))
                }),
                Err(_) => Err(std::io::Error::new(
                    std::io::ErrorKind::TimedOut,
                    format!("{}: connecting took over {} s", socket.display(), CONNECT_TIMEOUT.as_secs()),
                )),
            }
        }
    });
    // The authority is never resolved: the connector knows where to go.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_unix_socket_with_an_absolute_path() {
        for (endpoint, path) in [
            ("unix:///run/a.sock", "/run/a.sock"),
            ("unix:/run/a.sock", "/run/a.sock"),
            ("/run/a.sock", "/run/a.sock"),
        ] {
            assert_eq!(socket_path(endpoint), Ok(PathBuf::from(path)), "{endpoint}");
        }
        for endpoint in ["tcp://127.0.0.1:1", "npipe:////./pipe/x", "http://x"] {
            assert!(matches!(socket_path(endpoint), Err(EndpointError::Scheme(_))), "{endpoint}");
        }
        for endpoint in ["", "unix://", "unix:///", "run/a.sock", "unix://a.sock"] {
            assert!(matches!(socket_path(endpoint), Err(EndpointError::Path(_))), "{endpoint}");
        }
    }
}
