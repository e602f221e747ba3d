//! Does each environment match Gymnasium, one step at a time from equal states?
//!
//! The fixtures were recorded by `tools/record_classic.py`: 10,000 transitions each, from random and from purposeful play.

use std::fs;
use std::path::{Path, PathBuf};

use slm_fast::env::names;
use slm_fast::env::verify::verify;

/// One step from a state rounded to f32: the largest error may be a few roundings of the largest intermediate.
const ROUNDING: f64 = 1e-6;

fn fixture(env: &str) -> PathBuf {
    let short = env.split("-v").next().expect("split gives at least one part");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/classic/classic_{short}.npz"))
}

#[test]
fn every_transition_matches_gymnasium() {
    for env in names() {
        let report = verify(env, &fixture(env), "cpu", ROUNDING).unwrap_or_else(|err| panic!("{err}"));
        assert!(report.passed(), "{report}");
        assert_eq!(report.rows, 10_000);
        // states within a rounding of a threshold are rare: one in a thousand would hide a wrong threshold
        assert!(report.at_threshold.len() <= 3, "{:?}", report.at_threshold);
        let text = report.to_string();
        assert!(text.contains("next_state.") && text.contains("terminated") && text.ends_with("passed"), "{text}");
    }
}

#[test]
fn a_tolerance_below_f32_fails() {
    for env in names() {
        let report = verify(env, &fixture(env), "cpu", 1e-12).unwrap_or_else(|err| panic!("{err}"));
        assert!(!report.passed());
        assert!(report.to_string().ends_with("FAILED"));
    }
}

/// The two cars differ in little: their shapes agree, their physics must not.
#[test]
fn a_trace_of_other_physics_fails() {
    let report = verify("MountainCar-v0", &fixture("MountainCar-v0"), "cpu", ROUNDING).expect("a good trace");
    assert!(report.passed());
    let err = verify("MountainCar-v0", &fixture("MountainCarContinuous-v0"), "cpu", ROUNDING).unwrap_err();
    assert!(err.to_string().contains("not one of the 3 actions of MountainCar-v0"), "{err}");
    let report = verify("MountainCarContinuous-v0", &fixture("MountainCar-v0"), "cpu", ROUNDING).expect("shapes agree");
    assert!(!report.passed());
}

#[test]
fn wrong_inputs_are_explained() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = folder.path().join("text.npz");
    fs::write(&text, "not an archive").expect("writing a small file");
    let whole = fs::read(fixture("CartPole-v1")).expect("the fixture");
    let cut = folder.path().join("cut.npz");
    fs::write(&cut, &whole[..whole.len() / 2]).expect("writing a small file");
    let mut flipped = whole.clone();
    flipped[5000] ^= 0xFF;
    let damaged = folder.path().join("damaged.npz");
    fs::write(&damaged, flipped).expect("writing a small file");
    let good = fixture("CartPole-v1");

    for (env, path, device, tolerance, what) in [
        ("CartPole-v2", &good, "cpu", 1e-5, "did you mean `CartPole-v1`?"),
        ("CartPole-v1", &good, "cuda", 1e-5, "`cuda` is not built yet"),
        ("CartPole-v1", &good, "cpu", f64::NAN, "not a positive number"),
        ("CartPole-v1", &folder.path().join("none.npz"), "cpu", 1e-5, "check the path"),
        ("CartPole-v1", &text, "cpu", 1e-5, "not an .npz file"),
        ("CartPole-v1", &cut, "cpu", 1e-5, "not an .npz file"),
        ("CartPole-v1", &damaged, "cpu", 1e-5, "damaged"),
        ("CartPole-v1", &fixture("Pendulum-v1"), "cpu", 1e-5, "CartPole-v1 asks for [rows, 4]"),
        ("Acrobot-v1", &good, "cpu", 1e-5, "Acrobot-v1 asks for [rows, 6]"),
    ] {
        let err = verify(env, path, device, tolerance).expect_err(what).to_string();
        assert!(err.contains(what), "expected `{what}` in: {err}");
    }
}
