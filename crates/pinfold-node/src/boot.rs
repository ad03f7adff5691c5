//! From a disk to a guest that answers, and back to nothing.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use pinfold_disk::{Disk, SealedLayer};
use pinfold_namespace::{IdRange, LaunchSpec, Launched, WorkspaceCgroup};
use pinfold_proto::{GuestConfig, handshake::SecretField};
use pinfold_store::WorkspaceRow;
use pinfold_types::{
    BootSecret, Error, ErrorCode, ExecId, Mode, Result, RootMount, WorkspaceId, exec::ExecSpec,
    limits::ResourceLimits,
};
use zeroize::Zeroizing;

use crate::{InsideBoot, guest::Guest, live::Live, node::Inner, options::GUEST_READY};

/// `/dev/shm` where memory is not limited.
const SHM_UNLIMITED: u64 = 1 << 30;

/// One boot, decided but not begun.
#[derive(Debug)]
pub(crate) struct Boot {
    pub(crate) id: WorkspaceId,
    pub(crate) number: u64,
    pub(crate) secret: BootSecret,
    pub(crate) ids: IdRange,
    pub(crate) hostname: String,
    pub(crate) limits: ResourceLimits,
    pub(crate) nested: bool,
    /// Its programs have a way to the server, and this token.
    pub(crate) api_token: Option<Zeroizing<String>>,
    /// Its disk is thrown away with it.
    pub(crate) ephemeral: bool,
    pub(crate) root: Root,
    pub(crate) env: BTreeMap<String, String>,
    /// Started in the background as soon as the guest lives.
    pub(crate) command: Option<(ExecId, ExecSpec)>,
}

/// What an image gives a boot.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(crate) mounts: Vec<pinfold_types::RootMount>,
    pub(crate) defaults: pinfold_types::image::ImageDefaults,
}

/// 32 random bytes.
pub(crate) fn new_secret() -> Result<BootSecret> {
    let mut bytes = [0_u8; BootSecret::LEN];
    getrandom::fill(&mut bytes)
        .map_err(|err| Error::internal(format!("the system gave no random bytes: {err}")))?;
    let secret = BootSecret::from_bytes(bytes);
    zeroize::Zeroize::zeroize(&mut bytes);
    Ok(secret)
}

