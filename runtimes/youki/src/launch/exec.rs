//! One command in a container: a throw-away process joins it, with pipes or a terminal between it and the caller.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::time::Duration;

use podstead_runtime::{ExecStreams, TerminalSize};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::{LaunchError, Launcher, Result, talk};
use crate::shim::protocol::{ExecEvent, ExecRequest};

/// How long more output is waited for after the command's end: others may have inherited it and hold it open.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long a command may go on after its terminal was closed.
const HANGUP: Duration = Duration::from_secs(10);

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// The caller's ends.
pub(crate) struct Streams {
    pub stdin: Option<Reader>,
    pub stdout: Option<Writer>,
    pub stderr: Option<Writer>,
    pub resize: Option<tokio::sync::mpsc::Receiver<TerminalSize>>,
}

impl From<ExecStreams> for Streams {
    fn from(streams: ExecStreams) -> Self {
        let ExecStreams { stdin, stdout, stderr, resize } = streams;
        Self { stdin, stdout, stderr, resize }
    }
}

impl Launcher {
    /// Runs a command and resolves to its exit code. Dropping the future kills the command.
    pub(crate) async fn exec(
        &self,
        id: &str,
        run_dir: &Path,
        command: &[String],
        tty: bool,
        mut streams: Streams,
    ) -> Result<i32> {
        let size = streams.resize.as_mut().and_then(|sizes| sizes.try_recv().ok());
        let size = size.map(|size| (size.height, size.width));
        let (id, run, command) = (id.to_owned(), run_dir.to_owned(), command.to_vec());
        let request = ExecRequest { id, run, command, tty, size };
        // Dropping the child only means that nobody waits for it: the closed socket ends it, tokio reaps it.
        let (_child, socket) = self.joiner().await?;
        if tty {
            with_terminal(socket, &request, streams).await
        } else {
            with_pipes(socket, &request, streams).await
        }
    }
}

async fn with_pipes(socket: StdStream, request: &ExecRequest, streams: Streams) -> Result<i32> {
    let make = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| talk("make a pipe")(e.into()));
    let ((stdin_end, stdin), (stdout, stdout_end), (stderr, stderr_end)) = (make()?, make()?, make()?);
    send(&socket, request, &[stdin_end.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()])?;
    drop((stdin_end, stdout_end, stderr_end));
    let mut events = Events::new(socket)?;
    events.started().await?;
    let readable = |fd: OwnedFd| pipe::Receiver::from_owned_fd(fd).map_err(talk("read the command's output"));
    let writable = pipe::Sender::from_owned_fd(stdin).map_err(talk("write the command's input"))?;
    let (over, ended) = watch::channel(false);
    let mut outputs = {
        let out = copy(readable(stdout)?, streams.stdout, ended.clone());
        let err = copy(readable(stderr)?, streams.stderr, ended);
        Box::pin(async move { tokio::join!(out, err) })
    };
    let mut input = Box::pin(feed(streams.stdin, writable));
    let (mut fed, mut silent) = (false, false);
    let code = loop {
        tokio::select! {
            code = events.exited() => break code?,
            () = &mut input, if !fed => fed = true,
            _ = &mut outputs, if !silent => silent = true,
        }
    };
    over.send_replace(true);
    if !silent {
        outputs.await;
    }
    Ok(code)
}

/// Carries the caller's input to the command; its end is the command's.
async fn feed(stdin: Option<Reader>, mut to: pipe::Sender) {
    if let Some(mut stdin) = stdin {
        let _ = tokio::io::copy(&mut stdin, &mut to).await;
    }
}

