//! What resolving a reference costs beside the bare call that it is made of: `scripts/bench secrets`.
//!
//! Against the live servers of `scripts/services/secret-stores`, without a cache. Both take turns, and who is first takes turns too, so
//! that whatever the machine does meets both alike; a figure is the median. Bare is what anybody would write who knows nothing of us: the
//! cloud's own SDK, or the plain request where none is official (Vault). It has the same identity, and an HTTP client with the same
//! settings; Google's SDK makes its own.
#![expect(clippy::print_stdout, reason = "the table is the product")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails has no figures")]

mod aws;
mod azure;
#[path = "../../src/body.rs"]
mod body;
#[cfg_attr(test, expect(dead_code, reason = "its tests have no harness here"))]
#[path = "../../src/echo.rs"]
mod echo;
mod gcp;
mod vault;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hybrid_runner_core::secret::{Secret, SecretName};
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{Result, SecretProvider};
use hybrid_runner_secrets::Stores;
use hybrid_runner_secrets::decorate::{Access, around};
use serde_json::{Value, json};
use tokio::time::Instant;

const ROUNDS: usize = 2000;
/// So many are not counted: connections, logins.
const WARM: usize = 100;
const PATH: &str = "/bench/orders/password";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return; // `cargo test --all-targets` only wants it to compile.
    }
    let folder = std::env::var("HYBRID_RUNNER_STORES").expect("scripts/services/secret-stores up");
    let stores = std::fs::read(format!("{folder}/stores.json")).unwrap();
    let stores: Value = serde_json::from_slice(&stores).unwrap();
    let lay = json!({"path": PATH, "value": "correct-horse-battery"});
    let admin = http().build().unwrap().post(at(&stores, "/admin/url"));
    let laid = admin.json(&lay).send().await.unwrap();
    assert!(laid.status().is_success());
    println!("| store | bare call, p50 | resolved, p50 | ratio |");
    println!("|---|---|---|---|");
    aws::measure(&stores).await;
    azure::measure(&stores).await;
    gcp::measure(&stores).await;
    vault::measure(&stores).await;
    println!();
    let near = around(Near, &uncached());
    let took = median(turns(async || (), near).await.1);
    println!(
        "A store that answers at once: {:.1} µs.",
        took.as_secs_f64() * 1e6
    );
}

/// A text of `stores.json`.
fn at(stores: &Value, pointer: &str) -> String {
    let text = stores.pointer(pointer).and_then(Value::as_str);
    text.unwrap_or_else(|| panic!("no `{pointer}` in stores.json"))
        .to_owned()
}

/// An HTTP client with the limits that a careful author gives it; they are ours, too.
fn http() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(2))
        .timeout(Duration::from_secs(3))
        .redirect(reqwest::redirect::Policy::none())
}

fn uncached() -> Access {
    let mut access = Access::default();
    access.cache = Period::seconds(0);
    access.negative_cache = Period::seconds(0);
    access
}

/// Measures both in turns, and prints a row.
async fn row(store: &str, bare: impl AsyncFn(), provider: Arc<dyn SecretProvider>) {
    let (bares, ours) = turns(bare, provider).await;
    let (bare, ours) = (median(bares), median(ours));
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    println!(
        "| `{store}` | {:.3} ms | {:.3} ms | {ratio:.2} |",
        bare.as_secs_f64() * 1e3,
        ours.as_secs_f64() * 1e3
    );
}

/// How long each call of either took.
async fn turns(
    bare: impl AsyncFn(),
    provider: Arc<dyn SecretProvider>,
) -> (Vec<Duration>, Vec<Duration>) {
    let name = "store".parse().unwrap();
    let stores = Stores::new(BTreeMap::from([(name, provider)]), None).unwrap();
    let reference = format!("secret:{PATH}").parse().unwrap();
    let (mut bares, mut ours) = (Vec::new(), Vec::new());
    for round in 0..WARM + ROUNDS {
        for ours_now in [round % 2 == 0, round % 2 == 1] {
            let start = Instant::now();
            if ours_now {
                stores.read("bench", &reference).await.unwrap();
            } else {
                bare().await;
            }
            let took = start.elapsed();
            if round >= WARM {
                let times = if ours_now { &mut ours } else { &mut bares };
                times.push(took);
            }
        }
    }
    (bares, ours)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// A store that answers at once: what remains is ours alone.
#[derive(Debug)]
struct Near;

#[async_trait::async_trait]
impl SecretProvider for Near {
    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn identity(&self) -> Result<Option<String>> {
        Ok(None)
    }

    async fn get(&self, _: &SecretName) -> Result<Secret> {
        Ok(Secret::new("correct-horse-battery").with_version("1"))
    }
}
