//! `image ls|import|pull|build|export|rm|prune`.

use std::{
    fs::{self, File},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use http::Method;
use http_body_util::BodyExt;
use pinfold_types::{
    ByteSize, Error, ErrorCode, ImageName, Result,
    api::RemovedImages,
    image::{
        BuildContext, BuildImage, ImageInfo, ImageProgress, ImageSource, ImportFrom, ImportImage,
        MAX_STEPS_BYTES, PullImage,
    },
};
use serde::Serialize;

use super::{Context, Several, workspace};
use crate::{
    args::image::{Build, Export, Image, Import, Rm},
    client::{Body, NdJson, body_channel, encode_segment, lost, query},
    output::{
        human,
        progress::Progress,
        table::{Cell, Table},
    },
};

/// The default image's source and name.
const DEFAULT: &str = "default";

/// File of steps in a directory that names none.
const STEPS: &str = "Pinfile";

pub(super) async fn image(context: &Context, args: Image) -> Result<u8> {
    match args {
        Image::Ls => ls(context).await.map(|()| 0),
        Image::Import(args) => import(context, args).await.map(|()| 0),
        Image::Pull(args) => {
            let request = PullImage { image: args.reference, name: args.name };
            work(context, "pull", &request).await.map(|()| 0)
        }
        Image::Build(args) => build(context, args).await.map(|()| 0),
        Image::Export(args) => export(context, args).await.map(|()| 0),
        Image::Rm(args) => rm(context, &args).await,
        Image::Prune => {
            let removed: RemovedImages =
                context.client.act(Method::POST, "/api/v1/images/prune").await?;
            context.output.show(&removed, freed).map(|()| 0)
        }
    }
}

/// Every image, page by page.
pub(super) async fn all(context: &Context) -> Result<Vec<ImageInfo>> {
    context.client.pages("/api/v1/images").await
}

async fn ls(context: &Context) -> Result<()> {
    workspace::listed(context, all(context).await?, |found| {
        let headings = &["NAME", "ID", "SOURCE", "AGE", "SIZE", "LAYERS", "USED"];
        let mut table = Table::new(context.output.color(), headings);
        for info in found {
            let names: Vec<&str> = info.names.iter().map(ImageName::as_str).collect();
            table.row([
                Cell::from(if names.is_empty() { "-".to_owned() } else { names.join(" ") }),
                info.id.to_string().into(),
                source(&info.source).into(),
                human::age(info.created_at).into(),
                ByteSize(info.size_bytes).to_string().into(),
                info.layers.len().to_string().into(),
                info.used_by.to_string().into(),
            ]);
        }
        table.render()
    })
}

fn source(source: &ImageSource) -> String {
    match source {
        ImageSource::Host => "host".to_owned(),
        ImageSource::Debian { suite } => format!("debian:{suite}"),
        ImageSource::Registry { .. } => "registry".to_owned(),
        ImageSource::Import { format } => format.clone(),
        ImageSource::Template { .. } => "template".to_owned(),
    }
}

/// Sends the request as JSON and follows the work.
async fn work(context: &Context, verb: &str, request: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(request).map_err(Error::internal)?;
    let path = format!("/api/v1/images/{verb}");
    let body = Body::Whole(Some(bytes.into()));
    follow(context, &path, "application/json", body).await
}

async fn follow(context: &Context, path: &str, kind: &'static str, body: Body) -> Result<()> {
    let response = context.client.request(Method::POST, path, Some(kind), body).await?;
    let mut lines = NdJson::new(response.into_body());
    let mut progress = Progress::new(&context.output);
    while let Some(step) = lines.next::<ImageProgress>().await? {
        progress.image(&step);
        match step {
            ImageProgress::Failed { error } => return Err(error),
            ImageProgress::Done { image } => {
                return context.output.show(&*image, |image| {
                    let name = image.names.first().map_or_else(String::new, ToString::to_string);
                    format!("{} {name}\n", image.id)
                });
            }
            ImageProgress::Step { .. }
            | ImageProgress::Bytes { .. }
            | ImageProgress::Count { .. }
            | ImageProgress::Output { .. } => {}
        }
    }
    Err(Error::new(ErrorCode::Internal, "the server ended its report before the end"))
}

async fn import(context: &Context, args: Import) -> Result<()> {
    let refuse = |why: &str| Err(Error::new(ErrorCode::InvalidArgument, why));
    let debian = args.source.strip_prefix("debian:");
    let made = debian.is_some() || args.source == DEFAULT;
    if debian.is_none() && !args.packages.is_empty() {
        return refuse("--packages belongs to debian:SUITE");
    }
    if !made && args.mirror.is_some() {
        return refuse("--mirror belongs to default and debian:SUITE");
    }
    if made && args.format.is_some() {
        return refuse("--format belongs to files and directories");
    }
    let name = match args.name {
        Some(name) => name,
        None if made => args.source.parse()?,
        None => {
            return refuse("an image needs a name: pinfold image import SOURCE NAME");
        }
    };
    let mirror = args.mirror;
    let source = match (debian, args.source.as_str()) {
        (Some(suite), _) => {
            ImportFrom::Debian { suite: suite.to_owned(), packages: args.packages, mirror }
        }
        (None, DEFAULT) => ImportFrom::Default { mirror },
        (None, "-") => ImportFrom::Upload { format: args.format.map(Into::into) },
        (None, path) => ImportFrom::Path {
            path: host_path(Path::new(path))?,
            format: args.format.map(Into::into),
        },
    };
    let upload = matches!(source, ImportFrom::Upload { .. });
    let request = ImportImage { name, source };
    request.check()?;
    if !upload {
        return work(context, "import", &request).await;
    }
    if io::stdin().is_terminal() {
        return Err(Error::new(ErrorCode::InvalidArgument, "an image is not read from a terminal")
            .hint("redirect it: pinfold image import - NAME < image.tar"));
    }
    let json = serde_json::to_string(&request).map_err(Error::internal)?;
    let path = format!("/api/v1/images/import{}", query(&[("request", &json)]));
    let (mut writer, body) = body_channel();
    let sending =
        tokio::task::spawn_blocking(move || match io::copy(&mut io::stdin().lock(), &mut writer) {
            Ok(_) => writer.flush().map_err(|error| error.to_string()),
            Err(error) => {
                let text = error.to_string();
                writer.abort(error);
                Err(text)
            }
        });
    let done = follow(context, &path, "application/x-tar", body).await;
    drop(sending);
    done
}

/// Absolute, because the server has another working directory.
fn host_path(path: &Path) -> Result<String> {
    let refuse = |why: &dyn std::fmt::Display| {
        Error::new(ErrorCode::InvalidPath, format!("{} cannot be used: {why}", path.display()))
    };
    let whole = path.canonicalize().map_err(|error| refuse(&error))?;
    whole.into_os_string().into_string().map_err(|_| refuse(&"it is not UTF-8"))
}

async fn build(context: &Context, args: Build) -> Result<()> {
    let file: PathBuf = args.file.unwrap_or_else(|| args.context.join(STEPS));
    let unreadable = |error: &dyn std::fmt::Display| {
        Error::new(ErrorCode::InvalidPath, format!("{} cannot be read: {error}", file.display()))
            .hint("give the file of steps with --file")
    };
    let size = fs::metadata(&file).map_err(|error| unreadable(&error))?.len();
    if size > u64::try_from(MAX_STEPS_BYTES).unwrap_or(u64::MAX) {
        return Err(unreadable(&format_args!("it is longer than {MAX_STEPS_BYTES} bytes")));
    }
    let request = BuildImage {
        name: args.name,
        steps: fs::read_to_string(&file).map_err(|error| unreadable(&error))?,
        context: BuildContext::Path { path: host_path(&args.context)? },
        no_cache: args.no_cache,
    };
    request.check()?;
    work(context, "build", &request).await
}

async fn export(context: &Context, args: Export) -> Result<()> {
    if args.output.is_none() && io::stdout().is_terminal() {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            "an image is not written to a terminal",
        )
        .hint("name a file: --output FILE"));
    }
    let path = format!("/api/v1/images/{}/export", encode_segment(&args.image));
    let response = context.client.request(Method::GET, &path, None, Body::Whole(None)).await?;
    let mut body = response.into_body();
    let unwritable = |path: &Path, error: &io::Error| {
        Error::new(ErrorCode::InvalidPath, format!("{} cannot be written: {error}", path.display()))
    };
    // Beside its place first: a file of that name is always a whole image.
    let mut target = match &args.output {
        None => None,
        Some(path) => {
            let mut part = path.clone().into_os_string();
            part.push(".part");
            let part = PathBuf::from(part);
            let file = File::create(&part).map_err(|error| unwritable(&part, &error))?;
            Some((path, part, file))
        }
    };
    let mut progress = Progress::new(&context.output);
    let mut done = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| lost(&error));
        let written = frame.and_then(|frame| {
            let Ok(data) = frame.into_data() else { return Ok(()) };
            done += u64::try_from(data.len()).unwrap_or(0);
            match &mut target {
                None => context.output.bytes(&data),
                Some((_, part, file)) => {
                    file.write_all(&data).map_err(|error| unwritable(part, &error))
                }
            }
        });
        if let Err(error) = written {
            if let Some((_, part, _)) = &target {
                let _left = fs::remove_file(part);
            }
            return Err(error);
        }
        progress.bytes(&args.image, done, None);
    }
    if let Some((path, part, file)) = target {
        file.sync_all()
            .and_then(|()| fs::rename(&part, path))
            .map_err(|error| unwritable(path, &error))?;
    }
    Ok(())
}

async fn rm(context: &Context, args: &Rm) -> Result<u8> {
    let mut code = Several::default();
    for image in &args.images {
        let path = format!("/api/v1/images/{}", encode_segment(image));
        match context.client.act::<RemovedImages>(Method::DELETE, &path).await {
            Ok(removed) => context.output.show(&removed, freed)?,
            Err(error) => code.note(&context.output, &error),
        }
    }
    Ok(code.0)
}

fn freed(removed: &RemovedImages) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for id in &removed.images {
        let _infallible = writeln!(out, "{id}");
    }
    let _infallible = writeln!(out, "freed {}", ByteSize(removed.freed_bytes));
    out
}
