//! Answers, thread pools and groups as their users see them: one test a
//! behaviour (`f49_…`, `e57_…`, `t74_…`) and a requirement (`r59_1_…`).

mod answers;
mod deadlines;
mod groups;
mod pool;
mod shutdown;
#[path = "../engine/support.rs"]
#[expect(dead_code, reason = "the engine's tests use all of it, these a part")]
mod support;
