//! Random manifests that must be accepted: pods over all the fields that podstead supports, as JSON.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::BoxedStrategy;
use serde_json::{Map, Value as Json, json};

/// What the pods may ask of the node.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The image of all containers.
    pub image: String,
    /// A directory of the node that pods may have.
    pub host_dir: String,
    /// The containers are really made: nothing that this machine may lack, nothing that a runtime rightly fails on.
    pub real: bool,
}

type Maybe = BoxedStrategy<Option<Json>>;

/// Capabilities that any machine with containers has.
const COMMON: [&str; 8] =
    ["CHOWN", "KILL", "SETUID", "SETGID", "NET_RAW", "NET_BIND_SERVICE", "AUDIT_WRITE", "FOWNER"];
const MORE: [&str; 6] = ["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE", "SYS_TIME", "BPF", "ALL"];
const PLACES: [&str; 5] = ["/data", "/var/lib/x", "/dev/shm", "/opt/", "/srv//y"];
/// Within others, which must be writable or have them, and for files.
const MORE_PLACES: [&str; 6] =
    ["/data/a", "/data/a/b", "/etc/hosts", "/sys", "/etc/resolv.conf", "/dev/termination-log"];

/// An object of the fields that are there.
fn object(fields: Vec<(&'static str, Maybe)>) -> BoxedStrategy<Json> {
    let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    let put = move |values: Vec<Option<Json>>| {
        let there = names.iter().zip(values).filter_map(|(name, value)| Some(((*name).to_owned(), value?)));
        Json::Object(there.collect::<Map<_, _>>())
    };
    values.prop_map(put).boxed()
}

fn always(value: impl Strategy<Value = Json> + 'static) -> Maybe {
    value.prop_map(Some).boxed()
}

fn maybe(value: impl Strategy<Value = Json> + 'static) -> Maybe {
    option::weighted(0.35, value).boxed()
}

fn never() -> Maybe {
    Just(None).boxed()
}

fn only(when: bool, field: Maybe) -> Maybe {
    if when { field } else { never() }
}

fn of<T: Into<Json> + std::fmt::Debug + Clone + 'static>(choices: Vec<T>) -> BoxedStrategy<Json> {
    select(choices).prop_map(Into::into).boxed()
}

fn flag() -> BoxedStrategy<Json> {
    any::<bool>().prop_map(Json::from).boxed()
}

fn number(range: std::ops::RangeInclusive<i64>) -> BoxedStrategy<Json> {
    range.prop_map(Json::from).boxed()
}

fn text(pattern: &'static str) -> BoxedStrategy<Json> {
    pattern.prop_map(Json::from).boxed()
}

fn list(item: BoxedStrategy<Json>, most: usize) -> BoxedStrategy<Json> {
    vec(item, 0..=most).prop_map(Json::from).boxed()
}

/// Any text without NUL, of which the YAML and JSON readers want some escaped.
fn free_text() -> BoxedStrategy<Json> {
    let odd = select(vec!["", " ", "a=b", "two\nlines", "$(A)", "$$(A)", "ö\u{1F980}", "'\"\\", "-x", "#"]);
    prop_oneof![odd.prop_map(Json::from), "[ -~]{0,12}".prop_map(Json::from)].boxed()
}

/// What of a pod decides what else it may say.
#[derive(Clone, Copy, Debug)]
struct Kind {
    host_network: bool,
    host_pid: bool,
    host_ipc: bool,
    share: bool,
    volumes: usize,
    init: usize,
    regular: usize,
}

/// A manifest.
pub fn pod(scope: &Scope) -> BoxedStrategy<Json> {
    let flags =
        (prop::bool::weighted(0.3), prop::bool::weighted(0.2), prop::bool::weighted(0.2), any::<bool>());
    let kind = (flags, 0..=4_usize, 0..=2_usize, 1..=3_usize).prop_map(|(flags, volumes, init, regular)| {
        let (host_network, host_pid, host_ipc, share) = flags;
        Kind { host_network, host_pid, host_ipc, share: share && !host_pid, volumes, init, regular }
    });
    let scope = scope.clone();
    kind.prop_flat_map(move |kind| {
        let metadata = object(vec![
            ("name", always(text("[a-z]([a-z0-9-]{0,20}[a-z0-9])?"))),
            ("namespace", maybe(text("[a-z]{1,8}"))),
            ("uid", only(!scope.real, maybe(text("[a-f0-9]{8}-[a-f0-9]{4}")))),
            ("labels", maybe(names("[a-z]{1,6}(\\.[a-z]{1,4}/[a-zA-Z]{1,4}|)", "[a-zA-Z0-9]{0,9}"))),
            ("annotations", maybe(names("[a-z]{1,6}(\\.[a-z]{1,4}/[a-z]{1,4}|)", "[ -~]{0,20}"))),
        ]);
        (metadata, spec(&scope, kind)).prop_map(
            |(metadata, spec)| json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}),
        )
    })
    .boxed()
}

