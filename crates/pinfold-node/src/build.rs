//! Images from steps: each step that changes files runs in a throw-away workspace on the layers so
//! far, and what it changed becomes the next layer. A step that an earlier build has done on the
//! same layers is not done again.
//!
//! Commands and copies run inside the workspace's walls; the host only reads the context and seals
//! the disk after all processes have ended. There is no way out of a workspace, so a `RUN` that
//! downloads fails until the gate is there.

mod context;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use pinfold_image::steps::{self, Action, Step, Steps};
use pinfold_proto::ArchiveOptions;
use pinfold_types::{
    Error, ErrorCode, ImageId, ImageName, Result,
    exec::{Command, ExecResult, ExecSpec},
    image::{BuildContext, BuildImage, ImageDefaults, ImageInfo, ImageProgress, ImageSource},
    workspace::CreateWorkspace,
};
use tokio::sync::mpsc;

use crate::{
    LocalNode,
    exec::ThrowAway,
    guest::{ByteStream, ExecEvent},
    live::Live,
    node::{Inner, blocking},
    workspace::Workspace,
};

/// Longest wait for a caller who does not take the build's output; then that piece is dropped.
const PATIENCE: Duration = Duration::from_secs(5);

impl LocalNode {
    /// Makes an image from steps. `content` is the uploaded context, used only where the request
    /// says so. Dropping the future ends the build; what it made stays in the cache.
    pub async fn build_image(
        &self,
        request: BuildImage,
        content: ByteStream,
        progress: mpsc::Sender<ImageProgress>,
    ) -> Result<ImageInfo> {
        request.check()?;
        let steps = Steps::parse(&request.steps)?;
        let inner = self.inner();
        let files = match request.context {
            BuildContext::Nothing => None,
            BuildContext::Path { path } => Some(context::Context::at(PathBuf::from(path))?),
            BuildContext::Upload => {
                let upload = inner.take_upload(content).await?;
                let images = inner.config.images.clone();
                Some(blocking(move || context::Context::unpack(&upload, &images)).await?)
            }
        };
        let base = inner.image_for(steps.from.as_str()).await?;
        let mut build = Build {
            inner: Arc::clone(inner),
            progress,
            context: files,
            below: base.layers.clone(),
            stage: Stage { inner: Arc::clone(inner), image: base.id, ours: false },
            base: base.id,
            base_name: steps.from.clone(),
            layers: Vec::new(),
            defaults: base.defaults,
            use_cache: !request.no_cache,
        };
        let _base_stays = inner.holds.hold(base.id)?;
        for (number, step) in (1..).zip(&steps.steps) {
            build.say(format!("step {number} of {}: {}", steps.steps.len(), shown(step))).await;
            build.step(step).await.map_err(|failed| at_line(step, failed))?;
        }
        let source = ImageSource::Template { steps_digest: steps.digest() };
        let images = inner.images.clone();
        let (base, layers, defaults) = (build.base, build.layers, build.defaults);
        blocking(move || images.commit(&base, &layers, defaults, source, Some(request.name))).await
    }
}

/// Longest line of output that is kept whole.
const MAX_LINE_BYTES: usize = 16 << 10;

/// Output gathered into whole lines: programs write in pieces, curl's progress byte by byte.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// The lines that these bytes end, or that have grown too long to be kept.
    fn push(&mut self, bytes: &[u8]) -> Option<String> {
        let ended = bytes.iter().rposition(|byte| *byte == b'\n').map(|at| self.0.len() + at + 1);
        self.0.extend_from_slice(bytes);
        let whole = ended.or_else(|| (self.0.len() >= MAX_LINE_BYTES).then_some(self.0.len()))?;
        let rest = self.0.split_off(whole);
        Some(text(std::mem::replace(&mut self.0, rest)))
    }

    /// What no line feed ended.
    fn finish(self) -> Option<String> {
        (!self.0.is_empty()).then(|| text(self.0))
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// A build under way.
struct Build {
    inner: Arc<Inner>,
    progress: mpsc::Sender<ImageProgress>,
    context: Option<context::Context>,
    base: ImageId,
    base_name: ImageName,
    /// Layers made by this build, lowest first.
    layers: Vec<String>,
    /// All layers so far, lowest first.
    below: Vec<String>,
    /// What the next step stands on.
    stage: Stage,
    defaults: ImageDefaults,
    use_cache: bool,
}

/// An image that a step stands on. One without a name that this build made is removed with it;
/// its layers stay, as long as the cache knows them.
struct Stage {
    inner: Arc<Inner>,
    image: ImageId,
    ours: bool,
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.ours || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (images, image) = (self.inner.images.clone(), self.image);
        tokio::task::spawn_blocking(move || {
            if let Err(err) = images.remove(&image.to_string()) {
                tracing::warn!(%image, %err, "a build's stage stays until the next prune");
            }
        });
    }
}

