//! Item 52: child processes, many at once, joined by pipes, with a limit in time.

use std::{fs::File, io::Read, time::Duration};

use paceline::{BoxError, Chain, Command, Stdin, Stdout};
use paceline_process::{Error, ErrorKind};

use crate::{
    Item, Show,
    show::{expect, timed},
};

pub(crate) const ITEM: Item =
    Item { number: 52, title: "Child processes: many at once, in chains, in time", show };

/// Starts so many `sleep` before it waits for any. Returns how many exited with 0.
///
/// Waits for as long as one of them takes.
///
/// # Errors
///
/// If one cannot be started.
pub fn sleeps_at_once(count: usize, seconds: &str) -> Result<usize, Error> {
    let sleep = Command::new("sleep").arg(seconds);
    let children: Vec<_> = (0..count).map(|_| sleep.spawn()).collect::<Result<_, _>>()?;
    let mut succeeded = 0;
    for child in &children {
        succeeded += usize::from(child.wait()?.success());
    }
    Ok(succeeded)
}

/// Runs three chains at once, each of 100 random bytes that are encrypted and
/// digested (compressed and digested where there is no `openssl`), and
/// returns the digests.
///
/// # Errors
///
/// If a program is missing, or if any child of any chain failed.
pub fn encrypt_and_digest() -> Result<Vec<String>, BoxError> {
    let has_openssl = Command::new("openssl").arg("version").stdout(Stdout::Null).run().is_ok();
    let mut chains = Vec::new();
    for _ in 0..3 {
        let mut data = [0; 100];
        File::open("/dev/urandom")?.read_exact(&mut data)?;
        let encrypt = if has_openssl {
            Command::new("openssl")
                .args(["enc", "-aes-256-cbc", "-pbkdf2", "-pass", "env:PASSWORD"])
                // Through the environment: arguments can be read by everybody on the machine.
                .env("PASSWORD", password()?)
        } else {
            Command::new("gzip")
        };
        let digest = Command::new("sha256sum").stdout(Stdout::Capture);
        let chain = Chain::new([encrypt.stdin(Stdin::Bytes(data.to_vec().into())), digest]);
        chains.push(chain.spawn()?);
    }
    let mut digests = Vec::new();
    for mut chain in chains {
        // All of its children are checked, not the last one alone.
        let output = chain.communicate(None)?;
        expect(output.success(), "a chain")?;
        let text = output.stdout().to_text()?;
        digests.push(text.split_whitespace().next().unwrap_or_default().to_owned());
    }
    Ok(digests)
}

/// A password that nobody has written down.
fn password() -> Result<String, BoxError> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Gives `sleep 10` a tenth of a second, and returns its exit status: -15, for
/// the signal that ended it.
///
/// # Errors
///
/// If it cannot be started.
pub fn limited_sleep() -> Result<i32, Error> {
    let sleep = Command::new("sleep").arg("10");
    match sleep.run_timeout(Duration::from_millis(100), Duration::from_secs(1)) {
        Ok(output) => Ok(output.exit().as_i32()),
        Err(error) if matches!(error.kind(), ErrorKind::Timeout { .. }) => {
            Ok(error.partial().and_then(|partial| partial.exit()).map_or(0, |exit| exit.as_i32()))
        }
        Err(error) => Err(error),
    }
}

fn show(show: &mut Show<'_>) -> Result<(), BoxError> {
    let (hello, time) = timed(|| Command::new("echo").arg("hello").stdout(Stdout::Capture).run());
    expect(hello?.check()?.stdout().to_text()? == "hello\n", "`echo hello`")?;
    show.took("`echo hello`, from the start to its output", time)?;

    let (succeeded, time) = timed(|| sleeps_at_once(10, "1"));
    expect(succeeded? == 10, "ten times `sleep 1`")?;
    show.took("ten times `sleep 1`, at once", time)?;

    let (digests, time) = timed(encrypt_and_digest);
    let digests = digests?;
    expect(digests.iter().all(|digest| digest.len() == 64), "the digests")?;
    show.took("three chains of encrypt and digest, at once", time)?;
    for digest in digests {
        show.found("  a digest ends in", &digest[54..])?;
    }

    let (status, time) = timed(limited_sleep);
    let status = status?;
    expect(status == -15, "the status of a `sleep` that was ended")?;
    show.took("`sleep 10` with a limit of 100 ms", time)?;
    show.found("  its exit status", status)?;
    show.python(include_str!("../python/item52.py"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_at_once_in_chains_and_in_time() {
        assert_eq!(sleeps_at_once(10, "0.1").unwrap(), 10);
        let digests = encrypt_and_digest().unwrap();
        assert_eq!(digests.len(), 3);
        assert!(digests.iter().all(|digest| digest.len() == 64));
        assert_eq!(limited_sleep().unwrap(), -15);
    }
}
