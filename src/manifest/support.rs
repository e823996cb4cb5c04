//! The one table of a v1 Pod's fields and what podstead does with each. Pure.
//!
//! The checker, the documentation and the tests read this table; a test holds it against the Pod type, so that
//! no field can be forgotten when Kubernetes grows one.

use std::fmt::Write as _;

/// What happens to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Taken and acted upon.
    Supported,
    /// A group; its fields have rows of their own.
    Parts,
    /// Taken, kept in the pod and shown, but nothing follows from it; the text says why.
    NoEffect(&'static str),
    /// Left out of the pod: only an API server gives it a meaning; the text says why.
    Dropped(&'static str),
    /// Refused for now; the text names the missing feature.
    NotYet(&'static str),
    /// Refused for now unless it has one of these values, which are what happens anyway.
    NotYetUnless(&'static [&'static str], &'static str),
    /// Refused as the kubelet refuses it: a static pod has no access to this kind of API object
    /// (`kubelet-static-pods.md 1.3`).
    MayNotReference(&'static str),
    /// Refused for good; the text says why.
    Never(&'static str),
}

use Support::{Dropped, MayNotReference, Never, NoEffect, NotYet, NotYetUnless, Parts, Supported};

const SCHEDULING: &str = "scheduling is over: a static pod's node is given";
const SERVER: &str = "set by an API server";
const EMPTY: &[&str] = &["{}"];

/// Field path (`[]` after lists) and what happens to it; in the order of the documentation.
/// A row that is neither `Supported` nor `Parts` covers everything below it.
pub const TABLE: &[(&str, Support)] = &[
    ("apiVersion", Supported),
    ("kind", Supported),
    ("metadata", Parts),
    ("metadata.name", Supported),
    ("metadata.namespace", Supported),
    ("metadata.labels", Supported),
    ("metadata.annotations", Supported),
    ("metadata.uid", Supported),
    ("metadata.creationTimestamp", Dropped(SERVER)),
    ("metadata.deletionGracePeriodSeconds", Dropped(SERVER)),
    ("metadata.deletionTimestamp", Never("a static pod ends when its file is taken away")),
    ("metadata.finalizers", Dropped("nothing deletes a static pod through an API server")),
    ("metadata.generateName", Dropped("names are not generated for static pods")),
    ("metadata.generation", Dropped(SERVER)),
    ("metadata.managedFields", Dropped(SERVER)),
    ("metadata.ownerReferences", Dropped("a static pod belongs to its file")),
    ("metadata.resourceVersion", Dropped(SERVER)),
    ("metadata.selfLink", Dropped(SERVER)),
    ("spec", Parts),
    ("spec.containers", Supported),
    ("spec.containers[].name", Supported),
    ("spec.containers[].image", Supported),
    ("spec.containers[].imagePullPolicy", Supported),
    ("spec.containers[].command", Supported),
    ("spec.containers[].args", Supported),
    ("spec.containers[].workingDir", Supported),
    ("spec.containers[].env", Supported),
    ("spec.containers[].env[].name", Supported),
    ("spec.containers[].env[].value", Supported),
    ("spec.containers[].env[].valueFrom", Parts),
    ("spec.containers[].env[].valueFrom.configMapKeyRef", MayNotReference("configmaps")),
    ("spec.containers[].env[].valueFrom.secretKeyRef", MayNotReference("secrets")),
    ("spec.containers[].env[].valueFrom.fieldRef", Supported),
    ("spec.containers[].env[].valueFrom.fieldRef.apiVersion", Supported),
    ("spec.containers[].env[].valueFrom.fieldRef.fieldPath", Supported),
    ("spec.containers[].env[].valueFrom.resourceFieldRef", Supported),
    ("spec.containers[].env[].valueFrom.resourceFieldRef.containerName", Supported),
    ("spec.containers[].env[].valueFrom.resourceFieldRef.divisor", Supported),
    ("spec.containers[].env[].valueFrom.resourceFieldRef.resource", Supported),
    ("spec.containers[].env[].valueFrom.fileKeyRef", Supported),
    ("spec.containers[].env[].valueFrom.fileKeyRef.key", Supported),
    ("spec.containers[].env[].valueFrom.fileKeyRef.optional", Supported),
    ("spec.containers[].env[].valueFrom.fileKeyRef.path", Supported),
    ("spec.containers[].env[].valueFrom.fileKeyRef.volumeName", Supported),
    ("spec.containers[].envFrom", Parts),
    ("spec.containers[].envFrom[].configMapRef", MayNotReference("configmaps")),
    ("spec.containers[].envFrom[].secretRef", MayNotReference("secrets")),
    ("spec.containers[].envFrom[].prefix", NotYet("envFrom")),
    ("spec.containers[].ports", Supported),
    ("spec.containers[].ports[].name", Supported),
    ("spec.containers[].ports[].containerPort", Supported),
    ("spec.containers[].ports[].hostPort", Supported),
    ("spec.containers[].ports[].hostIP", Supported),
    ("spec.containers[].ports[].protocol", Supported),
    ("spec.containers[].resources", Supported),
    ("spec.containers[].resources.limits", Supported),
    ("spec.containers[].resources.requests", Supported),
    ("spec.containers[].resources.claims", MayNotReference("resourceclaims")),
    ("spec.containers[].volumeMounts", Supported),
    ("spec.containers[].volumeMounts[].name", Supported),
    ("spec.containers[].volumeMounts[].mountPath", Supported),
    ("spec.containers[].volumeMounts[].readOnly", Supported),
    ("spec.containers[].volumeMounts[].mountPropagation", Supported),
    ("spec.containers[].volumeMounts[].recursiveReadOnly", Supported),
    ("spec.containers[].volumeMounts[].subPath", Supported),
    ("spec.containers[].volumeMounts[].subPathExpr", Supported),
    ("spec.containers[].volumeMounts[].bindMountOptions", NotYet("bind mount options")),
    ("spec.containers[].securityContext", Parts),
    ("spec.containers[].securityContext.allowPrivilegeEscalation", Supported),
    ("spec.containers[].securityContext.appArmorProfile", Supported),
    ("spec.containers[].securityContext.appArmorProfile.localhostProfile", Supported),
    ("spec.containers[].securityContext.appArmorProfile.type", Supported),
    ("spec.containers[].securityContext.capabilities", Supported),
    ("spec.containers[].securityContext.capabilities.add", Supported),
    ("spec.containers[].securityContext.capabilities.drop", Supported),
    ("spec.containers[].securityContext.privileged", Supported),
    ("spec.containers[].securityContext.procMount", Supported),
    ("spec.containers[].securityContext.readOnlyRootFilesystem", Supported),
    ("spec.containers[].securityContext.runAsGroup", Supported),
    ("spec.containers[].securityContext.runAsNonRoot", Supported),
    ("spec.containers[].securityContext.runAsUser", Supported),
    ("spec.containers[].securityContext.seLinuxOptions", Supported),
    ("spec.containers[].securityContext.seLinuxOptions.level", Supported),
    ("spec.containers[].securityContext.seLinuxOptions.role", Supported),
    ("spec.containers[].securityContext.seLinuxOptions.type", Supported),
    ("spec.containers[].securityContext.seLinuxOptions.user", Supported),
    ("spec.containers[].securityContext.seccompProfile", Supported),
    ("spec.containers[].securityContext.seccompProfile.localhostProfile", Supported),
    ("spec.containers[].securityContext.seccompProfile.type", Supported),
    ("spec.containers[].securityContext.windowsOptions", Never("podstead runs on Linux")),
    ("spec.containers[].livenessProbe", Supported),
    ("spec.containers[].livenessProbe.exec", Supported),
    ("spec.containers[].livenessProbe.exec.command", Supported),
    ("spec.containers[].livenessProbe.httpGet", Supported),
    ("spec.containers[].livenessProbe.httpGet.host", Supported),
    ("spec.containers[].livenessProbe.httpGet.httpHeaders", Supported),
    ("spec.containers[].livenessProbe.httpGet.httpHeaders[].name", Supported),
    ("spec.containers[].livenessProbe.httpGet.httpHeaders[].value", Supported),
    ("spec.containers[].livenessProbe.httpGet.path", Supported),
    ("spec.containers[].livenessProbe.httpGet.port", Supported),
    ("spec.containers[].livenessProbe.httpGet.protocol", NotYet("choosing the protocol of a probe")),
    ("spec.containers[].livenessProbe.httpGet.scheme", Supported),
    ("spec.containers[].livenessProbe.tcpSocket", Supported),
    ("spec.containers[].livenessProbe.tcpSocket.host", Supported),
    ("spec.containers[].livenessProbe.tcpSocket.port", Supported),
    ("spec.containers[].livenessProbe.grpc", Supported),
    ("spec.containers[].livenessProbe.grpc.mode", Supported),
    ("spec.containers[].livenessProbe.grpc.port", Supported),
    ("spec.containers[].livenessProbe.grpc.service", Supported),
    ("spec.containers[].livenessProbe.initialDelaySeconds", Supported),
    ("spec.containers[].livenessProbe.periodSeconds", Supported),
    ("spec.containers[].livenessProbe.timeoutSeconds", Supported),
    ("spec.containers[].livenessProbe.successThreshold", Supported),
    ("spec.containers[].livenessProbe.failureThreshold", Supported),
    ("spec.containers[].livenessProbe.terminationGracePeriodSeconds", Supported),
    ("spec.containers[].readinessProbe", Supported),
    ("spec.containers[].readinessProbe.exec", Supported),
    ("spec.containers[].readinessProbe.exec.command", Supported),
    ("spec.containers[].readinessProbe.httpGet", Supported),
    ("spec.containers[].readinessProbe.httpGet.host", Supported),
    ("spec.containers[].readinessProbe.httpGet.httpHeaders", Supported),
    ("spec.containers[].readinessProbe.httpGet.httpHeaders[].name", Supported),
    ("spec.containers[].readinessProbe.httpGet.httpHeaders[].value", Supported),
    ("spec.containers[].readinessProbe.httpGet.path", Supported),
    ("spec.containers[].readinessProbe.httpGet.port", Supported),
    ("spec.containers[].readinessProbe.httpGet.protocol", NotYet("choosing the protocol of a probe")),
    ("spec.containers[].readinessProbe.httpGet.scheme", Supported),
    ("spec.containers[].readinessProbe.tcpSocket", Supported),
    ("spec.containers[].readinessProbe.tcpSocket.host", Supported),
    ("spec.containers[].readinessProbe.tcpSocket.port", Supported),
    ("spec.containers[].readinessProbe.grpc", Supported),
    ("spec.containers[].readinessProbe.grpc.mode", Supported),
    ("spec.containers[].readinessProbe.grpc.port", Supported),
    ("spec.containers[].readinessProbe.grpc.service", Supported),
    ("spec.containers[].readinessProbe.initialDelaySeconds", Supported),
    ("spec.containers[].readinessProbe.periodSeconds", Supported),
    ("spec.containers[].readinessProbe.timeoutSeconds", Supported),
    ("spec.containers[].readinessProbe.successThreshold", Supported),
    ("spec.containers[].readinessProbe.failureThreshold", Supported),
    (
        "spec.containers[].readinessProbe.terminationGracePeriodSeconds",
        Never("must not be set for readinessProbes"),
    ),
    ("spec.containers[].startupProbe", Supported),
    ("spec.containers[].startupProbe.exec", Supported),
    ("spec.containers[].startupProbe.exec.command", Supported),
    ("spec.containers[].startupProbe.httpGet", Supported),
    ("spec.containers[].startupProbe.httpGet.host", Supported),
    ("spec.containers[].startupProbe.httpGet.httpHeaders", Supported),
    ("spec.containers[].startupProbe.httpGet.httpHeaders[].name", Supported),
    ("spec.containers[].startupProbe.httpGet.httpHeaders[].value", Supported),
    ("spec.containers[].startupProbe.httpGet.path", Supported),
    ("spec.containers[].startupProbe.httpGet.port", Supported),
    ("spec.containers[].startupProbe.httpGet.protocol", NotYet("choosing the protocol of a probe")),
    ("spec.containers[].startupProbe.httpGet.scheme", Supported),
    ("spec.containers[].startupProbe.tcpSocket", Supported),
    ("spec.containers[].startupProbe.tcpSocket.host", Supported),
    ("spec.containers[].startupProbe.tcpSocket.port", Supported),
    ("spec.containers[].startupProbe.grpc", Supported),
    ("spec.containers[].startupProbe.grpc.mode", Supported),
    ("spec.containers[].startupProbe.grpc.port", Supported),
    ("spec.containers[].startupProbe.grpc.service", Supported),
    ("spec.containers[].startupProbe.initialDelaySeconds", Supported),
    ("spec.containers[].startupProbe.periodSeconds", Supported),
    ("spec.containers[].startupProbe.timeoutSeconds", Supported),
    ("spec.containers[].startupProbe.successThreshold", Supported),
    ("spec.containers[].startupProbe.failureThreshold", Supported),
    ("spec.containers[].startupProbe.terminationGracePeriodSeconds", Supported),
    ("spec.containers[].lifecycle", Supported),
    ("spec.containers[].lifecycle.postStart", Supported),
    ("spec.containers[].lifecycle.postStart.exec", Supported),
    ("spec.containers[].lifecycle.postStart.exec.command", Supported),
    ("spec.containers[].lifecycle.postStart.httpGet", Supported),
    ("spec.containers[].lifecycle.postStart.httpGet.host", Supported),
    ("spec.containers[].lifecycle.postStart.httpGet.httpHeaders", Supported),
    ("spec.containers[].lifecycle.postStart.httpGet.httpHeaders[].name", Supported),
    ("spec.containers[].lifecycle.postStart.httpGet.httpHeaders[].value", Supported),
    ("spec.containers[].lifecycle.postStart.httpGet.path", Supported),
    ("spec.containers[].lifecycle.postStart.httpGet.port", Supported),
    ("spec.containers[].lifecycle.postStart.httpGet.protocol", NotYet("choosing the protocol of a hook")),
    ("spec.containers[].lifecycle.postStart.httpGet.scheme", Supported),
    ("spec.containers[].lifecycle.postStart.sleep", Supported),
    ("spec.containers[].lifecycle.postStart.sleep.seconds", Supported),
    (
        "spec.containers[].lifecycle.postStart.tcpSocket",
        Never("hooks over TCP were never carried out; say exec, httpGet or sleep"),
    ),
    ("spec.containers[].lifecycle.preStop", Supported),
    ("spec.containers[].lifecycle.preStop.exec", Supported),
    ("spec.containers[].lifecycle.preStop.exec.command", Supported),
    ("spec.containers[].lifecycle.preStop.httpGet", Supported),
    ("spec.containers[].lifecycle.preStop.httpGet.host", Supported),
    ("spec.containers[].lifecycle.preStop.httpGet.httpHeaders", Supported),
    ("spec.containers[].lifecycle.preStop.httpGet.httpHeaders[].name", Supported),
    ("spec.containers[].lifecycle.preStop.httpGet.httpHeaders[].value", Supported),
    ("spec.containers[].lifecycle.preStop.httpGet.path", Supported),
    ("spec.containers[].lifecycle.preStop.httpGet.port", Supported),
    ("spec.containers[].lifecycle.preStop.httpGet.protocol", NotYet("choosing the protocol of a hook")),
    ("spec.containers[].lifecycle.preStop.httpGet.scheme", Supported),
    ("spec.containers[].lifecycle.preStop.sleep", Supported),
    ("spec.containers[].lifecycle.preStop.sleep.seconds", Supported),
    (
        "spec.containers[].lifecycle.preStop.tcpSocket",
        Never("hooks over TCP were never carried out; say exec, httpGet or sleep"),
    ),
    ("spec.containers[].lifecycle.stopSignal", Supported),
    (
        "spec.containers[].resizePolicy",
        NoEffect("a changed manifest replaces the pod, nothing is resized in place"),
    ),
    ("spec.containers[].restartPolicy", Supported),
    ("spec.containers[].restartPolicyRules", Supported),
    ("spec.containers[].restartPolicyRules[].action", Supported),
    ("spec.containers[].restartPolicyRules[].exitCodes", Supported),
    ("spec.containers[].restartPolicyRules[].exitCodes.operator", Supported),
    ("spec.containers[].restartPolicyRules[].exitCodes.values", Supported),
    ("spec.containers[].stdin", Supported),
    ("spec.containers[].stdinOnce", Supported),
    ("spec.containers[].tty", Supported),
    ("spec.containers[].terminationMessagePath", Supported),
    ("spec.containers[].terminationMessagePolicy", Supported),
    ("spec.containers[].volumeDevices", NotYet("raw block devices")),
    ("spec.volumes", Supported),
    ("spec.volumes[].name", Supported),
    ("spec.volumes[].hostPath", Supported),
    ("spec.volumes[].hostPath.path", Supported),
    ("spec.volumes[].hostPath.type", Supported),
    ("spec.volumes[].emptyDir", Supported),
    ("spec.volumes[].emptyDir.medium", Supported),
    ("spec.volumes[].emptyDir.mode", NotYet("emptyDir modes")),
    ("spec.volumes[].emptyDir.sizeLimit", Supported),
    ("spec.volumes[].downwardAPI", Supported),
    ("spec.volumes[].downwardAPI.defaultMode", Supported),
    ("spec.volumes[].downwardAPI.defaultUser", NotYet("owners of files that are written for a pod")),
    ("spec.volumes[].downwardAPI.items", Supported),
    ("spec.volumes[].downwardAPI.items[].path", Supported),
    ("spec.volumes[].downwardAPI.items[].mode", Supported),
    ("spec.volumes[].downwardAPI.items[].user", NotYet("owners of files that are written for a pod")),
    ("spec.volumes[].downwardAPI.items[].fieldRef", Supported),
    ("spec.volumes[].downwardAPI.items[].fieldRef.apiVersion", Supported),
    ("spec.volumes[].downwardAPI.items[].fieldRef.fieldPath", Supported),
    ("spec.volumes[].downwardAPI.items[].resourceFieldRef", Supported),
    ("spec.volumes[].downwardAPI.items[].resourceFieldRef.containerName", Supported),
    ("spec.volumes[].downwardAPI.items[].resourceFieldRef.divisor", Supported),
    ("spec.volumes[].downwardAPI.items[].resourceFieldRef.resource", Supported),
    ("spec.volumes[].image", Supported),
    ("spec.volumes[].image.reference", Supported),
    ("spec.volumes[].image.pullPolicy", Supported),
    ("spec.volumes[].projected", Supported),
    ("spec.volumes[].projected.defaultMode", Supported),
    ("spec.volumes[].projected.defaultUser", NotYet("owners of files that are written for a pod")),
    ("spec.volumes[].projected.sources", Supported),
    ("spec.volumes[].projected.sources[].clusterTrustBundle", MayNotReference("clustertrustbundles")),
    ("spec.volumes[].projected.sources[].configMap", MayNotReference("configmaps (via projected volumes)")),
    ("spec.volumes[].projected.sources[].downwardAPI", Supported),
    ("spec.volumes[].projected.sources[].downwardAPI.items", Supported),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].path", Supported),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].mode", Supported),
    (
        "spec.volumes[].projected.sources[].downwardAPI.items[].user",
        NotYet("owners of files that are written for a pod"),
    ),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].fieldRef", Supported),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].fieldRef.apiVersion", Supported),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].fieldRef.fieldPath", Supported),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].resourceFieldRef", Supported),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].resourceFieldRef.containerName", Supported),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].resourceFieldRef.divisor", Supported),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].resourceFieldRef.resource", Supported),
    ("spec.volumes[].projected.sources[].podCertificate", MayNotReference("podcertificates")),
    ("spec.volumes[].projected.sources[].secret", MayNotReference("secrets (via projected volumes)")),
    (
        "spec.volumes[].projected.sources[].serviceAccountToken",
        MayNotReference("serviceaccounts (via projected volumes)"),
    ),
    ("spec.volumes[].configMap", MayNotReference("configmaps (via configmap volumes)")),
    ("spec.volumes[].secret", MayNotReference("secrets (via secret volumes)")),
    ("spec.volumes[].csi", MayNotReference("csidrivers (via CSI volumes)")),
    ("spec.volumes[].glusterfs", MayNotReference("endpoints (via glusterFS volumes)")),
    ("spec.volumes[].persistentVolumeClaim", MayNotReference("persistentvolumeclaims")),
    ("spec.volumes[].ephemeral", MayNotReference("persistentvolumeclaims (via ephemeral volumes)")),
    ("spec.volumes[].azureFile", MayNotReference("secrets (via azureFile volumes)")),
    ("spec.volumes[].nfs", NotYet("network volumes")),
    ("spec.volumes[].iscsi", NotYet("network volumes")),
    ("spec.volumes[].fc", NotYet("network volumes")),
    ("spec.volumes[].cephfs", NotYet("network volumes")),
    ("spec.volumes[].rbd", NotYet("network volumes")),
    ("spec.volumes[].quobyte", NotYet("network volumes")),
    ("spec.volumes[].flexVolume", NotYet("volume plugins")),
    ("spec.volumes[].flocker", NotYet("volume plugins")),
    ("spec.volumes[].portworxVolume", NotYet("volume plugins")),
    ("spec.volumes[].scaleIO", NotYet("volume plugins")),
    ("spec.volumes[].storageos", NotYet("volume plugins")),
    ("spec.volumes[].gitRepo", NotYet("git volumes")),
    ("spec.volumes[].awsElasticBlockStore", NotYet("cloud disks")),
    ("spec.volumes[].azureDisk", NotYet("cloud disks")),
    ("spec.volumes[].cinder", NotYet("cloud disks")),
    ("spec.volumes[].gcePersistentDisk", NotYet("cloud disks")),
    ("spec.volumes[].photonPersistentDisk", NotYet("cloud disks")),
    ("spec.volumes[].vsphereVolume", NotYet("cloud disks")),
    ("spec.restartPolicy", Supported),
    ("spec.terminationGracePeriodSeconds", Supported),
    ("spec.hostNetwork", Supported),
    ("spec.activeDeadlineSeconds", Supported),
    ("spec.affinity", Parts),
    ("spec.affinity.nodeAffinity", NotYet("matching the node's labels")),
    ("spec.affinity.podAffinity", NoEffect(SCHEDULING)),
    ("spec.affinity.podAntiAffinity", NoEffect(SCHEDULING)),
    ("spec.automountServiceAccountToken", NoEffect("a static pod has no service account")),
    ("spec.dnsConfig", Supported),
    ("spec.dnsConfig.nameservers", Supported),
    ("spec.dnsConfig.options", Supported),
    ("spec.dnsConfig.options[].name", Supported),
    ("spec.dnsConfig.options[].value", Supported),
    ("spec.dnsConfig.searches", Supported),
    ("spec.dnsPolicy", Supported),
    ("spec.enableServiceLinks", NoEffect("there are no services without an API server")),
    ("spec.ephemeralContainers", Never("ephemeral containers cannot be part of a manifest")),
    ("spec.evictionResponders", NotYet("eviction responders")),
    ("spec.hostAliases", Supported),
    ("spec.hostAliases[].hostnames", Supported),
    ("spec.hostAliases[].ip", Supported),
    ("spec.hostIPC", Supported),
    ("spec.hostPID", Supported),
    ("spec.hostUsers", NotYetUnless(&["true"], "user namespaces")),
    ("spec.hostname", Supported),
    ("spec.hostnameOverride", Supported),
    ("spec.imagePullSecrets", MayNotReference("secrets")),
    ("spec.initContainers", Supported),
    ("spec.nodeName", NoEffect("overwritten with this node's name")),
    ("spec.nodeSelector", NotYet("matching the node's labels")),
    ("spec.os", Parts),
    ("spec.os.name", NotYetUnless(&["linux"], "operating systems other than Linux")),
    ("spec.overhead", NotYet("pod overhead")),
    ("spec.preemptionPolicy", NoEffect(SCHEDULING)),
    ("spec.priority", NoEffect("pods do not compete for a place on the node")),
    ("spec.priorityClassName", NoEffect("kept; only `system-node-critical` is known without an API server")),
    ("spec.readinessGates", NotYet("readiness gates")),
    ("spec.resourceClaims", MayNotReference("resourceclaims")),
    ("spec.resources", NotYetUnless(EMPTY, "resources of the pod as a whole")),
    ("spec.runtimeClassName", NotYet("runtime classes")),
    ("spec.schedulerName", NoEffect(SCHEDULING)),
    ("spec.schedulingGates", Never("a static pod cannot wait for a scheduler")),
    ("spec.schedulingGroup", NoEffect(SCHEDULING)),
    ("spec.securityContext", Parts),
    ("spec.securityContext.appArmorProfile", Supported),
    ("spec.securityContext.appArmorProfile.localhostProfile", Supported),
    ("spec.securityContext.appArmorProfile.type", Supported),
    ("spec.securityContext.fsGroup", Supported),
    (
        "spec.securityContext.fsGroupChangePolicy",
        NoEffect("a pod's own volumes are given their group once, when they are made, and host paths never"),
    ),
    ("spec.securityContext.runAsGroup", Supported),
    ("spec.securityContext.runAsNonRoot", Supported),
    ("spec.securityContext.runAsUser", Supported),
    (
        "spec.securityContext.seLinuxChangePolicy",
        NoEffect("volumes that are relabelled are relabelled file by file"),
    ),
    ("spec.securityContext.seLinuxOptions", Supported),
    ("spec.securityContext.seLinuxOptions.level", Supported),
    ("spec.securityContext.seLinuxOptions.role", Supported),
    ("spec.securityContext.seLinuxOptions.type", Supported),
    ("spec.securityContext.seLinuxOptions.user", Supported),
    ("spec.securityContext.seccompProfile", Supported),
    ("spec.securityContext.seccompProfile.localhostProfile", Supported),
    ("spec.securityContext.seccompProfile.type", Supported),
    ("spec.securityContext.supplementalGroups", Supported),
    ("spec.securityContext.supplementalGroupsPolicy", Supported),
    ("spec.securityContext.sysctls", Supported),
    ("spec.securityContext.sysctls[].name", Supported),
    ("spec.securityContext.sysctls[].value", Supported),
    ("spec.securityContext.windowsOptions", Never("podstead runs on Linux")),
    ("spec.serviceAccount", MayNotReference("serviceaccounts")),
    ("spec.serviceAccountName", MayNotReference("serviceaccounts")),
    ("spec.setHostnameAsFQDN", Supported),
    ("spec.shareProcessNamespace", Supported),
    ("spec.subdomain", Supported),
    ("spec.tolerations", NoEffect("kept and shown; a static pod tolerates every taint")),
    ("spec.topologySpreadConstraints", NoEffect(SCHEDULING)),
    ("status", Dropped("the status is observed, not given")),
];