impl Build {
    async fn step(&mut self, step: &Step) -> Result<()> {
        match &step.action {
            Action::Env(env) => {
                pinfold_types::exec::check_env(env)?;
                self.defaults.env.extend(env.clone());
                Ok(())
            }
            Action::User(user) => {
                self.defaults.user = Some(user.clone());
                Ok(())
            }
            Action::Cmd(words) => {
                self.defaults.command.clone_from(words);
                Ok(())
            }
            Action::Workdir(path) => {
                let path = self.absolute(path);
                pinfold_types::exec::check_path(&path)?;
                self.layer(step, None).await?;
                self.defaults.cwd = Some(path);
                Ok(())
            }
            Action::Copy { sources, .. } => {
                let context = self.context.as_ref().ok_or_else(|| {
                    Error::new(ErrorCode::InvalidArgument, "COPY needs files to copy from")
                        .hint("give the directory: pinfold image build --context DIR")
                })?;
                let (root, sources) = (context.root().to_path_buf(), sources.clone());
                let digest = blocking(move || {
                    context::check(&root, &sources)?;
                    steps::content_digest(&root, &sources)
                })
                .await?;
                self.layer(step, Some(&digest)).await
            }
            Action::Run(_) => self.layer(step, None).await,
        }
    }

    /// Adds the layer of a step, from the cache or by doing it.
    async fn layer(&mut self, step: &Step, copied: Option<&str>) -> Result<()> {
        let key = steps::cache_key(&self.below, &step.action, &self.surroundings(), copied);
        let cached = self.inner.images.cached_layer(&key).filter(|_| self.use_cache);
        let layer = if let Some(layer) = cached {
            self.say("done before".to_owned()).await;
            layer
        } else {
            let layer = self.perform(step).await?;
            self.inner.images.cache_layer(&key, &layer)?;
            layer
        };
        self.below.push(layer.clone());
        self.layers.push(layer);
        let images = self.inner.images.clone();
        let (base, layers, defaults) = (self.base, self.layers.clone(), self.defaults.clone());
        let source = ImageSource::Template { steps_digest: "stage".into() };
        let stage = blocking(move || images.commit(&base, &layers, defaults, source, None)).await?;
        self.stage = Stage { inner: Arc::clone(&self.inner), image: stage.id, ours: true };
        Ok(())
    }

    /// Does a step in a workspace of its own and seals what it changed.
    async fn perform(&self, step: &Step) -> Result<String> {
        let request = CreateWorkspace {
            labels: BTreeMap::from([("pinfold.build".into(), self.base_name.to_string())]),
            ..Default::default()
        };
        let plan = self.inner.plan_on(self.stage.image, self.base_name.clone(), request, true)?;
        let (workspace, ()) = self.inner.make(plan, |_| async { Ok(()) }).await?;
        // Ends the workspace on every way out of here, a dropped future included.
        let _throw_away = ThrowAway::new(&self.inner, &workspace);
        let in_use = workspace.activity.begin();
        let live = workspace.running()?;
        match &step.action {
            Action::Run(words) => self.run(&live, words).await?,
            Action::Copy { sources, target } => self.copy(&live, sources, target).await?,
            Action::Workdir(path) => {
                live.guest()?.mkdir(&self.absolute(path), Some(0o755), true).await?;
            }
            _ => {}
        }
        drop((live, in_use));
        self.seal(&workspace).await
    }

    async fn run(&self, live: &Live, words: &[String]) -> Result<()> {
        let spec = ExecSpec {
            command: Command::Argv(words.to_vec()),
            cwd: self.defaults.cwd.clone(),
            env: self.defaults.env.clone(),
            user: self.defaults.user.clone(),
            ..ExecSpec::argv(["true"])
        };
        spec.check()?;
        let mut stream = live.guest()?.exec(pinfold_types::ExecId::generate(), spec).await?;
        let (mut out, mut err) = (Lines::default(), Lines::default());
        let mut end = Err(Error::internal("a stream ended without its end"));
        while let Some(event) = stream.next().await {
            let text = match event {
                ExecEvent::Stdout(bytes) => out.push(&bytes),
                ExecEvent::Stderr(bytes) => err.push(&bytes),
                ExecEvent::Exited(result) => {
                    end = if result.exit_code == Some(0) { Ok(()) } else { Err(failed(&result)) };
                    break;
                }
                ExecEvent::Failed(failed) => {
                    end = Err(failed);
                    break;
                }
            };
            self.output(text).await;
        }
        for rest in [out, err] {
            self.output(rest.finish()).await;
        }
        end
    }

    async fn output(&self, text: Option<String>) {
        if let Some(text) = text {
            self.tell(ImageProgress::Output { text }).await;
        }
    }

