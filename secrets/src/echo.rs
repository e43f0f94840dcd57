//! What a refusal repeats of our request is left out of it.
//!
//! Some stores, and much of what stands before one, tell in an error what they were asked with. Each transport looks for the
//! credentials of its own request in the refusal that came back, in all the forms that the masker knows, before anybody reads
//! its words.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use hybrid_runner_helper::mask::{Patterns, needles_of};
use reqwest::Url;
#[cfg(any(feature = "gcp", feature = "kubernetes"))]
use reqwest::header::HeaderMap;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// The headers that carry a credential.
const HEADERS: [&str; 6] = [
    "authorization",
    "proxy-authorization",
    "x-amz-security-token",
    "x-aws-ec2-metadata-token",
    "x-identity-header",
    "x-vault-token",
];

/// The fields of a form or of a JSON object that carry one: OAuth's, those of AWS's token service, and Vault's.
const FIELDS: [&str; 8] = [
    "WebIdentityToken",
    "assertion",
    "client_assertion",
    "client_secret",
    "jwt",
    "refresh_token",
    "secret_id",
    "subject_token",
];

/// Behind this stands what is secret of a request that AWS's way of signing has signed.
const SIGNATURE: &str = "Signature=";

/// What was read or configured here, and is not to be told, whoever repeats it: what a library sends by itself is in no request that
/// we see.
static KNOWN: Mutex<Option<Patterns>> = Mutex::new(None);

/// Leaves the credentials of a request out of the refusal that answered it.
pub(crate) fn leave_out<'a>(
    refusal: &mut Zeroizing<Vec<u8>>,
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    body: &[u8],
) {
    let mut given = Vec::new();
    for (name, value) in headers {
        if HEADERS.iter().any(|one| name.eq_ignore_ascii_case(one)) {
            given.push(Zeroizing::new(
                String::from_utf8_lossy(credential(value)).into_owned(),
            ));
        }
    }
    add_fields(body, &mut given);
    let patterns = Patterns::of_values(given.iter().map(|value| value.as_bytes()));
    if !patterns.is_empty() {
        *refusal = Zeroizing::new(patterns.mask(refusal));
    }
}

/// The same of a request without a body.
#[cfg(any(feature = "gcp", feature = "kubernetes"))]
pub(crate) fn leave_out_headers(refusal: &mut Zeroizing<Vec<u8>>, headers: &HeaderMap) {
    let headers = headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
    leave_out(refusal, headers, &[]);
}

/// From now on this is left out of whatever a store says, as it is and as it is written in a form.
pub(crate) fn remember(value: &str) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_with(|| Patterns::new([]));
    // What is known already is masked to the last byte.
    if known.mask(value.as_bytes()) != b"***" {
        for value in [value, &in_form(value)] {
            known.add(needles_of(value.as_bytes()));
        }
    }
}

/// Who uses a proxy, by its URL. A name that stands alone is the credential.
pub(crate) fn remember_user(proxy: &Url) {
    let (name, password) = (proxy.username(), proxy.password().unwrap_or_default());
    let (meant, decoded) = (of_url(name), of_url(password));
    remember(&format!("{meant}:{decoded}"));
    if password.is_empty() {
        remember(&meant);
    }
    for value in [password, &decoded] {
        remember(value);
    }
}

/// Who uses the proxies of the environment: libraries with a client of their own ask them, too.
pub(crate) fn remember_environment() {
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        for name in [name.to_owned(), name.to_uppercase()] {
            let text = std::env::var(name).unwrap_or_default();
            let proxy = Url::parse(&text).ok().filter(Url::has_host);
            let proxy = proxy.or_else(|| Url::parse(&format!("http://{text}")).ok());
            proxy.as_ref().map(remember_user);
        }
    }
}

/// Words without what is known.
pub(crate) fn without_known(words: &str) -> String {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(known) = known.as_ref() else {
        return words.to_owned();
    };
    String::from_utf8_lossy(&known.mask(words.as_bytes())).into_owned()
}

/// What of a header is the credential: behind the scheme, and of what is signed the signature.
fn credential(header: &[u8]) -> &[u8] {
    let behind = |part: &[u8]| {
        let at = header
            .windows(part.len())
            .position(|window| window == part)?;
        Some(&header[at + part.len()..])
    };
    behind(SIGNATURE.as_bytes())
        .or_else(|| behind(b" "))
        .unwrap_or(header)
}

