//! The one place where a wish becomes a grant.

use pinfold_types::{Error, ErrorCode, PrincipalId, Result, SessionId, WorkspaceId, access::Reach};

use crate::{
    Caller, CredentialClass, Grant, ObjectKind, ObjectRef, Operation, OperationInfo, PrincipalKind,
};

/// What a program inside a workspace may do to that workspace, with its token (AUTH-08). Anything
/// that is not here is refused, also what is added to the table later.
pub const SELF_OPERATIONS: &[&str] = &[
    "workspace.read",
    "workspace.stats",
    "workspace.logs",
    "workspace.fork",
    "workspace.snapshots",
    "snapshot.create",
    "session.whoami",
];

/// What a credential that is bound to workspaces may still change besides them.
const BOUND_OPERATIONS: &[&str] = &[
    "token.create",
    "login.create",
    "login.end",
    "session.create",
    "session.ticket",
    "session.adopt",
    "mcp.connect",
];

/// What makes credentials of another class. A credential for MCP over HTTP is for nothing else, and
/// so cannot be traded for one that is (AX-10).
const MAKES_CREDENTIALS: &[&str] =
    &["token.create", "workspace.token", "login.create", "session.ticket"];

/// Scopes of what cannot be cut to what one caller sees.
const OF_EVERYBODY: &[&str] = &["audit:read", "backup:create"];

/// What is known about an object, looked up by the control plane.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its id, where the reference meant something that exists.
    pub id: Option<String>,
    /// Its principal, that one's maker, and so on to the owner of the server. Empty: nobody's,
    /// such as an image, which all share.
    pub principals: Vec<PrincipalId>,
    /// The workspace that it is, or is a snapshot of.
    pub workspace: Option<WorkspaceId>,
    /// The live session that it belongs to, which is not the caller's.
    pub held_by: Option<SessionId>,
}

/// Decides. Everything that no rule allows is refused.
#[derive(Clone, Debug)]
pub struct Authorizer {
    owner_uid: u32,
}

impl Authorizer {
    /// The authorizer of a server that runs as `owner_uid`.
    pub const fn new(owner_uid: u32) -> Self {
        Self { owner_uid }
    }

    /// Allows the caller to do `O` on `object`, or refuses: 403 for a right that the credential
    /// lacks, 404 for an object that it does not see, in the words for one that does not exist;
    /// 409 for one that another session is at work on.
    pub fn authorize<O: Operation>(
        &self,
        caller: &Caller,
        object: ObjectRef,
        facts: Facts,
    ) -> Result<Grant<O>> {
        let info = &O::INFO;
        if object.kind() != info.object {
            return Err(refused(&format!("{} is not for a {}", info.name, object.kind().as_str())));
        }
        let rule = self.decide(caller, info, &object, &facts)?;
        if let Some(session) =
            facts.held_by.filter(|_| info.mutates() && info.object == ObjectKind::Workspace)
        {
            return Err(Error::new(
                ErrorCode::Conflict,
                format!("{object} belongs to session {session}, which is at work"),
            )
            .hint(format!("take it over first: pinfold session adopt {}", object.reference())));
        }
        // From here on the object is its id: a name may mean another one by the time it is used.
        let object = match facts.id {
            Some(id) => object.by_id(id),
            None => object,
        };
        Ok(Grant::new(caller.clone(), object, rule, facts.principals.first().copied()))
    }

