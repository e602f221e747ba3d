//! op

pub mod lib;
