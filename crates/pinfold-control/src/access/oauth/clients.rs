//! Clients that registered themselves (RFC 7591): public ones, which have no secret. What they say
//! of themselves is nobody's word; a person decides, and PKCE ties an answer to who asked.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use pinfold_store::{Change, Store};
use pinfold_types::{Error, ErrorCode, Result};
use serde::{Deserialize, Serialize};

use super::{Client, redirect, shown_name};
use crate::access::drawn::random_text;

const KIND: &str = "oauth_client";
/// What every id begins with.
const PREFIX: &str = "pfc_";
/// Most clients.
const MOST: usize = 1000;
/// Most places that one may be sent back to.
const MOST_REDIRECTS: usize = 16;
/// A client that nobody has let in is forgotten after this long.
const UNUSED: SignedDuration = SignedDuration::from_hours(24);
/// When there are too many, one that nobody has let in makes way after this long.
const HURRIED: SignedDuration = SignedDuration::from_mins(10);
/// A client that was let in and has nothing any more is forgotten after this long.
const IDLE: SignedDuration = SignedDuration::from_hours(24 * 90);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Body {
    name: String,
    redirects: Vec<String>,
    created_at: Timestamp,
    /// When somebody last let it in.
    used_at: Option<Timestamp>,
}

/// Registered clients: in memory to decide by, in the store to last.
#[derive(Debug)]
pub(crate) struct Clients {
    known: Mutex<HashMap<String, Body>>,
    store: Store,
}

