//! Who a container runs as: what is asked for, and its answer put into the process. Pure.

use oci_spec::runtime::Process;
use podstead_runtime::{ContainerSpec, security::GroupsPolicy};
use serde::{Deserialize, Serialize};

use super::error::{Blame, Error};
use crate::image::{ImageConfig, user::User};

/// Who a container runs as, to be looked up in its mounted root file system
/// ([`lookup_user`](crate::image::user::lookup_user) with [`user`](Self::user)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRequest {
    /// `uid|name[:gid|group]`; empty for root. A group is only ever the image's own.
    pub user: String,
    /// Primary group in place of the one that was found.
    pub run_as_group: Option<u32>,
    /// Groups the pod adds.
    pub supplemental_groups: Vec<u32>,
    /// Whether the groups of the image's group file count.
    pub merge_image_groups: bool,
}

/// What the pod and the image ask for. The pod's user drops the image's user and group.
pub(super) fn request(container: &ContainerSpec, image: &ImageConfig) -> Result<UserRequest, Error> {
    let security = &container.security;
    let blame = Blame(&container.name);
    let run_as_group = security.run_as_group.map(|gid| id(blame, "runAsGroup", gid)).transpose()?;
    let user = match security.run_as_user {
        Some(uid) => id(blame, "runAsUser", uid)?.to_string(),
        None if !security.run_as_username.is_empty() => security.run_as_username.clone(),
        None => image.user.clone().unwrap_or_default(),
    };
    let user = match run_as_group {
        Some(_) => user.split(':').next().unwrap_or_default().to_owned(),
        None => user,
    };
    let supplemental_groups = security
        .supplemental_groups
        .iter()
        .map(|gid| id(blame, "supplementalGroups", *gid))
        .collect::<Result<_, _>>()?;
    let merge_image_groups = security.groups_policy == GroupsPolicy::Merge;
    Ok(UserRequest { user, run_as_group, supplemental_groups, merge_image_groups })
}

/// The largest number is the kernel's "leave it as it is", which must never reach setuid.
fn id(blame: Blame<'_>, what: &str, value: i64) -> Result<u32, Error> {
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| blame.invalid(format!("{what} {value}"), "ids go from 0 to 4294967294"))
}

/// Puts the resolved user into the process: uid, gid, additional groups, and `HOME` when the environment has none.
///
/// The primary group is among the additional ones: otherwise a file's group permissions could be dodged by
/// dropping it. Capabilities stay as [`build`](super::build) set them: for a user other than root the kernel drops
/// all but the ambient ones when the program starts.
pub fn apply_user(process: &mut Process, user: &User, request: &UserRequest) {
    let gid = request.run_as_group.unwrap_or(user.gid);
    let mut groups = vec![gid];
    let image = if request.merge_image_groups { user.additional_gids.as_slice() } else { &[] };
    for group in image.iter().chain(&request.supplemental_groups) {
        if !groups.contains(group) {
            groups.push(*group);
        }
    }
    process.user_mut().set_uid(user.uid).set_gid(gid).set_additional_gids(Some(groups));
    let env = process.env_mut().get_or_insert_with(Vec::new);
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        let home = user.home.as_deref().unwrap_or(if user.uid == 0 { "/root" } else { "/" });
        env.push(format!("HOME={home}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(change: impl FnOnce(&mut ContainerSpec), image: &str) -> Result<UserRequest, Error> {
        let mut container = ContainerSpec { name: "c".into(), ..ContainerSpec::default() };
        change(&mut container);
        request(&container, &ImageConfig { user: Some(image.into()), ..ImageConfig::default() })
    }

    #[test]
    fn the_pods_user_replaces_the_images_user_and_group() {
        assert_eq!(asked(|_| {}, "web:log").unwrap().user, "web:log");
        assert_eq!(asked(|c| c.security.run_as_user = Some(7), "web:log").unwrap().user, "7");
        assert_eq!(asked(|c| c.security.run_as_username = "db".into(), "web").unwrap().user, "db");
        let both = asked(
            |c| {
                c.security.run_as_username = "db".into();
                c.security.run_as_user = Some(0);
            },
            "web",
        );
        assert_eq!(both.unwrap().user, "0");
    }

    #[test]
    fn the_pods_group_replaces_the_images_group_only() {
        let request = asked(|c| c.security.run_as_group = Some(5), "web:log").unwrap();
        assert_eq!((request.user.as_str(), request.run_as_group), ("web", Some(5)));
    }

    #[test]
    fn ids_beyond_the_kernels_are_refused() {
        for id in [-1, i64::from(u32::MAX), i64::MAX] {
            assert!(asked(|c| c.security.run_as_user = Some(id), "").is_err());
            assert!(asked(|c| c.security.run_as_group = Some(id), "").is_err());
            assert!(asked(|c| c.security.supplemental_groups = vec![id], "").is_err());
        }
    }

    fn applied(request: &UserRequest, env: &[&str]) -> Process {
        let mut process = Process::default();
        process.set_env(Some(env.iter().map(|e| (*e).to_owned()).collect()));
        let user = User { uid: 33, gid: 44, additional_gids: vec![4, 5], home: Some("/var/www".into()) };
        apply_user(&mut process, &user, request);
        process
    }

    #[test]
    fn groups_are_primary_then_image_then_pod_without_repeats() {
        let request = UserRequest {
            supplemental_groups: vec![5, 9, 44, 9],
            merge_image_groups: true,
            ..UserRequest::default()
        };
        let process = applied(&request, &[]);
        assert_eq!((process.user().uid(), process.user().gid()), (33, 44));
        assert_eq!(process.user().additional_gids().as_deref(), Some(&[44, 4, 5, 9][..]));

        let strict = UserRequest { merge_image_groups: false, run_as_group: Some(1), ..request };
        let process = applied(&strict, &[]);
        assert_eq!(process.user().gid(), 1);
        assert_eq!(process.user().additional_gids().as_deref(), Some(&[1, 5, 9, 44][..]));
    }

    #[test]
    fn home_is_set_only_where_nobody_said() {
        let env = |process: Process| process.env().clone().unwrap();
        assert_eq!(env(applied(&UserRequest::default(), &["A=1"])), ["A=1", "HOME=/var/www"]);
        assert_eq!(env(applied(&UserRequest::default(), &["HOME="])), ["HOME="]);
    }
}
