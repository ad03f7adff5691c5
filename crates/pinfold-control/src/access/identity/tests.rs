//! Browsers and grants over time and over restarts.

use std::os::unix::fs::PermissionsExt;

use jiff::{SignedDuration, Timestamp};
use pinfold_auth::{
    Authenticator, CredentialClass, PeerCredentials, Principal, ScopeSet, Surface, TokenKey,
};
use pinfold_store::Store;
use pinfold_types::{
    access::{CreateToken, Quota, Reach},
    config::{LoginConfig, OauthConfig},
};

use super::{Denied, Grantee, Identity, Issued, Redeemed, Renewed};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const BACK: &str = "http://127.0.0.1/cb";

struct House {
    dir: tempfile::TempDir,
    store: Store,
    identity: Identity,
    now: Timestamp,
}

impl House {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(dir.path(), private).expect("private");
        let (store, identity) = open(&dir).await;
        Self { dir, store, identity, now: Timestamp::from_second(1_000_000).expect("a time") }
    }

    /// What a server finds that starts after this one was killed.
    async fn again(self) -> Self {
        self.store.flush().await.expect("written");
        self.store.close().await;
        let (store, identity) = open(&self.dir).await;
        Self { store, identity, ..self }
    }

    fn owner(&self) -> Principal {
        self.identity.authenticator().peer(PeerCredentials { uid: 7 }).expect("the owner")
    }

    fn later(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    async fn browser(&self, person: &Principal) -> (String, Principal) {
        let life = LoginConfig { idle_ms: 100_000, max_ms: 1_000_000, ..LoginConfig::default() };
        let made = self.identity.sign_in(person, &life, self.now).await.expect("signed in");
        let text = made.token.expect("a text");
        let who = self.identity.bearer(&text, Surface::Http, self.now).expect("stands");
        (text, who)
    }

    async fn code(&self, person: &Principal) -> String {
        let grantee = Grantee {
            client: "c".into(),
            shown: "C".into(),
            name: "mcp-c".into(),
            redirect: BACK.into(),
            challenge: CHALLENGE.into(),
            resource: "http://localhost/mcp".into(),
            scopes: ScopeSet::parse(["workspace:read", "exec:run"]).expect("scopes"),
        };
        let (code, info) =
            self.identity.consent(person, grantee, &life(), self.now).await.expect("granted");
        assert_eq!(info.class, "refresh");
        code.to_string()
    }

    async fn exchange(&self, code: &str) -> Result<Issued, Denied> {
        let shown = Redeemed {
            code,
            client: "c",
            redirect: Some(BACK),
            verifier: VERIFIER,
            resource: None,
        };
        self.identity.exchange(&shown, |_| true, &life(), self.now).await
    }

    async fn refresh(&self, token: &str) -> Result<Issued, Denied> {
        let shown = Renewed { token, client: "c", scopes: None, resource: None };
        self.identity.refresh(&shown, |_| true, &life(), self.now).await
    }

    fn opens(&self, token: &str) -> bool {
        self.identity.bearer(token, Surface::Mcp, self.now).is_ok()
    }
}

async fn open(dir: &tempfile::TempDir) -> (Store, Identity) {
    let store = Store::open(dir.path().join("state.db")).await.expect("a store");
    let authenticator = Authenticator::new(7, TokenKey::new([1; 32]));
    let identity = Identity::open(authenticator, Quota::default(), store.clone());
    (store, identity.await.expect("opens"))
}

fn life() -> OauthConfig {
    OauthConfig { access_ms: 10_000, idle_ms: 100_000, max_ms: 1_000_000, ..OauthConfig::default() }
}

#[tokio::test]
async fn a_browser_ends_when_it_is_idle_and_when_it_is_old() {
    let mut house = House::new().await;
    let (token, who) = house.browser(&house.owner()).await;
    assert_eq!(who.class(), CredentialClass::Browser);
    for _ in 0..11 {
        house.later(90);
        assert!(house.identity.bearer(&token, Surface::Http, house.now).is_ok(), "in use");
    }
    house.later(20);
    assert!(house.identity.bearer(&token, Surface::Http, house.now).is_err(), "too old");
    let (token, who) = house.browser(&house.owner()).await;
    let ended = house.identity.ended(&who);
    house.later(99);
    house.identity.sweep(house.now);
    assert!(!ended.is_cancelled());
    house.later(1);
    house.identity.sweep(house.now);
    assert!(ended.is_cancelled(), "idle, and its streams with it");
    assert!(house.identity.bearer(&token, Surface::Http, house.now).is_err());
    let mut house = house.again().await;
    assert!(house.identity.bearer(&token, Surface::Http, house.now).is_err(), "for good");
    let (token, _) = house.browser(&house.owner()).await;
    house.later(50);
    let house = house.again().await;
    assert!(house.identity.bearer(&token, Surface::Http, house.now).is_ok(), "after a restart");
    house.store.close().await;
}