impl Clients {
    pub(crate) async fn open(store: Store) -> Result<Self> {
        let mut known = HashMap::new();
        for (id, body) in store.records(KIND).await? {
            match serde_json::from_str(&body) {
                Ok(body) => drop(known.insert(id, body)),
                // It can register again.
                Err(err) => tracing::warn!(id, %err, "the record of a client is damaged"),
            }
        }
        Ok(Self { known: Mutex::new(known), store })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Body>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A registered client.
    pub(crate) fn find(&self, id: &str) -> Option<Client> {
        let known = self.lock();
        let body = known.get(id)?;
        Some(Client {
            id: id.to_owned(),
            name: body.name.clone(),
            host: None,
            redirects: body.redirects.clone(),
        })
    }

    /// Registers one. `has_grants` says whether something stands that was granted to a client.
    pub(crate) async fn register(
        &self,
        name: &str,
        redirects: &[String],
        schemes: &[String],
        has_grants: impl Fn(&str) -> bool,
        now: Timestamp,
    ) -> Result<Client> {
        check_redirects(redirects, schemes)?;
        let id = random_text::<16>(PREFIX)?;
        let name = match shown_name(name) {
            name if name.is_empty() => "a client without a name".to_owned(),
            name => name,
        };
        let body = Body { name, redirects: redirects.to_vec(), created_at: now, used_at: None };
        let text = serde_json::to_string(&body).map_err(Error::internal)?;
        let mut changes = {
            let mut known = self.lock();
            let gone = gone(&known, has_grants, now)?;
            for id in &gone {
                known.remove(id);
            }
            known.insert(id.clone(), body);
            gone.into_iter().map(|id| Change::DeleteRecord { kind: KIND, id }).collect::<Vec<_>>()
        };
        changes.push(Change::PutRecord { kind: KIND, id: id.clone(), body: text });
        if let Err(error) = self.store.apply(changes).await {
            self.lock().remove(&id);
            return Err(error);
        }
        self.find(&id).ok_or_else(|| Error::internal("a client was forgotten at once"))
    }

    /// Notes that somebody let it in. One that is known by its document has no record.
    pub(crate) async fn used(&self, id: &str, now: Timestamp) -> Result<()> {
        let change = {
            let mut known = self.lock();
            let Some(body) = known.get_mut(id) else { return Ok(()) };
            body.used_at = Some(now);
            let body = serde_json::to_string(body).map_err(Error::internal)?;
            Change::PutRecord { kind: KIND, id: id.to_owned(), body }
        };
        self.store.apply(vec![change]).await
    }
}

/// Refuses what no client is sent back to.
pub(crate) fn check_redirects(redirects: &[String], schemes: &[String]) -> Result<()> {
    let bad = |why: String| Err(Error::new(ErrorCode::InvalidArgument, why));
    if redirects.is_empty() || redirects.len() > MOST_REDIRECTS {
        return bad(format!("a client has 1 to {MOST_REDIRECTS} redirect_uris"));
    }
    for uri in redirects {
        if let Err(why) = redirect::check(uri, schemes) {
            let uri = pinfold_types::name::excerpt(uri);
            return bad(format!("redirect_uri {uri:?} is refused: {why}"));
        }
    }
    Ok(())
}

/// Clients that make way for a new one.
fn gone(
    known: &HashMap<String, Body>,
    has_grants: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Result<Vec<String>> {
    let age = |at: Timestamp| now.duration_since(at);
    let over = |(id, body): &(&String, &Body)| match body.used_at {
        None => age(body.created_at) > UNUSED,
        Some(at) => age(at) > IDLE && !has_grants(id),
    };
    let mut gone: Vec<String> = known.iter().filter(over).map(|(id, _)| id.clone()).collect();
    if known.len() - gone.len() >= MOST {
        let hurried = known
            .iter()
            .filter(|(_, body)| body.used_at.is_none() && age(body.created_at) > HURRIED);
        if let Some((id, _)) = hurried.min_by_key(|(_, body)| body.created_at) {
            gone.push(id.clone());
        } else {
            let mut error = Error::new(
                ErrorCode::RateLimited,
                format!("there are {MOST} registered clients already"),
            )
            .hint("later: those that nobody lets in are forgotten");
            error.retry_after_ms = Some(600_000);
            return Err(error);
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    async fn store(dir: &tempfile::TempDir) -> Store {
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(dir.path(), private).expect("private");
        Store::open(dir.path().join("state.db")).await.expect("a store")
    }

    fn here() -> Vec<String> {
        vec!["http://127.0.0.1/cb".into()]
    }

    #[tokio::test]
    async fn clients_are_kept_while_they_are_of_use() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir).await;
        let now = Timestamp::from_second(1_000_000).expect("a time");
        let clients = Clients::open(store.clone()).await.expect("opens");
        let register = async |now| clients.register("c", &here(), &[], |_| false, now).await;
        let unused = register(now).await.expect("registered");
        let used = register(now).await.expect("registered");
        clients.used(&used.id, now).await.expect("noted");
        let again = Clients::open(store.clone()).await.expect("opens");
        assert_eq!(again.find(&used.id), Some(used.clone()), "it outlives the server");
        register(now + UNUSED + SignedDuration::from_secs(1)).await.expect("another");
        assert_eq!((clients.find(&unused.id), clients.find(&used.id)), (None, Some(used.clone())));
        register(now + IDLE + SignedDuration::from_secs(1)).await.expect("another");
        assert_eq!(clients.find(&used.id), None);
        store.close().await;
    }

    #[tokio::test]
    async fn there_are_only_so_many() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir).await;
        let now = Timestamp::from_second(1_000_000).expect("a time");
        let clients = Clients::open(store.clone()).await.expect("opens");
        for place in 0..MOST {
            let body = Body { name: "c".into(), redirects: here(), created_at: now, used_at: None };
            clients.lock().insert(format!("pfc_{place}"), body);
        }
        let refused = clients.register("c", &here(), &[], |_| false, now).await;
        assert_eq!(refused.expect_err("full").code, ErrorCode::RateLimited);
        let later = now + HURRIED + SignedDuration::from_secs(1);
        clients.register("c", &here(), &[], |_| false, later).await.expect("one makes way");
        assert_eq!(clients.lock().len(), MOST);
        let many = vec![here()[0].clone(); MOST_REDIRECTS + 1];
        for bad in [vec![], many, vec!["javascript:x".into()]] {
            assert!(clients.register("c", &bad, &[], |_| false, later).await.is_err());
        }
        store.close().await;
    }
}
