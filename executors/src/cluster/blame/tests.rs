use super::*;

fn pod(phase: Phase, main: Container) -> PodSeen {
    PodSeen {
        name: "pod".into(),
        uid: "uid".into(),
        phase,
        going: None,
        is_late: false,
        reason: None,
        message: None,
        unschedulable: None,
        unwell: None,
        disruption: None,
        accepted: None,
        deadline: None,
        grace: 30,
        main,
        before: None,
    }
}

fn over(exit_code: i32, reason: &str, message: &str) -> Container {
    Container::Over(Over {
        exit_code,
        reason: reason.into(),
        message: (!message.is_empty()).then(|| message.into()),
        started: None,
        finished: None,
    })
}

fn waiting(reason: &str, message: &str) -> PodSeen {
    let main = Container::Waiting {
        reason: reason.into(),
        message: message.into(),
    };
    pod(Phase::Pending, main)
}

fn class(outcome: &Outcome) -> FailureClass {
    match outcome {
        Outcome::Failed(failure) => failure.class,
        other => panic!("{other}"),
    }
}

#[test]
fn the_end_of_the_work_is_told_as_it_was() {
    let end = |code, reason| outcome(&pod(Phase::Failed, over(code, reason, "")), false);
    assert_eq!(class(&end(7, "Error")), FailureClass::Exit);
    assert_eq!(class(&end(137, "OOMKilled")), FailureClass::Oom);
    assert_eq!(class(&end(137, "Error")), FailureClass::Exit);
    let done = pod(Phase::Succeeded, over(0, "Completed", ""));
    assert_eq!(outcome(&done, true), Outcome::Succeeded);
}

#[test]
fn a_pod_that_was_put_away_is_no_fault_of_the_work() {
    for (reason, expected) in [
        ("Evicted", FailureClass::Evicted),
        ("OutOfcpu", FailureClass::Evicted),
        ("NodeLost", FailureClass::Evicted),
        ("DeadlineExceeded", FailureClass::Timeout),
        ("Unheard", FailureClass::Backend),
    ] {
        let mut pod = pod(Phase::Failed, over(143, "Error", ""));
        pod.reason = Some(reason.into());
        assert_eq!(class(&outcome(&pod, false)), expected, "{reason}");
    }
    let mut pod = pod(Phase::Failed, over(143, "Error", ""));
    pod.reason = Some("DeadlineExceeded".into());
    assert_eq!(outcome(&pod, true), Outcome::Stopped { by: None });
    pod.reason = None;
    pod.disruption = Some(("EvictionByEvictionAPI".into(), "drained".into()));
    assert_eq!(class(&outcome(&pod, false)), FailureClass::Evicted);
}

#[test]
fn a_pod_that_somebody_deleted_was_killed_unless_it_was_us() {
    let mut pod = pod(Phase::Failed, over(143, "Error", ""));
    pod.going = Some("2026-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(class(&outcome(&pod, false)), FailureClass::Killed);
    assert_eq!(outcome(&pod, true), Outcome::Stopped { by: None });
}

#[test]
fn what_cannot_be_begun_says_what_to_correct() {
    for (words, expected) in [
        (
            "exec: \"/no/such\": stat /no/such: no such file or directory",
            FailureClass::Spec,
        ),
        ("exec: \"x\": permission denied", FailureClass::Denied),
        ("exec /x: exec format error", FailureClass::Spec),
        ("no space left on device", FailureClass::Storage),
        (
            "runc create failed: Cwd must be an absolute path: invalid argument",
            FailureClass::Spec,
        ),
        ("something else", FailureClass::Backend),
    ] {
        let pod = pod(Phase::Failed, over(128, "StartError", words));
        assert_eq!(class(&outcome(&pod, false)), expected, "{words}");
    }
}

#[test]
fn what_may_pass_is_waited_for() {
    for (reason, message) in [
        ("ContainerCreating", ""),
        ("ErrImagePull", "dial tcp: i/o timeout"),
        ("CreateContainerError", "context deadline exceeded"),
        (
            "CreateContainerConfigError",
            "failed to sync secret cache: timed out waiting for the condition",
        ),
        ("ImagePullBackOff", "Back-off pulling image \"a\""),
    ] {
        let delay = delay(&waiting(reason, message));
        assert!(matches!(delay, Delay::Waits(_)), "{delay:?}");
    }
    let mut unplaced = pod(Phase::Pending, Container::Unknown);
    unplaced.unschedulable = Some("0/1 nodes are available: 1 Insufficient memory.".into());
    let Delay::Waits(why) = delay(&unplaced) else {
        panic!()
    };
    assert!(why.contains("Insufficient memory"), "{why}");
}

#[test]
fn what_cannot_pass_is_not_waited_for() {
    for (reason, message, expected) in [
        ("InvalidImageName", "", FailureClass::Image),
        ("ErrImageNeverPull", "", FailureClass::Image),
        (
            "ErrImagePull",
            "failed to resolve reference \"a:1\": a:1: not found",
            FailureClass::Image,
        ),
        (
            "ImagePullBackOff",
            "pull access denied",
            FailureClass::Image,
        ),
        (
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root",
            FailureClass::Spec,
        ),
        (
            "CreateContainerConfigError",
            "container's runAsUser breaks non-root policy (pod: \"a\", container: main)",
            FailureClass::Spec,
        ),
    ] {
        let Delay::Hopeless(failure) = delay(&waiting(reason, message)) else {
            panic!("{reason}")
        };
        assert_eq!(failure.class, expected, "{reason}");
    }
}

#[test]
fn a_pod_with_which_its_node_is_done_was_deleted_before_it_was_ended_by_a_signal() {
    let at = |second| jiff::Timestamp::from_second(second).unwrap();
    let end = |code| {
        let mut over = over(code, "Error", "");
        if let Container::Over(over) = &mut over {
            over.finished = Some(at(100));
        }
        let mut pod = pod(Phase::Failed, over);
        (pod.going, pod.is_late) = (Some(at(101)), true);
        pod
    };
    assert_eq!(class(&outcome(&end(143), false)), FailureClass::Killed);
    assert_eq!(class(&outcome(&end(3), false)), FailureClass::Exit);
    let mut known = end(3);
    let mut before = pod(Phase::Running, Container::Running { since: None });
    before.going = Some(at(99));
    known.remember(&before);
    assert_eq!(class(&outcome(&known, false)), FailureClass::Killed);
    assert_eq!(outcome(&known, true), Outcome::Stopped { by: None });
}

#[test]
fn what_ended_before_the_deadline_ended_by_itself() {
    let mut pod = pod(Phase::Failed, over(0, "Completed", ""));
    pod.reason = Some(DEADLINE.to_owned());
    pod.accepted = Some("2026-01-01T00:00:00Z".parse().unwrap());
    pod.deadline = Some(6);
    let ended_at = |second: u32| {
        let mut pod = pod.clone();
        if let Container::Over(over) = &mut pod.main {
            over.finished = Some(format!("2026-01-01T00:00:0{second}Z").parse().unwrap());
        }
        pod
    };
    assert_eq!(outcome(&ended_at(5), false), Outcome::Succeeded);
    for late in [6, 7] {
        let outcome = outcome(&ended_at(late), false);
        assert_eq!(class(&outcome), FailureClass::Timeout, "{late}");
    }
    // A stop sets the deadline to a moment in the past.
    assert_eq!(outcome(&ended_at(7), true), Outcome::Stopped { by: None });
}
