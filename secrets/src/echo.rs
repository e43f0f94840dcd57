//! What a refusal repeats of our request is left out of it.
//!
//! Some stores, and much of what stands before one, tell in an error what they were asked with. Each transport looks for the
//! credentials of its own request in the refusal that came back, in all the forms that the masker knows, before anybody reads
//! its words.

use hybrid_runner_helper::mask::Patterns;
use reqwest::Url;
use serde_json::Value;
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

fn add_fields(body: &[u8], given: &mut Vec<Zeroizing<String>>) {
    let mut add = |name: &str, value: &str| {
        if FIELDS.contains(&name) {
            given.push(Zeroizing::new(value.to_owned()));
        }
    };
    if let Ok(Value::Object(object)) = serde_json::from_slice(body) {
        for (name, value) in &object {
            add(name, value.as_str().unwrap_or_default());
        }
        return;
    }
    // A form is written as the query of a URL is.
    let form = std::str::from_utf8(body)
        .ok()
        .zip(Url::parse("form:/").ok());
    if let Some((text, mut url)) = form {
        url.set_query(Some(text));
        for (name, value) in url.query_pairs() {
            add(&name, &value);
        }
    }
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
    }
}
