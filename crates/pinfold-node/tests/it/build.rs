//! Images from steps.

use futures_util::StreamExt as _;
use pinfold_types::{
    ErrorCode,
    image::{BuildContext, BuildImage, ImageProgress},
    workspace::CreateWorkspace,
};
use tokio::sync::mpsc;

use crate::house::{House, named, sh};

fn request(name: &str, steps: &str, context: &std::path::Path) -> BuildImage {
    BuildImage {
        name: name.parse().expect("a name"),
        steps: steps.into(),
        context: BuildContext::Path { path: context.display().to_string() },
        no_cache: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_become_layers_and_are_not_done_twice() {
    let house = House::new();
    let (node, _) = house.open().await;
    let context = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(context.path().join("src")).expect("made");
    std::fs::write(context.path().join("src/a"), "from the context\n").expect("written");
    let steps = "FROM host\nENV COLOUR=green\nWORKDIR /work\nCOPY src files\n\
        RUN echo $COLOUR $(pwd) > said; echo building\nRUN rm -f /etc/hostname; echo x > /usr/local/y\n\
        CMD [\"cat\", \"said\"]\n";
    let build = |name: &'static str, steps: String| {
        let (node, request) = (node.clone(), request(name, &steps, context.path()));
        async move {
            let (sender, mut progress) = mpsc::channel(64);
            let told = tokio::spawn(async move {
                let mut told = Vec::new();
                while let Some(event) = progress.recv().await {
                    told.push(event);
                }
                told
            });
            let nothing = futures_util::stream::empty().boxed();
            let built = node.build_image(request, nothing, sender).await;
            (built, told.await.expect("told"))
        }
    };
    let (made, told) = build("first", steps.into()).await;
    let image = made.expect("built");
    assert!(
        told.iter().any(
            |event| matches!(event, ImageProgress::Output { text } if text.contains("building"))
        ),
        "{told:?}"
    );
    assert_eq!(image.defaults.cwd.as_deref(), Some("/work"));
    assert_eq!(image.defaults.command, ["cat", "said"]);
    assert!(node.list().is_empty(), "no workspace of the build is left");

    let on = CreateWorkspace { image: Some("first".parse().expect("a name")), ..named("w") };
    node.create(on).await.expect("made");
    let (_, text) = sh(&node, "w", "cat said files/a /usr/local/y; echo $COLOUR").await;
    assert_eq!(text, "green /work\nfrom the context\nx\ngreen\n");
    assert_eq!(node.remove_image("first").await.expect_err("in use").code, ErrorCode::Conflict);
    assert_eq!(node.get_image("first").await.expect("there").used_by, 1);

    let (again, told) = build("second", steps.into()).await;
    assert_eq!(again.expect("built").layers, image.layers);
    let cached = told.iter().filter(
        |event| matches!(event, ImageProgress::Step { message } if message == "done before"),
    );
    assert_eq!(cached.count(), 4, "{told:?}");

    let (failed, _) = build("third", format!("{steps}RUN exit 3\n")).await;
    let failed = failed.expect_err("a step failed");
    assert!(failed.message.contains("line 8") && failed.message.contains('3'), "{failed}");
    node.destroy("w").await.expect("destroyed");
    node.remove_image("first").await.expect("nothing stands on it now");
    node.prune_images().await.expect("pruned");
    assert!(node.get_image("second").await.is_ok());
}
