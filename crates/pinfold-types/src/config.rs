//! The configuration file `config.toml` and its defaults. Unknown keys are errors (AX-18).

mod login;
mod observe;
mod oidc;
mod origin;
mod server;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    Error, ErrorCode, ImageName,
    access::Quota,
    limits::{LimitKind, ResourceLimits},
};

pub use self::{
    login::{ANYBODY, LoginConfig, OWNER, OauthConfig, OutsideHost},
    observe::{ProfilingConfig, TelemetryConfig},
    oidc::OidcConfig,
    origin::{Host, Origin, split_port},
    server::{LogFormat, ServerConfig, StreamsConfig, TerminalsConfig, TlsMode},
};

/// The whole configuration. Read from `$PINFOLD_HOME/config.toml`; every key has a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Workspaces' defaults and ceilings.
    pub workspaces: WorkspacesConfig,
    /// Where disks live.
    pub pool: PoolConfig,
    /// Images.
    pub images: ImagesConfig,
    /// The server process.
    pub server: ServerConfig,
    /// How often callers may call.
    pub rates: RatesConfig,
    /// How much principals may hold where nothing else is said.
    pub quotas: QuotasConfig,
    /// Sessions.
    pub sessions: SessionsConfig,
    /// Browsers that are logged in.
    pub login: LoginConfig,
    /// Clients of MCP over HTTP.
    pub oauth: OauthConfig,
    /// Another authorization server than the built-in one.
    pub oidc: OidcConfig,
    /// Open streams.
    pub streams: StreamsConfig,
    /// Terminals in workspaces.
    pub terminals: TerminalsConfig,
    /// Numbers for Prometheus.
    pub metrics: MetricsConfig,
    /// Profiles of the server itself.
    pub profiling: ProfilingConfig,
    /// Spans for a collector.
    pub telemetry: TelemetryConfig,
}

/// `[workspaces]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkspacesConfig {
    /// Image used when a request names none.
    pub default_image: ImageName,
    /// Limits used when a request names none. What this machine cannot enforce is left out of
    /// the profile, and shown as absent. A key that the file leaves out keeps its default: a file
    /// that changes one limit must not lift the others.
    #[serde(deserialize_with = "over_the_profile")]
    pub defaults: ResourceLimits,
    /// Most that a request may ask for.
    pub ceilings: ResourceLimits,
    /// Most workspaces that exist at once.
    pub max_count: u64,
    /// Refuse the option `nested` to everyone.
    pub forbid_nested: bool,
    /// Refuse `allow_unlimited` to everyone.
    pub forbid_unlimited: bool,
    /// Refuse `self_access` to everyone.
    pub forbid_self_access: bool,
    /// First host uid of the ranges given to workspaces (root mode only); ranges of 65536.
    pub uid_base: u32,
    /// How many ranges.
    pub uid_ranges: u32,
    /// How many disks are kept ready.
    pub warm_disks: u32,
    /// Most workspaces that are kept booted for whoever comes next: one of each kind (image,
    /// limits, throw-away or not) that was asked for last. 0 boots each when it is asked for.
    pub warm_boots: u32,
}

/// The limits of a workspace where neither request nor configuration says otherwise.
const PROFILE: ResourceLimits = ResourceLimits {
    memory_bytes: Some(4 << 30),
    swap_bytes: Some(0),
    cpu_millis: None,
    cpu_weight: Some(100),
    pids: Some(4096),
    disk_bytes: Some(10 << 30),
    disk_inodes: None,
    open_files: Some(65_536),
    output_bytes_per_second: None,
};

fn over_the_profile<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<ResourceLimits, D::Error> {
    let mut limits = ResourceLimits::deserialize(deserializer)?;
    for kind in LimitKind::ALL {
        limits.set(*kind, limits.get(*kind).or(PROFILE.get(*kind)));
    }
    Ok(limits)
}

impl Default for WorkspacesConfig {
    fn default() -> Self {
        Self {
            default_image: "host".parse().expect("a constant name"),
            defaults: PROFILE,
            ceilings: ResourceLimits::default(),
            max_count: 1000,
            forbid_nested: false,
            forbid_unlimited: false,
            forbid_self_access: false,
            // 0x70000000: above the ranges that user records and container managers use by
            // convention, below 2^31 (systemd's UIDS-GIDS page).
            uid_base: 0x7000_0000,
            uid_ranges: 4000,
            warm_disks: 4,
            warm_boots: 2,
        }
    }
}