#[tokio::test]
async fn a_grant_outlives_the_browser_and_not_the_token_behind_it() {
    let house = House::new().await;
    let request =
        CreateToken { name: "laptop".into(), reach: Reach::All, ..CreateToken::default() };
    let made = house.identity.mint(&house.owner(), &request, [].into(), None, house.now).await;
    let made = made.expect("a token");
    let laptop = house
        .identity
        .bearer(&made.token.expect("a text"), Surface::Http, house.now)
        .expect("stands");
    let (_, browser) = house.browser(&laptop).await;
    let issued = house.exchange(&house.code(&browser).await).await.expect("tokens");
    house.identity.end_browsers(laptop.id(), house.now).await.expect("signed out");
    assert!(house.opens(&issued.access));
    let issued = house.refresh(&issued.refresh).await.expect("tokens");
    house.identity.revoke(made.info.id, house.now).await.expect("revoked");
    assert!(!house.opens(&issued.access));
    assert!(house.refresh(&issued.refresh).await.is_err());
    house.store.close().await;
}

#[tokio::test]
async fn codes_and_tokens_stand_for_their_time() {
    let mut house = House::new().await;
    let code = house.code(&house.owner()).await;
    house.later(60);
    assert!(matches!(house.exchange(&code).await, Err(Denied::Invalid(_))), "a minute");
    let issued = house.exchange(&house.code(&house.owner()).await).await.expect("tokens");
    assert_eq!(issued.expires_in, SignedDuration::from_secs(10));
    house.later(10);
    assert!(!house.opens(&issued.access), "an access token");
    house.later(89);
    let issued = house.refresh(&issued.refresh).await.expect("just in time");
    house.later(100);
    assert!(matches!(house.refresh(&issued.refresh).await, Err(Denied::Invalid(_))), "idle");
    let mut issued = house.exchange(&house.code(&house.owner()).await).await.expect("tokens");
    for _ in 0..11 {
        house.later(90);
        issued = house.refresh(&issued.refresh).await.expect("in use");
    }
    house.later(10);
    assert!(matches!(house.refresh(&issued.refresh).await, Err(Denied::Invalid(_))), "too old");
    house.store.close().await;
}

#[tokio::test]
async fn what_was_used_stays_used_after_a_restart() {
    let house = House::new().await;
    let code = house.code(&house.owner()).await;
    let house = house.again().await;
    let first = house.exchange(&code).await.expect("a code outlives the server");
    let house = house.again().await;
    assert!(house.opens(&first.access));
    let second = house.refresh(&first.refresh).await.expect("tokens");
    let house = house.again().await;
    assert!(house.opens(&second.access));
    assert!(matches!(house.refresh(&first.refresh).await, Err(Denied::Reused(..))));
    let house = house.again().await;
    assert!(!house.opens(&second.access), "the grant ended for good");
    assert!(house.refresh(&second.refresh).await.is_err());

    let code = house.code(&house.owner()).await;
    let issued = house.exchange(&code).await.expect("tokens");
    let house = house.again().await;
    assert!(matches!(house.exchange(&code).await, Err(Denied::Reused(..))));
    assert!(!house.opens(&issued.access));
    let texts = house.store.records("token").await.expect("records");
    for text in [code.as_str(), issued.access.as_str(), issued.refresh.as_str()] {
        let secret = text.rsplit('_').next().expect("a secret");
        assert!(texts.iter().all(|(_, body)| !body.contains(&secret[..8])), "kept in the clear");
    }
    house.store.close().await;
}

#[tokio::test]
async fn of_two_at_once_one_is_served_and_the_grant_ends() {
    let house = House::new().await;
    let issued = house.exchange(&house.code(&house.owner()).await).await.expect("tokens");
    let both = tokio::join!(house.refresh(&issued.refresh), house.refresh(&issued.refresh));
    let served: Vec<Issued> = [both.0, both.1].into_iter().filter_map(Result::ok).collect();
    assert_eq!(served.len(), 1);
    assert!(!house.opens(&served[0].access) && house.refresh(&served[0].refresh).await.is_err());
    house.store.close().await;
}

#[tokio::test]
async fn access_tokens_do_not_pile_up() {
    let mut house = House::new().await;
    let mut issued = house.exchange(&house.code(&house.owner()).await).await.expect("tokens");
    let first = issued.access.to_string();
    for _ in 0..20 {
        house.later(1);
        issued = house.refresh(&issued.refresh).await.expect("tokens");
    }
    assert!(!house.opens(&first) && house.opens(&issued.access));
    let listed = house.identity.tokens(|_| true);
    assert!(listed.iter().filter(|info| info.class == "mcp").count() <= 4, "{}", listed.len());
    let kept = house.store.records("token").await.expect("records").len();
    assert_eq!(kept, listed.len());
    house.store.close().await;
}
