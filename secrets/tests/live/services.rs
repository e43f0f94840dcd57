//! The stores that `scripts/services/secret-stores up` started.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// Where to start them.
const HOW: &str =
    "no secret stores: HYBRID_RUNNER_STORES is not set; scripts/services/secret-stores up";

/// What `stores.json` says of one store; none, said once, without them.
pub(crate) fn of(store: &str) -> Option<Value> {
    static ALL: OnceLock<Option<Value>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let folder = std::env::var_os("HYBRID_RUNNER_STORES")?;
        let text = std::fs::read_to_string(std::path::Path::new(&folder).join("stores.json"));
        Some(serde_json::from_str(&text.unwrap()).unwrap())
    });
    all.as_ref().map(|all| all[store].clone())
}

/// Says that a test cannot be made here.
pub(crate) fn skipped() {
    hybrid_runner_core::testing::skipped(HOW);
}

/// A word that no other test has.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!(
        "t{}x{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A client that reaches the stores, whatever the environment says of proxies.
pub(crate) fn http() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .danger_accept_invalid_certs(true)
        .build()
        .unwrap()
}
