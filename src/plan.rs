//! Spec and spaces become a plan: every size known, every default filled in, every cross-check made, before frame 0.

/// What will run.
#[derive(Debug, Clone)]
pub struct Plan {
    // filled in by the training core
    pub max_session: u32,
    pub max_frame: u64,
    pub num_envs: u32,
    pub log_frequency: u64,
    pub env_name: &'static str,
}
