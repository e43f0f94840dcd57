//! What the workload gets, and what its end is.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use hybrid_runner_helper::container;
use hybrid_runner_helper::end::{How, SpawnFailure, Step};
use hybrid_runner_helper::payload::{Payload, PrivateFile};

use crate::common::{eventually, kill, pids, state_and_parent};
use crate::container::{Container, Image, inside, run};

#[test]
fn the_exit_is_that_of_the_workload() {
    for (script, exit, how) in [
        ("exit 0", 0, How::Exited(0)),
        ("exit 255", 255, How::Exited(255)),
        ("kill -SEGV $$", 139, How::Signaled(11)),
        ("kill -KILL $$", 137, How::Signaled(9)),
    ] {
        let Some(attempt) = run(&inside(script)) else {
            return;
        };
        assert_eq!((attempt.exit(), attempt.end().how), (exit, how));
        assert_eq!(attempt.error_text(), "");
    }
}

#[test]
fn a_command_that_cannot_be_run_is_told_by_exit_and_record() {
    for (program, step, errno, exit) in [
        ("no-such-program", Step::Program, libc::ENOENT, 127),
        ("/work/data", Step::Program, libc::EACCES, 126),
        ("/work/script", Step::Interpreter, libc::ENOENT, 127),
    ] {
        let Some(container) = Container::create(Image::default()) else {
            return;
        };
        container.put("data", b"text");
        container.put("script", b"#!/no/such/interpreter\n");
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(container.work("script"), executable).unwrap();
        let attempt = container.run(&Payload {
            argv: vec![program.into()],
            ..inside("")
        });
        assert_eq!(attempt.exit(), exit, "{program}");
        let wanted = SpawnFailure {
            step,
            errno,
            program: program.into(),
        };
        let end = attempt.end();
        assert_eq!((end.how, end.started), (How::SpawnFailed(wanted), None));
        assert!(attempt.starts().is_empty());
        assert_eq!((attempt.text(), attempt.error_text()), Default::default());
    }
}

#[test]
fn an_environment_that_is_too_long_is_told() {
    let Some(attempt) = run(&Payload {
        env: vec![(b"LONG".to_vec(), vec![b'x'; 200 << 10].into())],
        ..inside("true")
    }) else {
        return;
    };
    assert_eq!(attempt.exit(), 126);
    let How::SpawnFailed(failure) = attempt.end().how else {
        panic!("it ran");
    };
    assert_eq!((failure.step, failure.errno), (Step::Program, libc::E2BIG));
}

