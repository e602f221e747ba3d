//! A critic as it is trained: a plain net, or one with Batch Renormalisation, which judges as a plain net.

use super::mlp::Mlp;
use super::renorm::Renorm;

/// A critic as it is trained.
#[derive(Debug, Clone, PartialEq)]
pub enum Critic {
    Plain(Mlp),
    Renorm(Renorm),
}

impl Critic {
    /// The plain net that it is when it judges.
    pub fn mlp(&self) -> &Mlp {
        match self {
            Critic::Plain(mlp) => mlp,
            Critic::Renorm(net) => &net.mlp,
        }
    }

    /// The normalised net, where it is one.
    pub fn renorm(&self) -> Option<&Renorm> {
        match self {
            Critic::Plain(_) => None,
            Critic::Renorm(net) => Some(net),
        }
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.renorm().map_or(self.mlp().len(), Renorm::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Words of the running moments of two critics.
    pub fn norms_len(&self) -> usize {
        self.renorm().map_or(0, |net| 2 * net.norm_len())
    }
}
