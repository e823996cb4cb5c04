//! The streaming URL: only what such a server gives.

use tokio::net::TcpStream;

use super::StreamError;

/// `http://host:port/path?query`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StreamUrl {
    /// Host and port, as connected to and as sent in the Host header.
    pub(super) authority: String,
    /// Path and query.
    pub(super) path: String,
}

impl StreamUrl {
    /// Takes a URL apart. Control characters and spaces, which would end up in a request's head, are refused.
    pub(super) fn parse(url: &str) -> Result<Self, StreamError> {
        let bad = || StreamError::Url(url.to_owned());
        let rest = url.strip_prefix("http://").ok_or_else(bad)?;
        if rest.bytes().any(|byte| !byte.is_ascii_graphic()) || rest.contains(['@', '#']) {
            return Err(bad());
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        if authority.is_empty() {
            return Err(bad());
        }
        let bare_v6 = authority.ends_with(']');
        let has_port =
            !bare_v6 && authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        Ok(Self { authority, path: path.to_owned() })
    }

    pub(super) async fn connect(&self) -> Result<TcpStream, StreamError> {
        let stream = TcpStream::connect(&self.authority)
            .await
            .map_err(|source| StreamError::Connect { address: self.authority.clone(), source })?;
        // Keystrokes: one small packet each.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_anything_else_refused() {
        let url = StreamUrl::parse("http://127.0.0.1:4242/exec/tOkEn").unwrap();
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("127.0.0.1:4242", "/exec/tOkEn"));
        assert_eq!(StreamUrl::parse("http://[::1]/x").unwrap().authority, "[::1]:80");
        for bad in [
            "https://127.0.0.1:1/x",
            "/exec/x",
            "http:///x",
            "http://h:1/a b",
            "http://h/\r\nX: y",
            "http://u@h/x",
        ] {
            assert!(matches!(StreamUrl::parse(bad), Err(StreamError::Url(_))), "{bad:?}");
        }
    }
}
