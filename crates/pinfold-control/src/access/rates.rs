//! How often callers may call: token buckets, one for each principal and rate class, and one for
//! everybody together (AUTH-13, F-14, F-15).
//!
//! A bucket belongs to a principal, so its sessions, tokens, surfaces and connections share it. What
//! is recorded of a bucket is never more than what is in it: a piece is written off, and that is on
//! the disk, before a call is let through that uses it. Time counts from the start of the server
//! on. So a restart, clean or not, gives nothing away.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use pinfold_auth::operation::RateClass;
use pinfold_store::{Change, Store};
use pinfold_types::{
    Error, ErrorCode, PrincipalId, Result,
    config::{Rate, RateTable, RatesConfig},
};

/// Kind of the records.
pub(super) const KIND: &str = "bucket";
/// Most buckets that are remembered. A full one is as good as none, so those go first.
const MAX_BUCKETS: usize = 20_000;
/// The part of a bucket that is written off at once.
const PIECE: f64 = 0.1;

/// What a caller is told about its bucket (the `RateLimit` fields of the httpapi working group).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateState {
    /// Calls that a full bucket holds.
    pub limit: u32,
    /// Calls left now.
    pub remaining: u32,
    /// Until the bucket is full again, in seconds.
    pub reset_s: u64,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: f64,
    at: Timestamp,
    /// Most that the record on the disk can say.
    recorded: f64,
    /// Number of its last record.
    writes: u64,
}

/// What has to be on the disk before a call goes on.
#[derive(Debug)]
struct WriteOff {
    key: Key,
    write: u64,
    level: f64,
}

/// Whose bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Principal(PrincipalId),
    /// Whoever calls from there and is nobody yet. These buckets are not recorded: what a restart
    /// gives back is a few tries, and strangers write nothing to the disk.
    Address(IpAddr),
    Everybody,
}

type Key = (Who, RateClass);

/// All buckets.
#[derive(Debug)]
pub(crate) struct Rates {
    config: RatesConfig,
    buckets: Mutex<HashMap<Key, Bucket>>,
    store: Store,
}

impl Rates {
    pub(crate) async fn open(config: RatesConfig, store: Store, now: Timestamp) -> Result<Self> {
        let mut buckets = HashMap::new();
        for (id, body) in store.records(KIND).await? {
            // A record that cannot be read is an empty bucket: nothing is given away.
            let Some(key) = key_of(&id) else { continue };
            let level = body.parse().ok().filter(|level: &f64| level.is_finite()).unwrap_or(0.0);
            buckets.insert(key, Bucket { level, at: now, recorded: level, writes: 0 });
        }
        Ok(Self { config, buckets: Mutex::new(buckets), store })
    }

    /// Takes one call out of the principal's bucket and out of everybody's. Waits for the disk once
    /// for each piece of a bucket.
    pub(crate) async fn take(
        &self,
        principal: PrincipalId,
        owner: bool,
        class: RateClass,
        now: Timestamp,
    ) -> Result<Option<RateState>> {
        let own = rate(if owner { &self.config.owner } else { &self.config.tokens }, class);
        let all = rate(&self.config.global, class);
        let keys = [(Who::Principal(principal), own, "your"), (Who::Everybody, all, "everybody's")];
        self.take_keys(keys, class, now).await
    }

