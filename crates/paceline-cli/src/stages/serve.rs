//! The stages `serve` and `python`: long-lived worker processes.
//!
//! What a worker is asked is the value: as a line, as a JSON object, or as
//! what the Python function gets. What it answers is the result, or the
//! content of the file that `to` names.

use std::{env, ffi::OsStr, io::Write as _, os::unix::ffi::OsStrExt, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use paceline::{Attempt, BoxError, Command, Exchange, Form, Pipeline, Serve};

use super::Step;
use crate::{
    item::Value,
    report::faults,
    source::Fields,
    spec::{self, Work},
};

/// The worker of `python` stages, which is sent to the interpreter.
const WORKER: &str = include_str!("python/worker.py");

/// Reads so many bytes, and runs them.
const READ_WORKER: &str = "\
import os,sys
n=int(sys.argv[1]);b=b''
while len(b)<n:
 c=os.read(0,n-len(b))
 c or sys.exit()
 b+=c
exec(compile(b,'<paceline>','exec'))
";

/// What the stage asks, and what it makes of the answers.
struct Asking {
    step: Step,
    asks: Asks,
}

/// In which form a worker is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    Line,
    Object,
    Python,
}

type Stages = Pipeline<'static, Value, Value>;

/// Adds a stage of workers that any program can be.
pub(super) fn add_serve<P>(pipeline: Pipeline<'static, Value, P>, step: Step) -> Stages {
    let Work::Serve(work) = &step.stage.work else {
        unreachable!("the stage was added as what it is");
    };
    let words = work.command.iter().map(|word| OsStr::from_bytes(word).to_owned());
    let command = placed(Command::from_argv(words.collect()), &step);
    let (serve, asks) = match work.framing {
        spec::Framing::Lines => (Serve::lines(command), Asks::Line),
        spec::Framing::Json => (Serve::json(command), Asks::Object),
    };
    add(pipeline, serve, work.max_items, Asking { asks, step })
}

/// Adds a stage of Python interpreters that call a function.
pub(super) fn add_python<P>(pipeline: Pipeline<'static, Value, P>, step: Step) -> Stages {
    let Work::Python(work) = &step.stage.work else {
        unreachable!("the stage was added as what it is");
    };
    let command = Command::new(interpreter(work, &step))
        .args(["-c", READ_WORKER, &WORKER.len().to_string(), &work.module, &work.function])
        .arg(&step.shop.folder);
    let serve = Serve::frames(placed(command, &step)).prelude(WORKER);
    add(pipeline, serve, work.max_items, Asking { asks: Asks::Python, step })
}

fn add<P>(
    pipeline: Pipeline<'static, Value, P>,
    mut serve: Serve,
    max_items: Option<u64>,
    asking: Asking,
) -> Stages {
    if let Some(most) = max_items {
        serve = serve.max_items(most);
    }
    let console = asking.step.shop.reporter.console().clone();
    serve = serve.on_stderr(move |lines| console.pass_on_lines(lines));
    let name = asking.step.stage.name.clone();
    pipeline.serve(&name, serve, asking)
}

/// The interpreter: as the file says, or that of the active virtual environment.
fn interpreter(work: &spec::Python, step: &Step) -> std::ffi::OsString {
    let given = Path::new(&work.interpreter);
    if work.interpreter.contains('/') {
        return step.shop.folder.join(given).into();
    }
    let of_stage = step.stage.env.iter().rev().find(|(name, _)| name == "VIRTUAL_ENV");
    let environment =
        of_stage.map(|(_, value)| value.into()).or_else(|| env::var_os("VIRTUAL_ENV"));
    match environment {
        Some(folder) if work.interpreter == spec::Python::INTERPRETER => {
            let ours = Path::new(&folder).join("bin").join(given);
            if ours.exists() { ours.into() } else { given.into() }
        }
        _ => given.into(),
    }
}

