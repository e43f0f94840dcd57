//! The cases, each under the name of its promise.

use futures::future::join_all;

use super::{ProviderHarness, Trouble};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::{Secret, SecretName};
use crate::testing::verdict::{
    Tried, cut_short, done, ensure, failed, not_offered, refused, refused_as, within,
};

/// The most awaits of one read that the suite cuts at.
const MOST_POLLS: usize = 8;

/// The values of the suite are no secrets, but this one stands for one.
const TEXT: &str = "correct-horse-battery-staple";

async fn get(h: &dyn ProviderHarness, name: &SecretName) -> Tried<Result<Secret>> {
    let provider = h.provider().await;
    within(h.patience(), "an answer", provider.get(name)).await
}

async fn comes_back(h: &dyn ProviderHarness, label: &str, value: &[u8]) -> Tried {
    let Some(name) = h.put(label, value).await else {
        return Err(not_offered("a store that can hold such a value"));
    };
    is(value, &done("a read", get(h, &name).await?)?)
}

/// Fails unless the secret is this; the failure tells where they differ, not what came.
fn is(expected: &[u8], came: &Secret) -> Tried {
    // Compared here, and never shown.
    let came = came.value.expose();
    if came == expected {
        return Ok(());
    }
    let same = came
        .iter()
        .zip(expected)
        .take_while(|(a, b)| a == b)
        .count();
    Err(failed(
        format!("the {} bytes that were put", expected.len()),
        format!("{} bytes, different from byte {same} on", came.len()),
    ))
}

pub(super) async fn check_answers_without_side_effects(h: &dyn ProviderHarness) -> Tried {
    let name = h.put("text", TEXT.as_bytes()).await;
    let provider = h.provider().await;
    for _ in 0..2 {
        let checked = within(h.patience(), "an answer to the check", provider.check());
        done("a check", checked.await?)?;
    }
    let Some(name) = name else { return Ok(()) };
    is(TEXT.as_bytes(), &done("a read", provider.get(&name).await)?)
}

pub(super) async fn check_says_what_is_missing(h: &dyn ProviderHarness) -> Tried {
    let Some(provider) = h.unreachable().await else {
        return Err(not_offered("a provider whose store does not answer"));
    };
    let checked = within(h.patience(), "an answer to the check", provider.check());
    let error = refused("the check", checked.await?)?;
    let says = error.message().len() > 8;
    ensure(says, "an error that says what is missing", || {
        error.report()
    })
}

pub(super) async fn text_comes_back_byte_for_byte(h: &dyn ProviderHarness) -> Tried {
    comes_back(h, "text", TEXT.as_bytes()).await
}

pub(super) async fn unicode_comes_back_byte_for_byte(h: &dyn ProviderHarness) -> Tried {
    comes_back(h, "unicode", "pässwörd-日本-\u{1F980}-e\u{301}".as_bytes()).await
}

pub(super) async fn spaces_and_newlines_come_back_byte_for_byte(h: &dyn ProviderHarness) -> Tried {
    comes_back(h, "spaces", b"  a\n\n\"b\" 'c' \\n $HOME %s\r\n ").await
}

pub(super) async fn a_binary_value_comes_back_byte_for_byte(h: &dyn ProviderHarness) -> Tried {
    let bytes: Vec<u8> = (0..=255).collect();
    comes_back(h, "binary", &bytes).await
}

pub(super) async fn an_empty_value_comes_back_empty(h: &dyn ProviderHarness) -> Tried {
    comes_back(h, "empty", b"").await
}

pub(super) async fn a_large_value_comes_back_byte_for_byte(h: &dyn ProviderHarness) -> Tried {
    let letters = (b'a'..=b'z').cycle().take(64 * 1024);
    comes_back(h, "large", &letters.collect::<Vec<u8>>()).await
}

pub(super) async fn each_name_has_its_own_value(h: &dyn ProviderHarness) -> Tried {
    let mut put = Vec::new();
    for label in ["one", "two", "twofold"] {
        put.push((label, h.put(label, label.as_bytes()).await));
    }
    for (label, name) in put {
        let Some(name) = name else {
            return Err(not_offered("a store that can hold short text"));
        };
        is(label.as_bytes(), &done("a read", get(h, &name).await?)?)?;
    }
    Ok(())
}

pub(super) async fn reading_at_the_same_time_gives_the_same(h: &dyn ProviderHarness) -> Tried {
    let Some(name) = h.put("text", TEXT.as_bytes()).await else {
        return Err(not_offered("a store that can hold short text"));
    };
    let provider = h.provider().await;
    let reads = join_all((0..8).map(|_| provider.get(&name)));
    for read in within(h.patience(), "eight answers", reads).await? {
        is(TEXT.as_bytes(), &done("each of eight reads", read)?)?;
    }
    Ok(())
}

