//! Classes of sources of credentials, for counters.

use std::fmt;

/// A class of sources, few enough for a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    /// Pulls through the CRI image service.
    Pulls,
    /// kubelet's credential providers.
    Kubelet,
    /// Docker's configuration and its helpers.
    Docker,
    /// Secrets of a Kubernetes cluster.
    Kubernetes,
    /// Our own configuration, and password files that it names.
    Configuration,
    /// A source of another program that uses this library.
    Other,
    /// No credentials at all.
    Anonymous,
}

// === impl SourceKind ===

impl SourceKind {
    /// Every class, in the order in which they are asked.
    pub const ALL: [Self; 7] = [
        Self::Pulls,
        Self::Kubelet,
        Self::Docker,
        Self::Kubernetes,
        Self::Configuration,
        Self::Other,
        Self::Anonymous,
    ];

    /// The class in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pulls => "pulls",
            Self::Kubelet => "kubelet",
            Self::Docker => "docker",
            Self::Kubernetes => "kubernetes",
            Self::Configuration => "configuration",
            Self::Other => "other",
            Self::Anonymous => "anonymous",
        }
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_classes_are_listed_in_the_order_of_their_numbers() {
        assert!(SourceKind::ALL.into_iter().enumerate().all(|(n, kind)| kind as usize == n));
    }
}
