//! `slm-fast check` and `slm-fast schema`.

use slm_fast::error::Result;
use slm_fast::plan::Plan;
use slm_fast::spec;

use super::{CheckArgs, Ending, complain, say};

/// Prints the resolved plan of every spec of every file; all problems of all files, not just the first.
pub fn check(args: &CheckArgs) -> Ending {
    let mut ending = Ending::Success;
    for path in &args.specs {
        let place = path.display().to_string();
        let loaded = match spec::load_all(path, &args.set) {
            Ok(loaded) => loaded,
            Err(errors) => {
                errors.iter().for_each(complain);
                ending = Ending::Failure;
                continue;
            }
        };
        for loaded in loaded {
            for warning in &loaded.warnings {
                eprintln!("warning: {warning}");
            }
            match Plan::new(&loaded.spec) {
                Ok(plan) => say(&format!("{place}: {}\n{plan}", loaded.spec.name)),
                Err(error) => {
                    complain(&error.within(&place));
                    ending = Ending::Failure;
                }
            }
        }
    }
    ending
}

/// Prints the JSON Schema of a spec file.
pub fn schema() -> Result<Ending> {
    say(&spec::schema());
    Ok(Ending::Success)
}