#[test]
fn the_variables_of_the_payload_override_those_of_the_image() {
    let image = Image {
        env: vec![
            "PATH=/bin:/usr/bin",
            "A=image",
            "B=image",
            "FILE=image",
            "E=",
        ],
        ..Image::default()
    };
    let Some(container) = Container::create(image) else {
        return;
    };
    let payload = Payload {
        argv: vec![b"env".to_vec(), b"-0".to_vec()],
        env: vec![
            (b"A".to_vec(), b"own\n=".into()),
            (b"C".to_vec(), b"".into()),
        ],
        files: vec![PrivateFile {
            name: b"config".to_vec(),
            mode: 0o400,
            env: Some(b"FILE".to_vec()),
            ..PrivateFile::default()
        }],
        private_dir: Some(container::PRIVATE_RUN.into()),
        ..inside("")
    };
    let attempt = container.run(&payload);
    assert_eq!(attempt.exit(), 0);
    let text = attempt.text();
    let mut found: Vec<_> = text.split_terminator('\0').collect();
    found.sort_unstable();
    let wanted = [
        "A=own\n=",
        "B=image",
        "C=",
        "E=",
        "FILE=/.hr/private/run/config",
        "PATH=/bin:/usr/bin",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn without_inheritance_there_is_nothing_but_the_payload() {
    let image = Image {
        env: vec!["A=image", "PATH=/nowhere"],
        ..Image::default()
    };
    let Some(container) = Container::create(image) else {
        return;
    };
    let attempt = container.run(&Payload {
        argv: vec![b"env".to_vec()],
        env: vec![(b"B".to_vec(), b"2".into())],
        inherit: false,
        ..inside("")
    });
    assert_eq!((attempt.exit(), attempt.text().as_str()), (0, "B=2\n"));
}

#[test]
fn the_command_is_found_in_the_path_of_the_image_unless_the_payload_has_one() {
    for (own, exit) in [(None, 0), (Some("/nowhere"), 127)] {
        let image = Image {
            env: vec!["PATH=/work"],
            ..Image::default()
        };
        let Some(container) = Container::create(image) else {
            return;
        };
        symlink("/bin/true", container.work("here")).unwrap();
        let attempt = container.run(&Payload {
            argv: vec![b"here".to_vec()],
            env: own
                .map(|path: &str| (b"PATH".to_vec(), path.into()))
                .into_iter()
                .collect(),
            ..inside("")
        });
        assert_eq!(attempt.exit(), exit);
    }
}

#[test]
fn the_workload_begins_where_the_engine_has_started_us_unless_it_says_otherwise() {
    for (cwd, wanted) in [
        (None, "/work\n"),
        (Some("/dev"), "/dev\n"),
        (Some(".."), "/\n"),
    ] {
        let image = Image {
            workdir: Some("/work"),
            ..Image::default()
        };
        let Some(container) = Container::create(image) else {
            return;
        };
        let attempt = container.run(&Payload {
            cwd: cwd.map(Into::into),
            ..inside("pwd -P")
        });
        assert_eq!((attempt.exit(), attempt.text().as_str()), (0, wanted));
    }
}

#[test]
fn a_working_directory_that_is_not_there_is_told() {
    let Some(attempt) = run(&Payload {
        cwd: Some(b"/nowhere".to_vec()),
        ..inside("true")
    }) else {
        return;
    };
    assert_eq!(attempt.exit(), 126);
    let How::SpawnFailed(failure) = attempt.end().how else {
        panic!("it ran");
    };
    assert_eq!(
        (failure.step, failure.errno),
        (Step::WorkingDirectory, libc::ENOENT)
    );
}

#[test]
fn the_workload_gets_a_clean_process() {
    let Some(attempt) = run(&inside(
        "exec 3</proc/self/status; while read -r k v; do case $k in Sig[BIC]*) echo $k $v;; esac; done <&3; exec 3<&-; \
         readlink /proc/$$/fd/0; for fd in /proc/$$/fd/*; do [ -e $fd ] && printf '%s ' ${fd##*/}; done; cut -d' ' -f4,5,6 /proc/$$/stat; echo $$; ulimit -c",
    )) else {
        return;
    };
    assert_eq!(attempt.exit(), 0);
    let text = attempt.text();
    let zeros = "0000000000000000";
    assert!(
        text.contains(&format!("SigBlk: {zeros}")) && text.contains(&format!("SigIgn: {zeros}")),
        "{text}"
    );
    let pid = attempt.starts()[0];
    let wanted = format!("/dev/null\n0 1 2 1 {pid} {pid}\n{pid}\n0\n");
    assert!(text.ends_with(&wanted), "leads group and session: {text}");
}

#[test]
fn the_kernel_would_rather_kill_the_workload_and_all_that_it_makes() {
    // What the command makes first of all has it too.
    let script =
        "(cat /proc/self/oom_score_adj); cat /proc/$$/oom_score_adj; echo up; exec sleep 1000";
    let Some(attempt) = run(&inside(script)) else {
        return;
    };
    attempt.wait_for_output("up");
    let own = fs::read_to_string(format!("/proc/{}/oom_score_adj", attempt.init())).unwrap();
    let ours = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(own, ours, "the helper is as before");
    let preferred = (own.trim().parse::<i32>().unwrap() + 100).min(1000);
    let text = attempt.text();
    assert!(
        text.starts_with(&format!("{preferred}\n{preferred}\nup")),
        "{text}"
    );
    kill(attempt.init(), "KILL");
}

#[test]
fn nothing_stays_a_zombie() {
    let Some(attempt) = run(&inside(
        "for i in 1 2 3 4 5; do (setsid sh -c 'exit 0' & ) ; done; echo ready; sleep 1000",
    )) else {
        return;
    };
    attempt.wait_for_output("ready");
    let init = attempt.init();
    eventually("all orphans are reaped", || {
        let children = pids()
            .filter_map(state_and_parent)
            .filter(|(_, parent)| *parent == init);
        (children.count() == 1).then_some(())
    });
    kill(init, "KILL");
}
