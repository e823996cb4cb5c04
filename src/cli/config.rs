//! `podstead config`: the settings that the agent would have, and who said each of them.

use clap::CommandFactory;
use serde_json::json;

use super::output::{self, Format};
use super::{Cli, Started};
use crate::config::{Config, Effective, Idle, Origin, RunFlags, RuntimeFlags, blamed, effective};

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  podstead config --config /etc/podstead/config.yaml --config-dir /etc/podstead/config.d\n  podstead \
                        config --env-file /etc/kubernetes/kubelet -o yaml"
)]
pub struct Args {
    /// Output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// As for `podstead run`.
    #[command(flatten)]
    pub run: RunFlags,
}

/// Prints the settings; then fails if the agent would not start with them.
pub fn run(started: &Started, args: &Args) -> anyhow::Result<()> {
    let checked = check(started, &args.run);
    let mut settings = effective(&Cli::command(), &started.layers);
    if let Ok(config) = &checked {
        find(&mut settings, config);
    }
    let one_by_one = args.run.images.serialized();
    if let Some(setting) = settings.iter_mut().find(|setting| setting.flag == "serialize-image-pulls") {
        setting.values = vec![one_by_one.to_string()];
    }
    let idle = &started.layers.idle;
    if args.output == Format::Table {
        table(&settings, idle)?;
    } else {
        let idle: Vec<_> =
            idle.iter().map(|i| json!({ "name": i.name, "why": i.why, "from": i.origin })).collect();
        output::data(args.output, &json!({ "settings": settings, "noEffect": idle }))?;
    }
    checked.map(drop)
}

/// The checked configuration; an error says who said what is wrong.
pub fn check(started: &Started, run: &RunFlags) -> anyhow::Result<Config> {
    checked(run, &started.cli.runtime, &started.layers.origins)
}

fn checked(
    run: &RunFlags,
    runtime: &RuntimeFlags,
    origins: &std::collections::BTreeMap<String, Origin>,
) -> anyhow::Result<Config> {
    Config::new(run, runtime).map_err(|error| match blamed(&error.to_string(), origins) {
        Some(places) => anyhow::Error::from(error).context(places),
        None => error.into(),
    })
}

/// What the node itself says where nobody else did.
fn find(settings: &mut [Effective], config: &Config) {
    for setting in settings.iter_mut().filter(|setting| setting.values.is_empty()) {
        setting.values = match setting.flag.as_str() {
            "hostname-override" => vec![config.node_name.clone()],
            "node-ip" => config.node_ips.iter().map(ToString::to_string).collect(),
            _ => continue,
        };
        setting.from = Origin::Found;
    }
}

fn table(settings: &[Effective], idle: &[Idle]) -> anyhow::Result<()> {
    let row = |setting: &Effective| {
        let value = match setting.values.as_slice() {
            [] => "-".to_owned(),
            [one] if one.is_empty() => "\"\"".to_owned(),
            all => all.join(","),
        };
        vec![format!("--{}", setting.flag), value, setting.from.to_string()]
    };
    output::table(&["SETTING", "VALUE", "FROM"], settings.iter().map(row).collect())?;
    if idle.is_empty() {
        return Ok(());
    }
    output::line("\n")?;
    let rows = idle.iter().map(|i| vec![i.name.clone(), i.why.to_owned(), i.origin.to_string()]);
    output::table(&["NO EFFECT HERE", "WHY", "FROM"], rows.collect())
}
