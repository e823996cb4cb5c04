use super::*;
use crate::cli::Cli;
use crate::config::{Config, blamed, effective};

const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

/// A directory with a configuration file, drop-ins and files of variables.
struct Place(tempfile::TempDir);

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            let path = place.0.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let head = if name.starts_with("env") { "" } else { HEAD };
            std::fs::write(path, format!("{head}{text}")).unwrap();
        }
        place
    }

    fn dir(&self) -> String {
        self.0.path().display().to_string()
    }

    /// `@` in the line stands for the directory.
    fn read(&self, line: &str, variables: &[(&str, &str)]) -> Result<Layers, String> {
        let line = line.replace('@', &self.dir());
        let argv: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let text = |(name, value): &(&str, &str)| ((*name).to_owned(), value.replace('@', &self.dir()));
        let environment = Environment { variables: variables.iter().map(text).collect() };
        let command = <Cli as clap::CommandFactory>::command();
        let read = Layers::read(&command, &argv, &environment);
        read.map_err(|error| error.to_string().replace(&self.dir(), "@"))
    }

    /// A flag's values, comma-joined, and who said them.
    fn have(&self, layers: &Layers, flag: &str) -> (String, String) {
        let all = effective(&<Cli as clap::CommandFactory>::command(), layers);
        let setting = all.iter().find(|setting| setting.flag == flag).unwrap();
        let hide = |text: String| text.replace(&self.dir(), "@");
        (hide(setting.values.join(",")), hide(setting.from.to_string()))
    }
}

fn pair(value: &str, from: &str) -> (String, String) {
    (value.to_owned(), from.to_owned())
}

#[test]
fn flags_are_stronger_than_variables_these_than_drop_ins_and_these_than_the_file() {
    let place = Place::new(&[
        (
            "config.yaml",
            "clusterDomain: file\nclusterDNS: [10.0.0.1]\nregistryPullQPS: 1\nregistryBurst: 1\ncontainerLogMaxFiles: 9\n",
        ),
        (
            "d/10-a.conf",
            "clusterDomain: first\nclusterDNS: [10.0.0.2]\nregistryPullQPS: 2\nregistryBurst: 2\n",
        ),
        ("d/20-b.conf", "clusterDomain: second\n"),
        ("d/20-b.conf.bak", "nonsense: x\n"),
        ("d/sub/deep.conf", "registryBurst: 4\n"),
        ("env", "# kubelet\nKUBELET_ARGS=\"--registry-qps=3 --cluster-dns=10.0.0.3\"\n"),
    ]);
    let line = "podstead run --config @/config.yaml --config-dir @/d --env-file @/env --cluster-dns 10.0.0.4";
    let layers = place.read(line, &[]).unwrap();
    let have = |flag: &str| place.have(&layers, flag);
    assert_eq!(have("cluster-dns"), pair("10.0.0.4", "flag"));
    assert_eq!(have("registry-qps"), pair("3", "@/env:2 KUBELET_ARGS"));
    assert_eq!(have("cluster-domain"), pair("second", "@/d/20-b.conf:3"));
    assert_eq!(have("registry-burst"), pair("4", "@/d/sub/deep.conf:3"));
    assert_eq!(have("container-log-max-files"), pair("9", "@/config.yaml:7"));
    assert_eq!(have("container-log-max-size"), pair("10Mi", "default"));
}

#[test]
fn fedoras_line_and_kubeadms_variables_work_as_they_stand() {
    let classic = r#"KUBELET_ARGS="--cluster-dns=10.254.0.10 --cluster-domain=kube.local --pod-manifest-path=/etc/kubelet.d/""#;
    let place =
        Place::new(&[("env", classic), ("config.yaml", "staticPodPath: /m\nfileCheckFrequency: 0s\n")]);
    let layers = place.read("podstead run --env-file @/env", &[]).unwrap();
    assert_eq!(place.have(&layers, "pod-manifest-path"), pair("/etc/kubelet.d/", "@/env:1 KUBELET_ARGS"));
    assert_eq!(place.have(&layers, "cluster-dns").0, "10.254.0.10");
    let variables = [
        ("KUBELET_KUBECONFIG_ARGS", "--bootstrap-kubeconfig=/b --kubeconfig=/k"),
        ("KUBELET_CONFIG_ARGS", "--config=@/config.yaml"),
        (
            "KUBELET_KUBEADM_ARGS",
            "--container-runtime-endpoint=unix:///c.sock --pod-infra-container-image=p --hostname-override=a",
        ),
        ("KUBELET_EXTRA_ARGS", "--hostname-override=b"),
        ("CONTAINER_RUNTIME_ENDPOINT", "unix:///other.sock"),
    ];
    let layers = place.read("podstead run", &variables).unwrap();
    let have = |flag: &str| place.have(&layers, flag);
    assert_eq!(have("pod-manifest-path"), pair("/m", "@/config.yaml:3"));
    assert_eq!(have("config").1, "environment KUBELET_CONFIG_ARGS");
    assert_eq!(have("hostname-override"), pair("b", "environment KUBELET_EXTRA_ARGS"));
    assert_eq!(have("container-runtime-endpoint").0, "unix:///c.sock");
    assert_eq!(have("file-check-frequency"), pair("20s", "default"));
    let idle: Vec<&str> = layers.idle.iter().map(|idle| idle.name.as_str()).collect();
    assert_eq!(idle, ["--bootstrap-kubeconfig", "--kubeconfig", "--pod-infra-container-image"]);
}

