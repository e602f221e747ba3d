//! One session of a trial: its name, its place in the cohort, and whether it is still running.

use crate::lab::cohort::{Cohort, Fault};

/// A session, as the controller sees it; its numbers are in the cohort, its data frame in the reporter.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Index within the trial; with the seed, all that its random numbers depend on.
    pub index: u32,
    /// `{spec}_t{T}_s{S}`, the stem of its files.
    pub name: String,
    /// What stopped it before its last frame.
    pub fault: Option<Fault>,
}

impl Session {
    /// The sessions of a trial, in the order of the cohort.
    pub fn all(spec_name: &str, trial: u32, max_session: u32) -> Vec<Session> {
        let session = |index| Session { index, name: format!("{spec_name}_t{trial}_s{index}"), fault: None };
        (0..max_session).map(session).collect()
    }

    /// Takes over a fault from position `s` of the cohort; the message, the first time there is one.
    pub fn check(&mut self, cohort: &Cohort, s: usize) -> Option<String> {
        if self.fault.is_some() {
            return None;
        }
        self.fault = cohort.fault(s).cloned();
        self.fault.as_ref().map(|Fault { op, frame }| {
            let name = &self.name;
            format!(
                "{name} stopped: `{op}` gave a number that is not finite at frame {frame}; the best model so far stays"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_slm_lab() {
        let sessions = Session::all("ppo_cartpole", 0, 3);
        assert_eq!(sessions.len(), 3);
        assert_eq!((sessions[2].index, sessions[2].name.as_str()), (2, "ppo_cartpole_t0_s2"));
    }
}