fn names(keys: &'static str, values: &'static str) -> BoxedStrategy<Json> {
    let all = prop::collection::btree_map(keys, values.prop_map(Json::from), 0..4);
    all.prop_map(|all| Json::Object(all.into_iter().collect())).boxed()
}

fn spec(scope: &Scope, kind: Kind) -> BoxedStrategy<Json> {
    let own_network = !kind.host_network;
    let containers = (0..kind.regular).map(|n| container(scope, kind, n, format!("c{n}"), false));
    let init = (0..kind.init).map(|n| container(scope, kind, 10 + n, format!("i{n}"), true));
    // The first is one that variables may come from.
    let first = Just(json!({"name": "v0", "emptyDir": {}})).boxed();
    let more = (1..kind.volumes).map(|n| volume(scope, n));
    let volumes = std::iter::once(first).chain(more).take(kind.volumes).collect::<Vec<_>>();
    let all = |items: Vec<BoxedStrategy<Json>>| always(items.prop_map(Json::from));
    object(vec![
        ("containers", all(containers.collect())),
        ("initContainers", only(kind.init > 0, all(init.collect()))),
        ("volumes", only(kind.volumes > 0, all(volumes))),
        ("restartPolicy", maybe(of(vec!["Always", "OnFailure", "Never"]))),
        ("terminationGracePeriodSeconds", maybe(number(0..=600))),
        ("activeDeadlineSeconds", maybe(number(1..=100_000))),
        ("hostNetwork", only(kind.host_network, always(Just(json!(true))))),
        ("hostPID", only(kind.host_pid, always(Just(json!(true))))),
        ("hostIPC", only(kind.host_ipc, always(Just(json!(true))))),
        ("shareProcessNamespace", only(kind.share, always(Just(json!(true))))),
        ("dnsPolicy", maybe(of(vec!["ClusterFirst", "ClusterFirstWithHostNet", "Default"]))),
        ("dnsConfig", maybe(dns())),
        ("hostname", maybe(text("[a-z][a-z0-9]{0,9}"))),
        ("subdomain", maybe(text("[a-z][a-z0-9]{0,5}"))),
        ("setHostnameAsFQDN", only(scope.real || own_network, maybe(flag()))),
        ("hostAliases", maybe(list(alias(), 2))),
        ("os", always(Just(json!({"name": "linux"})))),
        ("securityContext", maybe(pod_security(scope, kind))),
        ("priorityClassName", maybe(of(vec!["system-node-critical", "anything"]))),
        ("enableServiceLinks", maybe(flag())),
        ("automountServiceAccountToken", maybe(flag())),
        ("schedulerName", maybe(text("[a-z]{1,5}"))),
    ])
}

fn alias() -> BoxedStrategy<Json> {
    let ip = of(vec!["192.0.2.9", "2001:db8::9"]);
    object(vec![("ip", always(ip)), ("hostnames", always(list(text("[a-z]{1,8}\\.[a-z]{2,3}"), 2)))])
}

fn dns() -> BoxedStrategy<Json> {
    let option = object(vec![("name", always(text("[a-z-]{1,8}"))), ("value", maybe(text("[0-9a-z]{0,3}")))]);
    object(vec![
        ("nameservers", maybe(list(of(vec!["192.0.2.53", "2001:db8::53"]), 3))),
        ("searches", maybe(list(text("[a-z]{1,8}\\.[a-z_]{1,5}[a-z]"), 4))),
        ("options", maybe(list(option, 3))),
    ])
}

