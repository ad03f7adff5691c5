//! How much principals may hold (PRIV-09).
//!
//! What is held is never counted up and down: it is what is there, the workspaces of the node,
//! together with what calls under way have reserved. A crash forgets the reservations, and the
//! workspaces that it left speak for themselves, so nothing is lost and nothing counts twice.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use pinfold_types::{
    Error, ErrorCode, PrincipalId, Result,
    access::{Holding, Quota},
    limits::ResourceLimits,
};

use tokio::sync::OwnedMutexGuard;

use super::identity::Identity;

/// What workspaces hold together. `None` stands for no limit, which is more than any quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) workspaces: u64,
    pub(crate) cpu_millis: Option<u64>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) disk_bytes: Option<u64>,
    pub(crate) pids: Option<u64>,
}

impl Default for Usage {
    fn default() -> Self {
        let none = Some(0);
        Self { workspaces: 0, cpu_millis: none, memory_bytes: none, disk_bytes: none, pids: none }
    }
}

fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one?.checked_add(other?)
}

impl Usage {
    /// Of `count` workspaces with these limits.
    pub(crate) fn of(limits: &ResourceLimits, count: u64) -> Self {
        let times = |limit: Option<u64>| limit.and_then(|limit| limit.checked_mul(count));
        Self {
            workspaces: count,
            cpu_millis: times(limits.cpu_millis),
            memory_bytes: times(limits.memory_bytes),
            disk_bytes: times(limits.disk_bytes),
            pids: times(limits.pids),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            workspaces: self.workspaces.saturating_add(other.workspaces),
            cpu_millis: sum(self.cpu_millis, other.cpu_millis),
            memory_bytes: sum(self.memory_bytes, other.memory_bytes),
            disk_bytes: sum(self.disk_bytes, other.disk_bytes),
            pids: sum(self.pids, other.pids),
        }
    }

    fn fields(self, quota: &Quota) -> [(&'static str, Option<u64>, Option<u64>); 5] {
        [
            ("workspaces", Some(self.workspaces), quota.workspaces),
            ("cpu_millis", self.cpu_millis, quota.cpu_millis),
            ("memory_bytes", self.memory_bytes, quota.memory_bytes),
            ("disk_bytes", self.disk_bytes, quota.disk_bytes),
            ("pids", self.pids, quota.pids),
        ]
    }

    /// The same by name; what has no limit is left out.
    pub(crate) fn named(self) -> BTreeMap<String, u64> {
        let all = self.fields(&Quota::default()).into_iter();
        all.filter_map(|(name, used, _)| used.map(|used| (name.to_owned(), used))).collect()
    }
}

#[derive(Debug)]
struct Reserved {
    line: Vec<PrincipalId>,
    usage: Usage,
    /// How many workspaces with this ticket are there already is subtracted, each of this.
    each: Usage,
}

#[derive(Debug, Default)]
struct Ledger {
    next: u64,
    reserved: HashMap<u64, Reserved>,
    streams: HashMap<PrincipalId, u64>,
    execs: HashMap<PrincipalId, u64>,
    turns: HashMap<PrincipalId, Arc<Turn>>,
}

type Turn = tokio::sync::Mutex<()>;

/// What is reserved.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quotas(Arc<Mutex<Ledger>>);

/// What a call has reserved for what it is about to make; dropped when that is there, or will
/// never be.
#[derive(Debug)]
pub(crate) struct Reservation {
    quotas: Option<Quotas>,
    ticket: u64,
}

impl Reservation {
    /// Of a principal without a quota.
    pub(crate) const fn open() -> Self {
        Self { quotas: None, ticket: 0 }
    }

    /// Whether nothing is reserved.
    pub(crate) const fn is_open(&self) -> bool {
        self.quotas.is_none()
    }

    /// What ties the workspaces that are made to it.
    pub(crate) const fn ticket(&self) -> u64 {
        self.ticket
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(quotas) = &self.quotas {
            quotas.lock(|ledger| drop(ledger.reserved.remove(&self.ticket)));
        }
    }
}

/// A stream that counts, until it is dropped.
#[derive(Debug)]
pub(crate) struct StreamHeld {
    quotas: Quotas,
    line: Vec<PrincipalId>,
    exec: bool,
}

impl Drop for StreamHeld {
    fn drop(&mut self) {
        self.quotas.lock(|ledger| {
            for id in &self.line {
                give_back(&mut ledger.streams, *id);
                if self.exec {
                    give_back(&mut ledger.execs, *id);
                }
            }
        });
    }
}

fn give_back(counts: &mut HashMap<PrincipalId, u64>, id: PrincipalId) {
    if let Some(count) = counts.get_mut(&id) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&id);
        }
    }
}

impl Quotas {
    fn lock<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reserves `count` workspaces of these limits for the first of `line`, within its quota and
    /// that of everyone above it.
    pub(crate) fn reserve(
        &self,
        identity: &Identity,
        line: Vec<PrincipalId>,
        limits: &ResourceLimits,
        count: u64,
        holdings: impl FnOnce() -> Vec<Holding>,
    ) -> Result<Reservation> {
        let each = Usage::of(limits, 1);
        self.reserve_usage(identity, line, Usage::of(limits, count), each, holdings)
    }

    /// Reserves more for workspaces that are there already.
    pub(crate) fn reserve_more(
        &self,
        identity: &Identity,
        line: Vec<PrincipalId>,
        limits: &ResourceLimits,
        holdings: impl FnOnce() -> Vec<Holding>,
    ) -> Result<Reservation> {
        let more = Usage { workspaces: 0, ..Usage::of(limits, 1) };
        self.reserve_usage(identity, line, more, Usage::default(), holdings)
    }