#[test]
fn lists_grow_over_the_kubelets_variables_as_on_one_line() {
    let place = Place::new(&[]);
    let variables = [
        ("KUBELET_ARGS", "--cluster-dns=10.0.0.1 --v=3"),
        ("KUBELET_EXTRA_ARGS", "--cluster-dns 10.0.0.2 --v=4"),
    ];
    let layers = place.read("podstead run", &variables).unwrap();
    assert_eq!(place.have(&layers, "cluster-dns").0, "10.0.0.1,10.0.0.2");
    assert_eq!(place.have(&layers, "v"), pair("4", "environment KUBELET_EXTRA_ARGS"));
}

#[test]
fn other_commands_are_told_where_the_runtime_is_and_no_more() {
    let place = Place::new(&[(
        "config.yaml",
        "containerRuntimeEndpoint: unix:///c.sock\nstaticPodPath: /m\nlogging: {verbosity: 4}\n",
    )]);
    let line = "podstead exec --config @/config.yaml web-node ls --kubeconfig --typo";
    let layers = place.read(line, &[]).unwrap();
    let (name, inner) = layers.matches.subcommand().unwrap();
    assert_eq!(name, "exec");
    assert_eq!(inner.get_one::<String>("container_runtime_endpoint").unwrap(), "unix:///c.sock");
    let words = inner.get_many::<String>("command").unwrap();
    assert_eq!(words.collect::<Vec<_>>(), ["ls", "--kubeconfig", "--typo"], "the command's own");
}

#[test]
fn a_wrong_value_is_laid_at_the_door_of_who_said_it() {
    let place = Place::new(&[
        ("config.yaml", "clusterDomain: x\nfileCheckFrequency: 20x\n"),
        ("low.yaml", "imageGCLowThresholdPercent: 90\n"),
        ("typo.yaml", "clusterDomian: x\n"),
        ("env", "\nKUBELET_ARGS=--clusterdns=1\n"),
        ("env2", "KUBELET_ARGS=--cluster-dns=x\n"),
        ("env3", "nonsense\n"),
        ("d/a.conf", "registryPullQPS: -1\n"),
    ]);
    let refused = |line: &str| place.read(line, &[]).unwrap_err();
    for (line, why) in [
        ("podstead run --config @/config.yaml", "@/config.yaml:4: fileCheckFrequency: invalid value '20x'"),
        (
            "podstead run --config @/typo.yaml",
            "@/typo.yaml:3:1: clusterDomian: unknown field, did you mean \"clusterDomain\"?",
        ),
        (
            "podstead run --env-file @/env",
            "@/env:2 KUBELET_ARGS: unknown flag --clusterdns, did you mean --cluster-dns?",
        ),
        ("podstead run --env-file @/env2", "@/env2:1 KUBELET_ARGS: --cluster-dns: invalid value 'x'"),
        ("podstead run --env-file @/env3", "@/env3:1: no assignment"),
        ("podstead run --config-dir @/d", "@/d/a.conf:3: registryPullQPS: "),
        ("podstead run --config @/none", "cannot read @/none: No such file"),
        ("podstead run --config-dir @/none", "cannot read @/none: No such file"),
        ("podstead run --cluster-dsn 1", "--cluster-dns"),
    ] {
        let got = refused(line);
        assert!(got.contains(why), "{line}: {got}");
    }
    let layers = place.read("podstead run --pod-manifest-path /m --config @/low.yaml", &[]).unwrap();
    let cli = <Cli as clap::FromArgMatches>::from_arg_matches(&layers.matches).unwrap();
    let crate::cli::Command::Run(flags) = &cli.command else { panic!("run") };
    let error = Config::new(flags, &cli.runtime).unwrap_err();
    let places = blamed(&error.to_string(), &layers.origins).unwrap().replace(&place.dir(), "@");
    assert_eq!(places, "@/low.yaml:3 (imageGCLowThresholdPercent)");
}

#[test]
fn switches_can_be_turned_off_by_who_is_stronger() {
    let place = Place::new(&[("config.yaml", "seccompDefault: true\n")]);
    let seccomp = |line: &str| place.have(&place.read(line, &[]).unwrap(), "seccomp-default").0;
    assert_eq!(seccomp("podstead run --config @/config.yaml"), "true");
    assert_eq!(seccomp("podstead run --config @/config.yaml --seccomp-default=false"), "false");
    assert_eq!(seccomp("podstead run --seccomp-default"), "true");
}

#[test]
fn what_is_too_large_is_not_read_to_its_end() {
    let place = Place::new(&[]);
    let error = place.read("podstead run --config /dev/zero", &[]).unwrap_err();
    assert!(error.contains("larger than 10 MiB"), "{error}");
}