impl Inner {
    /// Decides a boot from the record, as its next incarnation.
    pub(crate) async fn plan_boot(
        &self,
        row: &WorkspaceRow,
        envs: (BTreeMap<String, String>, BTreeMap<String, String>),
        secret: BootSecret,
    ) -> Result<Boot> {
        let root = self.root(&row.image_id)?;
        let (mut env, command_env) = envs;
        for (name, value) in &root.defaults.env {
            env.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let api_token = match self.inside.as_ref().filter(|_| row.spec.self_access) {
            None => None,
            Some(inside) => {
                let token = inside.token(InsideBoot {
                    workspace: row.id,
                    boot: row.boot,
                    owner: row.spec.holder.principal,
                    expires_at: row.expires_at,
                });
                Some(token.await?)
            }
        };
        let command = row.spec.command.clone().map(|mut command| {
            command.env = command_env;
            command.background = true;
            (ExecId::generate(), command)
        });
        Ok(Boot {
            id: row.id,
            number: row.boot,
            secret,
            ids: self.ids(row.uid_slot).await?,
            hostname: row.spec.hostname.clone().unwrap_or_else(|| hostname(row.name.as_str())),
            limits: row.spec.limits.clone(),
            nested: row.spec.nested,
            api_token,
            ephemeral: row.spec.ephemeral,
            root,
            env,
            command,
        })
    }

    /// What a root on this image is made of.
    pub(crate) fn root(&self, image: &pinfold_types::ImageId) -> Result<Root> {
        let info = self.images.get(&image.to_string())?;
        Ok(Root { mounts: self.images.root_mounts(image)?, defaults: info.defaults })
    }

    /// Host ids of a slot.
    pub(crate) async fn ids(&self, slot: Option<u32>) -> Result<IdRange> {
        match (self.mode, slot) {
            (Mode::Root, Some(slot)) => {
                Ok(IdRange { base: self.slots.base_of(slot), count: crate::slots::RANGE })
            }
            (Mode::Root, None) => Err(Error::internal("a workspace without a uid range")),
            (Mode::User, _) => self
                .user_ids
                .get_or_try_init(|| async { pinfold_namespace::sub_ids() })
                .await
                .copied(),
        }
    }

    /// The cgroup and run directory of a boot. Short system calls only.
    pub(crate) fn prepare(
        &self,
        id: WorkspaceId,
        limits: &ResourceLimits,
        unlimited: bool,
    ) -> Result<Option<WorkspaceCgroup>> {
        self.home.make_run(id)?;
        let made = self.cgroups.create(&id, limits).or_else(|refused| {
            // A boot that was cut short may have left its group.
            let Some(left) = self.cgroups.open(&id) else { return Err(refused) };
            left.thaw()?;
            left.kill()?;
            left.remove()?;
            self.cgroups.create(&id, limits)
        });
        match made {
            Ok(cgroup) => Ok(Some(cgroup)),
            Err(refused) if unlimited => {
                tracing::warn!(%id, %refused, "runs without a cgroup, as the operator allowed");
                Ok(None)
            }
            Err(refused) => Err(refused),
        }
    }

    /// Launches a prepared boot and waits until its guest answers. On failure nothing of the
    /// boot is left.
    pub(crate) async fn launch(
        &self,
        boot: Boot,
        disk: &Disk,
        cgroup: Option<WorkspaceCgroup>,
    ) -> Result<Arc<Live>> {
        let (id, number, secret) = (boot.id, boot.number, boot.secret.clone());
        let begun = Instant::now();
        let launched =
            match self.launcher.launch(self.launch_spec(boot, disk, cgroup.as_ref())?).await {
                Ok(launched) => launched,
                Err(failed) => {
                    self.clear_boot(id, cgroup).await;
                    return Err(failed);
                }
            };
        let launched_after = begun.elapsed();
        let Launched { pid, start_time, pidfd, walls, last_words, .. } = launched;
        let socket = self.home.socket(id);
        let live = Live::new(number, pid, start_time, walls, cgroup, socket, pidfd)?;
        let live = Arc::new(live.heard(last_words));
        let connect = Guest::connect(&live.socket, &id, number, &secret);
        let connected = tokio::time::timeout(GUEST_READY, connect).await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorCode::Timeout,
                format!("the workspace's first process did not answer in {GUEST_READY:?}"),
            )
            .hint("the machine may be overloaded: try again"))
        });
        match connected {
            Ok(guest) => {
                live.set_guest(Some(guest));
                self.counts.booted();
                let answered_after = begun.elapsed();
                tracing::debug!(%id, ?launched_after, ?answered_after, "booted");
                Ok(live)
            }
            Err(mut failed) => {
                if let Some(words) = live.last_words() {
                    failed.message = format!("{}; it said: {words}", failed.message);
                }
                let _ = live.kill_and_wait().await;
                self.clear_boot(id, live.cgroup.clone()).await;
                Err(failed)
            }
        }
    }

    fn launch_spec(
        &self,
        boot: Boot,
        disk: &Disk,
        cgroup: Option<&WorkspaceCgroup>,
    ) -> Result<LaunchSpec> {
        let sealed = disk.sealed()?;
        let config = GuestConfig {
            protocol: pinfold_proto::PROTOCOL,
            workspace: boot.id,
            boot: boot.number,
            secret: SecretField(boot.secret),
            env: boot.env,
            cwd: boot.root.defaults.cwd,
            user: boot.root.defaults.user,
            hostname: boot.hostname.clone(),
            api_token: boot.api_token.map(|token| String::clone(&token)),
            command: boot.command,
        };
        Ok(LaunchSpec {
            workspace: boot.id,
            boot: boot.number,
            hostname: boot.hostname,
            mounts: upon(boot.root.mounts, &sealed),
            disk: disk.path.clone(),
            guest: self.guest_binary.clone(),
            socket: self.home.socket(boot.id),
            guest_config: serde_json::to_vec(&config).map_err(Error::internal)?,
            ids: boot.ids,
            cgroup: cgroup.map(WorkspaceCgroup::join),
            nested: boot.nested,
            volatile: boot.ephemeral,
            open_files: boot.limits.open_files,
            shm_bytes: boot.limits.memory_bytes.map_or(SHM_UNLIMITED, |memory| memory / 2),
        })
    }

    /// Removes what a boot had besides its disk: processes still in the cgroup, the cgroup, the
    /// run directory.
    pub(crate) async fn clear_boot(&self, id: WorkspaceId, cgroup: Option<WorkspaceCgroup>) {
        let home = self.home.clone();
        let cleared = crate::node::blocking(move || {
            home.remove_run(id);
            if let Some(cgroup) = cgroup {
                let _ = cgroup.thaw();
                cgroup.kill()?;
                cgroup.remove()?;
            }
            Ok(())
        });
        if let Err(err) = cleared.await {
            tracing::warn!(%id, %err, context = ?err.internal, "a boot could not be cleared");
        }
    }
}

/// The mounts of an image with what a disk has sealed between their layers and its slots.
fn upon(mut mounts: Vec<RootMount>, sealed: &[SealedLayer]) -> Vec<RootMount> {
    for (slot, mount) in mounts.iter_mut().enumerate().filter(|(_, mount)| mount.writable) {
        let layers = sealed.iter().filter(|layer| layer.slots > slot);
        let layers = layers.map(|layer| layer.path.join(format!("upper/{slot}")));
        mount.lowers.splice(..0, layers);
    }
    mounts
}

/// A host name made of a workspace name: names may hold `.` and `_`, host names may not.
pub(crate) fn hostname(name: &str) -> String {
    let dashed: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let trimmed = dashed.trim_matches('-');
    if trimmed.is_empty() { "workspace".into() } else { trimmed.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_layers_lie_between_slots_and_images() {
        let mount = |target: &str, writable| RootMount {
            target: target.into(),
            lowers: vec!["/image".into()],
            writable,
            idmapped: true,
        };
        let layer = |path: &str, slots| SealedLayer { path: path.into(), slots };
        let sealed = [layer("/b", 3), layer("/a", 1)];
        let mounts =
            upon(vec![mount("/", true), mount("/usr", true), mount("/opt", false)], &sealed);
        let lowers: Vec<Vec<&str>> = mounts
            .iter()
            .map(|mount| mount.lowers.iter().filter_map(|path| path.to_str()).collect())
            .collect();
        assert_eq!(lowers[0], ["/b/upper/0", "/a/upper/0", "/image"]);
        assert_eq!(lowers[1], ["/b/upper/1", "/image"], "the lowest layer has no such slot");
        assert_eq!(lowers[2], ["/image"], "nothing was ever written there");
    }

    #[test]
    fn host_names_have_no_other_characters() {
        assert_eq!(hostname("a.b_c"), "a-b-c");
        assert_eq!(hostname("a."), "a");
        assert_eq!(hostname("x-1"), "x-1");
    }
}
