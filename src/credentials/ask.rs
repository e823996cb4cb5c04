//! Asks one program for an image's credentials: the question on its standard input, the answer on its standard output
//! (`CredentialProviderRequest`, `CredentialProviderResponse`). Starts that program and ends it; what it answers is never
//! part of an error.

use std::collections::BTreeMap;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use podstead_runtime::Auth;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::provider::{Provider, duration};

/// How long a program may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);
/// What it may answer, in bytes.
const ANSWER_MAX: u64 = 1 << 20;
/// How much of what it says on standard error is told.
const WORDS_KEPT: usize = 1024;

/// For what an answer counts besides the image it was given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Scope {
    /// For nothing.
    Image,
    /// For all images of its registry.
    Registry,
    /// For all images.
    Global,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub scope: Scope,
    /// How long it counts; `None`: as the configuration says.
    pub cache: Option<Duration>,
    /// Registries and who one is there.
    pub auths: Vec<(String, Auth)>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum AskError {
    #[error("cannot run {0}: {1}")]
    Run(String, io::Error),
    #[error("it took longer than {} s and was ended", .0.as_secs())]
    Deadline(Duration),
    #[error("it ended with {0}: {1}")]
    Failed(ExitStatus, String),
    #[error("its answer is longer than {ANSWER_MAX} bytes")]
    TooMuch,
    #[error("its answer is no CredentialProviderResponse of {0}")]
    NoAnswer(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Response {
    api_version: String,
    kind: String,
    cache_key_type: Scope,
    cache_duration: Option<String>,
    #[serde(default)]
    auth: Option<BTreeMap<String, Basic>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Basic {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// A started program, which ends with all that it started, also when nobody waits for its answer any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let group = self.0.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Asks. `image` is `registry/repository`, as the kubelet names it to programs: without tag and digest.
pub(super) async fn ask(provider: &Provider, image: &str, deadline: Duration) -> Result<Answer, AskError> {
    let question = serde_json::json!({
        "apiVersion": provider.api_version, "kind": "CredentialProviderRequest", "image": image,
    });
    let run = |error| AskError::Run(provider.program.display().to_string(), error);
    let mut running = Running(start(provider).map_err(run)?);
    let talk = talk(&mut running.0, question.to_string().into_bytes());
    let (status, answer, words) =
        tokio::time::timeout(deadline, talk).await.map_err(|_| AskError::Deadline(deadline))?.map_err(run)?;
    if answer.len() as u64 > ANSWER_MAX {
        return Err(AskError::TooMuch);
    }
    if !status.success() {
        return Err(AskError::Failed(status, told(&words)));
    }
    // A parser's own words could quote a password.
    read(&answer, &provider.api_version).ok_or_else(|| AskError::NoAnswer(provider.api_version.clone()))
}

fn start(provider: &Provider) -> io::Result<Child> {
    let mut command = Command::new(&provider.program);
    command.args(&provider.args).envs(provider.env.iter().cloned());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true).spawn()
}

async fn talk(child: &mut Child, question: Vec<u8>) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let asking = async {
        if let Some(mut stdin) = stdin {
            // One that knows the answer without the question may have ended.
            let _ = stdin.write_all(&question).await;
        }
    };
    let (mut answer, mut words) = (Vec::new(), Vec::new());
    let hearing = async {
        match stdout {
            Some(stdout) => stdout.take(ANSWER_MAX + 1).read_to_end(&mut answer).await,
            None => Ok(0),
        }
    };
    let listening = async {
        match stderr {
            Some(stderr) => stderr.take(ANSWER_MAX).read_to_end(&mut words).await,
            None => Ok(0),
        }
    };
    let ((), heard, listened) = tokio::join!(asking, hearing, listening);
    heard.and(listened)?;
    Ok((child.wait().await?, answer, words))
}

fn told(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    let text = text.trim();
    let from = text.len().saturating_sub(WORDS_KEPT);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    if text.is_empty() { "it said nothing".to_owned() } else { text[from..].replace('\n', " ") }
}

fn read(answer: &[u8], api_version: &str) -> Option<Answer> {
    let response: Response = serde_json::from_slice(answer).ok()?;
    if response.api_version != api_version || response.kind != "CredentialProviderResponse" {
        return None;
    }
    let cache = response.cache_duration.map(|text| duration(&text)).transpose().ok()?;
    let auth = |(registry, Basic { username, password })| (registry, Auth::Basic { username, password });
    let auths = response.auth.unwrap_or_default().into_iter().map(auth).collect();
    Some(Answer { scope: response.cache_key_type, cache, auths })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::provider::tests::program;
    use super::*;

    const VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";

    fn provider(dir: &Path, script: &str) -> Provider {
        Provider {
            name: "helper".into(),
            program: program(dir, "helper", script),
            api_version: VERSION.into(),
            match_images: vec!["*".into()],
            default_cache: Duration::ZERO,
            args: vec!["get".into()],
            env: vec![("PROFILE".into(), "node".into())],
        }
    }

    async fn asked(script: &str) -> Result<Answer, String> {
        let dir = tempfile::tempdir().unwrap();
        let provider = provider(dir.path(), script);
        let asked = ask(&provider, "registry.example/team/web", Duration::from_millis(1500)).await;
        asked.map_err(|error| format!("{error} {error:?}"))
    }

    fn answer(rest: &str) -> String {
        format!(r#"{{"apiVersion":"{VERSION}","kind":"CredentialProviderResponse",{rest}}}"#)
    }

    #[tokio::test]
    async fn a_program_is_asked_with_arguments_and_variables_and_its_answer_read() {
        let dir = tempfile::tempdir().unwrap();
        let heard = dir.path().join("heard");
        let auth = r#""cacheKeyType":"Registry","cacheDuration":"1m30s","auth":{"*.example":{"username":"'$PROFILE'","password":"p"}}"#;
        let script = format!("cat >{}; echo $1 >>{0}; echo '{}'", heard.display(), answer(auth));
        let told = asked(&script).await.unwrap();
        assert_eq!((told.scope, told.cache), (Scope::Registry, Some(Duration::from_secs(90))));
        let auth = Auth::Basic { username: "node".into(), password: "p".into() };
        assert_eq!(told.auths, [("*.example".to_owned(), auth)]);
        let heard = std::fs::read_to_string(heard).unwrap();
        let (question, args) = heard.split_at(heard.rfind('}').unwrap() + 1);
        let question: serde_json::Value = serde_json::from_str(question).unwrap();
        let want = serde_json::json!({
            "apiVersion": VERSION, "kind": "CredentialProviderRequest", "image": "registry.example/team/web",
        });
        assert_eq!((question, args.trim()), (want, "get"));
        let none =
            asked(&format!("echo '{}'", answer(r#""cacheKeyType":"Global","auth":null"#))).await.unwrap();
        assert_eq!(none, Answer { scope: Scope::Global, cache: None, auths: vec![] });
    }

    #[tokio::test]
    async fn why_a_program_gave_no_answer_is_told_and_no_secret_with_it() {
        let secret = r#""auth":{"r":{"username":"u","password":"hunter2"}}"#;
        let other = answer(&format!(r#""cacheKeyType":"Image",{secret}"#)).replace("io/v1", "io/v1beta1");
        for (script, why) in [
            ("echo no metadata server >&2; exit 3".to_owned(), "exit status: 3: no metadata server"),
            (format!("echo '{secret}'; exit 1"), "it said nothing"),
            ("echo '{\"hunter2\"'".to_owned(), "no CredentialProviderResponse"),
            (
                format!("echo '{other}'"),
                "no CredentialProviderResponse of credentialprovider.kubelet.k8s.io/v1",
            ),
            (
                format!("echo '{}'", answer(&format!(r#""cacheKeyType":"Pod",{secret}"#))),
                "no CredentialProviderResponse",
            ),
            ("exec yes hunter2".to_owned(), "longer than"),
        ] {
            let error = asked(&script).await.unwrap_err();
            assert!(error.contains(why) && !error.contains("hunter2"), "{script}: {error}");
        }
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_ended_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let started = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! >{}; wait", started.display());
        let error = asked(&script).await.unwrap_err();
        assert!(error.contains("longer than 1 s"), "{error}");
        let pid = std::fs::read_to_string(started).unwrap();
        let path = format!("/proc/{}/stat", pid.trim());
        let gone = || std::fs::read_to_string(&path).map_or(true, |stat| stat.contains(") Z "));
        for _ in 0..200 {
            if gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{path} is still there");
    }
}
