//! The keys of a section that say which cluster it is about.

use std::path::PathBuf;

use hybrid_runner_core::error::Result;

use super::proxy;

/// Which cluster, as who, and on which way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// Absent: that of the pod, or of the kubeconfig.
    pub(crate) namespace: Option<String>,
    /// Absent: `KUBECONFIG`, `~/.kube/config`, or the pod's own account.
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) context: Option<String>,
    /// The variable that holds the token, instead of that of the pod's own account.
    pub(crate) token_env: Option<String>,
    /// Instead of the authority in the kubeconfig.
    pub(crate) ca: Option<PathBuf>,
    /// `http://[user:password@]host:port`, or `none`; absent: the usual variables.
    pub(crate) proxy: Option<String>,
}

impl Access {
    /// Refuses what can be seen to be wrong without a file or a network.
    pub(crate) fn check(&self) -> Result<()> {
        proxy::check(self.proxy.as_deref())
    }
}
