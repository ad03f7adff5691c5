//! A launch from end to end.

use pinfold_namespace::Launcher;

use crate::harness::{Ground, launcher_options};

#[tokio::test]
async fn a_workspace_starts_and_answers() {
    let launcher = Launcher::start(launcher_options()).await.expect("a launcher");
    let workspace = Ground::new().start(&launcher).await;
    println!("{:#?}", workspace.launched);
    assert_eq!(workspace.output("id -u"), "0");
    assert_eq!(workspace.output("hostname"), "walled");
    assert_eq!(workspace.ask("@config"), "{\"hello\":1}");
    println!("{}", workspace.ask("@fds"));
    println!(
        "{}",
        workspace
            .output("cat /proc/self/mountinfo; ls -la / /dev /proc/1/ /etc; cat /proc/self/status")
    );
}
