//! The whole program, as users meet it: what `docs` and the help promise.

mod account;
mod demo;
mod errors;
mod examples;
mod hostile;
mod http;
mod json;
mod outputs;
mod pipes;
mod settings;
mod signals;
mod sources;
mod stages;
mod support;
mod workers;
