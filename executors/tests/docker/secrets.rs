//! No value stands anywhere but in the workload (P4), in images of every kind.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hybrid_runner_core::run::{Outcome, RunSpec};
use hybrid_runner_core::secret::{References, SecretValue, Secrets};
use hybrid_runner_core::testing::{Looked, Search, processes_of};
use serde_json::json;

use crate::bench::{Bench, Log, spec, until};
use crate::own::Own;

const NONROOT: &str = "hybrid-runner-test/nonroot:1";
const SCRATCH: &str = "hybrid-runner-test/scratch:1";

/// Found nowhere else on this machine.
fn value(name: &str) -> String {
    let random = hybrid_runner_core::RunId::generate().to_string();
    format!("{name}-{}", random.replace('-', ""))
}

/// The value, and what base64 makes of it wherever it stands in a text.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let encoded = (0..3).map(|offset| {
        let text = [&b"zz"[..offset], value.as_bytes()].concat();
        let encoded = STANDARD.encode(&text);
        // What the neighbours have a part in is left out.
        let from = [0, 2, 3][offset];
        encoded.as_bytes()[from..encoded.len() - 4].to_vec()
    });
    std::iter::once(value.as_bytes().to_vec())
        .chain(encoded)
        .collect()
}

/// A search for these values.
fn search_for<'a>(values: impl IntoIterator<Item = &'a String>) -> Search {
    let needles = |value: &'a String| forms(value).into_iter().map(move |form| (form, value));
    Search::new(values.into_iter().flat_map(needles))
}

#[test]
fn what_is_searched_for_would_be_found() {
    let value = value("probe");
    for text in ["", "x", "xy", "xyz"] {
        let around = format!("{text}{value}and more");
        let search = search_for([&value]);
        assert_eq!(search.known_in(around.as_bytes()), [&value]);
        let encoded = STANDARD.encode(&around);
        assert_eq!(search.known_in(encoded.as_bytes()), [&value]);
    }
}

/// A run with a value in each place that takes one, which it prints in all forms that masking knows.
fn keeper(bench: &Bench, values: &[String; 4]) -> (RunSpec, Secrets) {
    let folder = bench.place.folder.path().display();
    let script = format!(
        "echo $PLAIN; base64 -w 0 < $FILE; echo; cat $FILE $WORKFLOW_CONFIG >&2; echo $CONFIG; echo $TOLD; \
         cat $FILE | cksum; ls -l $FILE > {folder}/file; touch {folder}/there; while [ ! -e {folder}/enough ]; do sleep 0.1; done"
    );
    let mut spec = bench.spec(&script);
    let mut secrets = Secrets::none();
    for (name, value) in ["/plain", "/file", "/config", "/told"]
        .into_iter()
        .zip(values)
    {
        secrets.insert(name, SecretValue::new(value.as_str()));
    }
    spec.env.insert("PLAIN".into(), "secret:/plain".into());
    spec.env
        .insert("TOLD".into(), "before ${secret:/told} after".into());
    spec.files.insert("FILE".into(), "secret:/file".into());
    spec.config = Some(json!({ "password": "secret:/config" }));
    spec.config_env = Some("CONFIG".into());
    (spec, secrets)
}

#[tokio::test]
async fn a_value_stands_nowhere_but_in_the_work() {
    let Some(own) = Own::up(&[]).await else {
        return;
    };
    for read_only in [false, true] {
        let settings = json!({ "read_only": read_only });
        let bench = Bench::at(own.host.clone(), settings, References::none());
        let values = ["plain", "file", "config", "told"].map(value);
        let (spec, secrets) = keeper(&bench, &values);
        let folder = bench.place.folder.path().to_owned();
        let run = bench.start_with(&spec, &secrets).await;
        until("the work", async || folder.join("there").exists()).await;

        let mut search = search_for(&values);
        let client = bench.place.client();
        let container = client
            .inspect_container(&bench.place.container(run.run), None)
            .await;
        search.look(
            "the container",
            format!("{:?}", container.unwrap()).as_bytes(),
        );
        let volumes = client.list_volumes(None::<bollard::query_parameters::ListVolumesOptions>);
        search.look(
            "the volumes",
            format!("{:?}", volumes.await.unwrap()).as_bytes(),
        );
        let image = client.inspect_image(crate::place::BUSYBOX).await.unwrap();
        search.look("the image", format!("{image:?}").as_bytes());
        let of_the_work = processes_of(run.run).unwrap();
        assert!(!of_the_work.is_empty());
        search.processes(|pid, _, _| {
            if of_the_work.contains(&pid) {
                return Looked::Arguments;
            }
            Looked::All
        });
        search.found_nothing(50);
        search.files(&own.folder().join("data"), &|_| false);
        search.files(&own.folder().join("exec"), &|_| false);
        search.found_nothing(50);

        fs::write(folder.join("enough"), "").unwrap();
        let log = bench.log(&run, None).await;
        assert_eq!(bench.end(&run).await, Outcome::Succeeded);
        assert_masked(&log, &mut search);
        search.processes(|_, _, _| Looked::All);
        search.files(&own.folder().join("data"), &|_| false);
        search.found_nothing(100);
        let listing = fs::read_to_string(folder.join("file")).unwrap();
        assert!(listing.starts_with("-rw-------"), "{listing}");
        bench.remove(&run).await;
        assert!(!in_mounts(&own, "tmpfs"), "a file system in memory is left");
    }
}

