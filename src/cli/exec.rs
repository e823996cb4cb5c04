//! `podstead exec`: a command in a container, with the terminal when asked.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use podstead_runtime::{ExecSpec, ExecStreams, Runtime, TerminalSize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::find;

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  podstead exec -it web-node1 sh\n  podstead exec web-node1 cat /etc/hosts\n  tar c . | podstead exec -i -c web web-node1 tar x -C /tmp"
)]
pub struct Args {
    /// Connect standard input
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Container of the pod
    #[arg(short, long)]
    pub container: Option<String>,
    /// Container: id or its beginning; or pod name
    pub what: String,
    /// The command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Runs the command; answers its exit code.
pub async fn run<R: Runtime>(runtime: &R, args: &Args) -> anyhow::Result<i32> {
    let container = find::observe(runtime, &args.what, args.container.as_deref(), false).await?;
    // Without input the keys stay ours: the interrupt key must end what nobody can type to.
    let raw = args.stdin && args.tty && std::io::stdin().is_terminal();
    let raw = if raw { Some(RawTerminal::enter()?) } else { None };
    let resize = if args.tty { Some(sizes()?) } else { None };
    let streams = ExecStreams {
        stdin: args.stdin.then(|| Box::new(stdin()) as _),
        stdout: Some(Box::new(tokio::io::stdout())),
        stderr: (!args.tty).then(|| Box::new(tokio::io::stderr()) as _),
        resize,
    };
    let spec = ExecSpec { command: args.command.clone(), tty: args.tty };
    let code = runtime.exec(&container.id, &spec, streams).await;
    drop(raw);
    Ok(code?)
}

/// Standard input read by a thread of its own: a pending read must not keep the program from ending.
fn stdin() -> impl tokio::io::AsyncRead + Send + Unpin {
    let (reader, writer) = tokio::io::simplex(16 * 1024);
    let handle = tokio::runtime::Handle::current();
    std::thread::spawn(move || {
        use std::io::Read;
        use tokio::io::AsyncWriteExt;
        let (mut buffer, mut writer) = ([0; 4096], writer);
        while let Ok(n @ 1..) = std::io::stdin().read(&mut buffer) {
            if handle.block_on(writer.write_all(&buffer[..n])).is_err() {
                return;
            }
        }
        let _ = handle.block_on(writer.shutdown());
    });
    reader
}

/// The terminal's size now and at each change.
fn sizes() -> anyhow::Result<mpsc::Receiver<TerminalSize>> {
    let (sender, receiver) = mpsc::channel(4);
    let mut changes = signal(SignalKind::window_change())?;
    // There before the command is asked for, which then begins with it.
    if let Some(size) = size() {
        sender.try_send(size)?;
    }
    tokio::spawn(async move {
        while changes.recv().await.is_some() {
            if let Some(size) = size()
                && sender.send(size).await.is_err()
            {
                return;
            }
        }
    });
    Ok(receiver)
}

fn size() -> Option<TerminalSize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(TerminalSize { width: size.ws_col, height: size.ws_row })
}

/// The terminal in raw mode; set back when dropped.
struct RawTerminal(rustix::termios::Termios);

impl RawTerminal {
    fn enter() -> anyhow::Result<Self> {
        let stdin = std::io::stdin();
        let before = rustix::termios::tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(stdin.as_fd(), rustix::termios::OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let stdin = std::io::stdin();
        let _ = rustix::termios::tcsetattr(stdin.as_fd(), rustix::termios::OptionalActions::Now, &self.0);
    }
}
