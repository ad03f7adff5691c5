//! Workspaces that are booted before anybody asks for them.
//!
//! A boot costs milliseconds: namespaces, mounts, a first process. So once somebody made a
//! workspace without a name of its own, another of that kind is booted in the background, and the
//! next such request only has to be recorded. What is kept ready has every wall and limit that it
//! would have been given, was never used by anyone, is nobody's until it is taken, and has no
//! record: what a crash of the server leaves of it is reclaimed at the next start.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pinfold_types::{
    BootSecret, ImageId, Mode, Result, WorkspaceId, WorkspaceName, limits::ResourceLimits,
};

use crate::{
    LocalNode,
    boot::{Boot, hostname, new_secret},
    images::ImageHold,
    live::Live,
    make::{disk_limits, slots_of},
    node::Inner,
    registry::Reservation,
};

/// How long a workspace has the machine for itself before another is booted in its stead.
const PAUSE: Duration = Duration::from_millis(5);

/// What makes two boots alike.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kind {
    pub(crate) image: ImageId,
    pub(crate) limits: ResourceLimits,
    /// Thrown away with its one command: what it writes need not reach the disk.
    pub(crate) ephemeral: bool,
}

/// A workspace without a record.
#[derive(Debug)]
pub(crate) struct Ready {
    kind: Kind,
    pub(crate) id: WorkspaceId,
    pub(crate) slot: Option<u32>,
    pub(crate) secret: BootSecret,
    pub(crate) live: Arc<Live>,
    name: WorkspaceName,
    _hold: ImageHold,
}