    async fn copy(&self, live: &Live, sources: &[String], target: &str) -> Result<()> {
        let context = self.context.as_ref().ok_or_else(|| Error::internal("no context"))?;
        let is_dir = |path: &str| path.ends_with('/') || path.ends_with("/.") || path == ".";
        let absolute = self.absolute(target);
        let root = context.root().to_path_buf();
        let single = match sources {
            [source] if !is_dir(target) => context::is_file(&root, source)?,
            _ => false,
        };
        let (dir, rename) = match absolute.rsplit_once('/') {
            Some((dir, name)) if single && !name.is_empty() => {
                (if dir.is_empty() { "/" } else { dir }.to_owned(), Some(name.to_owned()))
            }
            _ => (absolute, None),
        };
        pinfold_types::exec::check_path(&dir)?;
        let sources = sources.to_vec();
        let archive = crate::images::stream_of(move |out| {
            context::pack(&root, &sources, rename.as_deref(), out)
        });
        live.guest()?.archive_put(&dir, archive, ArchiveOptions::default()).await?;
        Ok(())
    }

    /// Ends the workspace's processes and makes a layer of what they left.
    async fn seal(&self, workspace: &Arc<Workspace>) -> Result<String> {
        {
            let _one = workspace.operation.lock().await;
            self.inner.stop_locked(workspace).await?;
        }
        let root = self.inner.root(&self.stage.image)?;
        let (pool, images) = (Arc::clone(&self.inner.pool), self.inner.images.clone());
        let id = workspace.id.to_string();
        blocking(move || {
            let disk = pool.open_disk(&id)?;
            if !disk.sealed()?.is_empty() {
                return Err(Error::new(
                    ErrorCode::Conflict,
                    "the step's workspace was snapshotted or restored while the step ran",
                )
                .hint("build again"));
            }
            let (uppers, targets): (Vec<_>, Vec<_>) = root
                .mounts
                .iter()
                .enumerate()
                .filter(|(_, mount)| mount.writable)
                .map(|(slot, mount)| {
                    (disk.path.join(format!("upper/{slot}")), mount.target.clone())
                })
                .unzip();
            images.seal_layer(&uppers, &targets)
        })
        .await
    }

    fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') {
            return path.to_owned();
        }
        let cwd = self.defaults.cwd.as_deref().unwrap_or("/").trim_end_matches('/');
        format!("{cwd}/{}", path.trim_start_matches("./"))
    }

    /// What the outcome of a step depends on besides the layers below.
    fn surroundings(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> =
            self.defaults.env.iter().map(|(k, v)| (format!("env {k}"), v.clone())).collect();
        all.push(("cwd".into(), self.defaults.cwd.clone().unwrap_or_default()));
        all.push(("user".into(), self.defaults.user.clone().unwrap_or_default()));
        all
    }

    async fn say(&self, message: String) {
        self.tell(ImageProgress::Step { message }).await;
    }

    async fn tell(&self, progress: ImageProgress) {
        // Nobody listening is no reason to stop, and neither is somebody who does not read.
        let _ = self.progress.send_timeout(progress, PATIENCE).await;
    }
}

fn failed(result: &ExecResult) -> Error {
    let how = match (result.exit_code, result.signal) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        _ => "could not be run".to_owned(),
    };
    let why = result.error.as_ref().map(|err| format!(": {}", err.message)).unwrap_or_default();
    Error::new(ErrorCode::Unprocessable, format!("the command {how}{why}"))
        .hint("its output is above; a command that needs the network fails: there is no way out")
}

fn at_line(step: &Step, failed: Error) -> Error {
    Error { message: format!("line {} of the steps: {}", step.line, failed.message), ..failed }
}

fn shown(step: &Step) -> String {
    let text = match &step.action {
        Action::Run(words) if words.len() == 3 && words[1] == "-c" => format!("RUN {}", words[2]),
        Action::Run(words) => format!("RUN {words:?}"),
        Action::Copy { sources, target } => format!("COPY {} {target}", sources.join(" ")),
        // Values may be secret enough not to be shown.
        Action::Env(env) => format!("ENV {}", env.keys().cloned().collect::<Vec<_>>().join(" ")),
        Action::Workdir(path) => format!("WORKDIR {path}"),
        Action::User(user) => format!("USER {user}"),
        Action::Cmd(words) => format!("CMD {words:?}"),
    };
    pinfold_types::name::excerpt(&text)
}

#[cfg(test)]
mod tests {
    use super::{Lines, MAX_LINE_BYTES};

    #[test]
    fn output_comes_in_whole_lines() {
        let mut lines = Lines::default();
        for byte in "% Tot\u{e9}".as_bytes() {
            assert_eq!(lines.push(&[*byte]), None);
        }
        assert_eq!(lines.push(b"al\nnext\nha"), Some("% Tot\u{e9}al\nnext\n".into()));
        assert_eq!(lines.push(b"lf"), None);
        assert_eq!(lines.finish(), Some("half".into()));
        assert_eq!(Lines::default().finish(), None);
    }

    #[test]
    fn a_line_without_end_is_not_kept_without_bound() {
        let mut lines = Lines::default();
        let told = lines.push(&vec![b'x'; MAX_LINE_BYTES]).expect("it is long enough");
        assert_eq!(told.len(), MAX_LINE_BYTES);
        assert_eq!(lines.finish(), None);
    }
}