/// The bytes that come next, 0 at the end. However slowly the caller takes them, none that are there are lost.
async fn more(read: impl Future<Output = io::Result<usize>>, ended: &watch::Receiver<bool>) -> usize {
    let mut ended = ended.clone();
    let last = async {
        let _ = ended.wait_for(|over| *over).await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        biased;
        read = read => read.unwrap_or(0),
        () = last => 0,
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, to: Option<Writer>, ended: watch::Receiver<bool>) {
    // Nobody ever wanted it: it is still taken, else the command would block.
    let mut to = to.unwrap_or_else(|| Box::new(tokio::io::sink()));
    let mut buffer = vec![0; 32 << 10];
    loop {
        let count = more(from.read(&mut buffer), &ended).await;
        // A caller that takes no more closes the pipe for the command, too: it learns so as it would in a pipeline.
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() || to.flush().await.is_err() {
            break;
        }
    }
    drop(from);
    let _ = to.shutdown().await;
}

async fn with_terminal(socket: StdStream, request: &ExecRequest, streams: Streams) -> Result<i32> {
    send(&socket, request, &[])?;
    let mut events = Events::new(socket)?;
    let master = events.started().await?.ok_or_else(|| LaunchError::Refused("no terminal came".into()))?;
    rustix::io::ioctl_fionbio(&master, true).map_err(|e| talk("set up the terminal")(e.into()))?;
    let master = super::system::watched(master).map_err(talk("set up the terminal"))?;
    if let Some(code) = over_terminal(&master, &mut events, streams).await? {
        return Ok(code);
    }
    // As when a terminal is closed: the kernel tells the command. One that does not listen is killed with the socket.
    drop(master);
    let ended = tokio::time::timeout(HANGUP, events.exited()).await;
    ended.unwrap_or_else(|_| Err(talk("hand over the command's output")(io::ErrorKind::BrokenPipe.into())))
}

/// Carries input, output and sizes. The command's exit code; `None` when the caller takes no more output before the end.
async fn over_terminal(
    master: &AsyncFd<OwnedFd>,
    events: &mut Events,
    streams: Streams,
) -> Result<Option<i32>> {
    let Streams { mut stdin, stdout, mut resize, .. } = streams;
    let mut stdout = stdout.unwrap_or_else(|| Box::new(tokio::io::sink()));
    let (over, ended) = watch::channel(false);
    let output = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let count = more(read_some(master, &mut buffer), &ended).await;
            if count == 0 {
                return true;
            }
            if stdout.write_all(&buffer[..count]).await.is_err() || stdout.flush().await.is_err() {
                return false;
            }
        }
    };
    let input = async {
        let mut buffer = vec![0; 4 << 10];
        while let Some(stdin) = &mut stdin {
            match stdin.read(&mut buffer).await {
                Ok(count) if count > 0 && write_all(master, &buffer[..count]).await.is_ok() => {}
                _ => break,
            }
        }
    };
    let resizing = async {
        while let Some(resize) = &mut resize {
            let Some(size) = resize.recv().await else { break };
            let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = tcsetwinsize(master.get_ref(), size);
        }
    };
    tokio::pin!(output, input, resizing);
    let (mut silent, mut fed, mut sized) = (false, false, false);
    let code = loop {
        tokio::select! {
            code = events.exited() => break code?,
            taken = &mut output, if !silent => {
                silent = true;
                if !taken {
                    return Ok(None);
                }
            }
            () = &mut input, if !fed => fed = true,
            () = &mut resizing, if !sized => sized = true,
        }
    };
    over.send_replace(true);
    if !silent {
        output.await;
    }
    Ok(Some(code))
}

async fn read_some(fd: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut guard = fd.readable().await?;
        if let Ok(read) = guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *buffer)?)) {
            return read;
        }
    }
}

async fn write_all(fd: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut guard = fd.writable().await?;
        if let Ok(written) = guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
            bytes = &bytes[written?..];
        }
    }
    Ok(())
}

fn send(socket: &StdStream, request: &ExecRequest, fds: &[std::os::fd::BorrowedFd<'_>]) -> Result<()> {
    let mut line = serde_json::to_vec(request).map_err(|e| talk("ask for a command")(e.into()))?;
    line.push(b'\n');
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let sent = sendmsg(socket, &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL);
    let sent = sent.map_err(|e| talk("ask for a command")(e.into()))?;
    let mut rest = socket;
    io::Write::write_all(&mut rest, &line[sent..]).map_err(talk("ask for a command"))
}

/// What the process that joined the container tells.
struct Events {
    socket: UnixStream,
    bytes: Vec<u8>,
    descriptor: Option<OwnedFd>,
}

impl Events {
    fn new(socket: StdStream) -> Result<Self> {
        socket.set_nonblocking(true).map_err(talk("hear from the command"))?;
        let socket = UnixStream::from_std(socket).map_err(talk("hear from the command"))?;
        Ok(Self { socket, bytes: Vec::new(), descriptor: None })
    }

    async fn started(&mut self) -> Result<Option<OwnedFd>> {
        match self.next().await? {
            ExecEvent::Started => Ok(self.descriptor.take()),
            ExecEvent::Exited(code) => {
                Err(LaunchError::Refused(format!("it ended with {code} before it began")))
            }
            ExecEvent::Failed(cause) => Err(LaunchError::Refused(cause)),
        }
    }

    async fn exited(&mut self) -> Result<i32> {
        match self.next().await? {
            ExecEvent::Exited(code) => Ok(code),
            ExecEvent::Failed(cause) => Err(LaunchError::Refused(cause)),
            ExecEvent::Started => Err(LaunchError::Refused("it began twice".into())),
        }
    }

    /// May be dropped and called again: what was read so far is kept.
    async fn next(&mut self) -> Result<ExecEvent> {
        loop {
            if let Some(end) = self.bytes.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(|e| talk("hear from the command")(e.into()));
            }
            self.socket.readable().await.map_err(talk("hear from the command"))?;
            let got = self.socket.try_io(tokio::io::Interest::READABLE, || Ok(receive(&self.socket)?));
            match got {
                Ok((bytes, _)) if bytes.is_empty() => return Err(LaunchError::Gone),
                Ok((bytes, descriptor)) => {
                    self.bytes.extend(bytes);
                    self.descriptor = descriptor.or(self.descriptor.take());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(talk("hear from the command")(error)),
            }
        }
    }
}

fn receive(socket: &UnixStream) -> rustix::io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = vec![0; 16 << 10];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptor = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            descriptor = fds.next();
        }
    }
    bytes.truncate(got.bytes);
    Ok((bytes, descriptor))
}
