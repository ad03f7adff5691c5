//! The node itself: what it holds, how it opens and closes.

use std::{future::Future, path::PathBuf, sync::Arc};

use pinfold_disk::Pool;
use pinfold_egress::EgressConfig;
use pinfold_image::ImageStore;
use pinfold_namespace::{Cgroups, Launcher, LauncherOptions};
use pinfold_store::{Change, Event, Store};
use pinfold_types::{
    Error, Mode, Result, WorkspaceId,
    api::RecoveryAction,
    config::Config,
    limits::{LimitKind, ResourceLimits},
};
use tokio::sync::{Notify, OnceCell, Semaphore, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    NodeOptions, home::Home, images::ImageHolds, limits, make::disk_limits, ready::ReadyStock,
    recover, registry::Registry, slots::UidSlots,
};

/// Children of one fork, and workspaces of one recovery, that are made at the same time.
pub(crate) const FAN_OUT: usize = 8;
/// Removals that run at the same time.
const REMOVALS: usize = 4;

/// The workspaces of this machine. Cheap to clone; all clones are one node.
///
/// Dropping the last clone stops watching and leaves every workspace running, as a crash of the
/// server would; [`LocalNode::shutdown`] does the same in good order.
#[derive(Clone, Debug)]
pub struct LocalNode {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    inner: Arc<Inner>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.closing.cancel();
    }
}

/// What every operation works with.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) mode: Mode,
    pub(crate) home: Home,
    pub(crate) guest_binary: PathBuf,
    pub(crate) launcher_binary: PathBuf,
    pub(crate) stop_grace: std::time::Duration,
    pub(crate) reattach_grace: std::time::Duration,
    pub(crate) inside: Option<Arc<dyn crate::Inside>>,
    pub(crate) store: Store,
    pub(crate) pool: Arc<Pool>,
    pub(crate) images: ImageStore,
    pub(crate) holds: Arc<ImageHolds>,
    pub(crate) cgroups: Cgroups,
    pub(crate) launcher: Launcher,
    pub(crate) registry: Arc<Registry>,
    pub(crate) slots: UidSlots,
    pub(crate) ready: ReadyStock,
    /// The range that all workspaces of an ordinary user share.
    pub(crate) user_ids: OnceCell<pinfold_namespace::IdRange>,
    pub(crate) fan_out: Arc<Semaphore>,
    pub(crate) removals: Semaphore,
    /// A deadline came closer: the reaper looks again.
    pub(crate) reaper: Notify,
    /// Operations under way. They end before the node is closed, whoever asked has gone or not.
    pub(crate) tasks: TaskTracker,
    pub(crate) closing: CancellationToken,
    pub(crate) counts: crate::counts::Counts,
    /// Held by the one backup that may be made at a time.
    pub(crate) backup: Arc<tokio::sync::Mutex<()>>,
    recovery: OnceCell<Vec<RecoveryAction>>,
}

