//! `podstead version`: our version, and the runtime's when it answers.

use podstead_runtime::Runtime;

use super::output::{self, Format};

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  podstead version -o json")]
pub struct Args {
    /// Output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Prints the versions.
pub async fn run<R: Runtime>(runtime: anyhow::Result<R>, args: &Args) -> anyhow::Result<()> {
    let own = env!("CARGO_PKG_VERSION");
    let asked = match runtime {
        Ok(runtime) => runtime.version().await.map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    if args.output != Format::Table {
        let runtime = asked.as_ref().ok();
        let error = asked.as_ref().err().map(|e| format!("{e:#}"));
        let all = serde_json::json!({ "podstead": own, "runtime": runtime, "runtimeError": error });
        return output::data(args.output, &all);
    }
    output::line(&format!("podstead {own}\n"))?;
    match asked {
        Ok(info) => output::line(&format!("{} {} (API {})\n", info.name, info.version, info.api_version)),
        Err(error) => output::line(&format!("runtime: {error:#}\n")),
    }
}