/// Each field as it is meant and as it is written: who encodes the whole body encodes what was written.
fn add_fields(body: &[u8], given: &mut Vec<Zeroizing<String>>) {
    let mut add = |value: &str| given.push(Zeroizing::new(value.to_owned()));
    if let Ok(object) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(body) {
        for (name, raw) in &object {
            if FIELDS.contains(&name.as_str())
                && let Ok(meant) = serde_json::from_str::<String>(raw.get())
            {
                add(&meant);
                add(raw.get().trim_matches('"'));
            }
        }
        return;
    }
    for field in std::str::from_utf8(body).unwrap_or_default().split('&') {
        if let Some((name, raw)) = field.split_once('=')
            && FIELDS.contains(&name)
        {
            add(&of_url(&raw.replace('+', " ")));
            add(raw);
        }
    }
}

/// A text as it is written in a form.
fn in_form(text: &str) -> String {
    let Ok(mut url) = Url::parse("text:/") else {
        return text.to_owned();
    };
    url.query_pairs_mut().append_pair("", text);
    let written = url.query().unwrap_or_default();
    written.trim_start_matches('=').to_owned()
}

/// A text as it is meant that is written as in a URL.
fn of_url(text: &str) -> String {
    let Ok(mut url) = Url::parse("text:/") else {
        return text.to_owned();
    };
    // In the query of a form a `+` would be a space.
    url.set_query(Some(&format!("={}", text.replace('+', "%2B"))));
    let meant = url.query_pairs().next();
    meant.map_or_else(String::new, |(_, meant)| meant.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(refusal: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut refusal = Zeroizing::new(refusal.as_bytes().to_vec());
        let headers = headers
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()));
        leave_out(&mut refusal, headers, body.as_bytes());
        String::from_utf8_lossy(&refusal).into_owned()
    }

    #[test]
    fn a_header_is_left_out_without_its_scheme_and_in_every_form() {
        let headers = [
            ("Authorization", "Bearer opaque-4711"),
            ("Accept", "application/json"),
        ];
        let refusal = r#"{"error":"application/json: Bearer opaque-4711, b3BhcXVlLTQ3MTE="}"#;
        assert_eq!(
            left(refusal, &headers, ""),
            r#"{"error":"application/json: Bearer ***, ***"}"#
        );
        let headers = [("x-vault-token", "dev\"token")];
        let refusal = r#"{"errors":["who is dev\"token?"]}"#;
        assert_eq!(left(refusal, &headers, ""), r#"{"errors":["who is ***?"]}"#);
    }

    #[test]
    fn what_is_remembered_is_left_out_of_all_words() {
        let proxy = Url::parse("http://u:p%40ss+word@h:1").unwrap();
        remember_user(&proxy);
        remember_user(&proxy);
        assert_eq!(
            without_known("p%40ss+word, p@ss+word, dTpwQHNzK3dvcmQ=, u"),
            "***, ***, ***, u"
        );
        remember_user(&Url::parse("http://token-4711@h:1").unwrap());
        assert_eq!(without_known("token-4711, dG9rZW4tNDcxMTo="), "***, ***");
        remember("SUBJ+q7/==");
        assert_eq!(
            without_known("subject_token%3DSUBJ%252Bq7%252F%253D%253D&a"),
            "subject_token%3D***&a"
        );
    }

    #[test]
    fn of_a_signature_the_signature_alone_is_left_out() {
        let signed = "AWS4-HMAC-SHA256 Credential=AKIA/20260101/eu/sts/aws4_request, SignedHeaders=host, Signature=0a1b2c3d";
        assert_eq!(
            left(signed, &[("authorization", signed)], ""),
            signed.replace("0a1b2c3d", "***")
        );
    }

    #[test]
    fn the_fields_of_a_form_and_of_an_object_are_left_out() {
        let form = "client_id=me&client_secret=hunter%202%2B&scope=all";
        assert_eq!(
            left("me: hunter 2+, hunter%202%2B, all", &[], form),
            "me: ***, ***, all"
        );
        let object = r#"{"role_id":"reader","secret_id":"hunter22"}"#;
        assert_eq!(left("reader with hunter22", &[], object), "reader with ***");
        assert_eq!(left("as it is", &[], "\u{1}\u{2}"), "as it is");
        // As it is written: the whole body in hexadecimal digits, and in base64.
        let hex = |text: &str| {
            text.bytes().fold(String::new(), |digits, byte| {
                digits + &format!("{byte:02x}")
            })
        };
        let form = "client_secret=a%7Eb8Q%2F2&scope=all";
        let told = left(&hex(form), &[], form);
        assert!(
            !told.contains(&hex("a%7Eb8Q%2F2")) && told.ends_with(&hex("all")),
            "{told}"
        );
        let object = r#"{"secret_id":"say \"hunter2\""}"#;
        let told = left(&hex(object), &[], object);
        assert!(!told.contains(&hex("hunter2")), "{told}");
    }
}
