//! OpenBao, by a plain request: no SDK is official.

use hybrid_runner_secrets::{Source, vault};
use serde_json::Value;

use super::{PATH, at, row, uncached};

pub(super) async fn measure(stores: &Value) {
    let http = super::http().build().unwrap();
    let url = format!("{}/v1/secret/data{PATH}", at(stores, "/vault/url"));
    let token = at(stores, "/vault/token");
    let bare = async || {
        let request = http.get(&url).header("X-Vault-Token", &token);
        let answer = request.send().await.unwrap().error_for_status().unwrap();
        drop(answer.json::<Value>().await.unwrap());
    };
    let mut section = vault::Settings::default();
    section.address = Some(at(stores, "/vault/url"));
    let token = Source::value(token.clone());
    section.auth = Some(vault::Auth::Token { token });
    section.access = uncached();
    row("vault", bare, vault::provider(section).unwrap()).await;
}
