//! Little is needed, and little is shown: images with nothing in them, no rights, private files.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hybrid_runner_helper::container;
use hybrid_runner_helper::end::How;
use hybrid_runner_helper::payload::{Payload, PrivateFile};

use crate::container::{Container, Gate, Image, inside};

/// Builds a program that needs nothing but the kernel.
fn put_static_program(container: &Container, name: &str, source: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("program.rs");
    fs::write(&file, source).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let status = Command::new(rustc)
        .args(["--edition", "2024", "-Ctarget-feature=+crt-static"])
        .arg(file)
        .arg("-o")
        .arg(container.work(name))
        .current_dir(folder.path())
        .status();
    assert!(status.unwrap().success(), "it is a program");
}

#[test]
fn an_image_with_nothing_in_it_is_enough() {
    let image = Image {
        empty: true,
        read_only: true,
        user: Some(4711),
        env: vec!["GREETING=good day"],
        ..Image::default()
    };
    let Some(container) = Container::create(image) else {
        return;
    };
    let source = r#"fn main() {
        let var = |name| std::env::var(name).unwrap();
        println!("{} {}", var("GREETING"), std::env::current_dir().unwrap().display());
        eprint!("{}", std::fs::read_to_string(var("CONFIG")).unwrap());
        std::process::exit(7)
    }"#;
    put_static_program(&container, "greet", source);
    let attempt = container.run(&Payload {
        argv: vec![b"/work/greet".to_vec()],
        files: vec![PrivateFile {
            name: b"config".to_vec(),
            content: b"password: hunter22".into(),
            mode: 0o400,
            env: Some(b"CONFIG".to_vec()),
        }],
        private_dir: Some(container::PRIVATE_RUN.into()),
        needles: vec![b"hunter22".into()],
        ..inside("")
    });
    assert_eq!(attempt.exit(), 7);
    assert_eq!(attempt.text(), "good day /\n");
    assert_eq!(attempt.error_text(), "password: ***");
    let end = attempt.end();
    assert_eq!((end.how, end.left, end.masked), (How::Exited(7), 0, 1));
}

#[test]
fn nobody_needs_to_be_root_and_the_root_may_be_read_only() {
    let image = Image {
        user: Some(4711),
        read_only: true,
        ..Image::default()
    };
    let Some(container) = Container::create(image) else {
        return;
    };
    let payload = Payload {
        files: vec![PrivateFile {
            name: b"config.json".to_vec(),
            content: b"{\"a\":1}".into(),
            mode: 0o400,
            env: Some(b"CONFIG".to_vec()),
        }],
        private_dir: Some(container::PRIVATE_RUN.into()),
        ..inside(
            "stat -c '%u %a %n' $CONFIG ${CONFIG%/*}; stat -f -c %T $CONFIG; cat $CONFIG; id -u; \
             touch /x /work/x /.hr/x 2>/dev/null; ls /.hr; [ -w /.hr/init ] && echo writable; echo ready; read -r x < /work/go; exit 5",
        )
    };
    let mut gate = Gate::create(&container);
    let attempt = container.run(&payload);
    attempt.wait_for_output("ready");
    let private = format!("/proc/{}/root/.hr/private/run", attempt.init());
    assert!(Path::new(&private).exists());
    gate.open();
    assert_eq!(attempt.exit(), 5);
    assert_eq!(
        attempt.text(),
        "4711 400 /.hr/private/run/config.json\n4711 700 /.hr/private/run\ntmpfs\n{\"a\":1}4711\ninit\nprivate\nready\n"
    );
    assert_eq!(attempt.end().how, How::Exited(5));
}

#[test]
fn private_files_are_gone_before_the_end_is_recorded() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    // Where it can be seen from outside; in truth it is a memory file system.
    let attempt = container.run(&Payload {
        files: vec![PrivateFile {
            name: b"config".to_vec(),
            ..PrivateFile::default()
        }],
        private_dir: Some(b"/work/private".to_vec()),
        ..inside("ls /work/private; touch /work/private/own")
    });
    assert_eq!((attempt.exit(), attempt.text().as_str()), (0, "config\n"));
    assert!(!container.work("private").exists());
}

#[test]
fn values_are_not_to_be_seen_from_outside_and_no_core_is_dumped() {
    let image = Image {
        user: Some(4711),
        ..Image::default()
    };
    let Some(container) = Container::create(image) else {
        return;
    };
    let attempt = container.run(&Payload {
        env: vec![(b"PASSWORD".to_vec(), b"hunter22".into())],
        needles: vec![b"hunter22".into()],
        ..inside("echo up; cat /proc/1/environ /proc/1/maps >/dev/null || echo refused; sleep 1000")
    });
    attempt.wait_for_output("refused");
    let of_init = |file: &str| format!("/proc/{}/{file}", attempt.init());
    // Not dumpable: the files of the process belong to root, whoever runs it.
    assert_eq!(owner(Path::new(&of_init("environ"))), 0);
    for file in ["environ", "cmdline"] {
        let bytes = fs::read(of_init(file)).unwrap();
        assert!(
            !bytes.windows(6).any(|window| window == b"hunter"),
            "{file}"
        );
    }
    let input = fs::read_link(of_init("fd/0")).unwrap();
    assert!(input.ends_with("dev/null"), "{}", input.display());
    let limits = fs::read_to_string(of_init("limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    assert_eq!(core.unwrap().split_whitespace().nth(4), Some("0"));
    attempt.stop(Duration::from_secs(10));
    assert_eq!(attempt.exit(), 143);
}

/// Whose the files of a process are.
fn owner(path: &Path) -> u32 {
    fs::metadata(path).unwrap().uid()
}
