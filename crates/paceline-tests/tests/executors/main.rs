//! Answers, thread pools and groups as their users see them: one test a
//! behaviour (`f49_…`, `e57_…`, `t74_…`) and a requirement (`r59_1_…`).

mod answers;
mod deadlines;
mod groups;
mod pool;
mod shutdown;