    fn decide(
        &self,
        caller: &Caller,
        info: &OperationInfo,
        object: &ObjectRef,
        facts: &Facts,
    ) -> Result<&'static str> {
        let principal = caller.principal();
        let authority = principal.authority();
        match principal.kind() {
            PrincipalKind::Owner { uid } if uid == self.owner_uid => return Ok("owner"),
            PrincipalKind::Owner { uid: 0 } => return Ok("root"),
            PrincipalKind::Owner { .. } => {
                return Err(refused(&format!("no rule lets {} do {}", principal.id(), info.name)));
            }
            PrincipalKind::Token | PrincipalKind::Workspace(_) => {}
        }
        if principal.class() == CredentialClass::Mcp && MAKES_CREDENTIALS.contains(&info.name) {
            return Err(Error::new(
                ErrorCode::Forbidden,
                format!(
                    "a credential for MCP may not {}: it opens MCP and nothing else",
                    info.name
                ),
            )
            .hint("use a token of your own: pinfold token create"));
        }
        if !authority.has(info) {
            return Err(Error::new(
                ErrorCode::Forbidden,
                format!("this credential may not {}: it lacks the scope {}", info.name, info.scope),
            )
            .hint("ask whoever made the token for one with that scope"));
        }
        let shared = matches!(info.object, ObjectKind::Server | ObjectKind::Image);
        let bound = authority.workspaces.is_some();
        if shared && bound && info.mutates() && !BOUND_OPERATIONS.contains(&info.name) {
            return Err(Error::new(
                ErrorCode::Forbidden,
                format!("this credential is for some workspaces only, and {} is not", info.name),
            )
            .hint("use one that is bound to no workspace"));
        }
        if OF_EVERYBODY.contains(&info.scope) && authority.reach != Reach::All {
            return Err(Error::new(
                ErrorCode::Forbidden,
                format!("{} tells of everybody, and this credential sees only its own", info.name),
            )
            .hint("pinfold token create --reach all makes one that sees everybody's"));
        }
        if info.object == ObjectKind::Server {
            return Ok("scope");
        }
        if facts.principals.is_empty() && facts.workspace.is_none() {
            // Shared by all, such as an image; or there is no such thing, which the service says.
            return Ok("shared");
        }
        let bound = authority.workspaces.as_ref().is_none_or(|bound| {
            facts.workspace.is_some_and(|workspace| bound.contains(&workspace))
        });
        let seen = authority.reach == Reach::All || facts.principals.contains(&principal.id());
        match principal.kind() {
            _ if !bound => Err(unseen(object)),
            PrincipalKind::Workspace(own) if facts.workspace == Some(own) => Ok("itself"),
            _ if seen && authority.reach == Reach::All => Ok("reach"),
            _ if seen => Ok("own"),
            _ => Err(unseen(object)),
        }
    }
}

/// The words for an object that does not exist, and for one that the caller does not see.
pub fn unseen(object: &ObjectRef) -> Error {
    let list = match object.kind() {
        ObjectKind::Server | ObjectKind::Workspace => "pinfold ls",
        ObjectKind::Snapshot => "pinfold snapshot ls",
        ObjectKind::Image => "pinfold image ls",
        ObjectKind::Token => "pinfold token ls",
        ObjectKind::Session => "pinfold session ls",
    };
    Error::not_found(object.kind().as_str(), pinfold_types::name::excerpt(object.reference()))
        .hint(format!("{list} lists what exists"))
}

