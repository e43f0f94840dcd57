//! Answers of the API server in words of the contract.

use hybrid_runner_core::error::{Error, ErrorKind, causes};
use hybrid_runner_core::run::FailureClass;
use kube::client::AuthError;
use kube::core::Status;

use super::client::Connected;

/// An error of a request: what was tried, and the API server's own words. Never by `Debug`, which may show a whole answer.
pub(crate) fn failed(connected: &Connected, what: &str, error: &kube::Error) -> Error {
    let what = format!("failed to {what}");
    match error {
        kube::Error::Api(status) => answered(connected, what, status),
        kube::Error::Auth(_) => Error::denied(format!(
            "{what}: there are no credentials for {}",
            connected.identity
        ))
        .with_source(told(error)),
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
            Error::internal(format!("{what}: the answer is not understood"))
        }
        kube::Error::BuildRequest(_) => Error::invalid(what).with_source(causes(error)),
        _ => {
            connected.is_away();
            let words = causes(error);
            let advice = advice(&words);
            Error::unavailable(format!("{what} at `{}`{advice}", connected.server))
                .with_source(words)
        }
    }
}

/// What to do about a connection that is not made.
fn advice(words: &str) -> &'static str {
    if words.contains("UnknownIssuer") {
        return ", whose certificate is of an authority that is not known; set `ca` in the section to the file of that";
    }
    if words.contains("tunnel error") {
        return ": its proxy gives no way there; see `proxy` in the section, `proxy-url` in the kubeconfig and `HTTPS_PROXY`";
    }
    ""
}

/// What an error says, without what a program printed that logs in: that may be a token.
pub(super) fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Auth(AuthError::AuthExecRun { out, .. }) => {
            let words = String::from_utf8_lossy(&out.stderr);
            let mut lines = words.lines().rev().map(str::trim);
            let last = lines.find(|line| !line.is_empty()).unwrap_or_default();
            format!("{}: {last}", out.status)
        }
        kube::Error::Auth(AuthError::AuthExecParse(_)) => {
            "what it printed is no ExecCredential".to_owned()
        }
        _ => causes(error),
    }
}

fn answered(connected: &Connected, what: String, status: &Status) -> Error {
    let words = status.message.clone();
    let denied = |advice: &str| {
        Error::denied(format!("{what}: {}{advice}", connected.identity)).with_source(words.clone())
    };
    match status.code {
        401 => {
            denied(" is not accepted; see that the token or certificate is right and not expired")
        }
        403 if words.contains("User \"system:anonymous\"") => denied(
            " shows no credentials, so that the API server takes it for anybody; see that there is a token, a certificate or a program that logs in",
        ),
        403 if words.contains("exceeded quota") => {
            Error::denied(format!("{what}: a quota of the namespace is used up"))
                .with_class(FailureClass::Quota)
                .with_source(words)
        }
        // An API server that has just begun knows its RoleBindings before its Roles.
        403 if lacks_role(&words) => Error::unavailable(format!(
            "{what}: a RoleBinding of {} names a Role that the API server does not find (yet)",
            connected.identity
        ))
        .with_source(words),
        403 if connected.is_forgetful() && Rule::missing(&words).is_some() => {
            Error::unavailable(format!(
                "{what}: {} may not, says an API server that was away a moment ago",
                connected.identity
            ))
            .with_source(words)
        }
        403 => match Rule::missing(&words) {
            Some(rule) => denied(&format!(
                " may not; add to its Role in `{}`: {rule}",
                connected.namespace
            )),
            // An admission plugin, or the namespace is on its way out.
            None => Error::denied(format!("{what}: the cluster forbids it"))
                .with_class(FailureClass::Policy)
                .with_source(words),
        },
        _ if words.contains("admission webhook") && words.contains("denied the request") => {
            Error::denied(format!("{what}: an admission webhook forbids it"))
                .with_class(FailureClass::Policy)
                .with_source(words)
        }
        _ if is_policy(&words) => Error::denied(format!("{what}: an admission policy forbids it"))
            .with_class(FailureClass::Policy)
            .with_source(words),
        404 => Error::not_found(what).with_source(words),
        409 => Error::conflict(what).with_source(words),
        429 => Error::unavailable(what).with_source(words),
        408 | 500..=599 => {
            connected.is_away();
            Error::unavailable(what).with_source(words)
        }
        _ => Error::new(ErrorKind::Invalid, what)
            .with_class(FailureClass::Spec)
            .with_source(words),
    }
}

/// Whether an admission policy of the cluster itself said no: it may do so as a request that is invalid.
fn is_policy(words: &str) -> bool {
    words.contains("ValidatingAdmissionPolicy") && words.contains("denied request")
}

/// Whether the authorizer could not ask all Roles that are bound to us, so that its "no" may not last.
fn lacks_role(words: &str) -> bool {
    words.rsplit_once("RBAC: ").is_some_and(|(_, why)| {
        why.contains("rbac.authorization.k8s.io") && why.contains("not found")
    })
}

/// A right that a Role can give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) group: String,
    /// With the subresource, as `pods/log`.
    pub(crate) resource: String,
    pub(crate) verb: String,
}

impl Rule {
    /// The right that these words of the API server say is missing.
    pub(crate) fn missing(words: &str) -> Option<Self> {
        let (_, rest) = words.split_once(" cannot ")?;
        let (verb, rest) = rest.split_once(" resource \"")?;
        let (resource, rest) = rest.split_once("\" in API group \"")?;
        let (group, _) = rest.split_once('"')?;
        Some(Self {
            group: group.to_owned(),
            resource: resource.to_owned(),
            verb: verb.to_owned(),
        })
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{{apiGroups: [\"{}\"], resources: [\"{}\"], verbs: [\"{}\"]}}",
            self.group, self.resource, self.verb
        )
    }
}

/// Whether the API server answered with this status.
pub(crate) fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// An answer that may be "there is none".
pub(crate) fn found<T>(answer: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_status(&error, 404) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{ExitStatus, Output};

    use super::*;

    #[test]
    fn what_a_program_printed_that_logs_in_is_not_told() {
        let error = kube::Error::Auth(AuthError::AuthExecRun {
            cmd: "log in".to_owned(),
            out: Box::new(Output {
                status: ExitStatus::from_raw(256),
                stdout: b"a token".to_vec(),
                stderr: b"first\nno session\n\n".to_vec(),
            }),
        });
        assert_eq!(told(&error), "exit status: 1: no session");
    }

    #[test]
    fn the_missing_rule_is_read_from_the_words_of_the_api_server() {
        let words = r#"pods "a" is forbidden: User "system:serviceaccount:ns:runner" cannot get resource "pods/log" in API group "" in the namespace "ns""#;
        let rule = Rule::missing(words).unwrap();
        assert_eq!(
            rule.to_string(),
            r#"{apiGroups: [""], resources: ["pods/log"], verbs: ["get"]}"#
        );
        assert_eq!(Rule::missing("exceeded quota: q"), None);
    }

    #[test]
    fn a_no_without_all_roles_is_not_the_last_word() {
        let words = r#"jobs.batch "a" is forbidden: User "system:serviceaccount:ns:runner" cannot get resource "jobs" in API group "batch" in the namespace "ns""#;
        let unread =
            format!(r#"{words}: RBAC: role.rbac.authorization.k8s.io "hybrid-runner" not found"#);
        assert!(lacks_role(&unread));
        assert!(!lacks_role(words));
    }
}
