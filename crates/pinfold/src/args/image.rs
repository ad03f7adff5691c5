//! Images.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pinfold_types::{ImageName, ImageReference, image::ImportFormat};

/// `pinfold image`
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// List images
    Ls,
    /// Bring one in: the default image, debian:SUITE, a directory, an OCI layout, a `docker save` or root filesystem tar
    Import(Import),
    /// Fetch one from a registry
    Pull(Pull),
    /// Build one from a file of steps
    Build(Build),
    /// Write one as an OCI archive
    Export(Export),
    /// Remove images that nothing stands on
    Rm(Rm),
    /// Remove every image and layer that nothing uses
    Prune,
}

/// `pinfold image import`
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// default, debian:SUITE, a path (./default for a file of that name), or - for a tar on standard input
    ///
    /// `default` is a Debian with Python, Node, git, a compiler and small tools, made from the
    /// packages that this machine's apt installs from.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// Name of the image [default: that of SOURCE, when it is default or debian:SUITE]
    pub(crate) name: Option<ImageName>,
    /// Further Debian packages, for debian:SUITE
    #[arg(long, value_name = "PACKAGE", value_delimiter = ',')]
    pub(crate) packages: Vec<String>,
    /// Debian archive, for default and debian:SUITE [default: this machine's own]
    #[arg(long, value_name = "URL")]
    pub(crate) mirror: Option<String>,
    /// What a file or directory is [default: found out]
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
}

/// What an imported file or directory is.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Format {
    /// An OCI image layout: a directory, or a tar of one
    OciLayout,
    /// What `docker save` writes
    DockerArchive,
    /// A tar of a root filesystem
    RootfsTar,
    /// A directory that is a root filesystem
    Directory,
}

impl From<Format> for ImportFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::OciLayout => Self::OciLayout,
            Format::DockerArchive => Self::DockerArchive,
            Format::RootfsTar => Self::RootfsTar,
            Format::Directory => Self::Directory,
        }
    }
}

/// `pinfold image pull`
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Reference, such as docker.io/library/alpine:3.20, with or without @sha256:DIGEST
    pub(crate) reference: ImageReference,
    /// Name here [default: the reference without its digest]
    #[arg(long)]
    pub(crate) name: Option<ImageName>,
}

/// `pinfold image build`
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Name of the image
    pub(crate) name: ImageName,
    /// Directory that COPY reads from
    #[arg(default_value = ".")]
    pub(crate) context: PathBuf,
    /// File of steps [default: Pinfile in the directory]
    #[arg(long, short)]
    pub(crate) file: Option<PathBuf>,
    /// Run every step again
    #[arg(long)]
    pub(crate) no_cache: bool,
}

/// `pinfold image export`
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Id or name
    #[arg(value_parser = image_word)]
    pub(crate) image: String,
    /// File to write [default: standard output, when that is not a terminal]
    #[arg(long, short)]
    pub(crate) output: Option<PathBuf>,
}

/// `pinfold image rm`
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Ids or names
    #[arg(required = true, value_name = "IMAGE", value_parser = image_word)]
    pub(crate) images: Vec<String>,
}

fn image_word(text: &str) -> Result<String, pinfold_types::Error> {
    if text.parse::<pinfold_types::ImageId>().is_err() {
        text.parse::<ImageName>()?;
    }
    Ok(text.to_owned())
}
