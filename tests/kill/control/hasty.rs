//! A caller that calls as fast as it can: however often the server is killed, it gets what a full
//! bucket holds and what flows in while a server runs, and nothing more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;

use super::{
    promise::Told,
    seat::{Ask, Seat},
};

/// Calls of the class `exec` that a full bucket holds.
pub(crate) const BURST: u64 = 60;
/// Calls that flow in each second.
pub(crate) const PER_SECOND: u64 = 1;

/// What it saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) told: Vec<Told>,
    /// Buckets that were emptied across a kill.
    pub(crate) emptied: u64,
}

/// Calls until `stop`.
pub(crate) fn run(seat: &Arc<Seat>, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        one_bucket(seat, stop, &mut seen);
    }
    seen
}

/// Empties the bucket of a new principal, over at least one kill.
fn one_bucket(seat: &Arc<Seat>, stop: &AtomicBool, seen: &mut Seen) {
    let made = Ask::new("POST", "/api/v1/tokens").json(&json!({ "name": "hasty" }));
    let Some(made) = made.send(seat, None) else { return };
    assert!(made.is_ok(), "{} {}", made.status, made.text());
    let token = made.json()["token"].as_str().expect("a token").to_owned();
    seen.told.push(Told { request: made.request, operation: "token.create", ok: true });
    let began = seat.ran();
    let (mut charged, mut answered_by) = (0, None);
    // The call is counted before anything is looked for.
    let ask = Ask::new("POST", "/api/v1/workspaces/there-is-none/execs")
        .json(&json!({ "command": { "shell": "true" } }));
    while !stop.load(Ordering::Relaxed) {
        let Some(answer) = ask.send(seat, Some(&token)) else { continue };
        let first = *answered_by.get_or_insert(answer.generation);
        if answer.status == 429 {
            if answer.generation > first {
                seen.emptied += 1;
                return;
            }
            // Nothing flows in that is worth asking for: until the next kill.
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        assert_eq!(answer.status, 404, "{}", answer.text());
        seen.told.push(Told { request: answer.request, operation: "exec.start", ok: false });
        charged += 1;
        let since = seat.ran().saturating_sub(began);
        let most = BURST + PER_SECOND * (since.as_secs() + 1);
        assert!(
            charged <= most,
            "{charged} calls in {since:?} of a bucket of {BURST} and {PER_SECOND} a second, \
             servers {first} to {}",
            answer.generation
        );
    }
}