/// How workspace disks are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolKind {
    /// The best that this machine and user allow.
    #[default]
    Auto,
    /// A btrfs filesystem that is mounted already, at `path`.
    Btrfs,
    /// A btrfs filesystem in a file that Pinfold makes and mounts.
    BtrfsLoop,
    /// A filesystem with reflinks and project quotas (XFS), at `path`.
    Reflink,
    /// Directories on any filesystem; forks of what runs copy.
    Plain,
}

/// `[pool]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// Kind.
    pub kind: PoolKind,
    /// Directory; default `$PINFOLD_HOME/pool`.
    pub path: Option<PathBuf>,
    /// Size of the loop file, sparse. Default: half of the free space, at most 1 TiB.
    pub loop_bytes: Option<u64>,
    /// Creation is refused below this many free bytes.
    pub min_free_bytes: u64,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { kind: PoolKind::Auto, path: None, loop_bytes: None, min_free_bytes: 512 << 20 }
    }
}

/// `[images]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImagesConfig {
    /// Registries allowed although their address is private or they speak plain HTTP, by exact
    /// `host:port`.
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Debian mirror for `image import debian:…`.
    pub debian_mirror: Option<String>,
    /// Keys (`OpenPGP`, binary) of a `debian_mirror` that Debian does not sign; images made of it
    /// trust them too. Absent: the keys that this machine's apt trusts.
    pub debian_keyring: Option<PathBuf>,
    /// Most unpacked bytes of one image.
    pub max_image_bytes: u64,
    /// Most files of one image.
    pub max_image_files: u64,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            registries: BTreeMap::new(),
            debian_mirror: None,
            debian_keyring: None,
            max_image_bytes: 64 << 30,
            max_image_files: 5_000_000,
        }
    }
}

/// One registry named by the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Allow this host although it resolves to a private or loopback address.
    pub allow_private: bool,
    /// Speak HTTP without TLS.
    pub plain_http: bool,
    /// Extra root certificate, PEM.
    pub ca_file: Option<PathBuf>,
    /// User name for basic authentication.
    pub username: Option<String>,
    /// `env:NAME`, `file:PATH` or `cmd:COMMAND`; a plain value is refused (AUTH-11).
    pub password: Option<String>,
}

/// A rate: so many calls a second on the average, so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Calls that come in each second; at least 1.
    pub per_second: u32,
    /// Calls that can be saved up; at least 1.
    pub burst: u32,
}

const fn rate(per_second: u32, burst: u32) -> Rate {
    Rate { per_second, burst }
}

/// Rates by class of operation (docs/operations.md names the class of each). A class that a file
/// leaves out keeps its default, so that changing one limit does not lift the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateTable {
    /// Makes workspaces, snapshots, images, tokens.
    pub create: Option<Rate>,
    /// Starts a command.
    pub exec: Option<Rate>,
    /// Everything else.
    pub default: Option<Rate>,
    /// Signs in.
    pub login: Option<Rate>,
    /// Opens a stream.
    pub stream: Option<Rate>,
}

/// `[rates]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RatesConfig {
    /// Of the user who runs the server and of root, over the unix socket.
    #[serde(deserialize_with = "over_owner")]
    pub owner: RateTable,
    /// Of every other principal.
    #[serde(deserialize_with = "over_tokens")]
    pub tokens: RateTable,
    /// Of all together.
    #[serde(deserialize_with = "over_global")]
    pub global: RateTable,
}

const NO_RATES: RateTable =
    RateTable { create: None, exec: None, default: None, login: None, stream: None };
const OWNER_RATES: RateTable = RateTable { login: Some(rate(1, 10)), ..NO_RATES };
const TOKEN_RATES: RateTable = RateTable {
    create: Some(rate(10, 100)),
    exec: Some(rate(100, 500)),
    default: Some(rate(500, 2000)),
    login: Some(rate(1, 10)),
    stream: Some(rate(50, 200)),
};
const GLOBAL_RATES: RateTable = RateTable { login: Some(rate(10, 50)), ..NO_RATES };

impl Default for RatesConfig {
    fn default() -> Self {
        Self { owner: OWNER_RATES, tokens: TOKEN_RATES, global: GLOBAL_RATES }
    }
}

/// The rates of a file, over `usual`.
fn over<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
    usual: RateTable,
) -> Result<RateTable, D::Error> {
    let RateTable { create, exec, default, login, stream } = RateTable::deserialize(deserializer)?;
    Ok(RateTable {
        create: create.or(usual.create),
        exec: exec.or(usual.exec),
        default: default.or(usual.default),
        login: login.or(usual.login),
        stream: stream.or(usual.stream),
    })
}

