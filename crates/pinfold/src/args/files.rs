//! Files and ports.

use std::{net::IpAddr, num::NonZeroU16, str::FromStr};

use clap::{Args, Subcommand};
use pinfold_types::{Error, ErrorCode, exec::check_path, name::excerpt};

use super::values::WorkspaceRef;

/// `pinfold cp`
#[derive(Debug, Args)]
#[command(after_help = "\
A side is a path here, WORKSPACE:/PATH, or - for a tar stream on standard input or output.
A directory that exists as destination receives the source inside; otherwise the source gets the
destination's name. Modes and times are kept, set-user-id bits and owners are not.")]
pub(crate) struct Cp {
    /// From
    pub(crate) source: Side,
    /// To
    pub(crate) destination: Side,
}

/// One side of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// A path on this machine.
    Here(String),
    /// A path in a workspace.
    Inside(WorkspaceRef, String),
    /// A tar stream.
    Stream,
}

impl FromStr for Side {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "-" {
            return Ok(Self::Stream);
        }
        // A path of this machine that contains a colon can be written with ./ in front.
        if let Some((workspace, path)) = text.split_once(':')
            && !workspace.contains('/')
        {
            check_path(path)?;
            return Ok(Self::Inside(workspace.parse()?, path.to_owned()));
        }
        if text.is_empty() || text.contains('\0') {
            return Err(Error::new(
                ErrorCode::InvalidPath,
                format!("{:?} is not a usable path", excerpt(text)),
            ));
        }
        Ok(Self::Here(text.to_owned()))
    }
}

/// `pinfold ports`
#[derive(Debug, Subcommand)]
pub(crate) enum Ports {
    /// List the TCP ports that something inside listens on
    Ls(super::workspace::One),
    /// Reach ports inside from this machine's loopback until interrupted
    Forward(Forward),
}

/// `pinfold ports forward`
#[derive(Debug, Args)]
pub(crate) struct Forward {
    /// Id or name
    pub(crate) workspace: WorkspaceRef,
    /// PORT (the same here when free, else another), or LOCAL:PORT; LOCAL 0 takes any
    #[arg(required = true, value_name = "[LOCAL:]PORT")]
    pub(crate) ports: Vec<Mapping>,
    /// Loopback address to listen on
    #[arg(long, default_value = "127.0.0.1", value_parser = loopback)]
    pub(crate) address: IpAddr,
}

fn loopback(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .ok()
        .filter(IpAddr::is_loopback)
        .ok_or_else(|| "only a loopback address can be listened on".to_owned())
}

/// One forwarded port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Port here; absent: the same if free, else any.
    pub(crate) local: Option<u16>,
    /// Port inside.
    pub(crate) remote: NonZeroU16,
}

impl FromStr for Mapping {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("{:?} is not a port or LOCAL:PORT: {why}", excerpt(text)),
            )
        };
        let (local, remote) = match text.split_once(':') {
            Some((local, remote)) => (Some(local), remote),
            None => (None, text),
        };
        let number = |part: &str| part.parse::<u16>().map_err(|_| bad("ports are 1 to 65535"));
        let local = local.map(number).transpose()?;
        if local.is_some_and(|port| (1..1024).contains(&port)) {
            return Err(bad("ports below 1024 are not forwarded"));
        }
        let remote = NonZeroU16::new(number(remote)?).ok_or_else(|| bad("ports are 1 to 65535"))?;
        Ok(Self { local, remote })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        assert!(matches!("a/b".parse(), Ok(Side::Here(_))));
        assert!(matches!("./a:b".parse(), Ok(Side::Here(_))));
        assert!(matches!("web:/etc".parse(), Ok(Side::Inside(..))));
        assert!(matches!("-".parse(), Ok(Side::Stream)));
        for bad in ["", "web:etc", "web:", ":/x", "w b:/x", "..:/x"] {
            assert!(bad.parse::<Side>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_have_a_range() {
        assert!("8080".parse::<Mapping>().is_ok());
        assert_eq!("0:80".parse::<Mapping>().expect("any local").local, Some(0));
        for bad in ["", "0", "65536", "80:80", "x", "1:2:3", "-1", "8080:"] {
            assert!(bad.parse::<Mapping>().is_err(), "{bad}");
        }
    }
}
