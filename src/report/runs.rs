//! What a run's folder holds, read back as plain data: which trials and sessions, and their curves.

use std::collections::BTreeMap;

use super::files::RunFolder;
use super::frame::DataFrame;
use crate::error::{Error, Result};
use crate::metric;

/// The return of a trial over its frames: row by row the mean over its sessions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curve {
    /// Index of the trial.
    pub trial: u32,
    /// `[N]`, ascending.
    pub frames: Vec<f64>,
    /// `[N]`.
    pub total_reward: Vec<f64>,
    /// `[N]`.
    pub total_reward_ma: Vec<f64>,
}

/// The sessions of every trial that has a data frame, both ascending.
///
/// # Errors
/// Where `info/` cannot be read.
pub fn sessions(folder: &RunFolder) -> Result<BTreeMap<u32, Vec<u32>>> {
    let info = folder.root().join("info");
    let entries = std::fs::read_dir(&info).map_err(|err| Error::io(&info, "cannot read the folder", &err))?;
    let prefix = format!("{}_t", folder.spec_name());
    let mut found: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let indices = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.strip_suffix("_session_df_train.csv"));
        let indices = indices.and_then(|indices| indices.split_once("_s"));
        if let Some((Ok(trial), Ok(session))) = indices.map(|(t, s)| (t.parse(), s.parse())) {
            found.entry(trial).or_default().push(session);
        }
    }
    found.values_mut().for_each(|sessions| sessions.sort_unstable());
    Ok(found)
}

/// The data frame of a session.
///
/// # Errors
/// A file that cannot be read, or holds something else.
pub fn session_frame(folder: &RunFolder, trial: u32, session: u32) -> Result<DataFrame> {
    let path = folder.session_info(trial, session, "df_train.csv");
    let text = std::fs::read_to_string(&path).map_err(|err| Error::io(&path, "cannot read", &err))?;
    DataFrame::from_csv(&text, &path.display().to_string())
}

/// A column of several sessions: row by row its mean and deviation over those that have a number there.
pub fn over_sessions(frames: &[DataFrame], column: &str) -> (Vec<f64>, Vec<f64>) {
    let rows = frames.iter().map(|frame| frame.rows.len()).max().unwrap_or(0);
    let mut columns: Vec<Vec<f64>> = frames.iter().map(|frame| frame.column(column).unwrap_or_default()).collect();
    // past the end of a session that stopped early the others go on
    columns.iter_mut().for_each(|column| column.resize(rows, f64::NAN));
    metric::mean_and_std(&columns)
}

/// The column `frame` of the session with the most rows.
pub fn longest(frames: &[DataFrame]) -> Vec<f64> {
    let longest = frames.iter().max_by_key(|frame| frame.rows.len());
    longest.and_then(|frame| frame.column("frame")).unwrap_or_default()
}

/// The curves of those of the trials that have data.
///
/// # Errors
/// A file that cannot be read, or holds something else.
pub fn curves(folder: &RunFolder, trials: impl Iterator<Item = u32>) -> Result<Vec<Curve>> {
    let sessions = sessions(folder)?;
    let with_data = trials.filter_map(|trial| Some((trial, sessions.get(&trial)?)));
    let read = |(trial, sessions): (u32, &Vec<u32>)| {
        let frames = sessions.iter().map(|&session| session_frame(folder, trial, session));
        let frames = frames.collect::<Result<Vec<DataFrame>>>()?;
        Ok(Curve {
            trial,
            frames: longest(&frames),
            total_reward: over_sessions(&frames, "total_reward").0,
            total_reward_ma: over_sessions(&frames, "total_reward_ma").0,
        })
    };
    with_data.map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::files::write_whole;

    #[test]
    fn a_trial_is_the_mean_of_its_sessions_to_the_end_of_the_longest() {
        let data = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::create(data.path(), "ppo_x").expect("made");
        let session = |trial, session, text: &str| {
            write_whole(&folder.session_info(trial, session, "df_train.csv"), text.as_bytes()).expect("written");
        };
        session(3, 0, "frame,total_reward,total_reward_ma\n10,1,1\n20,3,2\n");
        session(3, 1, "frame,total_reward,total_reward_ma\n10,3,\n20,5,4\n30,7,5\n");
        session(12, 10, "frame,total_reward,total_reward_ma\n10,1,1\n");
        write_whole(&folder.trial_info(3, "trial_metrics.json"), b"{}").expect("written");
        assert_eq!(sessions(&folder).expect("listed"), BTreeMap::from([(3, vec![0, 1]), (12, vec![10])]));
        let curves = curves(&folder, [12, 5, 3].into_iter()).expect("read");
        assert_eq!(curves.iter().map(|curve| curve.trial).collect::<Vec<_>>(), [12, 3]);
        assert_eq!(curves[1].frames, [10.0, 20.0, 30.0]);
        assert_eq!(curves[1].total_reward, [2.0, 4.0, 7.0]);
        assert_eq!(curves[1].total_reward_ma, [1.0, 3.0, 5.0]);
    }
}