fn pod_security(scope: &Scope, kind: Kind) -> BoxedStrategy<Json> {
    let net = [("net.ipv4.tcp_syncookies", "1"), ("net/ipv4/ip_unprivileged_port_start", "80")];
    let net = net.into_iter().filter(|_| !kind.host_network);
    let ipc = [("kernel.shm_rmid_forced", "1")].into_iter().filter(|_| !kind.host_ipc);
    let known: Vec<_> = net.chain(ipc).collect();
    let most = known.len();
    let sysctls = subsequence(known, 0..=most).prop_map(|all| {
        all.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Json>()
    });
    object(vec![
        ("runAsUser", maybe(number(0..=i64::from(i32::MAX)))),
        ("runAsGroup", maybe(number(0..=i64::from(i32::MAX)))),
        ("runAsNonRoot", only(!scope.real, maybe(flag()))),
        ("fsGroup", maybe(number(0..=60_000))),
        ("fsGroupChangePolicy", maybe(of(vec!["Always", "OnRootMismatch"]))),
        ("supplementalGroups", maybe(list(number(0..=60_000), 3))),
        ("supplementalGroupsPolicy", only(!scope.real, maybe(of(vec!["Merge", "Strict"])))),
        ("seccompProfile", maybe(seccomp(scope))),
        ("appArmorProfile", only(!scope.real, maybe(apparmor()))),
        ("seLinuxOptions", maybe(selinux())),
        ("sysctls", maybe(sysctls)),
    ])
}

fn seccomp(scope: &Scope) -> BoxedStrategy<Json> {
    let mut all = vec![json!({"type": "RuntimeDefault"}), json!({"type": "Unconfined"})];
    if !scope.real {
        all.push(json!({"type": "Localhost", "localhostProfile": "a/b.json"}));
    }
    of(all)
}

fn apparmor() -> BoxedStrategy<Json> {
    of(vec![
        json!({"type": "RuntimeDefault"}),
        json!({"type": "Unconfined"}),
        json!({"type": "Localhost", "localhostProfile": "web"}),
    ])
}

fn selinux() -> BoxedStrategy<Json> {
    object(vec![
        ("user", maybe(text("[a-z_]{1,8}"))),
        ("role", maybe(text("[a-z_]{1,8}"))),
        ("type", maybe(text("[a-z_]{1,8}"))),
        ("level", maybe(text("s0(:c[0-9],c1[0-9])?"))),
    ])
}

fn volume(scope: &Scope, number: usize) -> BoxedStrategy<Json> {
    let (name, host_dir) = (format!("v{number}"), scope.host_dir.clone());
    let types = if scope.real {
        vec!["", "Directory", "DirectoryOrCreate"]
    } else {
        vec![
            "",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
            "CharDevice",
            "BlockDevice",
        ]
    };
    let field = of(vec!["metadata.name", "metadata.labels", "metadata.annotations", "metadata.uid"]);
    let item = field.prop_map(|path| json!({"path": "dir/file", "fieldRef": {"fieldPath": path}}));
    let about = vec(item, 0..=1).prop_map(|items| json!({ "items": items }));
    let source = prop_oneof![
        of(types).prop_map(move |kind| json!({"hostPath": {"path": host_dir, "type": kind}})),
        Just(json!({"emptyDir": {}})),
        of(vec!["16Mi", "1000000", "1G"]).prop_map(|size| json!({"emptyDir": {"sizeLimit": size}})),
        of(vec!["16Mi", "1M"]).prop_map(|size| json!({"emptyDir": {"medium": "Memory", "sizeLimit": size}})),
        about.clone().prop_map(|items| json!({ "downwardAPI": items })),
        about.prop_map(|items| json!({"projected": {"sources": [{ "downwardAPI": items }]}})),
    ];
    let image = json!({"image": {"reference": scope.image, "pullPolicy": "IfNotPresent"}});
    let source = if scope.real { source.boxed() } else { prop_oneof![6 => source, 1 => Just(image)].boxed() };
    source
        .prop_map(move |mut source| {
            source["name"] = json!(name);
            source
        })
        .boxed()
}

