//! Pipelines in simulated time, to hold the pace against the best there is.
#![expect(missing_docs, reason = "an unpublished tool; what is not plain is said")]

pub mod oracle;
pub mod policy;
pub mod random;
pub mod scenarios;
pub mod trial;
pub mod world;
