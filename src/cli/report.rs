//! `slm-fast report`: graphs and report pages of runs, drawn again from their data.

use slm_fast::error::Result;
use slm_fast::report::files::RunFolder;
use slm_fast::report::{experiment, html, runs};

use super::{Ending, ReportArgs, say};

/// Writes the report of every trial that has data, then that of the search.
pub fn report(args: &ReportArgs) -> Result<Ending> {
    for root in &args.folders {
        let folder = RunFolder::open(root)?;
        for &trial in runs::sessions(&folder)?.keys() {
            html::trial(&folder, trial)?;
            say(&folder.trial_report(trial).display().to_string());
        }
        if folder.experiment_df().exists() {
            experiment::write(&folder)?;
            say(&folder.report().display().to_string());
        }
    }
    Ok(Ending::Success)
}
