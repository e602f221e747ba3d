//! A data frame: named columns of f64, and the columns of a session's.

use crate::error::Result;

/// Where a column of the session data frame comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A number of the log row, by its name in [`crate::lab::cohort::COLUMNS`].
    Row(&'static str),
    /// Mean of the last 100 rows' `total_reward`, NaN skipped.
    TotalRewardMa,
    /// Frames so far over `wall_t`.
    Fps,
    /// Seconds of training so far.
    WallT,
}

/// The columns of `session_df_train.csv`, in order: first SLM Lab's under its names, then ours.
pub const SESSION_COLUMNS: [(&str, Source); 20] = [
    ("total_reward", Source::Row("total_reward")),
    ("total_reward_ma", Source::TotalRewardMa),
    ("loss", Source::Row("loss")),
    ("fps", Source::Fps),
    ("frame", Source::Row("frame")),
    ("wall_t", Source::WallT),
    ("t", Source::Row("t")),
    ("epi", Source::Row("episodes")),
    ("opt_step", Source::Row("opt_step")),
    ("lr", Source::Row("lr")),
    ("clip_eps", Source::Row("clip_eps")),
    ("entropy", Source::Row("entropy")),
    ("entropy_coef", Source::Row("entropy_coef")),
    ("policy_loss", Source::Row("policy_loss")),
    ("value_loss", Source::Row("value_loss")),
    ("approx_kl", Source::Row("approx_kl")),
    ("clip_frac", Source::Row("clip_frac")),
    ("explained_var", Source::Row("explained_var")),
    ("grad_norm", Source::Row("grad_norm")),
    ("episode_length", Source::Row("episode_length")),
];

/// Columns that a clock decides: all others repeat bit for bit.
pub const CLOCK_COLUMNS: [&str; 2] = ["fps", "wall_t"];

/// Rows of f64 under column names; NaN where there is nothing.
#[derive(Debug, Clone, Default)]
pub struct DataFrame {
    /// Column names, in order.
    pub names: Vec<String>,
    /// One inner vector per row, each as long as `names`.
    pub rows: Vec<Vec<f64>>,
}

impl DataFrame {
    /// An empty session data frame, with [`SESSION_COLUMNS`].
    pub fn session() -> DataFrame {
        DataFrame { names: SESSION_COLUMNS.iter().map(|(name, _)| name.to_string()).collect(), rows: Vec::new() }
    }

    /// A column by name; `None` where there is no such column.
    pub fn column(&self, name: &str) -> Option<Vec<f64>> {
        let i = self.names.iter().position(|n| n == name)?;
        Some(self.rows.iter().map(|row| row[i]).collect())
    }

    /// A copy without some columns, for example [`CLOCK_COLUMNS`].
    pub fn without(&self, names: &[&str]) -> DataFrame {
        let _ = names;
        todo!()
    }

    /// True when names and every number are equal bit for bit (NaN equals NaN).
    pub fn same_bits(&self, other: &DataFrame) -> bool {
        let _ = other;
        todo!()
    }

    /// CSV with a header line. Integers have no point, a number that is an f32 has f32's shortest digits, NaN is empty.
    pub fn to_csv(&self) -> String {
        todo!()
    }

    /// Reads CSV as written by [`DataFrame::to_csv`] or by SLM Lab.
    ///
    /// # Errors
    /// Names `place`, the line and the column of what is not a number.
    pub fn from_csv(text: &str, place: &str) -> Result<DataFrame> {
        let _ = (text, place);
        todo!()
    }
}
