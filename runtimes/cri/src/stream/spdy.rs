//! The streams over SPDY/3.1, each of them a stream of its own: as much of the protocol as a client of a
//! Kubernetes streaming server needs.
//!
//! Header blocks are sent as stored (uncompressed) deflate blocks, which every inflater reads, and those received
//! are skipped: nothing in them is needed. Neither side of these servers keeps flow-control windows.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;

use super::pipes::{Input, Pipes, Sink, Source, size_json};
use super::status::Ended;
use super::url::StreamUrl;
use super::{StreamError, Wanted};

/// Longest head of the answer to the upgrade.
const MAX_HEAD: usize = 64 << 10;

// Streams made by a client have odd numbers.
const RESULT: u32 = 1;
const STDIN: u32 = 3;
const STDOUT: u32 = 5;
const STDERR: u32 = 7;
const RESIZE: u32 = 9;

const SYN_STREAM: u16 = 1;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
/// Flag: the sender's side of the stream ends with this frame.
const FIN: u8 = 1;

/// Connects, opens the wanted streams and carries both directions until the result comes.
pub(super) async fn run(url: &StreamUrl, wanted: Wanted, pipes: &mut Pipes) -> Result<Ended, StreamError> {
    let mut stream = url.connect().await?;
    upgrade(&mut stream, url).await?;
    let (mut from, mut to) = stream.into_split();
    let mut first = true;
    for (id, kind, open) in [
        (RESULT, "error", true),
        (STDIN, "stdin", wanted.stdin),
        (STDOUT, "stdout", wanted.stdout),
        (STDERR, "stderr", wanted.stderr),
        (RESIZE, "resize", wanted.tty),
    ] {
        if open {
            to.write_all(&syn_stream(id, kind, first)).await.map_err(broken)?;
            first = false;
        }
    }
    let to = Mutex::new(to);
    tokio::select! {
        ended = receive(&mut from, &to, &mut pipes.sink) => ended,
        error = send(&to, &mut pipes.source, wanted) => Err(error),
    }
}

/// Asks for the protocol; reads exactly the head of the answer.
async fn upgrade(stream: &mut TcpStream, url: &StreamUrl) -> Result<(), StreamError> {
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n",
        url.path, url.authority
    );
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > MAX_HEAD {
            return Err(StreamError::Refused("an answer without end".to_owned()));
        }
        head.push(stream.read_u8().await.map_err(broken)?);
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    if line.split(' ').nth(1) == Some("101") { Ok(()) } else { Err(StreamError::Refused(line)) }
}

async fn receive(
    from: &mut OwnedReadHalf,
    to: &Mutex<OwnedWriteHalf>,
    sink: &mut Sink,
) -> Result<Ended, StreamError> {
    let mut payload = Vec::new();
    loop {
        let mut head = [0; 8];
        match from.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(StreamError::NoResult);
            }
            Err(error) => return Err(broken(error)),
        }
        let frame = u64::from_be_bytes(head);
        let flags = head[4];
        // 24 bits: at most 16 MiB.
        payload.resize(usize::try_from(frame & 0xff_ffff).unwrap_or(0), 0);
        from.read_exact(&mut payload).await.map_err(broken)?;
        if head[0] & 0x80 != 0 {
            control(u16::from_be_bytes([head[2], head[3]]), &head, &payload, to).await?;
            continue;
        }
        match u32::try_from(frame >> 32).unwrap_or(0) {
            STDOUT => sink.stdout(&payload).await?,
            STDERR => sink.stderr(&payload).await?,
            RESULT => match sink.result(&payload) {
                Some(ended) => return Ok(ended),
                None if flags & FIN != 0 => return Err(StreamError::NoResult),
                None => {}
            },
            _ => {}
        }
    }
}

async fn control(
    kind: u16,
    head: &[u8; 8],
    payload: &[u8],
    to: &Mutex<OwnedWriteHalf>,
) -> Result<(), StreamError> {
    match kind {
        PING => {
            let mut answer = head.to_vec();
            answer.extend_from_slice(payload);
            to.lock().await.write_all(&answer).await.map_err(broken)
        }
        RST_STREAM => {
            // Our input's stream may be reset when the command ends without having read it.
            let id = payload.first_chunk::<4>().map(|id| u32::from_be_bytes(*id));
            if id == Some(RESULT) { Err(StreamError::NoResult) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

/// Sends until it cannot; an end of the input is no end of the command.
async fn send(to: &Mutex<OwnedWriteHalf>, source: &mut Source, wanted: Wanted) -> StreamError {
    loop {
        let frame = match source.next().await {
            Input::Stdin(bytes) => data(STDIN, 0, bytes),
            Input::StdinEnd => data(STDIN, FIN, &[]),
            Input::Resize(_) if !wanted.tty => continue,
            Input::Resize(size) => data(RESIZE, 0, size_json(size).as_bytes()),
        };
        if to.lock().await.write_all(&frame).await.is_err() {
            // The command is over before its input: the result is on its way.
            std::future::pending::<()>().await;
        }
    }
}

fn data(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = stream.to_be_bytes().to_vec();
    frame.extend_from_slice(&length(flags, bytes.len()));
    frame.extend_from_slice(bytes);
    frame
}

/// A frame's flags and its length in 24 bits.
fn length(flags: u8, bytes: usize) -> [u8; 4] {
    let [_, x, y, z] = u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    [flags, x, y, z]
}

/// A new stream with the one header that matters. The header blocks of a connection are one deflate stream, so
/// the first of them begins it.
fn syn_stream(id: u32, kind: &str, first: bool) -> Vec<u8> {
    let mut block = 1_u32.to_be_bytes().to_vec();
    for text in ["streamtype", kind] {
        block.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
        block.extend_from_slice(text.as_bytes());
    }
    let mut payload = id.to_be_bytes().to_vec();
    payload.extend_from_slice(&[0; 6]);
    if first {
        payload.extend_from_slice(&[0x78, 0x01]);
    }
    let size = u16::try_from(block.len()).unwrap_or(0);
    payload.push(0);
    payload.extend_from_slice(&size.to_le_bytes());
    payload.extend_from_slice(&(!size).to_le_bytes());
    payload.extend_from_slice(&block);
    // An empty block: the reader hands on what it has.
    payload.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
    let mut frame = vec![0x80, 3];
    frame.extend_from_slice(&SYN_STREAM.to_be_bytes());
    frame.extend_from_slice(&length(0, payload.len()));
    frame.extend_from_slice(&payload);
    frame
}

fn broken(error: impl std::fmt::Display) -> StreamError {
    StreamError::Broken(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_laid_out_as_the_protocol_says() {
        assert_eq!(data(3, FIN, b"ab"), [0, 0, 0, 3, 1, 0, 0, 2, b'a', b'b']);
        let frame = syn_stream(3, "stdin", true);
        assert_eq!(frame[..8], [0x80, 3, 0, 1, 0, 0, 0, u8::try_from(frame.len() - 8).unwrap()]);
        assert_eq!(frame[8..20], [0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0x78, 0x01]);
        let size = 4 + 4 + 10 + 4 + 5;
        assert_eq!(frame[20..25], [0, size, 0, !size, 0xff]);
        assert!(frame[25..].starts_with(b"\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x05stdin"));
        assert!(frame.ends_with(&[0, 0, 0, 0xff, 0xff]));
    }
}