pub(super) async fn a_read_dropped_at_any_await_harms_nothing(h: &dyn ProviderHarness) -> Tried {
    let Some(name) = h.put("text", TEXT.as_bytes()).await else {
        return Err(not_offered("a store that can hold short text"));
    };
    let provider = h.provider().await;
    for polls in 0..=MOST_POLLS {
        let dropped = cut_short(provider.get(&name), polls);
        within(h.patience(), "an await of the read to go on", dropped).await?;
        let read = within(h.patience(), "an answer", provider.get(&name));
        is(TEXT.as_bytes(), &done("the read after it", read.await?)?)?;
    }
    Ok(())
}

pub(super) async fn a_missing_secret_is_not_found(h: &dyn ProviderHarness) -> Tried {
    let read = get(h, &h.missing("nowhere")).await?;
    refused_as(ErrorKind::NotFound, "a missing secret", read)
}

pub(super) async fn a_missing_version_is_an_error(h: &dyn ProviderHarness) -> Tried {
    let Some(mut name) = h.put("text", TEXT.as_bytes()).await else {
        return Err(not_offered("a store that can hold short text"));
    };
    name.version = Some("no-such-version".into());
    refused("a version that does not exist", get(h, &name).await?).map(drop)
}

pub(super) async fn a_forbidden_secret_is_denied(h: &dyn ProviderHarness) -> Tried {
    let Some(name) = h.denied().await else {
        return Err(not_offered("a secret that the store will not let us read"));
    };
    let read = get(h, &name).await?;
    refused_as(ErrorKind::Denied, "a forbidden secret", read)
}

pub(super) async fn a_store_that_does_not_answer_is_unavailable(h: &dyn ProviderHarness) -> Tried {
    let Some(provider) = h.unreachable().await else {
        return Err(not_offered("a provider whose store does not answer"));
    };
    let name = h.missing("nowhere");
    let read = within(h.patience(), "an answer", provider.get(&name)).await?;
    refused_as(
        ErrorKind::Unavailable,
        "a read of a store that does not answer",
        read,
    )
}

pub(super) async fn an_impossible_name_is_invalid(h: &dyn ProviderHarness) -> Tried {
    let Some(name) = h.impossible() else {
        return Err(not_offered("a name that the store cannot hold"));
    };
    refused_as(
        ErrorKind::Invalid,
        "an impossible name",
        get(h, &name).await?,
    )
}

pub(super) async fn an_error_names_the_secret_and_never_a_value(h: &dyn ProviderHarness) -> Tried {
    h.put("text", TEXT.as_bytes()).await;
    let missing = refused("a missing secret", get(h, &h.missing("nowhere")).await?)?;
    ensure(
        letters(&missing).contains("nowhere"),
        "an error that names the secret",
        || missing.report(),
    )?;
    let mut errors = vec![missing];
    if let Some(name) = h.denied().await {
        errors.extend(get(h, &name).await?.err());
    }
    let shows = |error: &Error| format!("{error:?} {}", error.report()).contains(TEXT);
    ensure(!errors.iter().any(shows), "no value in any error", || {
        "an error with one in it".to_owned()
    })
}

/// The letters of an error's text: stores write names in their own way (`/a/b` as `SECRET_A_B`).
fn letters(error: &Error) -> String {
    let text = error.report().to_lowercase();
    text.chars().filter(char::is_ascii_alphanumeric).collect()
}

pub(super) async fn what_is_not_allowed_is_not_served(h: &dyn ProviderHarness) -> Tried {
    let Some(name) = h.not_allowed().await else {
        return Err(not_offered(
            "a value that the section does not allow to be served",
        ));
    };
    refused("what the section does not allow", get(h, &name).await?).map(drop)
}

pub(super) async fn the_identity_is_told_twice_the_same(h: &dyn ProviderHarness) -> Tried {
    let provider = h.provider().await;
    let mut told = Vec::new();
    for _ in 0..2 {
        let answer = within(h.patience(), "an identity", provider.identity()).await?;
        told.push(done("an identity", answer)?);
    }
    ensure(told[0] == told[1], "the same identity twice", || {
        format!("{told:?}")
    })
}

/// Three versions of one secret: each by its name, oldest first.
async fn versions(h: &dyn ProviderHarness) -> Tried<Vec<SecretName>> {
    let values: [&[u8]; 3] = [b"first", b"second", b"third"];
    let names = h.put_versions("versions", &values).await;
    let names = names.ok_or_else(|| not_offered("a store that has versions"))?;
    ensure(names.len() == 3, "three names", || format!("{names:?}"))?;
    Ok(names)
}

pub(super) async fn each_version_comes_back_by_its_name(h: &dyn ProviderHarness) -> Tried {
    let names = versions(h).await?;
    for (name, value) in names.iter().zip(["first", "second", "third"]) {
        is(value.as_bytes(), &done("a read", get(h, name).await?)?)?;
    }
    Ok(())
}