    fn reserve_usage(
        &self,
        identity: &Identity,
        line: Vec<PrincipalId>,
        wanted: Usage,
        each: Usage,
        holdings: impl FnOnce() -> Vec<Holding>,
    ) -> Result<Reservation> {
        let quotas: Vec<(PrincipalId, Quota)> = line
            .iter()
            .map(|id| (*id, identity.quota(*id)))
            .filter(|(_, q)| !q.is_open())
            .collect();
        if quotas.is_empty() {
            return Ok(Reservation::open());
        }
        self.lock(|ledger| {
            let holdings = holdings();
            for (id, quota) in &quotas {
                let used = ledger.used(identity, *id, &holdings);
                let after = used.plus(wanted);
                for ((name, after, most), (_, used, _)) in
                    after.fields(quota).into_iter().zip(used.fields(quota))
                {
                    let Some(most) = most else { continue };
                    if after.is_none_or(|after| after > most) {
                        // What has no such limit is more than any quota.
                        return Err(exceeded(name, most, after.and(used)));
                    }
                }
            }
            ledger.next += 1;
            let ticket = ledger.next;
            ledger.reserved.insert(ticket, Reserved { line, usage: wanted, each });
            Ok(Reservation { quotas: Some(self.clone()), ticket })
        })
    }

    /// What a principal and those below it hold now, with what is reserved.
    pub(crate) fn used(&self, identity: &Identity, id: PrincipalId, holdings: &[Holding]) -> Usage {
        self.lock(|ledger| ledger.used(identity, id, holdings))
    }

    /// Streams and commands of a principal and those below it.
    pub(crate) fn streams(&self, id: PrincipalId) -> (u64, u64) {
        self.lock(|ledger| {
            let of = |counts: &HashMap<_, _>| counts.get(&id).copied().unwrap_or(0);
            (of(&ledger.streams), of(&ledger.execs))
        })
    }

    /// Waits until nobody else measures and takes within these budgets: a principal's own first,
    /// then those above it, so that no two wait for one another.
    pub(crate) async fn turn(
        &self,
        budgets: impl Iterator<Item = PrincipalId>,
    ) -> Vec<OwnedMutexGuard<()>> {
        let mut held = Vec::new();
        for id in budgets {
            let turn = self.lock(|ledger| {
                ledger.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
                Arc::clone(ledger.turns.entry(id).or_default())
            });
            held.push(turn.lock_owned().await);
        }
        held
    }

    /// Counts a stream, and the command that it carries.
    pub(crate) fn hold_stream(
        &self,
        identity: &Identity,
        line: Vec<PrincipalId>,
        exec: bool,
    ) -> Result<StreamHeld> {
        self.lock(|ledger| {
            for id in &line {
                let quota = identity.quota(*id);
                let of = |counts: &HashMap<_, _>| counts.get(id).copied().unwrap_or(0);
                let checks = [
                    ("streams", of(&ledger.streams), quota.streams),
                    ("execs", of(&ledger.execs), quota.execs.filter(|_| exec)),
                ];
                for (name, used, most) in checks {
                    if most.is_some_and(|most| used >= most) {
                        return Err(exceeded(name, most.unwrap_or(0), Some(used)));
                    }
                }
            }
            for id in &line {
                *ledger.streams.entry(*id).or_default() += 1;
                if exec {
                    *ledger.execs.entry(*id).or_default() += 1;
                }
            }
            Ok(StreamHeld { quotas: self.clone(), line, exec })
        })
    }
}

impl Ledger {
    fn used(&self, identity: &Identity, id: PrincipalId, holdings: &[Holding]) -> Usage {
        let mut used = Usage::default();
        let mut arrived: HashMap<u64, u64> = HashMap::new();
        for holding in holdings {
            if holding.holder.ticket != 0 {
                *arrived.entry(holding.holder.ticket).or_default() += 1;
            }
            if identity.line(holding.holder.principal).contains(&id) {
                used = used.plus(Usage::of(&holding.limits, 1));
            }
        }
        for (ticket, reserved) in self.reserved.iter().filter(|(_, r)| r.line.contains(&id)) {
            let there = arrived.get(ticket).copied().unwrap_or(0);
            used = used.plus(reserved.left(there));
        }
        used
    }
}

impl Reserved {
    /// What is still to come when `there` of its workspaces are there.
    fn left(&self, there: u64) -> Usage {
        let minus = |all: Option<u64>, each: Option<u64>| {
            all.zip(each).map(|(all, each)| all.saturating_sub(each.saturating_mul(there)))
        };
        Usage {
            workspaces: self.usage.workspaces.saturating_sub(there),
            cpu_millis: minus(self.usage.cpu_millis, self.each.cpu_millis),
            memory_bytes: minus(self.usage.memory_bytes, self.each.memory_bytes),
            disk_bytes: minus(self.usage.disk_bytes, self.each.disk_bytes),
            pids: minus(self.usage.pids, self.each.pids),
        }
    }
}

pub(crate) fn exceeded(name: &str, most: u64, used: Option<u64>) -> Error {
    let error = |message: String| Error::new(ErrorCode::QuotaExceeded, message);
    match used {
        Some(used) => {
            error(format!("this would exceed the quota on {name}: {used} of {most} are held"))
                .hint("remove workspaces or close streams, ask for less, or ask for a larger quota")
        }
        None => error(format!(
            "a quota of {most} on {name} stands, and something here has no such limit"
        ))
        .hint(format!("ask for a limit: {name}")),
    }
}
