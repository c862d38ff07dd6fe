//! What these tests share: the helper `server` as a stage, and a look at what is left.

use std::{fs, time::Duration};

use paceline::{
    Attempt, BoxError, Command, Exchange, Failure, Form, Framing, Pipeline, Serve, Summary,
};

pub(crate) const FRAMINGS: [Framing; 3] = [Framing::Lines, Framing::Json, Framing::Frames];

/// After this a test hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Text in, text out.
pub(crate) struct Text;

impl Exchange<String> for Text {
    type Out = String;

    fn request(&self, item: &String, _: &Attempt, to: &mut Vec<u8>) -> Result<Form, BoxError> {
        to.extend_from_slice(item.as_bytes());
        Ok(Form::Bytes)
    }

    fn answer(&self, _: String, _: &Attempt, _: Form, answer: &[u8]) -> Result<String, BoxError> {
        Ok(String::from_utf8(answer.to_vec())?)
    }
}

/// The helper as workers with this framing.
pub(crate) fn server(framing: Framing, arguments: &[&str]) -> Serve {
    let name = match framing {
        Framing::Lines => "lines",
        Framing::Json => "json",
        _ => "frames",
    };
    let command = Command::new(env!("CARGO_BIN_EXE_server")).arg(name).args(arguments);
    let serve = match framing {
        Framing::Lines => Serve::lines(command),
        Framing::Json => Serve::json(command),
        _ => Serve::frames(command),
    };
    serve.on_stderr(|_| {})
}

pub(crate) fn stage<'a>(
    orders: impl IntoIterator<Item = impl Into<String>>,
    serve: Serve,
) -> Pipeline<'a, String, String> {
    let orders: Vec<String> = orders.into_iter().map(Into::into).collect();
    Pipeline::from_iter(orders).serve("serve", serve, Text).grace(Duration::from_secs(2))
}

pub(crate) type Outcomes = Vec<Result<String, Failure>>;

/// Runs the orders in one worker at a time, in order.
pub(crate) fn obey(
    orders: impl IntoIterator<Item = impl Into<String>>,
    serve: Serve,
) -> (Outcomes, Summary) {
    let ended = stage(orders, serve).workers(1).ordered().outcomes().unwrap();
    assert_nothing_left();
    ended
}

/// Runs `body`, and ends the process if it hangs.
pub(crate) fn limited(body: impl FnOnce() + Send + 'static) {
    paceline_tests::limited(LIMIT, body);
}

/// No child of this process is there any more, dead or alive.
pub(crate) fn assert_nothing_left() {
    assert_eq!(children_list(), "", "children left");
}

/// How many children this process has, dead or alive.
pub(crate) fn children() -> usize {
    children_list().split_ascii_whitespace().count()
}

fn children_list() -> String {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default())
        .collect()
}

/// What became of the items, in short.
pub(crate) fn short(outcomes: &Outcomes) -> Vec<String> {
    outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(value) => value.clone(),
            Err(failure) => format!("{}!", failure.kind()),
        })
        .collect()
}
