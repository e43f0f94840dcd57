//! Whose fault it is that a container could not be made or started, by the engine's words: its statuses say little.

use hybrid_runner_core::error::{Error, ErrorKind};
use hybrid_runner_core::run::FailureClass;

use super::Shared;

/// Who can mend it.
#[derive(Clone, Copy)]
enum Where {
    /// The workflow says what cannot be.
    Workflow(&'static str),
    /// The section says it.
    Section(&'static str),
    /// The workflow, or the section where the workflow says nothing.
    Either(&'static str, &'static str),
    /// The image.
    Image(&'static str),
}

/// What the engine says, in small letters and with ` … ` between what must all be there, and what that is about.
const KNOWN: &[(&str, Where)] = &[
    ("minimum memory limit", MEMORY),
    ("memory limit too low", MEMORY),
    ("oom-killed", MEMORY),
    ("range of cpus", CPU),
    ("cpu cfs", CPU),
    ("cpu.cfs", CPU),
    ("cpu.max", CPU),
    ("/.hr … not a directory", Where::Image(NO_FOLDER)),
    // Before the sign of a working directory, which it may hold, too.
    ("error mounting", Where::Section("mounts")),
    ("cannot be mounted", Where::Section("mounts")),
    ("working directory", Where::Workflow("workdir")),
    ("cannot mkdir", Where::Workflow("workdir")),
    ("not a directory", Where::Workflow("workdir")),
    ("chdir to cwd", Where::Workflow("workdir")),
    ("bind source path", Where::Section("mounts")),
    ("duplicate mount point", Where::Section("mounts")),
    ("invalid mount", Where::Section("mounts")),
    ("invalid volume", Where::Section("mounts")),
    ("network … not found", Where::Section("network")),
    ("no such network", Where::Section("network")),
    // Whose network is to be shared.
    ("no such container", Where::Section("network")),
    (
        "network of a non running container",
        Where::Section("network"),
    ),
    ("runtime name", Where::Section("runtime")),
    ("unknown runtime", Where::Section("runtime")),
    ("no status provided on response", Where::Section("runtime")),
    ("add-host", Where::Section("extra_hosts")),
    ("host-gateway", Where::Section("extra_hosts")),
    ("capability", Where::Section("cap_drop")),
    ("capdrop", Where::Section("cap_drop")),
    ("unable to find user", USER),
    ("unable to find group", USER),
    ("linux spec user", USER),
    ("uids and gids must be in range", USER),
    (
        "image operating system",
        Where::Image("is made for another system"),
    ),
    (
        "image platform",
        Where::Image("is made for another platform"),
    ),
];

/// What an image is that init cannot be mounted in.
pub(super) const NO_FOLDER: &str =
    "has a file at `/.hr`, where each container needs a folder for init: take it out of the image";
const MEMORY: Where = Where::Either("resources.limits.memory", "limits");
const CPU: Where = Where::Either("resources.limits.cpu", "limits");
const USER: Where = Where::Section("user");

impl Shared {
    /// Adds whose fault it is, and what to do, to an error of making or starting a container.
    pub(super) fn blamed(&self, error: Error) -> Error {
        if error.class().is_some() || error.kind() == ErrorKind::Unavailable {
            return error;
        }
        let words = error.causes().unwrap_or_default();
        let lower = words.to_lowercase();
        let is_there = |sign: &str| sign.split(" … ").all(|part| lower.contains(part));
        let known = KNOWN.iter().find(|(sign, _)| is_there(sign));
        let (class, advice) = match known {
            Some((_, about)) => self.about(*about),
            None if error.kind() == ErrorKind::Denied => (FailureClass::Denied, String::new()),
            None => (FailureClass::Backend, String::new()),
        };
        // Nothing is gained by trying again at once what the engine has refused.
        let kind = match error.kind() {
            ErrorKind::Conflict => ErrorKind::Internal,
            kind => kind,
        };
        Error::new(kind, format!("{}{advice}", error.message()))
            .with_class(class)
            .with_source(words)
    }

    fn about(&self, about: Where) -> (FailureClass, String) {
        let section = format!("[executors.{}]", self.name);
        match about {
            Where::Workflow(field) => (
                FailureClass::Spec,
                format!(": correct `{field}` of the workflow"),
            ),
            Where::Section(key) => (
                FailureClass::Backend,
                format!(": correct `{key}` in {section}"),
            ),
            Where::Either(field, key) => (
                FailureClass::Spec,
                format!(": correct `{field}` of the workflow, or `{key}` in {section}"),
            ),
            Where::Image(fault) => (FailureClass::Image, format!(": the image {fault}")),
        }
    }
}