/// The command where its stage has it run, with what that sets.
fn placed(mut command: Command, step: &Step) -> Command {
    match (&step.stage.cwd, &step.shop.jobs_run_in) {
        (Some(cwd), _) => command = command.cwd(step.shop.folder.join(cwd)),
        (None, Some(folder)) => command = command.cwd(folder),
        (None, None) => {}
    }
    for (name, value) in &step.stage.env {
        command = command.env(name, value);
    }
    command
}

impl Exchange<Value> for Asking {
    type Out = Value;

    fn request(&self, value: &Value, _: &Attempt, to: &mut Vec<u8>) -> Result<Form, BoxError> {
        value.check()?;
        match self.asks {
            Asks::Line => {
                to.extend_from_slice(&value.bytes());
                Ok(Form::Bytes)
            }
            Asks::Object => {
                append_object(value, to);
                Ok(Form::Json)
            }
            Asks::Python => match value.untouched_fields() {
                Some((line, Fields::Json(_))) => {
                    to.extend_from_slice(line);
                    Ok(Form::Json)
                }
                Some((_, fields)) => {
                    append_dict(fields, json_for_python, to);
                    Ok(Form::Json)
                }
                None => {
                    to.extend_from_slice(&value.bytes());
                    Ok(Form::Bytes)
                }
            },
        }
    }

    fn answer(
        &self,
        value: Value,
        attempt: &Attempt,
        _: Form,
        answer: &[u8],
    ) -> Result<Value, BoxError> {
        let Some(target) = self.step.target(&value, attempt.slot())? else {
            return Ok(value.then(answer.to_vec()));
        };
        let output =
            target.create(&self.step.shop.claims, value.owner()).map_err(faults::of_opening)?;
        if let Err(error) = output.file().write_all(answer) {
            return Err(faults::of_step(output.write_failed(error)).into());
        }
        let result = self.step.path_result(output.spelled());
        output.commit().map_err(faults::of_step)?;
        Ok(value.then(result))
    }
}

/// Appends the members of a request beside its id: the value, and of an item
/// with fields all of them under `fields` and, where their names are free,
/// beside the value.
fn append_object(value: &Value, to: &mut Vec<u8>) {
    match std::str::from_utf8(&value.bytes()) {
        Ok(text) => append_member("value", &json_of_text(text), to),
        Err(_) => {
            append_member("value", "null", to);
            to.push(b',');
            let encoded = BASE64_STANDARD.encode(value.bytes());
            append_member("value_b64", &json_of_text(&encoded), to);
        }
    }
    let Some(fields) = value.fields() else { return };
    let lossy = |bytes: &[u8]| json_of_text(&String::from_utf8_lossy(bytes));
    to.extend_from_slice(b",\"fields\":");
    append_dict(fields, lossy, to);
    for (name, text) in fields.as_json(lossy) {
        if !["id", "value", "value_b64", "fields"].contains(&name) {
            to.push(b',');
            append_member(name, &text, to);
        }
    }
}

fn append_dict(fields: &Fields, text_of: impl Fn(&[u8]) -> String, to: &mut Vec<u8>) {
    to.push(b'{');
    for (index, (name, text)) in fields.as_json(text_of).enumerate() {
        if index > 0 {
            to.push(b',');
        }
        append_member(name, &text, to);
    }
    to.push(b'}');
}

fn append_member(name: &str, json: &str, to: &mut Vec<u8>) {
    to.extend_from_slice(json_of_text(name).as_bytes());
    to.push(b':');
    to.extend_from_slice(json.as_bytes());
}

fn json_of_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A JSON string that Python reads as it reads file names: bytes that are not
/// UTF-8 become surrogate escapes.
fn json_for_python(bytes: &[u8]) -> String {
    let mut json = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let text = json_of_text(chunk.valid());
        json.push_str(&text[1..text.len() - 1]);
        for byte in chunk.invalid() {
            json.push_str(&format!("\\udc{byte:02x}"));
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_reach_python_as_surrogate_escapes() {
        assert_eq!(json_for_python(b"a\"\xff\xc3\xa4"), "\"a\\\"\\udcff\u{e4}\"");
    }
}