/// All rows, in the order of the documentation.
pub fn table() -> impl Iterator<Item = (&'static str, Support)> {
    TABLE.iter().copied()
}

/// The row of a path; `None` when an ancestor's row speaks for it or the field is unknown.
///
/// An init container has the fields of a regular one, with the same support.
pub fn of(path: &str) -> Option<Support> {
    if let Some(field) = path.strip_prefix("spec.initContainers[]") {
        return of(&format!("spec.containers[]{field}"));
    }
    // About 170 rows, read once per field of a manifest.
    TABLE.iter().find(|(row, _)| *row == path).map(|(_, support)| *support)
}

impl Support {
    /// The message of a refusal; `None` where the field is taken.
    pub fn refusal(self) -> Option<String> {
        let version = env!("CARGO_PKG_VERSION");
        Some(match self {
            Supported | Parts | NoEffect(_) | Dropped(_) => return None,
            NotYet(what) => format!("not supported yet by podstead {version}: {what}"),
            NotYetUnless(values, what) => {
                let values = values.join(" or ");
                format!("not supported yet by podstead {version}: {what} (only {values} is accepted)")
            }
            MayNotReference(what) => format!("static pods may not reference {what}"),
            Never(why) => format!("not accepted: {why}"),
        })
    }
}

/// The table as Markdown, for `docs/manifests.md`.
pub fn markdown() -> String {
    let mut out = String::from("| Field | What podstead does |\n|---|---|\n");
    for (path, support) in TABLE {
        let text = match support {
            Parts => continue,
            Supported => "supported".to_owned(),
            NoEffect(why) => format!("accepted, no effect: {why}"),
            Dropped(why) => format!("accepted and left out: {why}"),
            NotYet(what) => format!("refused, not supported yet: {what}"),
            NotYetUnless(values, what) => {
                let values: Vec<String> = values.iter().map(|v| format!("`{v}`")).collect();
                format!("only {}; otherwise refused, not supported yet: {what}", values.join(", "))
            }
            MayNotReference(what) => format!("refused: static pods may not reference {what}"),
            Never(why) => format!("refused: {why}"),
        };
        let _ = writeln!(out, "| `{path}` | {text} |");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::schema;
    use super::*;

    /// Paths of the Pod type that need a row: all that no refusing or dropping row covers.
    fn needed() -> BTreeSet<String> {
        let mut needed = BTreeSet::new();
        schema::pod().walk("", &mut |path, _| {
            if !path.starts_with("spec.initContainers[]") {
                needed.insert(path.to_owned());
            }
            matches!(of(path), Some(Supported | Parts))
        });
        needed
    }

    #[test]
    fn every_field_of_the_pod_type_has_a_row_and_every_row_a_field() {
        let rows: BTreeSet<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(rows.len(), TABLE.len(), "a path has two rows");
        let needed = needed();
        let missing: Vec<_> = needed.difference(&rows).collect();
        let stale: Vec<_> = rows.difference(&needed).collect();
        assert!(missing.is_empty(), "fields of the Pod type without a row: {missing:?}");
        assert!(stale.is_empty(), "rows without a field, or below a row that covers them: {stale:?}");
    }
}
