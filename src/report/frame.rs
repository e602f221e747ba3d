//! A data frame: named columns of f64, and the columns of a session's.

use std::fmt::Write;

use crate::error::{Error, Result};

/// Where a column of the session data frame comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A number of the log row, by its name in [`crate::op::log::COLUMNS`].
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
        let keep: Vec<usize> = (0..self.names.len()).filter(|&i| !names.contains(&self.names[i].as_str())).collect();
        DataFrame {
            names: keep.iter().map(|&i| self.names[i].clone()).collect(),
            rows: self.rows.iter().map(|row| keep.iter().map(|&i| row[i]).collect()).collect(),
        }
    }

    /// True when names and every number are equal bit for bit (NaN equals NaN).
    pub fn same_bits(&self, other: &DataFrame) -> bool {
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        self.names == other.names
            && self.rows.len() == other.rows.len()
            && self.rows.iter().zip(&other.rows).all(|(a, b)| a.iter().zip(b).all(|(&a, &b)| same(a, b)))
    }

    /// CSV with a header line. Integers have no point, a number that is an f32 has f32's shortest digits, NaN is empty.
    pub fn to_csv(&self) -> String {
        let mut text = self.names.join(",");
        text.push('\n');
        for row in &self.rows {
            for (i, &x) in row.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                push_number(&mut text, x);
            }
            text.push('\n');
        }
        text
    }

    /// Reads CSV as written by [`DataFrame::to_csv`] or by SLM Lab.
    ///
    /// # Errors
    /// Names `place`, the line and the column of what is not a number.
    pub fn from_csv(text: &str, place: &str) -> Result<DataFrame> {
        let bad = |what: String| Error::new(place, what);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().map_err(|err| bad(format!("not CSV: {err}")))?;
        let names: Vec<String> = header.iter().map(str::to_string).collect();
        let mut rows = Vec::new();
        for (n, record) in reader.records().enumerate() {
            let record = record.map_err(|err| bad(format!("not CSV: {err}")))?;
            let cell = |(i, cell): (usize, &str)| match cell.trim() {
                "" => Ok(f64::NAN),
                cell => cell
                    .parse()
                    .map_err(|_| bad(format!("line {}, column `{}`: `{cell}` is not a number", n + 2, names[i]))),
            };
            rows.push(record.iter().enumerate().map(cell).collect::<Result<Vec<f64>>>()?);
        }
        Ok(DataFrame { names, rows })
    }
}

/// The shortest text of a number; NaN has none.
pub fn number_text(x: f64) -> String {
    let mut text = String::new();
    push_number(&mut text, x);
    text
}

/// Appends the shortest text of a number; NaN has none.
fn push_number(text: &mut String, x: f64) {
    let written = if x.is_nan() {
        Ok(())
    } else if x.fract() == 0.0 && x.abs() < 9_007_199_254_740_992.0 {
        write!(text, "{}", x as i64)
    } else if f64::from(x as f32) == x {
        write!(text, "{:?}", x as f32)
    } else {
        write!(text, "{x:?}")
    };
    written.expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> DataFrame {
        DataFrame {
            names: vec!["a".into(), "b".into()],
            rows: vec![vec![500.0, f64::NAN], vec![f64::from(0.1f32), 0.1], vec![-1.5e-9, f64::INFINITY]],
        }
    }

    #[test]
    fn every_number_of_a_log_row_has_one_column() {
        let row_names = |(_, source): &(&str, Source)| match source {
            Source::Row(name) => Some(*name),
            _ => None,
        };
        let mut used: Vec<&str> = SESSION_COLUMNS.iter().filter_map(row_names).collect();
        let mut all = crate::op::log::COLUMNS;
        used.sort_unstable();
        all.sort_unstable();
        assert_eq!(used, all);
    }

    #[test]
    fn text_is_short() {
        assert_eq!(small().to_csv(), "a,b\n500,\n0.1,0.1\n-1.5e-9,inf\n");
    }

    #[test]
    fn text_comes_back_as_the_same_text() {
        let text = small().to_csv();
        assert_eq!(DataFrame::from_csv(&text, "x.csv").expect("read").to_csv(), text);
    }

    #[test]
    fn a_wrong_cell_is_named() {
        let err = DataFrame::from_csv("a,b\n1,2\n1,two\n", "x.csv").expect_err("no number");
        assert_eq!(err.to_string(), "x.csv: line 3, column `b`: `two` is not a number");
        assert!(DataFrame::from_csv("a,b\n1\n", "x.csv").expect_err("short line").what.starts_with("not CSV"));
    }

    #[test]
    fn a_frame_without_its_clock_is_comparable() {
        let mut one = DataFrame::session();
        one.rows.push((0..SESSION_COLUMNS.len()).map(|i| i as f64).collect());
        let mut two = one.clone();
        two.rows[0][3] = -1.0;
        assert!(!one.same_bits(&two));
        assert!(one.without(&CLOCK_COLUMNS).same_bits(&two.without(&CLOCK_COLUMNS)));
        assert_eq!(one.column("frame"), Some(vec![4.0]));
    }
}
