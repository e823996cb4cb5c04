//! The body of an answer: whole, unpacked, and never larger than a manifest may be. Touches the connection.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use reqwest::{Response, Version};

use super::fetch::{FetchError, words};

/// A body, and whether it is known that nothing is missing at its end.
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) whole: bool,
}

/// Reads a body of fewer than `limit` bytes, as it was sent and unpacked alike.
pub(super) async fn read(mut response: Response, limit: u64) -> Result<Body, FetchError> {
    let headers = response.headers();
    let whole = response.version() > Version::HTTP_11
        || headers.contains_key(CONTENT_LENGTH)
        || headers.contains_key(TRANSFER_ENCODING);
    let encoding = headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").to_owned());
    if response.content_length().is_some_and(|length| length >= limit) {
        return Err(FetchError::TooLarge(limit));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| FetchError::Cut(words(error)))? {
        if (bytes.len() + chunk.len()) as u64 >= limit {
            return Err(FetchError::TooLarge(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    let bytes = match encoding.as_deref() {
        None | Some("identity" | "") => bytes,
        Some("gzip" | "x-gzip") => {
            // Unpacking may take a while.
            let unpacked = tokio::task::spawn_blocking(move || unpack(&bytes, limit)).await;
            unpacked.map_err(|error| FetchError::Cut(error.to_string()))??
        }
        Some(other) => return Err(FetchError::Encoding(other.to_owned())),
    };
    Ok(Body { bytes, whole })
}

fn unpack(packed: &[u8], limit: u64) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    let read = MultiGzDecoder::new(packed).take(limit).read_to_end(&mut bytes);
    read.map_err(|error| FetchError::Cut(format!("gzip: {error}")))?;
    if bytes.len() as u64 >= limit { Err(FetchError::TooLarge(limit)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn no_more_is_unpacked_than_is_needed_to_see_that_it_is_too_much() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&vec![b'x'; 4 << 20]).unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(unpack(&packed, 5 << 20).unwrap().len(), 4 << 20);
        // Its second half is missing, which nobody gets as far as to see.
        let half = &packed[..packed.len() / 2];
        assert!(matches!(unpack(half, 1 << 20), Err(FetchError::TooLarge(_))));
        assert!(matches!(unpack(half, 5 << 20), Err(FetchError::Cut(_))));
    }
}
