use hybrid_runner_core::id::Owner;
use serde_json::{Value, json};

use super::*;

fn read_with(settings: Value, variables: &[(&str, &str)]) -> Result<Settings> {
    let context = Context::new(
        "here".parse().unwrap(),
        settings,
        "/var/lib/x",
        Owner::of("s", &"a".parse().unwrap()),
        1 << 30,
    );
    Settings::read(&context, |name| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

#[test]
fn a_wrong_setting_is_named_with_its_section() {
    for (key, wrong) in [
        ("host", json!({"host": "ssh://me@there"})),
        ("host", json!({"host": "https://there:2376"})),
        ("pull", json!({"pull": "sometimes"})),
        (
            "mounts",
            json!({"mounts": [{"source": "/a", "target": "b"}]}),
        ),
        (
            "mounts",
            json!({"mounts": [{"source": "/a", "target": "/.hr/private"}]}),
        ),
        (
            "mounts",
            json!({"mounts": [{"source": "/a", "target": "//.hr/private"}]}),
        ),
        (
            "mounts",
            json!({"mounts": [{"source": "/a", "target": "/./a/../.hr/"}]}),
        ),
        (
            "mounts",
            json!({"mounts": [{"source": "./a", "target": "/b"}]}),
        ),
        (
            "mounts",
            json!({"mounts": [{"source": "a/b", "target": "/b"}]}),
        ),
        ("network", json!({"network": ""})),
        ("runtime", json!({"runtime": " "})),
        ("limits", json!({"limits": {"memory": "0"}})),
        ("limits", json!({"limits": {"cpu": "0"}})),
        ("limits", json!({"limits": {"pids": 0}})),
        (
            "registries",
            json!({"registries": {"r": {"username": "u", "password": "plain"}}}),
        ),
        (
            "labels",
            json!({"labels": {"io.hybrid-runner.owner": "me"}}),
        ),
        ("log", json!({"log": {"max_files": 1}})),
        ("log.driver", json!({"log": {"driver": "none"}})),
        ("limits.memory", json!({"limits": {"memory": "much"}})),
        ("imge", json!({"imge": "busybox"})),
        ("image", json!({"image": ""})),
        ("image", json!({"image": "busy box"})),
        (
            "tls",
            json!({"host": "unix:///a", "tls": {"ca": "c", "cert": "d", "key": "e"}}),
        ),
    ] {
        let report = read_with(wrong, &[]).unwrap_err().report();
        assert!(report.contains("[executors.here]"), "{report}");
        assert!(report.contains(&format!("`{key}`")), "{report}");
    }
}

#[test]
fn the_target_of_a_mount_is_taken_as_the_engine_takes_it() {
    let mounts = json!({"mounts": [{"source": "certs_1", "target": "//tmp/./a/../"}, {"source": "/a", "target": "/.hrx"}]});
    let targets = read_with(mounts, &[]).unwrap().given.mounts;
    let targets: Vec<_> = targets.iter().map(|mount| mount.target.as_str()).collect();
    assert_eq!(targets, ["/tmp", "/.hrx"]);
}

#[test]
fn the_engine_is_the_one_of_the_section_then_of_docker_host_then_the_usual() {
    let host = |settings, variables: &[(&str, &str)]| read_with(settings, variables).unwrap().host;
    assert_eq!(
        host(json!({}), &[]),
        Host::Unix("/var/run/docker.sock".to_owned())
    );
    let named = [("DOCKER_HOST", "unix:///run/other.sock")];
    assert_eq!(
        host(json!({}), &named),
        Host::Unix("/run/other.sock".to_owned())
    );
    let section = json!({"host": "tcp://10.0.0.5:2375"});
    assert_eq!(host(section, &named), Host::Tcp("10.0.0.5:2375".to_owned()));
    let verified = [
        ("DOCKER_TLS_VERIFY", "1"),
        ("DOCKER_CERT_PATH", "/certs"),
        ("DOCKER_HOST", "tcp://h:2376"),
    ];
    assert!(
        matches!(host(json!({}), &verified), Host::Tls(_, tls) if tls.key.ends_with("key.pem"))
    );
}

#[test]
fn the_log_of_a_run_has_the_bound_of_the_spool() {
    let (driver, options) = read_with(json!({}), &[]).unwrap().log;
    assert_eq!(driver, "local");
    assert!(
        options.contains(&("max-size", (1_u64 << 28).to_string())),
        "{options:?}"
    );
    assert!(
        options.contains(&("max-file", "4".to_owned())),
        "{options:?}"
    );
}
