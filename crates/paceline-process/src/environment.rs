//! The environment that a child gets, as strings for the system.
//!
//! Copying ours for every child was the greatest part of what a start cost.
//! So it is copied once for a command and its clones, and what a child has of
//! its own is put in place of what it overrides.
//!
//! Not here: which variables mark a job (`program.rs`).

use std::env;
use std::ffi::{CStr, CString, NulError, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The environment of this program, as it was when it was copied.
#[derive(Debug)]
pub(crate) struct Inherited(Vec<CString>);

impl Inherited {
    pub(crate) fn copy() -> Inherited {
        let variable = |(name, value): (OsString, OsString)| {
            // What came from such strings can be made into one again.
            string(&name, &value).ok()
        };
        Inherited(env::vars_os().filter_map(variable).collect())
    }
}

/// What a child has of its own: the last change of each name.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The length of the name, and the variable or, where it is removed, its name.
    all: Vec<(usize, bool, CString)>,
}

impl Changes {
    /// Sets `name`, or removes it.
    ///
    /// # Errors
    ///
    /// If there is a NUL in it.
    pub(crate) fn put(&mut self, name: &OsStr, value: Option<&OsStr>) -> Result<(), NulError> {
        let variable = match value {
            Some(value) => string(name, value)?,
            None => CString::new(name.as_bytes())?,
        };
        self.all.retain(|(length, _, other)| name_of(other, *length) != name.as_bytes());
        self.all.push((name.len(), value.is_some(), variable));
        Ok(())
    }

    /// Gives the variables of a child that inherits, or does not, and has these changes.
    pub(crate) fn over<'e>(
        &'e self,
        inherited: Option<&'e Inherited>,
    ) -> impl Iterator<Item = &'e CStr> {
        let kept = inherited.into_iter().flat_map(|Inherited(all)| all).filter(|variable| {
            !self.all.iter().any(|(length, _, change)| {
                let variable = variable.as_bytes();
                variable.get(*length) == Some(&b'=')
                    && variable.starts_with(name_of(change, *length))
            })
        });
        let set = self.all.iter().filter(|(_, is_set, _)| *is_set).map(|(_, _, variable)| variable);
        kept.chain(set).map(CString::as_c_str)
    }
}

fn name_of(variable: &CStr, length: usize) -> &[u8] {
    &variable.to_bytes()[..length]
}

fn string(name: &OsStr, value: &OsStr) -> Result<CString, NulError> {
    let mut variable = OsString::with_capacity(name.len() + value.len() + 2);
    variable.push(name);
    variable.push("=");
    variable.push(value);
    CString::new(variable.into_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(changes: &[(&str, Option<&str>)], inherited: &[&str]) -> Vec<String> {
        let mut all = Changes::default();
        for (name, value) in changes {
            all.put(OsStr::new(name), value.map(OsStr::new)).unwrap();
        }
        let inherited = Inherited(inherited.iter().map(|v| CString::new(*v).unwrap()).collect());
        all.over(Some(&inherited)).map(|v| v.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_change_takes_the_place_of_what_has_its_name_and_of_nothing_else() {
        let inherited = ["A=1", "AB=2", "B=3=4", "C="];
        assert_eq!(shown(&[], &inherited), inherited);
        assert_eq!(shown(&[("A", Some("x"))], &inherited), ["AB=2", "B=3=4", "C=", "A=x"]);
        assert_eq!(shown(&[("B", None), ("C", Some(""))], &inherited), ["A=1", "AB=2", "C="]);
        assert_eq!(shown(&[("N", Some("1")), ("N", Some("2"))], &[]), ["N=2"]);
        assert_eq!(shown(&[("N", Some("1")), ("N", None)], &["N=0"]), [""; 0]);
        assert_eq!(shown(&[("N", None), ("N", Some("1"))], &["N=0"]), ["N=1"]);
    }

    #[test]
    fn what_holds_a_nul_is_refused() {
        assert!(Changes::default().put(OsStr::new("A"), Some(OsStr::new("\0"))).is_err());
        assert!(Changes::default().put(OsStr::new("A\0"), None).is_err());
    }
}