fn container(scope: &Scope, kind: Kind, number: usize, name: String, init: bool) -> BoxedStrategy<Json> {
    let scope = scope.clone();
    let kinds = (prop::bool::weighted(0.25), prop::bool::weighted(0.5));
    kinds
        .prop_flat_map(move |(privileged, sidecar)| {
            let lives = !init || sidecar;
            // What is really made needs a program that is there.
            let real = scope.real;
            let command = list(free_text(), 3).prop_map(move |mut all| {
                if let Some(all) = all.as_array_mut().filter(|_| real) {
                    all.insert(0, json!("/bin/sleep"));
                }
                all
            });
            object(vec![
                ("name", always(Just(json!(name)))),
                ("image", always(Just(json!(scope.image)))),
                ("imagePullPolicy", always(Just(json!("IfNotPresent")))),
                ("restartPolicy", only(init && sidecar, always(Just(json!("Always"))))),
                ("command", if scope.real { always(command) } else { maybe(command) }),
                ("args", maybe(list(free_text(), 3))),
                ("workingDir", maybe(of(vec!["", "/srv", "/", "/a/b"]))),
                ("env", maybe(env(kind))),
                ("ports", maybe(ports(kind, number))),
                ("resources", maybe(resources())),
                (
                    "securityContext",
                    if privileged {
                        always(Just(json!({"privileged": true})))
                    } else {
                        maybe(security(&scope))
                    },
                ),
                ("volumeMounts", mounts(&scope, kind, privileged)),
                ("lifecycle", only(lives, maybe(lifecycle()))),
                ("livenessProbe", only(lives, maybe(probe()))),
                ("readinessProbe", only(lives, maybe(probe()))),
                ("stdin", maybe(flag())),
                ("stdinOnce", maybe(flag())),
                ("tty", maybe(flag())),
                (
                    "terminationMessagePath",
                    maybe(of(vec!["/dev/termination-log", "/tmp/last", "/last/words"])),
                ),
                ("terminationMessagePolicy", maybe(of(vec!["File", "FallbackToLogsOnError"]))),
            ])
        })
        .boxed()
}

fn env(kind: Kind) -> BoxedStrategy<Json> {
    let field = of(vec![
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "metadata.labels['app']",
        "metadata.annotations['a.b/c']",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ]);
    let amount = of(vec![
        "limits.cpu",
        "requests.cpu",
        "limits.memory",
        "requests.memory",
        "limits.ephemeral-storage",
    ]);
    let source = prop_oneof![
        field.prop_map(|path| json!({"fieldRef": {"fieldPath": path}})),
        amount.prop_map(|name| json!({"resourceFieldRef": {"resource": name}})),
    ];
    let file = json!({"fileKeyRef": {"volumeName": "v0", "path": "f", "key": "K", "optional": true}});
    let source =
        if kind.volumes > 0 { prop_oneof![8 => source, 1 => Just(file)].boxed() } else { source.boxed() };
    let variable = prop_oneof![
        ("[A-Z_][A-Z0-9_]{0,5}", free_text()).prop_map(|(name, value)| json!({"name": name, "value": value})),
        ("[A-Z_][A-Z0-9_]{0,5}", source).prop_map(|(name, from)| json!({"name": name, "valueFrom": from})),
    ];
    list(variable.boxed(), 5)
}