fn over_owner<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<RateTable, D::Error> {
    over(deserializer, OWNER_RATES)
}

fn over_tokens<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<RateTable, D::Error> {
    over(deserializer, TOKEN_RATES)
}

fn over_global<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<RateTable, D::Error> {
    over(deserializer, GLOBAL_RATES)
}

/// `[quotas]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuotasConfig {
    /// Of a new principal, for whatever its token is not given a quota of its own.
    pub tokens: Quota,
}

/// `[sessions]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionsConfig {
    /// A session without a call for this long is stale: another principal with the scope
    /// `session:takeover` may take over what it owns. 1000 to 86400000.
    pub stale_ms: u64,
}

impl Default for SessionsConfig {
    fn default() -> Self {
        Self { stale_ms: 120_000 }
    }
}

/// `[metrics]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Where `/metrics` answers: `ADDRESS:PORT`, or nothing for nowhere. Left out: 127.0.0.1:9090,
    /// where that is free. A server that a command started by itself has none.
    pub listen: Option<String>,
    /// Networks that may read it. An address beyond loopback needs some.
    pub allow_cidrs: Vec<String>,
}

impl Config {
    /// Reads the text of a configuration file.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let config: Self = toml::from_str(text).map_err(|err| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("the configuration is not valid: {}", err.to_string().trim_end()),
            )
            .hint("docs/configuration.md lists every key")
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Error> {
        self.workspaces.defaults.check()?;
        self.workspaces.ceilings.check()?;
        self.server.check()?;
        self.streams.check()?;
        self.login.check()?;
        self.oauth.check()?;
        self.oidc.check()?;
        self.profiling.check()?;
        let bad = |why: &str| Err(Error::new(ErrorCode::InvalidArgument, why));
        let end =
            u64::from(self.workspaces.uid_base) + u64::from(self.workspaces.uid_ranges) * 65_536;
        if self.workspaces.uid_base < 65_536 || end > u64::from(u32::MAX) {
            return bad("workspaces.uid_base and uid_ranges must lie between 65536 and 2^32");
        }
        if self.workspaces.uid_ranges == 0 || self.workspaces.max_count == 0 {
            return bad("workspaces.uid_ranges and workspaces.max_count must be at least 1");
        }
        if !(1000..=86_400_000).contains(&self.sessions.stale_ms) {
            return bad("sessions.stale_ms must be 1000 (a second) to 86400000 (a day)");
        }
        let RatesConfig { owner, tokens, global } = &self.rates;
        for table in [owner, tokens, global] {
            let RateTable { create, exec, default, login, stream } = table;
            let all = [create, exec, default, login, stream];
            if all.into_iter().flatten().any(|rate| rate.per_second == 0 || rate.burst == 0) {
                return bad(
                    "rates: per_second and burst must be at least 1; give a large rate to lift a limit",
                );
            }
        }
        for (host, registry) in &self.images.registries {
            if let Some(password) = &registry.password
                && !["env:", "file:", "cmd:"].iter().any(|kind| password.starts_with(kind))
            {
                return Err(Error::new(
                    ErrorCode::InvalidArgument,
                    format!("images.registries.{host:?}.password must not be a plain value"),
                )
                .hint("write env:NAME, file:PATH or cmd:COMMAND"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changing_one_default_limit_keeps_the_others() {
        let config = Config::parse("[workspaces.defaults]\npids = 100").expect("a valid file");
        assert_eq!(config.workspaces.defaults, ResourceLimits { pids: Some(100), ..PROFILE });
        let text = "[rates.tokens]\ncreate = { per_second = 1, burst = 2 }";
        let rates = Config::parse(text).expect("a valid file").rates;
        assert_eq!(rates.tokens, RateTable { create: Some(rate(1, 2)), ..TOKEN_RATES });
        assert_eq!(rates.owner, OWNER_RATES);
        let ceilings = Config::parse("[workspaces.ceilings]\npids = 100").expect("a valid file");
        assert_eq!(ceilings.workspaces.ceilings.memory_bytes, None);
    }

    #[test]
    fn unknown_keys_and_plain_secrets_are_errors() {
        assert_eq!(Config::parse("").expect("empty is fine"), Config::default());
        assert!(Config::parse("[pool]\nsize = 1").is_err());
        assert!(Config::parse("[workspaces]\nuid_base = 0").is_err());
        let plain = "[images.registries.\"r.example:5000\"]\npassword = \"hunter2\"";
        let refused = Config::parse(plain).expect_err("a plain secret");
        assert!(!refused.message.contains("hunter2"));
    }
}