    /// Takes one try to log in out of the bucket of the address that it comes from, and out of
    /// everybody's. Of IPv6, whoever has one address has its /64.
    pub(crate) async fn take_login(&self, from: Option<IpAddr>, now: Timestamp) -> Result<()> {
        let own = rate(&self.config.tokens, RateClass::Login).filter(|_| from.is_some());
        let all = rate(&self.config.global, RateClass::Login);
        let address = match from.map(|address| address.to_canonical()) {
            Some(IpAddr::V6(address)) => {
                let network = u128::from(address) >> 64 << 64;
                IpAddr::V6(Ipv6Addr::from(network))
            }
            Some(address) => address,
            None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let keys =
            [(Who::Address(address), own, "your address's"), (Who::Everybody, all, "everybody's")];
        self.take_keys(keys, RateClass::Login, now).await.map(drop)
    }

    async fn take_keys(
        &self,
        keys: [(Who, Option<Rate>, &str); 2],
        class: RateClass,
        now: Timestamp,
    ) -> Result<Option<RateState>> {
        if keys.iter().all(|(_, rate, _)| rate.is_none()) {
            return Ok(None);
        }
        let (state, written_off, written) = {
            let mut buckets = self.lock();
            let (state, written_off) = self.take_from(&mut buckets, keys, class, now)?;
            let changes: Vec<_> =
                written_off.iter().filter_map(|off| put(off.key, off.level)).collect();
            // Under the lock: the last record of a bucket is the last one on the disk.
            let written = if changes.is_empty() { None } else { Some(self.store.submit(changes)?) };
            (state, written_off, written)
        };
        if let Some(written) = written {
            written.await?;
            let mut buckets = self.lock();
            for off in written_off {
                // A later record says what the disk says, or will.
                if let Some(bucket) = buckets.get_mut(&off.key).filter(|b| b.writes == off.write) {
                    bucket.recorded = off.level;
                }
            }
        }
        Ok(state)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_from(
        &self,
        buckets: &mut HashMap<Key, Bucket>,
        keys: [(Who, Option<Rate>, &str); 2],
        class: RateClass,
        now: Timestamp,
    ) -> Result<(Option<RateState>, Vec<WriteOff>)> {
        if buckets.len() >= MAX_BUCKETS {
            let config = &self.config;
            buckets.retain(|key, bucket| {
                let everybody = key.0 == Who::Everybody;
                let table = if everybody { &config.global } else { &config.tokens };
                rate(table, key.1)
                    .is_some_and(|rate| filled(bucket, rate, now) < f64::from(rate.burst))
            });
        }
        // Both are looked at before either pays.
        for (who, rate, whose) in keys {
            let Some(rate) = rate else { continue };
            let bucket = buckets.entry((who, class)).or_insert_with(|| full(rate, now));
            bucket.level = filled(bucket, rate, now);
            bucket.at = bucket.at.max(now);
            if bucket.level < 1.0 {
                return Err(limited(class, rate, whose, bucket.level));
            }
        }
        let (mut state, mut written_off) = (None, Vec::new());
        for (who, rate, _) in keys {
            let Some(rate) = rate else { continue };
            let key = (who, class);
            let Some(bucket) = buckets.get_mut(&key) else { continue };
            bucket.level -= 1.0;
            state = state.or(Some(told(bucket, rate)));
            let piece = f64::from(rate.burst) * PIECE;
            let level = (bucket.level - piece).max(0.0);
            if bucket.level < bucket.recorded {
                bucket.writes += 1;
                written_off.push(WriteOff { key, write: bucket.writes, level });
            } else if bucket.level > bucket.recorded + 2.0 * piece + 1.0 {
                // That more is in it than the disk says is nothing to wait for.
                (bucket.writes, bucket.recorded) = (bucket.writes + 1, level);
                self.store.apply_relaxed(put(key, level).into_iter().collect());
            }
        }
        Ok((state, written_off))
    }
}

/// The record of a bucket that has one.
fn put(key: Key, level: f64) -> Option<Change> {
    Some(Change::PutRecord { kind: KIND, id: id_of(key)?, body: level.to_string() })
}

fn rate(table: &RateTable, class: RateClass) -> Option<Rate> {
    match class {
        RateClass::Create => table.create,
        RateClass::Exec => table.exec,
        RateClass::Default => table.default,
        RateClass::Login => table.login,
        RateClass::Stream => table.stream,
    }
}

fn full(rate: Rate, now: Timestamp) -> Bucket {
    let level = f64::from(rate.burst);
    Bucket { level, at: now, recorded: level, writes: 0 }
}

/// What is in it after the time that has passed. A clock that goes backwards adds nothing.
fn filled(bucket: &Bucket, rate: Rate, now: Timestamp) -> f64 {
    let seconds = now.duration_since(bucket.at).as_secs_f64().max(0.0);
    (bucket.level + seconds * f64::from(rate.per_second)).min(f64::from(rate.burst))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by the burst")]
fn told(bucket: &Bucket, rate: Rate) -> RateState {
    let missing = f64::from(rate.burst) - bucket.level;
    RateState {
        limit: rate.burst,
        remaining: bucket.level.max(0.0) as u32,
        reset_s: (missing / f64::from(rate.per_second)).ceil().max(0.0) as u64,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most some seconds")]
fn limited(class: RateClass, rate: Rate, whose: &str, level: f64) -> Error {
    let wait_ms = ((1.0 - level) / f64::from(rate.per_second) * 1000.0).ceil() as u64;
    let mut error = Error::new(
        ErrorCode::RateLimited,
        format!(
            "too many calls of the class {}: {whose} limit is {} a second, {} at once",
            class.as_str(),
            rate.per_second,
            rate.burst
        ),
    )
    .hint("wait as long as Retry-After says");
    error.retry_after_ms = Some(wait_ms.max(1));
    error
}

/// The id of its record, where it has one.
fn id_of((who, class): Key) -> Option<String> {
    match who {
        Who::Principal(principal) => Some(format!("{principal}/{}", class.as_str())),
        Who::Address(_) => None,
        Who::Everybody => Some(format!("all/{}", class.as_str())),
    }
}

fn key_of(id: &str) -> Option<Key> {
    let (who, class) = id.split_once('/')?;
    let class = RateClass::ALL.iter().copied().find(|known| known.as_str() == class)?;
    let who = if who == "all" { Who::Everybody } else { Who::Principal(who.parse().ok()?) };
    Some((who, class))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn config(create: Rate, global: Option<Rate>) -> RatesConfig {
        let mut config = RatesConfig::default();
        config.tokens.create = Some(create);
        config.global.create = global;
        config
    }

    async fn store(dir: &tempfile::TempDir) -> Store {
        use std::os::unix::fs::PermissionsExt;
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(dir.path(), private).expect("private");
        Store::open(dir.path().join("state.db")).await.expect("a store")
    }

    async fn calls(rates: &Rates, who: PrincipalId, now: Timestamp) -> u32 {
        let mut made = 0;
        while rates.take(who, false, RateClass::Create, now).await.is_ok() {
            made += 1;
        }
        made
    }

    #[tokio::test]
    async fn a_burst_then_the_rate_and_a_restart_gives_nothing_away() {
        let dir = tempfile::tempdir().expect("a directory");
        let limits = config(Rate { per_second: 2, burst: 20 }, None);
        let now = Timestamp::from_second(1_000_000).expect("a time");
        let (who, other) = (PrincipalId::generate(), PrincipalId::generate());
        let store = store(&dir).await;
        let rates = Rates::open(limits.clone(), store.clone(), now).await.expect("opens");
        assert_eq!(calls(&rates, who, now).await, 20);
        let refused = rates.take(who, false, RateClass::Create, now).await.expect_err("empty");
        assert_eq!((refused.code, refused.retry_after_ms), (ErrorCode::RateLimited, Some(500)));
        let later = now + SignedDuration::from_secs(3);
        assert_eq!(calls(&rates, who, later).await, 6);
        assert_eq!(calls(&rates, other, later).await, 20, "a bucket of its own");
        store.flush().await.expect("written");
        drop(rates);
        let again = Rates::open(limits, store.clone(), later).await.expect("opens again");
        assert_eq!(calls(&again, who, later).await, 0, "as empty as it was left");
        store.close().await;
    }

    #[tokio::test]
    async fn a_crash_at_any_call_never_leaves_more_than_was_there() {
        let limits = config(Rate { per_second: 1, burst: 50 }, None);
        let now = Timestamp::from_second(1_000_000).expect("a time");
        for used in [1, 4, 5, 6, 17, 49] {
            let dir = tempfile::tempdir().expect("a directory");
            let who = PrincipalId::generate();
            let store = store(&dir).await;
            let rates = Rates::open(limits.clone(), store.clone(), now).await.expect("opens");
            for _ in 0..used {
                rates.take(who, false, RateClass::Create, now).await.expect("there is room");
            }
            // Not flushed: what a kill would have lost is not read again.
            let again = Rates::open(limits.clone(), store.clone(), now).await.expect("opens again");
            assert!(calls(&again, who, now).await <= 50 - used, "after {used}");
            store.close().await;
        }
    }

    #[tokio::test]
    async fn logins_are_counted_by_address_and_a_network_is_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir).await;
        let mut limits = RatesConfig::default();
        limits.tokens.login = Some(Rate { per_second: 1, burst: 3 });
        limits.global.login = Some(Rate { per_second: 1, burst: 8 });
        let now = Timestamp::from_second(1_000_000).expect("a time");
        let rates = Rates::open(limits.clone(), store.clone(), now).await.expect("opens");
        let tries = async |rates: &Rates, from: &str| {
            let from = Some(from.parse().expect("an address"));
            let mut made = 0;
            while made < 10 && rates.take_login(from, now).await.is_ok() {
                made += 1;
            }
            made
        };
        assert_eq!(tries(&rates, "192.0.2.1").await, 3);
        assert_eq!(tries(&rates, "::ffff:192.0.2.1").await, 0, "the same address");
        assert_eq!(tries(&rates, "2001:db8::1").await, 3);
        assert_eq!(tries(&rates, "2001:db8::ffff:1").await, 0, "the same network");
        let refused = rates.take_login(Some("192.0.2.1".parse().expect("an address")), now).await;
        assert_eq!(refused.expect_err("empty").retry_after_ms, Some(1000));
        assert_eq!(tries(&rates, "192.0.2.2").await, 2, "everybody's is empty");
        store.flush().await.expect("written");
        let records = store.records(KIND).await.expect("records");
        assert!(records.iter().all(|(id, _)| id == "all/login"), "{records:?}");
        let again = Rates::open(limits, store.clone(), now).await.expect("opens again");
        assert_eq!(tries(&again, "192.0.2.9").await, 0, "everybody's is kept");
        store.close().await;
    }

    #[tokio::test]
    async fn the_ceiling_holds_for_all_together() {
        let dir = tempfile::tempdir().expect("a directory");
        let all = Some(Rate { per_second: 1, burst: 15 });
        let now = Timestamp::from_second(1_000_000).expect("a time");
        let store = store(&dir).await;
        let limits = config(Rate { per_second: 1, burst: 10 }, all);
        let rates = Rates::open(limits, store.clone(), now).await.expect("opens");
        assert_eq!(calls(&rates, PrincipalId::generate(), now).await, 10);
        assert_eq!(calls(&rates, PrincipalId::generate(), now).await, 5);
        let back = now - SignedDuration::from_secs(3600);
        assert_eq!(
            calls(&rates, PrincipalId::generate(), back).await,
            0,
            "a clock set back adds nothing"
        );
        store.close().await;
    }
}
