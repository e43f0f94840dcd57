//! Names of secrets as each store can hold them.
//!
//! A name that a store can hold is taken as it is, so that any existing id may be written. Any other path is
//! mapped as OpenMetadata maps the ids that it makes, so that one workflow file works with every store:
//!
//! | store | holds | parts are joined by | what else it cannot hold |
//! |---|---|---|---|
//! | AWS Secrets Manager, SSM | `/` too | (kept, with the leading `/`) | becomes `_` |
//! | Vault | everything but empty parts | (kept) | is refused |
//! | Azure Key Vault | letters, digits, `-` | `-` | is left out |
//! | Google Secret Manager | letters, digits, `-`, `_` | `_` | is left out, `-` too |
//! | Kubernetes | lower case, digits, `-`, `.` | `-` | becomes `-`, never two in a row; above 253 characters: 240 and a hash |

/// The longest name of an object in Kubernetes.
const KUBERNETES_MOST: usize = 253;
/// How much of a longer one is kept.
const KUBERNETES_KEPT: usize = 240;

/// A path whose store knows `/`: what cannot stand in it becomes `_`.
pub(crate) fn with_slashes(name: &str, also: &str) -> String {
    name.chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() || c == '/' || also.contains(c) => c,
            _ => '_',
        })
        .collect()
}

/// The parts of a path, joined; from each only what `fits`.
fn joined(name: &str, by: &str, fits: impl Fn(char) -> bool) -> String {
    let parts = name
        .split('/')
        .map(|part| part.chars().filter(|c| fits(*c)).collect::<String>());
    parts
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(by)
}

/// The name in an Azure Key Vault.
pub(crate) fn azure(relative: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if !relative.is_empty() && relative.chars().all(fits) {
        return relative.to_owned();
    }
    joined(relative, "-", fits)
}

/// The name in Google's Secret Manager.
pub(crate) fn gcp(relative: &str) -> String {
    let holds = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !relative.is_empty() && relative.chars().all(holds) {
        return relative.to_owned();
    }
    joined(relative, "_", |c| c.is_ascii_alphanumeric() || c == '_')
}

/// The name of a Secret in Kubernetes.
pub(crate) fn kubernetes(name: &str) -> String {
    let relative = name.strip_prefix('/').unwrap_or(name);
    if is_object_name(relative) {
        return relative.to_owned();
    }
    let mut mapped = String::with_capacity(name.len());
    for c in name.trim_start_matches('/').chars() {
        match c {
            c if c.is_ascii_alphanumeric() => mapped.push(c.to_ascii_lowercase()),
            _ if mapped.ends_with('-') => {}
            _ => mapped.push('-'),
        }
    }
    let mapped = mapped.trim_matches('-');
    if mapped.len() <= KUBERNETES_MOST {
        return mapped.to_owned();
    }
    format!("{}-{:x}", &mapped[..KUBERNETES_KEPT], java_hash(name))
}

fn is_object_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= KUBERNETES_MOST
        && edge(name.chars().next())
        && edge(name.chars().next_back())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
}

/// The hash that OpenMetadata's server, a Java program, appends: that of its strings.
fn java_hash(text: &str) -> u32 {
    text.encode_utf16().fold(0_u32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(unit.into())
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn slashes_stay_where_the_store_knows_them() {
        use super::with_slashes;
        assert_eq!(
            with_slashes("/prod/orders-db/p.w", "_+=.@-"),
            "/prod/orders-db/p.w"
        );
        assert_eq!(with_slashes("/prod/ö b/pass", "_-"), "/prod/__b/pass");
    }

    #[test]
    fn azure_joins_by_dashes() {
        use super::azure;
        for (name, expected) in [
            ("my-id", "my-id"),
            ("prod/orders-db/password", "prod-orders-db-password"),
            ("prod/my_svc/pass word", "prod-mysvc-password"),
            ("my_id", "myid"),
            ("/", ""),
        ] {
            assert_eq!(azure(name), expected, "{name}");
        }
    }

    #[test]
    fn gcp_joins_by_underscores() {
        use super::gcp;
        for (name, expected) in [
            ("my-id_1", "my-id_1"),
            ("prod/orders-db/password", "prod_ordersdb_password"),
            ("prod/my_svc", "prod_my_svc"),
        ] {
            assert_eq!(gcp(name), expected, "{name}");
        }
    }

    #[test]
    fn kubernetes_has_small_letters_and_single_dashes() {
        use super::{java_hash, kubernetes};
        for (name, expected) in [
            ("/my-id.v1", "my-id.v1"),
            (
                "/prefix/cluster/service/password",
                "prefix-cluster-service-password",
            ),
            ("///leading-slashes", "leading-slashes"),
            ("UPPERCASE-NAME", "uppercase-name"),
            ("special@#$%characters", "special-characters"),
            ("/-a--b-", "a-b"),
        ] {
            assert_eq!(kubernetes(name), expected, "{name}");
        }
        assert_eq!(java_hash("hello"), 99_162_322);
        let long = format!("/{}", "x/".repeat(300));
        let mapped = kubernetes(&long);
        assert!(
            mapped.len() <= 253 && mapped.starts_with("x-x-"),
            "{mapped}"
        );
        assert_ne!(mapped, kubernetes(&format!("{long}y")));
    }
}