impl LocalNode {
    /// Opens the node: its pool and images, then whatever an earlier server left. Returns what
    /// recovery did.
    pub async fn open(options: NodeOptions) -> Result<(Self, Vec<RecoveryAction>)> {
        let NodeOptions { home, mut config, store, launcher_binary, guest_binary, mode, .. } =
            options;
        limits::cap_open_files(&mut config.workspaces, own_open_files());
        let home = Home::open(&home)?;
        let egress = pinfold_egress::Client::new(EgressConfig::from_images(&config.images));
        let (pool, images) = {
            let (config, home) = (config.clone(), home.clone());
            blocking(move || {
                let pool = Pool::open(&config.pool, home.root(), mode)?;
                let images = ImageStore::open(&home.images(), mode, &config.images, egress)?;
                Ok((Arc::new(pool), images))
            })
            .await?
        };
        let cgroups = Cgroups::detect(home.tag());
        let launcher = Launcher::start(LauncherOptions {
            binary: launcher_binary.clone(),
            home_tag: home.tag().to_owned(),
        })
        .await?;
        let inner = Arc::new(Inner {
            mode,
            guest_binary,
            launcher_binary,
            stop_grace: options.stop_grace,
            reattach_grace: options.reattach_grace,
            inside: options.inside,
            store,
            pool,
            images,
            holds: Arc::default(),
            cgroups,
            launcher,
            registry: Registry::new(config.workspaces.max_count),
            slots: UidSlots::new(config.workspaces.uid_base, config.workspaces.uid_ranges),
            ready: ReadyStock::new(config.workspaces.warm_boots),
            user_ids: OnceCell::new(),
            fan_out: Arc::new(Semaphore::new(FAN_OUT)),
            removals: Semaphore::new(REMOVALS),
            reaper: Notify::new(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            counts: crate::counts::Counts::default(),
            backup: Arc::default(),
            recovery: OnceCell::new(),
            config,
            home,
        });
        let node = Self { handle: Arc::new(Handle { inner: Arc::clone(&inner) }) };
        let actions = recover::recover(&inner).await?;
        inner.recovery.set(actions.clone()).expect("set once, here");
        crate::reaper::start(&inner);
        inner.warm_up();
        Ok((node, actions))
    }

    /// What recovery did when the node was opened.
    pub fn recovery(&self) -> Vec<RecoveryAction> {
        self.inner().recovery.get().cloned().unwrap_or_default()
    }

    /// Lets operations under way end, then stops watching. Workspaces go on running, and the
    /// next server finds them.
    pub async fn shutdown(self) -> Result<()> {
        let inner = Arc::clone(self.inner());
        inner.tasks.close();
        inner.tasks.wait().await;
        inner.clear_ready(true).await;
        inner.closing.cancel();
        let touched: Vec<Change> = inner
            .registry
            .list()
            .iter()
            .map(|workspace| Change::TouchWorkspace {
                id: workspace.id,
                at: workspace.activity.last(),
            })
            .collect();
        inner.store.apply(touched).await?;
        inner.cgroups.remove_base();
        Ok(())
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.handle.inner
    }

    /// Runs an operation to its end even when the caller goes away in the middle of it, so that
    /// no cancelled request leaves a thing half made or frozen.
    pub(crate) async fn shielded<T, F>(&self, operation: impl FnOnce(Arc<Inner>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let operation = operation(Arc::clone(self.inner()));
        self.inner().tasks.spawn(async move {
            // A result that nobody waits for any more is dropped here, where it is still work
            // under way: a throw-away workspace ends with it.
            let _ = sender.send(operation.await);
        });
        receiver.await.unwrap_or_else(|_| Err(Error::internal("an operation died")))
    }
}

impl Inner {
    /// What enforces a kind of limit here, or why nothing can.
    pub(crate) fn enforceable(&self, kind: LimitKind) -> Result<String, String> {
        match kind {
            LimitKind::Disk | LimitKind::Inodes => self.pool.enforceable(kind),
            LimitKind::OpenFiles => Ok("RLIMIT_NOFILE".into()),
            LimitKind::Output => Ok("the server's output rate".into()),
            _ => self.cgroups.enforceable(kind),
        }
    }

    /// Makes ready, in the background, what the first workspaces will want: the default image, and
    /// disks of the usual size for it.
    fn warm_up(self: &Arc<Self>) {
        let (node, closing) = (Arc::downgrade(self), self.closing.clone());
        tokio::spawn(async move {
            let Some(inner) = node.upgrade() else { return };
            let warm = async {
                let workspaces = &inner.config.workspaces;
                let image = inner.image_for(workspaces.default_image.as_str()).await?;
                let slots = crate::make::slots_of(&inner.root(&image.id)?);
                let usual = ResourceLimits::default();
                let enforceable = |kind| inner.enforceable(kind);
                let limits =
                    limits::for_create(&usual, workspaces, inner.mode, false, &enforceable)?;
                let count = usize::try_from(workspaces.warm_disks).unwrap_or(usize::MAX);
                let (pool, limits) = (Arc::clone(&inner.pool), disk_limits(&limits));
                blocking(move || pool.warm(count, &limits, slots)).await
            };
            tokio::select! {
                () = closing.cancelled() => {}
                warmed = warm => {
                    // What is not ready is made, or refused with the reason, when it is asked for.
                    if let Err(err) = warmed {
                        tracing::debug!(%err, "nothing is kept ready");
                    }
                }
            }
        });
    }

    /// Records what the node did by itself. It travels with the next commit.
    pub(crate) fn note(&self, kind: &str, object: &impl ToString, detail: serde_json::Value) {
        self.store.append_event_relaxed(Event {
            at: jiff::Timestamp::now(),
            kind: kind.to_owned(),
            object: object.to_string(),
            principal: "server".to_owned(),
            detail,
        });
    }

    /// The same about a workspace, with whose it is: by then it may be gone.
    pub(crate) fn note_of(
        &self,
        workspace: &crate::workspace::Workspace,
        kind: &str,
        mut detail: serde_json::Value,
    ) {
        if let Some(owner) = workspace.with_row(|row| row.spec.holder.principal) {
            detail["owner"] = owner.to_string().into();
        }
        self.note(kind, &workspace.id, detail);
    }

    /// Runs blocking work with the node at hand.
    pub(crate) async fn in_background<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(self);
        blocking(move || work(&inner)).await
    }

    /// Frees what a workspace held besides its row.
    pub(crate) fn forget(&self, id: WorkspaceId, slot: Option<u32>) {
        self.registry.remove(id);
        if let Some(slot) = slot {
            self.slots.release(slot);
        }
    }
}

/// The hard limit of open files that this process could pass on.
fn own_open_files() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum
}

/// Runs blocking work off the runtime's own threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|err| Err(Error::internal(format!("blocking work died: {err}"))))
}
