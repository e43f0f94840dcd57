//! Which of the two executors over a cluster a test is about.

/// What runs are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Jobs,
    Workflows,
}

impl Over {
    /// The `kind` of the section.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Jobs => "kubernetes",
            Self::Workflows => "argo",
        }
    }

    /// The rights that we tell people to give.
    pub(crate) fn rbac(self) -> &'static str {
        match self {
            Self::Jobs => include_str!("../../../deploy/rbac/kubernetes.yaml"),
            Self::Workflows => include_str!("../../../deploy/rbac/argo.yaml"),
        }
    }

    /// Group, version and kind of the object of a run.
    pub(crate) fn resource(self) -> kube::core::ApiResource {
        let (group, version, kind) = match self {
            Self::Jobs => ("batch", "v1", "Job"),
            Self::Workflows => ("argoproj.io", "v1alpha1", "Workflow"),
        };
        kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, kind))
    }
}

/// Tests of the module around it, each over Jobs and over Workflows.
macro_rules! over_both {
    ($($test:ident),* $(,)?) => {
        mod jobs {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test($crate::over::Over::Jobs).await;
                }
            )*
        }
        mod workflows {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test($crate::over::Over::Workflows).await;
                }
            )*
        }
    };
}
pub(crate) use over_both;
