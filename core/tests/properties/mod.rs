//! What holds of a reference, whatever somebody writes. The fuzz target uses this file too.

use hybrid_runner_core::secret::{Reference, Secrets, Template};

/// Reads any text as a reference and as a template.
///
/// # Panics
///
/// Where a promise is broken.
pub(crate) fn check(text: &str) {
    match text.parse::<Reference>() {
        Ok(reference) => is_read_again(&reference),
        Err(error) => points_into(text, &error.to_string()),
    }
    is_rendered(text);
}

/// What is shown of a reference is the same reference; inside of a string too.
fn is_read_again(reference: &Reference) {
    let shown = reference.to_string();
    let again = shown.parse::<Reference>();
    assert!(
        again.as_ref().is_ok_and(|again| again == reference),
        "{again:?} instead of {reference:?}"
    );
    assert!(
        !reference.name.relative().trim_matches('/').is_empty(),
        "{shown:?} has no name"
    );
    let whole = Template::parse(&shown).expect("a whole reference");
    assert!(whole.references().eq([reference]), "{shown:?}");
    if !shown.contains('}') {
        let inside = Template::parse(&format!("a ${{{shown}}} b")).expect("a reference in a text");
        assert!(inside.references().eq([reference]), "{shown:?}");
    }
}

/// The caret stands under a character of the text, or behind the last one; a long text has the place by its number.
fn points_into(text: &str, error: &str) {
    let written = text.strip_prefix("secret:").unwrap_or(text);
    let length = written.chars().count();
    let lines: Vec<&str> = error.split('\n').collect();
    if length > 80 {
        let place = error
            .rsplit_once("at character ")
            .and_then(|(_, place)| place.strip_suffix(')'));
        let place: usize = place
            .and_then(|place| place.parse().ok())
            .expect("it names a character");
        assert!((1..=length + 1).contains(&place), "{error}");
        assert!(!error.contains(char::is_control), "{error:?}");
        return;
    }
    let [_, shown, pointer] = lines[..] else {
        panic!("no three lines: {error:?}");
    };
    let before = "  secret:".len();
    assert_eq!(shown.chars().count(), before + length, "{error}");
    let column = pointer.strip_suffix('^').expect("a caret").len();
    assert!(
        pointer.trim_start() == "^" && (before..=before + length).contains(&column),
        "{error}"
    );
    assert!(!shown.contains(char::is_control), "{error:?}");
}

/// A text without references is rendered as it is.
fn is_rendered(text: &str) {
    if let Ok(template) = Template::parse(text)
        && template.references().next().is_none()
    {
        let rendered = template
            .render(&Secrets::none())
            .expect("nothing is missing");
        assert_eq!(rendered.expose(), text.as_bytes());
    }
}
