//! The least that libcontainer can do: mount the layers, create, start, wait for the first byte, print the times, take
//! everything away. The floor under `benches/speed`; needs root.
//!
//! usage: `bare-container DIR ID`. DIR holds `config.json` (root: `DIR/rootfs`), `layers` (one path a line, topmost
//! first) and the empty directories `rootfs`, `upper` and `work`.

use std::error::Error;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::{Instant, SystemTime};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::pipe::{PipeFlags, pipe_with};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(id)) = (args.next(), args.next()) else {
        return Err("usage: bare-container DIR ID".into());
    };
    let dir = Path::new(&dir);
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let lower = fs::read_to_string(dir.join("layers"))?.lines().collect::<Vec<_>>().join(":");
    let at = |name: &str| dir.join(name).display().to_string();
    let options = format!("lowerdir={lower},upperdir={},workdir={}", at("upper"), at("work"));
    let options = std::ffi::CString::new(options)?;
    mount("overlay", dir.join("rootfs"), "overlay", MountFlags::empty(), Some(options.as_c_str()))?;

    let begun = Instant::now();
    let ((out, out_end), (_err, err_end)) = (pipe_with(PipeFlags::CLOEXEC)?, pipe_with(PipeFlags::CLOEXEC)?);
    let mut container = ContainerBuilder::new(id, SyscallType::default())
        .with_root_path(dir.join("oci"))?
        .with_stdin(fs::File::open("/dev/null")?)
        .with_stdout(out_end)
        .with_stderr(err_end)
        .as_init(dir)
        .with_systemd(false)
        .with_detach(true)
        .build()?;
    container.start()?;
    fs::File::from(out).read_exact(&mut [0])?;
    let (took, at) = (begun.elapsed(), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?);
    println!("{} {}", at.as_nanos(), took.as_nanos());

    container.delete(true)?;
    Ok(())
}