/// Different ports for each container, so that none is asked for twice.
fn ports(kind: Kind, number: usize) -> BoxedStrategy<Json> {
    let base = 20_000 + i64::try_from(number).unwrap_or(0) * 10;
    let port = move |(at, (protocol, host, named)): (usize, (&'static str, bool, bool))| {
        let port = base + i64::try_from(at).unwrap_or(0);
        let mut one = json!({"containerPort": port, "protocol": protocol});
        if host && !kind.host_network {
            one["hostPort"] = json!(port + 1000);
            if named {
                one["hostIP"] = json!("127.0.0.1");
            }
        }
        if named {
            one["name"] = json!(format!("p{port}"));
        }
        one
    };
    let all = vec((select(vec!["TCP", "UDP"]), prop::bool::weighted(0.3), any::<bool>()), 0..=3);
    all.prop_map(move |all| all.into_iter().enumerate().map(port).collect::<Json>()).boxed()
}

fn resources() -> BoxedStrategy<Json> {
    let cpu = |least: i64| {
        number(least..=1500).prop_map(|milli| json!(format!("{}m", milli.as_i64().unwrap_or(0))))
    };
    let memory = || of(vec!["64Mi", "100M", "134217728", "0.5Gi"]);
    object(vec![
        ("limits", maybe(object(vec![("cpu", maybe(cpu(500))), ("memory", maybe(memory()))]))),
        (
            "requests",
            maybe(object(vec![
                ("cpu", maybe(number(0..=500).prop_map(|n| json!(format!("{n}m"))))),
                ("memory", maybe(of(vec!["0", "1Mi", "32Mi"]))),
            ])),
        ),
    ])
}

fn security(scope: &Scope) -> BoxedStrategy<Json> {
    let add: Vec<&str> = if scope.real { COMMON.to_vec() } else { [&COMMON[..], &MORE[..]].concat() };
    let spelled = |name: &str| match name.len() % 3 {
        0 => name.to_lowercase(),
        1 if name != "ALL" => format!("CAP_{name}"),
        _ => name.to_owned(),
    };
    let some = move |known: Vec<&'static str>| {
        subsequence(known, 0..=4).prop_map(move |all| all.into_iter().map(spelled).collect::<Json>())
    };
    let capabilities =
        object(vec![("add", maybe(some(add))), ("drop", maybe(some([&COMMON[..], &["ALL"]].concat())))]);
    let fields = object(vec![
        ("runAsUser", maybe(number(0..=60_000))),
        ("runAsGroup", maybe(number(0..=60_000))),
        ("readOnlyRootFilesystem", maybe(flag())),
        ("allowPrivilegeEscalation", maybe(flag())),
        ("capabilities", maybe(capabilities)),
        ("seccompProfile", maybe(seccomp(scope))),
        ("appArmorProfile", only(!scope.real, maybe(apparmor()))),
        ("seLinuxOptions", maybe(selinux())),
    ]);
    let sound = |mut security: Json| {
        // The API's rule.
        if security.to_string().contains("CAP_SYS_ADMIN") {
            security.as_object_mut().into_iter().for_each(|s| drop(s.remove("allowPrivilegeEscalation")));
        }
        security
    };
    fields.prop_map(sound).boxed()
}

fn mounts(scope: &Scope, kind: Kind, privileged: bool) -> Maybe {
    if kind.volumes == 0 {
        return never();
    }
    let places = if scope.real { PLACES.to_vec() } else { [&PLACES[..], &MORE_PLACES[..]].concat() };
    let real = scope.real;
    let modes = move |place: &'static str| {
        let part = of(vec!["sub", "sub/part", "./x/"]);
        let recursive =
            if real { vec!["IfPossible", "Disabled"] } else { vec!["IfPossible", "Disabled", "Enabled"] };
        // Any but the first needs a node whose mounts are shared.
        let propagation = ["None", "HostToContainer", "Bidirectional"];
        let propagation = propagation[..if real { 1 } else { 2 + usize::from(privileged) }].to_vec();
        let modes = prop_oneof![
            Just(json!({})),
            flag().prop_map(|on| json!({ "readOnly": on })),
            of(recursive).prop_map(|how| json!({"readOnly": true, "recursiveReadOnly": how})),
            of(propagation).prop_map(|how| json!({ "mountPropagation": how })),
            part.prop_map(|part| json!({ "subPath": part })),
            Just(json!({"subPathExpr": "x$$(A)"})),
        ];
        (0..kind.volumes, modes).prop_map(move |(volume, mut mount)| {
            mount["name"] = json!(format!("v{volume}"));
            mount["mountPath"] = json!(place);
            mount
        })
    };
    let some = subsequence(places, 0..=4).prop_shuffle();
    always(
        some.prop_flat_map(move |places| {
            places.into_iter().map(modes).collect::<Vec<_>>().prop_map(Json::from)
        }),
    )
}

fn lifecycle() -> BoxedStrategy<Json> {
    let hook = || {
        prop_oneof![
            list(free_text(), 2).prop_map(|_| json!({"exec": {"command": ["true"]}})),
            Just(json!({"sleep": {"seconds": 0}})),
            Just(json!({"httpGet": {"port": 80, "path": "/x"}})),
        ]
    };
    object(vec![
        ("preStop", maybe(hook())),
        ("postStart", maybe(hook())),
        ("stopSignal", maybe(of(vec!["SIGTERM", "SIGUSR1", "SIGRTMIN+3", "SIGINT"]))),
    ])
}

fn probe() -> BoxedStrategy<Json> {
    prop_oneof![
        Just(json!({"exec": {"command": ["true"]}})),
        Just(json!({"tcpSocket": {"port": 80}, "periodSeconds": 3})),
        Just(json!({"httpGet": {"port": 80}, "failureThreshold": 5})),
        Just(json!({"grpc": {"port": 80}})),
    ]
    .boxed()
}