pub(super) async fn the_newest_version_comes_without_a_name(h: &dyn ProviderHarness) -> Tried {
    let names = versions(h).await?;
    let newest = SecretName::new(names[0].name.clone());
    is(b"third", &done("a read", get(h, &newest).await?)?)
}

pub(super) async fn the_version_is_told_where_there_are_some(h: &dyn ProviderHarness) -> Tried {
    let names = versions(h).await?;
    for name in names {
        let secret = done("a read", get(h, &name).await?)?;
        ensure(
            secret.version == name.version,
            "the version that was asked for",
            || format!("{:?} for {:?}", secret.version, name.version),
        )?;
    }
    Ok(())
}

pub(super) async fn a_disabled_secret_is_told_apart(h: &dyn ProviderHarness) -> Tried {
    let Some(name) = h.disabled().await else {
        return Err(not_offered("a secret that is disabled"));
    };
    let read = get(h, &name).await?;
    refused_as(ErrorKind::Conflict, "a disabled secret", read)
}

pub(super) async fn a_deleted_secret_is_refused(h: &dyn ProviderHarness) -> Tried {
    let Some(name) = h.deleted().await else {
        return Err(not_offered("a secret that was deleted"));
    };
    let error = refused("a deleted secret", get(h, &name).await?)?;
    let kind = error.kind();
    ensure(
        matches!(kind, ErrorKind::Conflict | ErrorKind::NotFound),
        "a deleted secret to be refused as `not_found` or `conflict`",
        || error.report(),
    )
}

/// A read from a store in trouble.
async fn troubled(h: &dyn ProviderHarness, trouble: Trouble) -> Tried<Result<Secret>> {
    let Some(name) = h.put("text", TEXT.as_bytes()).await else {
        return Err(not_offered("a store that can hold short text"));
    };
    let Some(provider) = h.in_trouble(trouble).await else {
        return Err(not_offered(&format!("a store in trouble ({trouble:?})")));
    };
    within(h.patience(), "an answer", provider.get(&name)).await
}

/// A store in trouble that is unavailable; the words are in what it says.
async fn unavailable(h: &dyn ProviderHarness, trouble: Trouble, words: &str) -> Tried {
    let error = refused("the read", troubled(h, trouble).await?)?;
    let says = error.kind() == ErrorKind::Unavailable && letters(&error).contains(words);
    ensure(says, &format!("`unavailable`, and `{words}`"), || {
        format!("`{}`: {}", error.kind(), error.report())
    })
}

pub(super) async fn a_store_that_throttles_twice_is_asked_again(h: &dyn ProviderHarness) -> Tried {
    let read = troubled(h, Trouble::ThrottlesTwice).await?;
    is(TEXT.as_bytes(), &done("the read", read)?)
}

pub(super) async fn a_store_that_goes_on_throttling_is_unavailable(
    h: &dyn ProviderHarness,
) -> Tried {
    unavailable(h, Trouble::Throttles, "thrott").await
}

pub(super) async fn a_store_that_fails_twice_is_asked_again(h: &dyn ProviderHarness) -> Tried {
    let read = troubled(h, Trouble::FailsTwice).await?;
    is(TEXT.as_bytes(), &done("the read", read)?)
}

pub(super) async fn a_slow_store_is_given_up_in_time(h: &dyn ProviderHarness) -> Tried {
    unavailable(h, Trouble::Slow, "").await
}

pub(super) async fn a_store_that_cannot_be_trusted_is_not_read(h: &dyn ProviderHarness) -> Tried {
    unavailable(h, Trouble::Untrusted, "certificate").await
}

pub(super) async fn an_identity_that_expired_is_renewed(h: &dyn ProviderHarness) -> Tried {
    let read = troubled(h, Trouble::Expired).await?;
    is(TEXT.as_bytes(), &done("the read", read)?)
}

pub(super) async fn an_answer_that_never_ends_is_not_read_on(h: &dyn ProviderHarness) -> Tried {
    // Who reads on has no memory in the end, or no time.
    unavailable(h, Trouble::Endless, "toolong").await
}

pub(super) async fn a_store_that_sends_elsewhere_is_not_followed(h: &dyn ProviderHarness) -> Tried {
    unavailable(h, Trouble::Elsewhere, "elsewhere").await
}

pub(super) async fn a_refusal_that_repeats_the_request_tells_no_credential(
    h: &dyn ProviderHarness,
) -> Tried {
    let error = refused("the read", troubled(h, Trouble::Repeats).await?)?;
    let (shown, says) = (h.shown(), error.report());
    let has_shown = !shown.is_empty();
    ensure(has_shown, "a store that was shown a credential", || {
        "none was seen".to_owned()
    })?;
    let is_told = shown.iter().any(|credential| says.contains(credential));
    ensure(!is_told, "an error without the credential", || says.clone())
}
