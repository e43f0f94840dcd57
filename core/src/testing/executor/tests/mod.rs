mod broken;

use std::process::Stdio;

use crate::executor::{Executor as _, Progress};
use crate::secret::Secrets;
use crate::testing::{FakeBackend, Script, Step};

mod the_fake_passes {
    crate::executor_contract_tests!(
        #[tokio::test(start_paused = true)]
        crate::testing::FakeBackend::new()
    );
}

mod the_fake_passes_in_real_time {
    crate::executor_contract_tests!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        crate::testing::FakeBackend::new()
    );
}

/// What a shell writes and how it ends, and what the fake makes of the same spec.
async fn both(script: Script, args: &[&str]) -> [(String, String); 2] {
    let mut spec = script.spec(crate::RunId::generate().attempt(1));
    spec.args = Some(args.iter().map(ToString::to_string).collect());
    spec.env.insert("VALUE".into(), "a'b \"c\"\n%d\\ü".into());
    let command = spec.command.clone().unwrap();
    let ended = tokio::process::Command::new(&command[0])
        .args(&command[1..])
        .args(args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(&spec.env)
        .stdin(Stdio::null())
        .output();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), ended);
    let ended = ended.await.unwrap().unwrap();
    let code = ended
        .status
        .code()
        .map_or("none".into(), |code| code.to_string());
    let shell =
        ended.stdout.escape_ascii().to_string() + "|" + &ended.stderr.escape_ascii().to_string();

    let backend = FakeBackend::new();
    let control = backend.control(spec.run);
    let executor = backend.executor();
    executor
        .start(&spec, &Secrets::none(), &Progress::none())
        .await
        .unwrap();
    control.finished().await;
    let fake_code = match control.status().unwrap().outcome().unwrap() {
        crate::Outcome::Succeeded => "0".to_owned(),
        crate::Outcome::Failed(failure) => failure
            .exit_code
            .map_or("none".into(), |code| code.to_string()),
        other => panic!("{other}"),
    };
    let fake = control
        .output_of(crate::log::Stream::Out)
        .escape_ascii()
        .to_string()
        + "|"
        + &control
            .output_of(crate::log::Stream::Err)
            .escape_ascii()
            .to_string();
    [(shell, code), (fake, fake_code)]
}

#[tokio::test]
async fn a_shell_and_the_fake_do_the_same() {
    let all: Vec<u8> = (0..=255).collect();
    let value = || "VALUE".to_owned();
    for script in [
        Script::new(),
        Script::new().out(&all).err("e%d\n").out("é'\"\\"),
        Script::new().then(Step::Letters(3000)),
        Script::new().lines(3, std::time::Duration::from_millis(1)),
        Script::new().then(Step::Variable(value())),
        Script::new().then(Step::VariableSum(value())),
        Script::new().then(Step::VariableInPieces(value())),
        Script::new().then(Step::Arguments).exit(42),
        Script::new().stubborn().out("x").exit(255),
        Script::new().out("x").signal(9),
        Script::new().out("x").signal(15),
    ] {
        let text = script.shell();
        let [shell, fake] = both(script, &["a b", "", "*", "$HOME"]).await;
        assert_eq!(shell, fake, "{text}");
    }
}

#[test]
fn no_case_stands_in_the_table_twice() {
    let mut names: Vec<&str> = super::CASES.iter().map(|case| case.name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}
