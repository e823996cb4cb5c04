//! The program of a container: arguments, environment, working directory; and the programs exec'd beside it. Pure.

use std::path::PathBuf;

use oci_spec::runtime::Process;
use podstead_runtime::ContainerSpec;

use super::Input;
use super::error::{Blame, Error};
use crate::image::ImageConfig;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What runs: `command` replaces the entry point and drops the image's arguments, `args` replaces the arguments.
pub(super) fn arguments(container: &ContainerSpec, image: &ImageConfig) -> Result<Vec<String>, Error> {
    let both = match (container.command.is_empty(), container.args.is_empty()) {
        (false, _) => [&container.command, &container.args],
        (true, false) => [&image.entrypoint, &container.args],
        (true, true) => [&image.entrypoint, &image.cmd],
    };
    let arguments: Vec<String> = both.into_iter().flatten().cloned().collect();
    if arguments.first().is_none_or(String::is_empty) {
        let image = &container.image.image;
        return Err(Error::NoCommand {
            container: container.name.clone(),
            image: if image.is_empty() { &container.image_id } else { image }.clone(),
        });
    }
    match arguments.iter().find(|argument| argument.contains('\0')) {
        Some(bad) => Err(Blame(&container.name)
            .invalid(format!("argument \"{}\"", bad.escape_debug()), "it holds a NUL character")),
        None => Ok(arguments),
    }
}

/// Variables in order, each once: a later value takes the place of the earlier one.
#[derive(Default)]
struct Environment(Vec<(String, String)>);

impl Environment {
    fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some(entry) => value.clone_into(&mut entry.1),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    fn into_list(self) -> Vec<String> {
        self.0.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

/// Image, then terminal and host name, then pod. libcontainer wants a `PATH` even for an absolute program.
pub(super) fn environment(input: &Input<'_>) -> Result<Vec<String>, Error> {
    let container = input.container;
    let mut all = Environment::default();
    // An image's line without a value, or with a NUL in it, cannot be handed to a program.
    for line in input.image.env.iter().filter(|line| !line.contains('\0')) {
        if let Some((name, value)) = line.split_once('=').filter(|(name, _)| !name.is_empty()) {
            all.set(name, value);
        }
    }
    if container.tty {
        all.set("TERM", "xterm");
    }
    let hostname = [&input.sandbox.hostname, &input.node.hostname];
    if let Some(hostname) = hostname.into_iter().find(|name| !name.is_empty()) {
        all.set("HOSTNAME", hostname);
    }
    for variable in &container.env {
        let name = &variable.name;
        if name.is_empty() || name.contains(['=', '\0']) || variable.value.contains('\0') {
            return Err(Blame(&container.name).invalid(
                format!("environment variable \"{}\"", name.escape_debug()),
                "a name is not empty and holds no `=`, and neither name nor value holds a NUL character",
            ));
        }
        all.set(name, &variable.value);
    }
    let mut list = all.into_list();
    if !list.iter().any(|line| line.starts_with("PATH=")) {
        list.insert(0, DEFAULT_PATH.to_owned());
    }
    Ok(list)
}

/// The pod's, the image's, or `/`.
pub(super) fn working_dir(container: &ContainerSpec, image: &ImageConfig) -> Result<PathBuf, Error> {
    let image = image.working_dir.as_deref().unwrap_or_default();
    let chosen =
        [container.working_dir.as_str(), image].into_iter().find(|dir| !dir.is_empty()).unwrap_or("/");
    if chosen.starts_with('/') && !chosen.contains('\0') {
        return Ok(PathBuf::from(chosen));
    }
    Err(Blame(&container.name)
        .invalid(format!("working directory \"{}\"", chosen.escape_debug()), "it is not an absolute path"))
}

/// The process of an exec in the container: its user, environment, directory, capabilities, limits, labels and OOM
/// score, with other arguments.
pub fn exec_process(container_process: &Process, command: &[String], tty: bool) -> Process {
    let mut process = container_process.clone();
    process.set_args(Some(command.to_vec())).set_terminal(Some(tty)).set_console_size(None);
    if tty {
        let env = process.env_mut().get_or_insert_with(Vec::new);
        if !env.iter().any(|line| line.starts_with("TERM=")) {
            env.push("TERM=xterm".to_owned());
        }
    }
    process
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    fn merged(
        command: &[&str],
        args: &[&str],
        entrypoint: &[&str],
        cmd: &[&str],
    ) -> Result<Vec<String>, Error> {
        let mut container = ContainerSpec { name: "c".into(), ..ContainerSpec::default() };
        container.command = strings(command);
        container.args = strings(args);
        container.image.image = "registry.example/app:1".into();
        let image =
            ImageConfig { entrypoint: strings(entrypoint), cmd: strings(cmd), ..ImageConfig::default() };
        arguments(&container, &image)
    }

    #[test]
    fn command_drops_all_of_the_image_and_args_only_its_arguments() {
        assert_eq!(merged(&[], &[], &["e"], &["d"]).unwrap(), ["e", "d"]);
        assert_eq!(merged(&["c"], &[], &["e"], &["d"]).unwrap(), ["c"]);
        assert_eq!(merged(&[], &["a"], &["e"], &["d"]).unwrap(), ["e", "a"]);
        assert_eq!(merged(&["c"], &["a"], &["e"], &["d"]).unwrap(), ["c", "a"]);
        assert_eq!(merged(&[], &[], &[], &["d"]).unwrap(), ["d"]);
        assert_eq!(merged(&[], &["a"], &[], &["d"]).unwrap(), ["a"]);
    }

    #[test]
    fn no_program_at_all_is_an_error_that_names_the_image() {
        let error = merged(&[], &[], &[], &[]).unwrap_err().to_string();
        assert!(error.contains("registry.example/app:1") && error.contains("\"c\""), "{error}");
        assert!(merged(&[""], &[], &["e"], &[]).is_err());
        assert!(merged(&["a\0b"], &[], &[], &[]).is_err());
    }

    #[test]
    fn the_working_directory_is_the_pods_before_the_images() {
        let of = |spec: &str, image: Option<&str>| {
            let container = ContainerSpec { working_dir: spec.into(), ..ContainerSpec::default() };
            working_dir(
                &container,
                &ImageConfig { working_dir: image.map(Into::into), ..ImageConfig::default() },
            )
        };
        assert_eq!(of("/a", Some("/b")).unwrap(), PathBuf::from("/a"));
        assert_eq!(of("", Some("/b")).unwrap(), PathBuf::from("/b"));
        assert_eq!(of("", None).unwrap(), PathBuf::from("/"));
        assert!(of("a", None).is_err());
    }

    #[test]
    fn an_exec_keeps_everything_but_arguments_and_terminal() {
        let mut of = Process::default();
        of.set_env(Some(strings(&["PATH=/bin"])))
            .set_oom_score_adj(Some(100))
            .set_no_new_privileges(Some(true));
        of.user_mut().set_uid(33);
        let exec = exec_process(&of, &strings(&["id"]), true);
        assert_eq!(exec.env().as_deref(), Some(&strings(&["PATH=/bin", "TERM=xterm"])[..]));
        assert_eq!((exec.user().uid(), exec.oom_score_adj(), exec.terminal()), (33, Some(100), Some(true)));
        let back = exec_process(&exec, of.args().as_deref().unwrap(), false);
        of.set_env(back.env().clone()).set_terminal(Some(false));
        assert_eq!(back, of);
    }
}