fn assert_masked(log: &Log, search: &mut Search) {
    let bytes = log.bytes(None);
    search.look("the log", &bytes);
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("***"), "{text}");
    assert!(text.contains("before *** after"), "{text}");
    assert!(text.contains(r#""password":"***""#), "{text}");
}

/// Whether a file system of this kind is mounted below the engine's folder.
fn in_mounts(own: &Own, kind: &str) -> bool {
    let folder = own.folder();
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mut mounts = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    mounts.any(|fields| {
        fields[1].starts_with(folder.to_str().unwrap())
            && fields[1].contains("private")
            && fields[2] == kind
    })
}

#[tokio::test]
async fn nothing_of_our_environment_reaches_the_work_but_what_the_section_passes_on() {
    let path = std::env::var("PATH").unwrap();
    let Some(bench) = Bench::with(json!({ "env": ["CARGO_MANIFEST_DIR", "NOT_SET"] })) else {
        return;
    };
    let run = bench.begin("env").await;
    let text = bench.text(&run).await;
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    let mut names: Vec<_> = text
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    names.retain(|name| !name.starts_with("WORKFLOW_"));
    names.sort_unstable();
    // A shell adds its own.
    names.retain(|name| !["PWD", "SHLVL", "OLDPWD", "_"].contains(name));
    assert_eq!(
        names,
        ["CARGO_MANIFEST_DIR", "HOME", "HOSTNAME", "PATH"],
        "{text}"
    );
    assert!(
        text.contains("\nPATH=/bin\n") || text.starts_with("PATH=/bin\n"),
        "{path}: {text}"
    );
    bench.remove(&run).await;
}

#[tokio::test]
async fn a_variable_that_the_system_does_not_take_is_refused_by_name() {
    let Some(bench) = Bench::new() else { return };
    let mut spec = bench.spec("true");
    spec.env
        .insert("FITS".into(), "x".repeat((128 << 10) - "FITS=".len() - 1));
    assert_eq!(
        bench.end(&bench.start(&spec).await).await,
        Outcome::Succeeded
    );
    bench
        .remove(&hybrid_runner_core::executor::Handle::of(spec.run))
        .await;
    let mut spec = bench.spec("true");
    spec.env.insert("LONG".into(), "x".repeat(128 << 10));
    let (error, failure) = bench.refused(&spec).await;
    assert!(error.report().contains("LONG"), "{error:?}");
    assert_eq!(failure.class, hybrid_runner_core::run::FailureClass::Spec);
}

/// What a run of this spec writes.
async fn output(bench: &Bench, spec: &RunSpec) -> String {
    let run = bench.start(spec).await;
    let text = bench.text(&run).await;
    let outcome = bench.end(&run).await;
    assert_eq!(outcome, Outcome::Succeeded, "{text}");
    bench.remove(&run).await;
    text
}

fn of_image(image: &str) -> RunSpec {
    let mut spec = spec::<0>([]);
    spec.command = None;
    spec.image = Some(image.to_owned());
    spec
}

#[tokio::test]
async fn the_image_says_what_the_workflow_does_not() {
    let Some(bench) = Bench::new() else { return };
    let greeting = "greeting: a = b, twice  spaced\n";
    let entry = "entry: 1000:1000 in /home/work\n";
    assert_eq!(
        output(&bench, &of_image(NONROOT)).await,
        format!("{entry}{greeting}")
    );

    let mut args = of_image(NONROOT);
    args.args = Some(vec!["echo".into(), "my own".into()]);
    assert_eq!(output(&bench, &args).await, format!("{entry}my own\n"));

    let mut command = of_image(NONROOT);
    command.command = Some(vec![
        "/bin/sh".into(),
        "-c".into(),
        "echo $0 $#, $EMPTY.".into(),
    ]);
    assert_eq!(output(&bench, &command).await, "/bin/sh 0, .\n");

    let mut wins = of_image(NONROOT);
    wins.env.insert("GREETING".into(), "ours".into());
    wins.workdir = Some("/tmp".into());
    assert_eq!(
        output(&bench, &wins).await,
        "entry: 1000:1000 in /tmp\ngreeting: ours\n"
    );
}

#[tokio::test]
async fn an_image_of_one_static_program_is_run() {
    for settings in [json!({}), json!({ "read_only": true, "cap_drop": ["ALL"] })] {
        let Some(bench) = Bench::with(settings) else {
            return;
        };
        let mut spec = of_image(SCRATCH);
        let mut secrets = Secrets::none();
        let value = value("scratch");
        secrets.insert("/key", SecretValue::new(value.as_str()));
        spec.env.insert("KEY".into(), "secret:/key".into());
        spec.files.insert("KEY_FILE".into(), "secret:/key".into());
        let run = bench.start_with(&spec, &secrets).await;
        let text = bench.text(&run).await;
        assert_eq!(bench.end(&run).await, Outcome::Succeeded, "{text}");
        assert!(
            text.contains("from the image") && text.contains("two words"),
            "{text}"
        );
        assert!(!text.contains(&value), "{text}");
        bench.remove(&run).await;
    }
}

#[tokio::test]
async fn the_section_can_take_rights_away() {
    let settings = json!({ "read_only": true, "user": "1000:1000", "cap_drop": ["ALL"] });
    let Some(bench) = Bench::with(settings) else {
        return;
    };
    let script = "id -u; touch /there 2>&1; touch /tmp/there && echo in tmp; grep CapBnd /proc/self/status; \
                  grep NoNewPrivs /proc/self/status; cat $FILE; echo no > /.hr/init; ls -d /.hr/private/run";
    let mut spec = bench.spec(script);
    spec.files.insert("FILE".into(), "content\n".into());
    let run = bench.start(&spec).await;
    let text = bench.text(&run).await;
    for line in [
        "1000\n",
        "touch: /there: Read-only file system",
        "in tmp\n",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "content\n",
    ] {
        assert!(text.contains(line), "no `{line}`: {text}");
    }
    assert_eq!(bench.end(&run).await, Outcome::Succeeded, "{text}");
    bench.remove(&run).await;
}