/// The boots that are ready, the one that waited longest first.
#[derive(Debug)]
pub(crate) struct ReadyStock {
    most: usize,
    stock: Mutex<Stock>,
    /// Held while one is made.
    making: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Stock {
    ready: VecDeque<Ready>,
    closed: bool,
}

impl ReadyStock {
    /// An empty stock for at most `most` boots.
    pub(crate) fn new(most: u32) -> Self {
        Self {
            most: usize::try_from(most).unwrap_or(usize::MAX),
            stock: Mutex::default(),
            making: tokio::sync::Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stock> {
        // The list is whole between any two statements.
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wants(&self, kind: &Kind) -> bool {
        let stock = self.lock();
        self.most > 0 && !stock.closed && !stock.ready.iter().any(|ready| ready.kind == *kind)
    }

    /// Puts one in. What is returned is one too many.
    fn put(&self, made: Ready) -> Option<Ready> {
        let mut stock = self.lock();
        if stock.closed {
            return Some(made);
        }
        stock.ready.push_back(made);
        if stock.ready.len() > self.most { stock.ready.pop_front() } else { None }
    }

    fn take(&self, kind: &Kind) -> Option<Ready> {
        let mut stock = self.lock();
        let place = stock.ready.iter().position(|ready| ready.kind == *kind)?;
        stock.ready.remove(place)
    }

    fn drain(&self, which: impl Fn(&Kind) -> bool) -> VecDeque<Ready> {
        let mut stock = self.lock();
        let (gone, kept) =
            std::mem::take(&mut stock.ready).into_iter().partition(|ready| which(&ready.kind));
        stock.ready = kept;
        gone
    }
}

impl LocalNode {
    /// How many workspaces are booted and nobody's, for whoever comes next.
    pub fn ready_boots(&self) -> usize {
        self.inner().ready.lock().ready.len()
    }
}

impl Inner {
    /// A boot of this kind with the name its host name was made of, when one is ready and lives.
    pub(crate) fn take_ready(self: &Arc<Self>, kind: &Kind) -> Option<(Ready, Reservation)> {
        while let Some(ready) = self.ready.take(kind) {
            let lives = !ready.live.has_ended();
            match self.registry.reserve(Some(&ready.name)) {
                Ok(name) if lives => return Some((ready, name)),
                _ => drop(self.tasks.spawn(Arc::clone(self).discard_ready(ready))),
            }
        }
        None
    }

    /// Gives a boot that was ready what its owner asked for. On failure it is ended.
    pub(crate) async fn hand_out(
        &self,
        ready: &Ready,
        env: BTreeMap<String, String>,
    ) -> Result<()> {
        if env.is_empty() {
            return Ok(());
        }
        let set = async {
            let mut all = self.root(&ready.kind.image)?.defaults.env;
            all.extend(env);
            ready.live.guest()?.set_env(all).await
        };
        let set = set.await;
        if set.is_err() {
            self.end_boot(ready.id, Some(Arc::clone(&ready.live))).await;
        }
        set
    }

    /// Has another of this kind booted in the background; one at a time, whoever asks.
    pub(crate) fn keep_ready(self: &Arc<Self>, kind: Kind) {
        if !self.ready.wants(&kind) {
            return;
        }
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            let Ok(_one) = inner.ready.making.try_lock() else { return };
            tokio::time::sleep(PAUSE).await;
            if inner.closing.is_cancelled() || !inner.ready.wants(&kind) {
                return;
            }
            let surplus = match inner.boot_ready(kind).await {
                // A node that was let go in the meantime takes nothing more in.
                Ok(made) if inner.closing.is_cancelled() => Some(made),
                Ok(made) => inner.ready.put(made),
                Err(err) => {
                    tracing::debug!(%err, context = ?err.internal, "nothing is kept ready");
                    None
                }
            };
            if let Some(surplus) = surplus {
                Arc::clone(&inner).discard_ready(surplus).await;
            }
        });
    }

    /// Gives up every boot on this image, so that it can be removed.
    pub(crate) async fn drop_ready(self: &Arc<Self>, image: ImageId) {
        // One that is being made is waited for.
        let _none_is_made = self.ready.making.lock().await;
        for ready in self.ready.drain(|kind| kind.image == image) {
            Arc::clone(self).discard_ready(ready).await;
        }
    }

    /// Gives up every boot: `for_good` when the node closes, else to make room for others.
    pub(crate) async fn clear_ready(self: &Arc<Self>, for_good: bool) {
        self.ready.lock().closed |= for_good;
        for ready in self.ready.drain(|_| true) {
            Arc::clone(self).discard_ready(ready).await;
        }
    }

    async fn boot_ready(self: &Arc<Self>, kind: Kind) -> Result<Ready> {
        let hold = self.holds.hold(kind.image)?;
        let name = self.registry.reserve(None)?.name().clone();
        let slot = match self.mode {
            Mode::Root => Some(self.slots.allocate()?),
            Mode::User => None,
        };
        let id = WorkspaceId::generate();
        match self.boot_for_stock(id, &kind, slot, &name).await {
            Ok((live, secret)) => Ok(Ready { kind, id, slot, secret, live, name, _hold: hold }),
            Err(failed) => {
                self.discard(id).await;
                self.forget(id, slot);
                Err(failed)
            }
        }
    }

    async fn boot_for_stock(
        self: &Arc<Self>,
        id: WorkspaceId,
        kind: &Kind,
        slot: Option<u32>,
        name: &WorkspaceName,
    ) -> Result<(Arc<Live>, BootSecret)> {
        let secret = new_secret()?;
        let root = self.root(&kind.image)?;
        let boot = Boot {
            id,
            number: 1,
            secret: secret.clone(),
            ids: self.ids(slot).await?,
            hostname: hostname(name.as_str()),
            limits: kind.limits.clone(),
            nested: false,
            api_token: None,
            ephemeral: kind.ephemeral,
            env: root.defaults.env.clone(),
            command: None,
            root,
        };
        let (limits, slots) = (kind.limits.clone(), slots_of(&boot.root));
        let (disk, cgroup) = self
            .in_background(move |inner| {
                let disk = inner.pool.create(&id.to_string(), &disk_limits(&limits), slots)?;
                Ok((disk, inner.prepare(id, &limits, false)?))
            })
            .await?;
        Ok((self.launch(boot, &disk, cgroup).await?, secret))
    }

    async fn discard_ready(self: Arc<Self>, ready: Ready) {
        self.end_boot(ready.id, Some(ready.live)).await;
        self.discard(ready.id).await;
        self.forget(ready.id, ready.slot);
    }
}
