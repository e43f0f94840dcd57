use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;

use super::*;
use async_trait::async_trait;
use serde_json::json;

/// Answers by the name: `/missing`, `/denied`, `/down`, `/hangs`, `/invalid`; all else is a JSON object.
#[derive(Debug, Default)]
struct Fake {
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl SecretProvider for Fake {
    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn get(&self, name: &SecretName) -> Result<Secret> {
        self.asked.lock().unwrap().push(name.to_string());
        match name.name.as_str() {
            "/missing" => Err(Error::not_found("no such secret")),
            "/denied" => Err(Error::denied("AccessDenied").with_source(Error::internal("403"))),
            "/down" => Err(Error::unavailable("connection refused")),
            "/invalid" => Err(Error::invalid("bad name")),
            "/hangs" => {
                tokio::time::sleep(Duration::from_hours(1)).await;
                Ok(Secret::new("late"))
            }
            _ => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(Secret::new(r#"{"user":"u","password":"hunter2"}"#).with_version("v7"))
            }
        }
    }
}

fn stores(names: &[&str], default: Option<&str>) -> (Stores, Vec<Arc<Fake>>) {
    let mut fakes = Vec::new();
    let mut stores: BTreeMap<SectionName, Arc<dyn SecretProvider>> = BTreeMap::new();
    for name in names {
        let fake = Arc::new(Fake::default());
        fakes.push(Arc::clone(&fake));
        stores.insert(name.parse().unwrap(), fake);
    }
    let default = default.map(|name| name.parse().unwrap());
    (Stores::new(stores, default).unwrap(), fakes)
}

async fn resolve(stores: &Stores, references: &[&str]) -> Result<Secrets> {
    let references: Vec<Reference> = references
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    stores.resolve(RunId::of_key("run"), &references).await
}

fn text<'a>(secrets: &'a Secrets, reference: &str) -> &'a str {
    secrets.get(reference).unwrap().expose_text().unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_secret_is_read_once_however_many_references_name_it() {
    let (stores, fakes) = stores(&["prod"], Some("prod"));
    let all = [
        "/db#user",
        "secret:/db#password",
        "prod:/db#user",
        "/db",
        "/db#user",
    ];
    let secrets = resolve(&stores, &all).await.unwrap();
    assert_eq!(fakes[0].asked.lock().unwrap().len(), 1);
    assert_eq!(secrets.len(), 4);
    assert_eq!(text(&secrets, "/db#user"), "u");
    assert_eq!(text(&secrets, "/db#password"), "hunter2");
    assert_eq!(text(&secrets, "prod:/db#user"), "u");
    assert!(text(&secrets, "/db").starts_with('{'));
}

#[tokio::test(start_paused = true)]
async fn eight_are_read_at_a_time() {
    let (stores, _) = stores(&["prod"], None);
    let names: Vec<String> = (0..17).map(|i| format!("/{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let start = Instant::now();
    assert_eq!(resolve(&stores, &names).await.unwrap().len(), 17);
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_error_names_reference_store_and_cause_and_keeps_its_kind() {
    let (stores, _) = stores(&["prod"], None);
    for (reference, kind, words) in [
        (
            "/missing",
            ErrorKind::NotFound,
            "is not found in store `prod`: no such secret; create",
        ),
        ("/db#gone", ErrorKind::NotFound, "no field `gone`"),
        (
            "/denied",
            ErrorKind::Denied,
            "is denied by store `prod`: AccessDenied: 403; allow",
        ),
        (
            "/down",
            ErrorKind::Unavailable,
            "store `prod` is unreachable: connection refused",
        ),
        ("/hangs", ErrorKind::Unavailable, "no answer within 10s"),
        ("/invalid", ErrorKind::Invalid, "bad name"),
    ] {
        let error = resolve(&stores, &["/db", reference]).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{reference}");
        assert!(
            error.message().contains(&format!("`secret:{reference}`")),
            "{error}"
        );
        assert!(error.message().contains(words), "{error}");
        assert!(!error.report().contains("hunter2"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_that_is_wrong_is_told_at_once() {
    let (stores, _) = stores(&["prod"], None);
    let error = resolve(&stores, &["/down", "/denied", "/missing", "dev:/x"])
        .await
        .unwrap_err();
    assert!(!error.is_transient());
    for words in [
        "4 secrets",
        "secret:/down",
        "secret:/denied",
        "secret:/missing",
        "secret:dev:/x",
    ] {
        assert!(error.message().contains(words), "{words}: {error}");
    }
    let error = resolve(&stores, &["/down", "/hangs"]).await.unwrap_err();
    assert!(error.is_transient());
}

#[tokio::test(start_paused = true)]
async fn a_default_is_for_what_is_not_found_only() {
    let (stores, _) = stores(&["prod"], None);
    for reference in ["/missing?default=a%26b", "/db?default=a%26b#gone"] {
        let secrets = resolve(&stores, &[reference]).await.unwrap();
        assert_eq!(text(&secrets, reference), "a&b");
    }
    for reference in ["/denied?default=x", "/down?default=x", "/invalid?default=x"] {
        assert!(resolve(&stores, &[reference]).await.is_err(), "{reference}");
    }
    let found = resolve(&stores, &["/db?default=x#user"]).await.unwrap();
    assert_eq!(text(&found, "/db?default=x#user"), "u");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_store_finds_its_name() {
    let (two, fakes) = stores(&["prod", "test"], None);
    let error = resolve(&two, &["prd:/a"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error
            .message()
            .contains("it has `prod`, `test`); did you mean `prod`?"),
        "{error}"
    );
    let error = resolve(&two, &["/a"]).await.unwrap_err();
    assert!(error.message().contains("secrets = \"NAME\""), "{error}");
    assert!(fakes[0].asked.lock().unwrap().is_empty());
    let (none, _) = stores(&[], None);
    let error = resolve(&none, &["/a"]).await.unwrap_err();
    assert!(error.message().contains("[secrets.NAME]"), "{error}");
    let default = Some("prd".parse().unwrap());
    assert!(Stores::new(two.all().into_iter().collect(), default).is_err());
}

#[tokio::test(start_paused = true)]
async fn an_id_that_could_mean_a_store_is_refused_with_a_caret() {
    let (stores, fakes) = stores(&["prod", "test"], Some("test"));
    for (reference, caret) in [("prod", 0), ("prod:db/x", 5), ("test:db?version=1", 5)] {
        let error = resolve(&stores, &[reference]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let last = error.message().lines().last().unwrap();
        assert_eq!(last.find('^'), Some("  secret:".len() + caret), "{error}");
    }
    assert!(
        fakes
            .iter()
            .all(|fake| fake.asked.lock().unwrap().is_empty())
    );
    for reference in ["arn:aws:x", "prod%3Adb", "production:db", "/prod"] {
        resolve(&stores, &[reference]).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn other_stores_take_the_place_of_these_for_all_who_hold_them() {
    let (held, _) = stores(&["old"], None);
    let clone = held.clone();
    let (others, fakes) = stores(&["new"], None);
    held.replace(&others);
    assert_eq!(clone.default_store().unwrap().as_str(), "new");
    resolve(&clone, &["/db"]).await.unwrap();
    assert_eq!(fakes[0].asked.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn reads_are_counted_by_store_and_outcome_and_written_to_the_audit_file() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("audit.jsonl");
    let (stores, _) = stores(&["prod"], None);
    let stores = stores.audited(Some(path.clone()));
    for references in [&["/db#user", "/db#gone"][..], &["/denied", "/down"]] {
        assert!(resolve(&stores, references).await.is_err());
    }
    let counts: Vec<_> = stores
        .reads()
        .into_iter()
        .map(|(store, outcome, reads)| (store.to_string(), outcome, reads.count))
        .collect();
    let of = |outcome| ("prod".to_owned(), outcome, 1);
    assert_eq!(
        counts,
        ["denied", "found", "not_found", "unreachable"].map(of)
    );
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("hunter2"));
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    let found = lines.iter().find(|line| line["outcome"] == "found");
    let found = found.unwrap();
    assert_eq!(found["reference"], "secret:/db#user");
    assert_eq!(found["version"], "v7");
    assert_eq!(found["run"], RunId::of_key("run").to_string());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(start_paused = true)]
async fn one_read_tells_store_and_version() {
    let (stores, _) = stores(&["prod"], None);
    let found = stores
        .read("doctor", &"/db".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(
        (found.store.as_str(), found.version.as_deref()),
        ("prod", Some("v7"))
    );
    assert!(!found.by_default);
    assert!(!format!("{found:?}").contains("hunter2"));
}

#[test]
fn stores_are_built_of_their_sections() {
    let place = tempfile::tempdir().unwrap();
    let context = |name: &str, settings| {
        let owner = hybrid_runner_core::id::Owner::of("s", &"a".parse().unwrap());
        Context::new(name.parse().unwrap(), settings, place.path(), owner, 0)
    };
    let build =
        |kind: &str, settings| Stores::build([(kind.to_owned(), context("x", settings))], None);
    let stores = build("file", json!({"path": place.path()})).unwrap();
    assert_eq!(stores.default_store().unwrap().as_str(), "x");
    build("env", json!({})).unwrap();
    for (kind, settings, words) in [
        ("file", json!({"path": "a", "dotenv": "b"}), "either `path`"),
        ("file", json!({"pth": "a"}), "unknown field `pth`"),
        ("file", json!({}), "either `path`"),
        ("env", json!({"prefix": ""}), "[secrets.x]"),
        (
            "plugin",
            json!({}),
            if cfg!(feature = "plugin") {
                "missing field `command`"
            } else {
                "--features plugin"
            },
        ),
        ("fil", json!({}), "did you mean `file`?"),
    ] {
        let error = build(kind, settings).unwrap_err();
        assert!(error.report().contains(words), "{}", error.report());
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn each_reference_leaves_an_audit_line_without_its_value() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let (stores, _) = stores(&["prod"], None);
    let all = ["/db#user", "/db#password", "/denied", "/missing?default=x"];
    assert!(resolve(&stores, &all).await.is_err());
    drop(guard);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("hunter2"));
    let outcomes: BTreeMap<String, serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["target"] == "audit")
        .map(|line| {
            (
                line["fields"]["reference"].as_str().unwrap().to_owned(),
                line["fields"].clone(),
            )
        })
        .collect();
    assert_eq!(outcomes.len(), 4);
    let of = |reference: &str, field: &str| outcomes[reference][field].clone();
    assert_eq!(of("secret:/db#user", "outcome"), "found");
    assert_eq!(of("secret:/db#user", "version"), "v7");
    assert_eq!(of("secret:/db#user", "store"), "prod");
    assert_eq!(
        of("secret:/db#user", "run"),
        RunId::of_key("run").to_string()
    );
    assert_eq!(of("secret:/denied", "outcome"), "denied");
    assert_eq!(of("secret:/missing?default=x", "outcome"), "default");
}
