//! The cuda device: an NVIDIA GPU through its driver alone, opened at run time.
//!
//! `driver` makes the calls, `ptx` carries the kernels, `arena` is the memory of a cohort on the device, `launch` turns
//! recorded calls into launches and graphs, `survey` tells what devices there are, `ceilings` what one can do at most.

mod arena;
mod ceilings;
mod driver;
mod launch;
mod ptx;
mod survey;

pub use ceilings::Ceilings;
pub use survey::{Facts, survey};

pub(super) use arena::Arena;

use crate::error::{Error, Result};
use driver::{Attribute, Context};
use ptx::Modules;
use std::sync::{Arc, Mutex, Weak};

/// What the kernels' PTX (ISA 8.0) asks of the driver, as [`driver::version`] counts: CUDA 12.0, driver 525.
const LEAST_VERSION: i32 = 12_000;
/// The oldest architecture that the PTX is compiled for.
const LEAST_CAPABILITY: (i32, i32) = (8, 0);

/// One GPU. Cohorts that open the same one share its context and its kernels, and nothing that makes them wait for each
/// other.
#[derive(Clone)]
pub struct Cuda {
    shared: Arc<Shared>,
    one_by_one: bool,
}

/// What all users of a device in this process have in common.
struct Shared {
    context: Arc<Context>,
    modules: Modules,
    ordinal: i32,
    name: String,
    /// Most dynamic shared memory that a block may ask for.
    shared_bytes: usize,
}

impl Shared {
    /// The device in messages.
    fn place(&self) -> String {
        format!("cuda:{}", self.ordinal)
    }

    /// A failed call as a user reads it.
    fn failed(&self, failure: driver::Failure, doing: &str) -> Error {
        failure.during(&self.place(), doing)
    }
}

/// Devices that are open now, so that a second cohort does not compile every kernel again.
static OPEN: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

impl Cuda {
    /// Opens device number `ordinal` of those the driver shows.
    ///
    /// # Errors
    /// No driver, no such device, a driver or a device older than the kernels.
    pub fn open(ordinal: usize) -> Result<Cuda> {
        let none = |reason: String| {
            Error::new("--device", format!("no cuda device: {reason}"))
                .hint("`slm-fast devices` lists what there is; use `--device cpu`")
        };
        let count = count().map_err(none)?;
        let ordinal = i32::try_from(ordinal)
            .ok()
            .filter(|&n| n < count)
            .ok_or_else(|| none(format!("number {ordinal} is not there; this machine has {count}, counted from 0")))?;
        let mut open = OPEN.lock().expect("nothing panics while a device is opened");
        open.retain(|shared| shared.strong_count() > 0);
        if let Some(shared) = open.iter().filter_map(Weak::upgrade).find(|shared| shared.ordinal == ordinal) {
            return Ok(Cuda { shared, one_by_one: false });
        }
        let shared = Arc::new(new_shared(ordinal).map_err(none)?);
        open.push(Arc::downgrade(&shared));
        Ok(Cuda { shared, one_by_one: false })
    }

    /// Launches kernels one by one and waits for each, so that a fault names its op: for debugging.
    #[must_use]
    pub fn one_by_one(self) -> Cuda {
        Cuda { one_by_one: true, ..self }
    }

    /// `cuda:0 (NVIDIA H200)`.
    pub fn describe(&self) -> String {
        format!("{} ({})", self.shared.place(), self.shared.name)
    }

    /// The device's number.
    pub fn ordinal(&self) -> usize {
        self.shared.ordinal as usize
    }

    /// The device's own name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }
}

/// Starts the driver and counts devices; or why there is none.
fn count() -> std::result::Result<i32, String> {
    if !driver::is_present() {
        return Err("NVIDIA's driver (libcuda) is not installed".to_string());
    }
    let told = |failure: driver::Failure| failure.to_string();
    driver::init().map_err(told)?;
    let version = driver::version().map_err(told)?;
    if version < LEAST_VERSION {
        return Err(format!(
            "the driver is of CUDA {}, the kernels need {} (driver 525) or later",
            version_text(version),
            version_text(LEAST_VERSION)
        ));
    }
    match driver::device_count().map_err(told)? {
        0 => Err("the driver shows no device".to_string()),
        count => Ok(count),
    }
}

fn new_shared(ordinal: i32) -> std::result::Result<Shared, String> {
    let opened = || -> driver::Checked<_> {
        let context = Context::new(ordinal)?;
        let name = context.name()?;
        let capability = capability(&context)?;
        let shared_bytes =
            context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize;
        Ok((Shared { context, modules: Modules::default(), ordinal, name, shared_bytes }, capability))
    };
    let (shared, capability) = opened().map_err(|failure| failure.to_string())?;
    if capability < LEAST_CAPABILITY {
        let ((major, minor), (least, _)) = (capability, LEAST_CAPABILITY);
        return Err(format!("{} has compute capability {major}.{minor}, the kernels need {least}.0", shared.name));
    }
    Ok(shared)
}

fn capability(context: &Context) -> driver::Checked<(i32, i32)> {
    let major = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    Ok((major, context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?))
}

/// `12040` as `12.4`.
fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_well() {
        assert_eq!(version_text(12_040), "12.4");
        assert_eq!(version_text(13_000), "13.0");
    }

    #[test]
    fn a_machine_without_a_device_says_why() {
        match Cuda::open(0) {
            Ok(device) => println!("skipped: this machine has {}", device.describe()),
            Err(error) => {
                let text = error.to_string();
                assert!(text.starts_with("--device: no cuda device: "), "{text}");
                assert!(text.contains("hint: "), "{text}");
            }
        }
    }
}