pub(crate) fn refused(why: &str) -> Error {
    Error::new(ErrorCode::Forbidden, "this is not allowed to you")
        .hint("ask the user who runs this server; a server of your own: pinfold up")
        .context(why)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        Authenticator, Authority, CredentialClass, PeerCredentials, Principal, ScopeSet, Surface,
        Token, TokenKey, TokenRecord, ops,
    };

    fn owner(uid: u32) -> Caller {
        let authenticator = Authenticator::new(uid, TokenKey::new([0; 32]));
        Caller::new(authenticator.peer(PeerCredentials { uid }).expect("in"), Surface::Unix)
    }

    fn holder(authority: Authority, workspace: Option<WorkspaceId>) -> Principal {
        holder_of(CredentialClass::Api, Surface::Http, authority, workspace)
    }

    fn holder_of(
        class: CredentialClass,
        surface: Surface,
        authority: Authority,
        workspace: Option<WorkspaceId>,
    ) -> Principal {
        let authenticator = Authenticator::new(1000, TokenKey::new([0; 32]));
        let token = Token::generate(class).expect("random");
        let record = TokenRecord {
            id: token.id(),
            class: token.class(),
            hash: authenticator.hash(&token),
            principal: PrincipalId::generate(),
            name: "t".into(),
            authority,
            workspace,
            session: None,
            grant: None,
            expires_at: None,
            revoked_at: None,
        };
        authenticator
            .bearer(&token.reveal(), surface, Timestamp::UNIX_EPOCH, |_| Some(&record))
            .expect("stands")
    }

    #[test]
    fn a_credential_for_mcp_makes_no_other() {
        let mcp = holder_of(CredentialClass::Mcp, Surface::Mcp, Authority::all(), None);
        let caller = Caller::new(mcp, Surface::Mcp);
        let authorizer = Authorizer::new(1000);
        let server = ObjectRef::server;
        let refusals = [
            authorizer.authorize::<ops::TokenCreate>(&caller, server(), Facts::default()).map(drop),
            authorizer
                .authorize::<ops::TicketCreate>(&caller, server(), Facts::default())
                .map(drop),
            authorizer.authorize::<ops::LoginCreate>(&caller, server(), Facts::default()).map(drop),
            authorizer
                .authorize::<ops::WorkspaceToken>(
                    &caller,
                    ObjectRef::workspace("a"),
                    Facts::default(),
                )
                .map(drop),
        ];
        for refused in refusals {
            assert_eq!(refused.expect_err("another class").code, ErrorCode::Forbidden);
        }
        let looks = authorizer.authorize::<ops::WhoAmI>(&caller, server(), Facts::default());
        assert!(looks.is_ok(), "what makes none is judged as ever");
        let known = |name: &&str| crate::OPERATIONS.iter().any(|op| op.name == *name);
        assert!(MAKES_CREDENTIALS.iter().chain(BOUND_OPERATIONS).all(known));
    }

    fn facts(principals: Vec<PrincipalId>) -> Facts {
        let workspace = WorkspaceId::generate();
        Facts {
            id: Some(workspace.to_string()),
            principals,
            workspace: Some(workspace),
            held_by: None,
        }
    }

    fn stop(caller: &Principal, facts: Facts) -> Result<Grant<ops::WorkspaceStop>> {
        let caller = Caller::new(caller.clone(), Surface::Http);
        Authorizer::new(1000).authorize(&caller, ObjectRef::workspace("a"), facts)
    }

    #[test]
    fn the_owner_and_root_are_in_and_everybody_else_is_out() {
        let authenticator = Authenticator::new(1000, TokenKey::new([0; 32]));
        for uid in [1000, 0] {
            let principal = authenticator.peer(PeerCredentials { uid }).expect("in");
            assert_eq!(principal.kind(), PrincipalKind::Owner { uid });
        }
        for uid in [1, 999, 1001, 65_534, u32::MAX] {
            let refused = authenticator.peer(PeerCredentials { uid }).expect_err("out");
            assert_eq!(refused.code, ErrorCode::Forbidden);
        }
        let wish = || ObjectRef::workspace("a");
        let granted = Authorizer::new(1001).authorize::<ops::WorkspaceStop>(
            &owner(1000),
            wish(),
            Facts::default(),
        );
        assert_eq!(granted.expect_err("another server's owner").code, ErrorCode::Forbidden);
        let granted = Authorizer::new(1000).authorize::<ops::ImageRemove>(
            &owner(1000),
            wish(),
            Facts::default(),
        );
        assert_eq!(granted.expect_err("not an image").code, ErrorCode::Forbidden);
    }

    #[test]
    fn a_grant_names_who_and_what() {
        let facts = facts(vec![]);
        let id = facts.id.clone().expect("an id");
        let wish = ObjectRef::workspace("fix-42");
        let grant = Authorizer::new(7)
            .authorize::<ops::WorkspaceStop>(&owner(7), wish, facts)
            .expect("the owner may");
        assert_eq!(grant.object().reference(), id, "the object, whatever is called so later");
        assert_eq!(grant.rule(), "owner");
        assert!(format!("{grant:?}").contains("workspace.stop on workspace ws_"));
    }

    #[test]
    fn what_is_not_seen_reads_like_what_is_not_there() {
        let own = Authority { reach: Reach::Own, ..Authority::all() };
        let me = holder(own.clone(), None);
        let foreign = stop(&me, facts(vec![PrincipalId::generate()])).expect_err("not mine");
        let nothing = unseen(&ObjectRef::workspace("a"));
        assert_eq!(
            (foreign.code, foreign.message, foreign.hint),
            (ErrorCode::NotFound, nothing.message, nothing.hint)
        );
        assert_eq!(stop(&me, facts(vec![me.id()])).expect("mine").rule(), "own");
        let below = facts(vec![PrincipalId::generate(), me.id(), PrincipalId::generate()]);
        assert_eq!(stop(&me, below).expect("of one that it made").rule(), "own");
        let all = holder(Authority::all(), None);
        assert_eq!(stop(&all, facts(vec![PrincipalId::generate()])).expect("all").rule(), "reach");
        let bound = Authority { workspaces: Some([WorkspaceId::generate()].into()), ..own };
        let bound = holder(bound, None);
        let mine = stop(&bound, facts(vec![bound.id()])).expect_err("bound to another");
        assert_eq!(mine.code, ErrorCode::NotFound);
    }

    #[test]
    fn a_missing_scope_is_named() {
        let read = ScopeSet::parse(["workspace:read"]).expect("a scope");
        let me = holder(Authority { scopes: read, ..Authority::all() }, None);
        let refused = stop(&me, facts(vec![me.id()])).expect_err("may not");
        assert_eq!(refused.code, ErrorCode::Forbidden);
        assert!(refused.message.contains("workspace:control"), "{refused}");
    }

    #[test]
    fn a_live_session_loses_nothing_to_a_change_from_another() {
        let me = holder(Authority::all(), None);
        let held = Facts { held_by: Some(SessionId::generate()), ..facts(vec![me.id()]) };
        assert_eq!(stop(&me, held.clone()).expect_err("held").code, ErrorCode::Conflict);
        let caller = Caller::new(me, Surface::Http);
        let read = Authorizer::new(1).authorize::<ops::WorkspaceRead>(
            &caller,
            ObjectRef::workspace("a"),
            held,
        );
        assert!(read.is_ok(), "looking takes nothing");
    }

    #[test]
    fn a_workspaces_token_does_a_few_things_to_itself() {
        let facts = facts(vec![PrincipalId::generate()]);
        let own = facts.workspace.expect("a workspace");
        let authority = Authority {
            reach: Reach::Own,
            workspaces: Some([own].into()),
            operations: Some(SELF_OPERATIONS),
            ..Authority::all()
        };
        let me = holder(authority, Some(own));
        let caller = Caller::new(me, Surface::Http);
        let authorizer = Authorizer::new(1000);
        let wish = || ObjectRef::workspace("a");
        let fork = authorizer.authorize::<ops::WorkspaceFork>(&caller, wish(), facts.clone());
        assert_eq!(fork.expect("itself").rule(), "itself");
        let other = self::facts(vec![PrincipalId::generate()]);
        let fork = authorizer.authorize::<ops::WorkspaceFork>(&caller, wish(), other);
        assert_eq!(fork.expect_err("another").code, ErrorCode::NotFound);
        let stop = authorizer.authorize::<ops::WorkspaceStop>(&caller, wish(), facts);
        assert_eq!(stop.expect_err("not on the list").code, ErrorCode::Forbidden);
    }

    #[test]
    fn the_list_for_a_workspaces_own_token_names_operations() {
        for name in SELF_OPERATIONS {
            assert!(crate::OPERATIONS.iter().any(|op| op.name == *name), "{name}");
        }
    }
}
